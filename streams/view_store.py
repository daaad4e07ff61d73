"""A view in Elasticsearch: one document per aggregate behind an alias.

Documents are plain dicts with their `id` and their `version`, the sequence of the last event that
they are made of. They are always written whole and with that version as Elasticsearch's external
version, so an older one never replaces a newer one, whoever sends it and however often.

A document that Elasticsearch refuses for good leaves a stand-in: its id, its version, and itself
under `refused`, where nothing is indexed. The user of a query does not find it, and the next event
still has something to apply to.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, NamedTuple

from elasticsearch import AsyncElasticsearch, ConflictError

from models.errors import Transient
from streams.bulk_writer import Answer, BulkWriter, is_possible_id
from streams.elasticsearch import connect, missing_index, translating
from streams.settings import Settings
from streams.view_index import REFUSED, Document, ViewIndex
from streams.view_progress import Progress, Serving, progress_id

_PAGE = 2000  # documents of one answer when all are read
_DOCUMENTS = {"exists": {"field": "id"}}


class Hit(NamedTuple):
    """A document that was found, and its place in the order of the search."""

    document: Document
    position: list[Any]


class ViewStore:
    """Reads and writes the documents of one view. Every method raises `Transient` or `Fatal`."""

    def __init__(
        self, client: AsyncElasticsearch, index: ViewIndex, *, bulk_documents: int = 2000
    ) -> None:
        self._client = client
        self._index = index
        self._alias = index.alias
        self._writer = BulkWriter(client, index, most=bulk_documents)

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
        return await self._writer.write(documents)

    async def fetch(self, ids: Iterable[str]) -> dict[str, Document]:
        """The documents that exist, stand-ins included, as they are now, refreshed or not."""
        wanted = [key for key in ids if is_possible_id(key)]
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

    async def serving(self, partitions: Iterable[int]) -> Serving:
        """The name of the index, and how far it is, as of now, refreshed or not."""
        numbers = list(partitions)
        with translating(self._client):
            response = await self._client.mget(
                index=self._alias, ids=[progress_id(number) for number in numbers]
            )
        name, progress = "", {}
        for number, item in zip(numbers, response["docs"], strict=True):
            if "error" in item:
                kind = item["error"]["type"]
                if kind == "index_not_found_exception":
                    raise missing_index(self._alias)
                raise Transient(f"Elasticsearch cannot read from {self._alias}: {kind}")
            name = item["_index"]
            progress[number] = Progress(**item["_source"]["progress"] if item["found"] else {})
        return Serving(name, progress)

    async def write_progress(self, partition: int, progress: Progress) -> None:
        """Say how far a partition is; an older word does not replace a newer one."""
        with translating(self._client), suppress(ConflictError):
            await self._client.index(
                index=self._alias,
                require_alias=True,
                id=progress_id(partition),
                document=progress.to_source(),
                version=progress.position,
                version_type="external_gte",
            )

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
                        query=_DOCUMENTS,
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
            found = await self._client.count(index=self._alias, query=query or _DOCUMENTS)
            return int(found["count"])

    async def refresh(self) -> None:
        """Make what was written visible to searches at once; it takes a second otherwise."""
        with translating(self._client):
            answer = await self._client.indices.refresh(index=self._alias)
        if answer["_shards"]["failed"]:
            raise Transient(f"Elasticsearch could not refresh all of {self._alias}")


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
