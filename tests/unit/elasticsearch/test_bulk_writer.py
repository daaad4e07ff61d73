"""Which refusals are about a document, and which would be about every one."""

from __future__ import annotations

from typing import Any, cast

import orjson
import pytest

from streams.elasticsearch.bulk_writer import BulkWriter, WriteStatus, is_possible_id
from streams.elasticsearch.index import IndexDefinition
from tests.unit.elasticsearch.answers import client_that_answers


async def status_of(status: int, kind: str, reason: str) -> WriteStatus:
    error = {"type": kind, "reason": reason}
    client = client_that_answers({"items": [{"index": {"status": status, "error": error}}]})
    (result,) = await writer(client).write([{"id": "anna", "version": 1}])
    return result.status


def writer(client: Any) -> BulkWriter:
    index = IndexDefinition("view", properties={})
    return BulkWriter(client, index, "view-v1-writes", max_documents=10)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("document_parsing_exception", "[1:7] failed to parse field [id]"),
        ("mapper_parsing_exception", "failed to parse"),
        ("strict_dynamic_mapping_exception", "introduction of [zz] is not allowed"),
        ("illegal_argument_exception", "Document contains at least one immense term in field"),
    ],
)
async def test_a_refusal_of_a_document(kind: str, reason: str) -> None:
    assert await status_of(400, kind, reason) is WriteStatus.REFUSED


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        (400, "illegal_argument_exception", "pipeline with id [nope] does not exist"),
        (400, "illegal_argument_exception", "no write index is defined for alias [a]"),
        (400, "index_closed_exception", "closed"),
        (403, "cluster_block_exception", "index [a] blocked by: [FORBIDDEN/8/index write (api)]"),
        (429, "es_rejected_execution_exception", "busy"),
        (503, "unavailable_shards_exception", "no primary"),
    ],
)
async def test_a_refusal_by_the_index_says_nothing_about_the_document(
    status: int, kind: str, reason: str
) -> None:
    assert await status_of(status, kind, reason) is WriteStatus.RETRY


async def test_the_same_version_is_written_again() -> None:
    """Its first answer may have been lost before the replicas had it."""
    client = client_that_answers({"items": [{"index": {"status": 200}}]})
    await writer(client).write([{"id": "anna", "version": 3}])
    (sent,) = cast(list[bytes], client.sent)
    action = orjson.loads(sent.splitlines()[0])["index"]
    assert action == {"_id": "anna", "version": 3, "version_type": "external_gte"}


@pytest.mark.parametrize(
    ("key", "possible"),
    [
        ("anna", True),
        ("a" * 512, True),
        ("é" * 256, True),
        ("", False),
        ("a" * 513, False),
        ("é" * 257, False),
        ("\ud800", False),
    ],
)
def test_ids_that_elasticsearch_accepts(key: str, possible: bool) -> None:
    assert is_possible_id(key) is possible
