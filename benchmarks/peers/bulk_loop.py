"""The limit of any program that writes documents: only `client.bulk`, with ready-made bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice

import orjson
from elasticsearch import AsyncElasticsearch

from agents.user_views import USER_VIEWS
from benchmarks.rig.backlog import PARTITIONS
from benchmarks.rig.sample_users import registrations
from models.errors import Fatal
from models.user_view import project
from streams.elasticsearch.index import Document, writes_alias

BULK_DOCUMENTS = 2000  # as ours: 0.8 MB; from 1 MiB on the HTTP client warns


def sources(count: int, seed: int) -> Iterator[Document]:
    """Yield the documents of `count` users, with all search fields."""
    events = registrations(count, seed)
    return (USER_VIEWS.index.to_source(project(None, event)) for event in events)


@lru_cache(maxsize=1)
def bodies(count: int, seed: int) -> Sequence[bytes]:
    """Return the same documents as the bodies of bulk requests."""
    lines = map(_lines, sources(count, seed))
    return [b"".join(chunk) for chunk in iter(lambda: list(islice(lines, BULK_DOCUMENTS)), [])]


def _lines(source: Document) -> bytes:
    action = {"_id": source["id"], "version": source["version"], "version_type": "external"}
    return b"%b\n%b\n" % (orjson.dumps({"index": action}), orjson.dumps(source))


async def send_bodies(client: AsyncElasticsearch, index: str, bodies: Sequence[bytes]) -> None:
    """Send all bodies, as many requests in parallel as there are partitions.

    Raises:
        Fatal: Elasticsearch did not accept all documents.
    """
    remaining = iter(bodies)

    async def send_bodies_in_turn() -> None:
        for body in remaining:
            response = await client.bulk(
                operations=body,  # type: ignore[arg-type]  # bytes are sent as they are
                index=writes_alias(index),
                filter_path="errors",
            )
            if response["errors"]:
                raise Fatal("Elasticsearch did not accept all documents")

    await asyncio.gather(*(send_bodies_in_turn() for _ in range(PARTITIONS)))
