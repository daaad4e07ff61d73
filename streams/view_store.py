"""A view in Elasticsearch: one document per aggregate behind an alias.

Documents are plain dicts with their `id` and their `version`, the sequence of the last event that
they are made of. They are always written whole and with that version as Elasticsearch's external
version, so an older one never replaces a newer one, whoever sends it and however often.

A document that Elasticsearch refuses for good leaves a stand-in: its id, its version, and itself
under `refused`, where nothing is indexed. The user of a query does not find it, and the next event
still has something to apply to.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from enum import Enum
from typing import Any, NamedTuple

import orjson
from elasticsearch import AsyncElasticsearch

from models.errors import Fatal, Transient
from streams.elasticsearch import connect, is_passing, missing_index, translating
from streams.settings import Settings
from streams.view_index import REFUSED, Document, ViewIndex

MAX_BODY = 1024 * 1024
"""Bytes from which on the HTTP client warns of a body that holds up the event loop."""

_IN_FLIGHT = 2  # while one request is indexed the next one is encoded and sent: 1.3 to 1.8 times
_PAGE = 2000  # documents of one answer when all are read
_LONGEST_ID = 512  # bytes; Elasticsearch takes no longer one


class Fate(Enum):
    """What became of a document that was sent."""

    WRITTEN = "written"
    STALE = "stale"
    """This version or a later one is there already: as good as written."""
    REFUSED = "refused"
    """For good: the same document will never be taken."""
    NOT_NOW = "not now"
    """Overload, a missing shard, a block on the index: send it again."""


class Answer(NamedTuple):
    """Elasticsearch's answer for one document; the reason names no values."""

    fate: Fate
    reason: str = ""


class Hit(NamedTuple):
    """A document that was found, and its place in the order of the search."""

    document: Document
    position: list[Any]


_WRITTEN, _STALE = Answer(Fate.WRITTEN), Answer(Fate.STALE)


