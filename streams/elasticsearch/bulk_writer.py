"""Writes whole documents to a view in bulk, and says what became of each."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import NamedTuple

import orjson
from elasticsearch import AsyncElasticsearch

from models.errors import Fatal
from streams.elasticsearch.connection import is_passing, missing_index, translating
from streams.elasticsearch.index import REFUSED, Document, IndexDefinition

_MOST_BYTES = 1024 * 1024  # of a body; from there on the HTTP client warns that it blocks the loop
_IN_FLIGHT = 2  # while one request is indexed the next one is encoded and sent: 1.3 to 1.8 times
_LONGEST_ID = 512  # bytes; Elasticsearch takes no longer one


class WriteStatus(Enum):
    """What became of a document that was sent."""

    WRITTEN = "written"
    STALE = "stale"
    """This version or a later one is there already: as good as written."""
    REFUSED = "refused"
    """For good: the same document will never be taken."""
    RETRY = "not now"
    """Overload, a missing shard, a block on the index: send it again."""


class WriteResult(NamedTuple):
    """Elasticsearch's answer for one document; the reason names no values."""

    fate: WriteStatus
    reason: str = ""


WRITTEN, _STALE = WriteResult(WriteStatus.WRITTEN), WriteResult(WriteStatus.STALE)


class BulkWriter:
    """Bulk requests of at most `most` documents."""

    def __init__(
        self, client: AsyncElasticsearch, index: IndexDefinition, target: str, *, most: int
    ) -> None:
        """`target` is the alias by which the index is written to."""
        self._client = client
        self._target = target
        self._index = index
        self._most = most

    async def write(self, documents: Sequence[Document]) -> list[WriteResult]:
        """The answers, in the order of the documents. See `ViewStore.bulk_index`."""
        answers = [WRITTEN] * len(documents)
        requests: list[asyncio.Task[None]] = []
        try:
            for places, body in self._requests(documents, answers):
                if len(requests) >= _IN_FLIGHT:
                    await requests[-_IN_FLIGHT]
                requests.append(asyncio.create_task(self._send(body, places, answers)))
                await asyncio.sleep(0)  # let it go out before the next one is encoded
            for request in requests:
                await request
        finally:
            for request in requests:
                request.cancel()
            await asyncio.gather(*requests, return_exceptions=True)
        return answers

    def _requests(
        self, documents: Sequence[Document], answers: list[WriteResult]
    ) -> Iterable[tuple[list[int], bytes]]:
        """Bodies of bounded size, each with the places of its documents."""
        places: list[int] = []
        lines: list[bytes] = []
        size = 0
        for place, document in enumerate(documents):
            try:
                two = self._lines(document)
            except (ValueError, TypeError) as error:  # orjson's are both
                answers[place] = WriteResult(WriteStatus.REFUSED, f"cannot be encoded: {error}")
                continue
            if places and (len(places) == self._most or size + len(two) > _MOST_BYTES):
                yield places, b"".join(lines)
                places, lines, size = [], [], 0
            places.append(place)
            lines.append(two)
            size += len(two)
        if places:
            yield places, b"".join(lines)

    def _lines(self, document: Document) -> bytes:
        key = document["id"]
        if not is_possible_id(key):
            # Elasticsearch would refuse the whole request for it
            raise ValueError(f"an id has 1 to {_LONGEST_ID} bytes in UTF-8")
        source = document if REFUSED in document else self._index.to_source(document)
        action = {"_id": key, "version": document["version"], "version_type": "external"}
        return b"%b\n%b\n" % (orjson.dumps({"index": action}), orjson.dumps(source))

    async def _send(self, body: bytes, places: list[int], answers: list[WriteResult]) -> None:
        with translating(self._client):
            response = await self._client.bulk(
                operations=body,  # type: ignore[arg-type]  # bytes are passed on as they are
                index=self._target,
                require_alias=True,  # else a lost index would come back without its mapping
                include_source_on_error=False,
                filter_path="items.*.status,items.*.error.type,items.*.error.reason",
            )
        for place, item in zip(places, response["items"], strict=True):
            result = item["index"]
            if result["status"] >= 300:
                answers[place] = self._answer(result["status"], result.get("error", {}))

    def _answer(self, status: int, error: Mapping[str, str]) -> WriteResult:
        kind = error.get("type", "unknown")
        if status == 409:
            return _STALE
        if kind == "index_not_found_exception":
            raise missing_index(self._target)
        if kind == "security_exception":
            raise Fatal(f"Elasticsearch refuses to write to {self._target}: check the privileges")
        reason = f"{status} {kind}: {_without_values(error.get('reason', ''))}"
        if is_passing(status, kind) or status != 400:
            return WriteResult(WriteStatus.RETRY, reason)
        return WriteResult(WriteStatus.REFUSED, reason)


def is_possible_id(key: str) -> bool:
    """Whether Elasticsearch takes this as the id of a document."""
    try:
        return 0 < len(key) <= _LONGEST_ID and len(key.encode()) <= _LONGEST_ID
    except UnicodeEncodeError:  # half a surrogate pair
        return False


def _without_values(reason: str) -> str:
    """Cut what Elasticsearch quotes of the document: reasons go where personal data must not."""
    for quote in (" Preview of field's value", " The prefix of the first immense term"):
        reason = reason.partition(quote)[0]
    return " ".join(reason.split())[:300]
