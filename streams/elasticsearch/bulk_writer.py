"""Writes whole documents in bulk, with a result for each."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import NamedTuple

import orjson
from elasticsearch import AsyncElasticsearch

from models.errors import Fatal
from streams.concurrency import cancel
from streams.elasticsearch.connection import missing_index, translating
from streams.elasticsearch.index import REFUSED, Document, IndexDefinition

# Size of a request's body. The HTTP client warns about larger ones: they block the event loop.
_MAX_BODY_BYTES = 1024 * 1024
# Requests at a time: one is encoded while another is indexed (1.3 to 1.8 times the documents/s).
_IN_FLIGHT = 2
_MAX_ID_BYTES = 512  # the limit of Elasticsearch

# What Elasticsearch says of a document. Any other refusal is about the index, a pipeline or an
# alias: it would be said of every document, and passes when a person has mended the cause.
_DOCUMENT_FAULTS = frozenset(
    {
        "document_parsing_exception",
        "mapper_parsing_exception",
        "strict_dynamic_mapping_exception",
    }
)
_IMMENSE_TERM = "immense term"  # an `illegal_argument_exception` in some versions


class WriteStatus(Enum):
    """Outcome of writing one document."""

    WRITTEN = "written"
    STALE = "stale"
    """The index has a later version already."""
    REFUSED = "refused"
    """Refused for good: sending the same document again cannot help."""
    RETRY = "not now"
    """Not written because of something else than the document, such as overload, a missing shard,
    or an index, alias or pipeline that a person has to mend: send it again."""


class WriteResult(NamedTuple):
    """Result for one document. The reason contains no values of the document."""

    status: WriteStatus
    reason: str = ""


# No document has been written by this operation, so one on this condition is checked against the
# mapping and then not written.
_NEVER = {"if_seq_no": (1 << 63) - 1, "if_primary_term": 1}

WRITTEN, _STALE = WriteResult(WriteStatus.WRITTEN), WriteResult(WriteStatus.STALE)


class BulkWriter:
    """Writes documents to one index, with at most `max_documents` in a request."""

    def __init__(
        self,
        client: AsyncElasticsearch,
        index: IndexDefinition,
        target: str,
        *,
        max_documents: int,
    ) -> None:
        """Create a writer to the alias `target` (see `writes_alias`)."""
        self._client = client
        self._target = target
        self._index = index
        self._max_documents = max_documents

    async def write(
        self, documents: Sequence[Document], *, only_try: bool = False
    ) -> list[WriteResult]:
        """Write documents; see `ViewStore.bulk_index`.

        Args:
            documents: Are written whole.
            only_try: Write nothing: what would have been written is STALE.

        Returns:
            One result per document, in the same order.

        Raises:
            NoSuchView: The index does not exist.
            Fatal, Transient: A request failed; any of the documents may have been written.
        """
        results = [WRITTEN] * len(documents)
        requests: list[asyncio.Task[None]] = []
        try:
            for places, body in self._requests(documents, results, only_try=only_try):
                if len(requests) >= _IN_FLIGHT:
                    await requests[-_IN_FLIGHT]
                requests.append(asyncio.create_task(self._send(body, places, results)))
                await asyncio.sleep(0)  # start sending it before the next one is encoded
            for request in requests:
                await request
        finally:
            await cancel(*requests)
        return results

    def _requests(
        self, documents: Sequence[Document], results: list[WriteResult], *, only_try: bool
    ) -> Iterable[tuple[list[int], bytes]]:
        """Yield bodies of bounded size, each with the places of its documents in `documents`.

        A document that cannot be encoded is left out; its result is set to REFUSED.
        """
        places: list[int] = []
        lines: list[bytes] = []
        size = 0
        for place, document in enumerate(documents):
            try:
                item = self._lines(document, only_try=only_try)
            except (ValueError, TypeError) as error:  # of `to_source` and orjson
                results[place] = WriteResult(WriteStatus.REFUSED, f"cannot be encoded: {error}")
                continue
            full = len(places) == self._max_documents or size + len(item) > _MAX_BODY_BYTES
            if places and full:
                yield places, b"".join(lines)
                places, lines, size = [], [], 0
            places.append(place)
            lines.append(item)
            size += len(item)
        if places:
            yield places, b"".join(lines)

    def _lines(self, document: Document, *, only_try: bool) -> bytes:
        key = document["id"]
        if not is_possible_id(key):
            # Elasticsearch would refuse the whole request because of it.
            raise ValueError(f"an id has 1 to {_MAX_ID_BYTES} bytes in UTF-8")
        source = document if REFUSED in document else self._index.to_source(document)
        # Also the same version is written again: an answer may have been lost before the replicas
        # had the document, and that it is there already would say nothing about them.
        condition = {"version": document["version"], "version_type": "external_gte"}
        action = {"_id": key, **(_NEVER if only_try else condition)}
        return b"%b\n%b\n" % (orjson.dumps({"index": action}), orjson.dumps(source))

    async def _send(self, body: bytes, places: list[int], results: list[WriteResult]) -> None:
        with translating(self._client):
            response = await self._client.bulk(
                operations=body,  # type: ignore[arg-type]  # bytes are sent unchanged
                index=self._target,
                require_alias=True,  # else a deleted index would be created without its mapping
                include_source_on_error=False,
                filter_path="items.*.status,items.*.error.type,items.*.error.reason",
            )
        for place, item in zip(places, response["items"], strict=True):
            reply = item["index"]
            if reply["status"] >= 300:
                results[place] = self._failure(reply["status"], reply.get("error", {}))

    def _failure(self, status: int, error: Mapping[str, str]) -> WriteResult:
        kind = error.get("type", "unknown")
        if status == 409:
            return _STALE
        if kind == "index_not_found_exception":
            raise missing_index(self._target)
        if kind == "security_exception":
            raise Fatal(
                f"Elasticsearch refuses to write to {self._target}, a privilege is missing: "
                "`cqrs topics acls` prints what each role needs"
            )
        reason = f"{status} {kind}: {_without_values(error.get('reason', ''))}"
        return WriteResult(_status_of(status, kind, reason), reason)


def _status_of(status: int, kind: str, reason: str) -> WriteStatus:
    """Tell a refusal of this document from one that says nothing about it."""
    is_document = kind in _DOCUMENT_FAULTS or _IMMENSE_TERM in reason
    return WriteStatus.REFUSED if status == 400 and is_document else WriteStatus.RETRY


def is_possible_id(key: str) -> bool:
    """Check whether Elasticsearch accepts this as the id of a document."""
    if key.isascii():
        return 0 < len(key) <= _MAX_ID_BYTES
    try:
        return len(key) <= _MAX_ID_BYTES and len(key.encode()) <= _MAX_ID_BYTES
    except UnicodeEncodeError:  # half a surrogate pair
        return False


def _without_values(reason: str) -> str:
    """Cut out what Elasticsearch quotes of the document.

    Reasons go to logs and dead letters, which must not contain personal data.
    """
    for quote in (" Preview of field's value", " The prefix of the first immense term"):
        reason = reason.partition(quote)[0]
    return " ".join(reason.split())[:300]