class ViewStore:
    """Reads and writes the documents of one view. Every method raises `Transient` or `Fatal`."""

    def __init__(
        self, client: AsyncElasticsearch, index: ViewIndex, *, bulk_documents: int = 2000
    ) -> None:
        self._client = client
        self._index = index
        self._alias = index.alias
        self._bulk_documents = bulk_documents

    async def create_if_missing(self) -> bool:
        """Make the index and its alias unless they are there; True if this call did.

        Raises:
            Fatal: What is there is of another version or definition. The line says what to do.
        """
        with translating(self._client, starting=True):
            return await self._index.create_if_missing(self._client)

    async def bulk_index(self, documents: Sequence[Document]) -> list[Answer]:
        """Write whole documents; the answers are in their order.

        Returns when every document has its answer. When this raises or is cancelled, any of them
        may have been written: send them again, which is harmless.
        """
        answers = [_WRITTEN] * len(documents)
        in_flight: set[asyncio.Task[None]] = set()
        try:
            for places, body in self._requests(documents, answers):
                if len(in_flight) == _IN_FLIGHT:
                    done, in_flight = await asyncio.wait(
                        in_flight, return_when=asyncio.FIRST_COMPLETED
                    )
                    for request in done:
                        request.result()
                in_flight.add(asyncio.create_task(self._send(body, places, answers)))
                await asyncio.sleep(0)  # let it go out before the next one is encoded
            for request in in_flight:
                await request
        finally:
            for request in in_flight:
                request.cancel()
            await asyncio.gather(*in_flight, return_exceptions=True)
        return answers

    def _requests(
        self, documents: Sequence[Document], answers: list[Answer]
    ) -> Iterable[tuple[list[int], bytes]]:
        """Bodies of bounded size, each with the places of its documents."""
        places: list[int] = []
        body = bytearray()
        for place, document in enumerate(documents):
            try:
                lines = self._lines(document)
            except (ValueError, TypeError) as error:  # orjson's are both
                answers[place] = Answer(Fate.REFUSED, f"cannot be encoded: {error}")
                continue
            full = len(places) == self._bulk_documents or len(body) + len(lines) > MAX_BODY
            if places and full:
                yield places, bytes(body)
                places, body = [], bytearray()
            places.append(place)
            body += lines
        if places:
            yield places, bytes(body)

    def _lines(self, document: Document) -> bytes:
        key = document["id"]
        if not _is_possible_id(key):
            # Elasticsearch would refuse the whole request for it
            raise ValueError(f"an id has 1 to {_LONGEST_ID} bytes in UTF-8")
        source = document if REFUSED in document else self._index.to_source(document)
        action = {"_id": key, "version": document["version"], "version_type": "external"}
        return b"%b\n%b\n" % (orjson.dumps({"index": action}), orjson.dumps(source))

    async def _send(self, body: bytes, places: list[int], answers: list[Answer]) -> None:
        with translating(self._client):
            response = await self._client.bulk(
                operations=body,  # type: ignore[arg-type]  # bytes are passed on as they are
                index=self._alias,
                require_alias=True,  # else a lost index would come back without its mapping
                include_source_on_error=False,
                filter_path="items.*.status,items.*.error.type,items.*.error.reason",
            )
        for place, item in zip(places, response["items"], strict=True):
            result = item["index"]
            if result["status"] >= 300:
                answers[place] = self._answer(result["status"], result.get("error", {}))

    def _answer(self, status: int, error: Mapping[str, str]) -> Answer:
        kind = error.get("type", "unknown")
        if status == 409:
            return _STALE
        if kind == "index_not_found_exception":
            raise missing_index(self._alias)
        if kind == "security_exception":
            raise Fatal(f"Elasticsearch refuses to write to {self._alias}: check the privileges")
        reason = f"{status} {kind}: {_without_values(error.get('reason', ''))}"
        if is_passing(status, kind) or status != 400:
            return Answer(Fate.NOT_NOW, reason)
        return Answer(Fate.REFUSED, reason)

    async def fetch(self, ids: Iterable[str]) -> dict[str, Document]:
        """The documents that exist, stand-ins included, as they are now, refreshed or not."""
        wanted = [key for key in ids if _is_possible_id(key)]
        found: dict[str, Document] = {}
        for start in range(0, len(wanted), _PAGE):
            with translating(self._client):
                response = await self._client.mget(
                    index=self._alias,
                    ids=wanted[start : start + _PAGE],
                    filter_path="docs._id,docs._source,docs.error.type",
                )
            for item in response["docs"]:
                if "error" in item:
                    kind = item["error"]["type"]
                    if kind == "index_not_found_exception":
                        raise missing_index(self._alias)
                    raise Transient(f"Elasticsearch cannot read from {self._alias}: {kind}")
                if "_source" in item:
                    found[item["_id"]] = item["_source"]
        return found

    async def get(self, key: str) -> Document | None:
        """The document as it is now, refreshed or not; None too if it is known to be missing."""
        document = (await self.fetch([key])).get(key)
        return None if document is None or REFUSED in document else document

    async def search(
        self,
        query: Mapping[str, Any],
        *,
        sort: Sequence[str],
        limit: int,
        after: Sequence[Any] | None = None,
        positions_only: bool = False,
    ) -> list[Hit]:
        """The first `limit` (at most 10,000) documents of the order `sort` behind `after`."""
        with translating(self._client):
            response = await self._client.search(
                index=self._alias,
                query=query,
                sort=list(sort),
                size=limit,
                search_after=None if after is None else list(after),
                source=not positions_only,
                track_total_hits=False,
                allow_partial_search_results=False,  # an error is better than users left out
                filter_path="hits.hits._source,hits.hits.sort",
            )
        hits = response.body.get("hits", {}).get("hits", [])
        return [Hit(hit.get("_source", {}), hit["sort"]) for hit in hits]

    async def scan(self) -> AsyncIterator[Document]:
        """Every document, stand-ins included, as of one moment, in no order."""
        with translating(self._client):
            opened = await self._client.open_point_in_time(index=self._alias, keep_alive="2m")
            point = opened["id"]
            try:
                after = None
                while True:
                    response = await self._client.search(
                        pit={"id": point, "keep_alive": "2m"},
                        size=_PAGE,
                        sort=["_shard_doc"],
                        search_after=after,
                        track_total_hits=False,
                        allow_partial_search_results=False,
                    )
                    hits = response["hits"]["hits"]
                    for hit in hits:
                        yield hit["_source"]
                    if len(hits) < _PAGE:
                        return
                    after = hits[-1]["sort"]
            finally:
                await self._client.close_point_in_time(id=point)

    async def count(self, query: Mapping[str, Any] | None = None) -> int:
        """How many documents match and have been refreshed, stand-ins included."""
        with translating(self._client):
            return int((await self._client.count(index=self._alias, query=query))["count"])

    async def refresh(self) -> None:
        """Make what was written visible to searches at once; it takes a second otherwise."""
        with translating(self._client):
            await self._client.indices.refresh(index=self._alias)


@asynccontextmanager
async def open_view_store(
    settings: Settings, index: ViewIndex, *, timeout: float
) -> AsyncIterator[ViewStore]:
    """A view store in the settings' namespace, with a connection of its own.

    `timeout`: seconds for any one request.
    """
    client = connect(settings, timeout=timeout)
    named = replace(index, alias=settings.namespace + index.alias)
    try:
        yield ViewStore(client, named, bulk_documents=settings.bulk_documents)
    finally:
        await client.close()


def _is_possible_id(key: str) -> bool:
    try:
        return 0 < len(key) <= _LONGEST_ID and len(key.encode()) <= _LONGEST_ID
    except UnicodeEncodeError:  # half a surrogate pair
        return False


def _without_values(reason: str) -> str:
    """Cut what Elasticsearch quotes of the document: reasons go where personal data must not."""
    for quote in (" Preview of field's value", " The prefix of the first immense term"):
        reason = reason.partition(quote)[0]
    return " ".join(reason.split())[:300]
