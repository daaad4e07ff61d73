"""A view in Elasticsearch: its documents, behind the alias or in one of its indices.

Documents are plain dicts with their `id` and their `version`, the sequence of the last event that
they are made of. They are always written whole and with that version as Elasticsearch's external
version, so an older one never replaces a newer one, whoever sends it and however often.

A document that Elasticsearch refuses for good leaves a stand-in: its id, its version, and itself
under `refused`, where nothing is indexed. The user of a query does not find it, and the next event
still has something to apply to.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, NamedTuple, NoReturn

from elasticsearch import AsyncElasticsearch

from models.errors import Transient
from streams.elasticsearch.bulk_writer import BulkWriter, WriteResult, is_possible_id
from streams.elasticsearch.connection import connect, missing_index, translating
from streams.elasticsearch.index import (
    PROGRESS,
    REFUSED,
    Document,
    IndexDefinition,
    in_namespace,
    writes_alias,
)
from streams.settings import Settings
from streams.views.checkpoint import (
    Checkpoint,
    IndexChanged,
    IndexCheckpoints,
    Revision,
    checkpoint_id,
    read_checkpoint,
)
from streams.views.projection import View

_PAGE = 2000  # documents of one answer when all are read


class Hit(NamedTuple):
    """A document that was found, and its place in the order of the search."""

    document: Document
    position: list[Any]


class ViewStore:
    """Reads and writes the documents of one view. Every method raises `Transient` or `Fatal`."""

    def __init__(
        self,
        client: AsyncElasticsearch,
        index: IndexDefinition,
        *,
        name: str | None = None,
        bulk_documents: int = 2000,
    ) -> None:
        """Of the index `name`, or of the one behind the alias, which is only read."""
        self._client = client
        self.name = name or index.alias
        self._target = writes_alias(self.name)
        self._writer = BulkWriter(client, index, self._target, most=bulk_documents)

    async def bulk_index(self, documents: Sequence[Document]) -> list[WriteResult]:
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
                    index=self.name,
                    ids=wanted[start : start + _PAGE],
                    filter_path="docs._id,docs._source,docs.error.type",
                )
            for item in response["docs"]:
                if "error" in item:
                    self._raise(item["error"]["type"])
                if "_source" in item:
                    found[item["_id"]] = item["_source"]
        return found

    async def get(self, key: str) -> Document | None:
        """The document as it is now, refreshed or not; None too if it is known to be missing."""
        document = (await self.fetch([key])).get(key)
        return None if document is None or REFUSED in document else document

    async def checkpoints(self, partitions: Iterable[int]) -> IndexCheckpoints:
        """The name of the index, and how far it is, as of now, refreshed or not."""
        numbers = list(partitions)
        with translating(self._client):
            response = await self._client.mget(
                index=self.name, ids=[checkpoint_id(number) for number in numbers]
            )
        for item in response["docs"]:
            if "error" in item:
                self._raise(item["error"]["type"])
        found = zip(numbers, response["docs"], strict=True)
        return IndexCheckpoints(
            response["docs"][0]["_index"],
            {number: read_checkpoint(self.name, item) for number, item in found},
        )

    async def save_checkpoint(self, partition: int, progress: Checkpoint) -> Checkpoint:
        """Say how far the index is. Everything before has to be acknowledged.

        Returns:
            The same, with its new revision.

        Raises:
            IndexChanged: The index does not say any more what it said in `progress.revision`.
        """
        revision = progress.revision
        condition: dict[str, Any] = {"op_type": "create"}
        if revision is not None:
            condition = {
                "if_seq_no": revision.seq_no,
                "if_primary_term": revision.primary_term,
            }
        with translating(self._client):
            response = await self._client.options(ignore_status=409).index(
                index=self._target,
                id=checkpoint_id(partition),
                document=progress.to_source(),
                require_alias=True,
                **condition,
            )
        if response.meta.status == 409:
            raise IndexChanged(f"the progress of {self.name} was moved by somebody else")
        said = Revision(response["_seq_no"], response["_primary_term"])
        return replace(progress, revision=said)

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
                index=self.name,
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

    async def sums(
        self, query: Mapping[str, Any], *, by: Sequence[str], of: str
    ) -> list[tuple[dict[str, Any], int]]:
        """The sum of a whole number over the documents that match, for each combination of fields.

        Returns:
            Combination and sum, in the order of `by`; texts in that of their code points.
        """
        groups: dict[str, Any] = {
            "size": _PAGE,
            "sources": [{field: {"terms": {"field": field}}} for field in by],
        }
        sums: list[tuple[dict[str, Any], int]] = []
        while True:
            with translating(self._client):
                response = await self._client.search(
                    index=self.name,
                    query=query,
                    size=0,
                    aggregations={
                        "groups": {
                            "composite": groups,
                            "aggregations": {"sum": {"sum": {"field": of}}},
                        }
                    },
                    track_total_hits=False,
                    allow_partial_search_results=False,
                )
            found = response["aggregations"]["groups"]
            sums.extend((one["key"], round(one["sum"]["value"])) for one in found["buckets"])
            if "after_key" not in found:
                return sums
            groups["after"] = found["after_key"]

    async def scan(self) -> AsyncIterator[Document]:
        """Every document, stand-ins included, as of one moment, in no order."""
        with translating(self._client):
            opened = await self._client.open_point_in_time(index=self.name, keep_alive="2m")
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
                        if PROGRESS not in hit["_source"]:
                            yield hit["_source"]
                    if len(hits) < _PAGE:
                        return
                    after = hits[-1]["sort"]
            finally:
                await self._client.close_point_in_time(id=point)

    async def count(self, query: Mapping[str, Any] | None = None) -> int:
        """How many documents match and have been refreshed, stand-ins included."""
        wanted = query or {"exists": {"field": "id"}}  # which what says the progress has not
        with translating(self._client):
            return int((await self._client.count(index=self.name, query=wanted))["count"])

    async def refresh(self) -> None:
        """Make what was written visible to searches at once; it takes a second otherwise."""
        with translating(self._client):
            answer = await self._client.indices.refresh(index=self.name)
        if answer["_shards"]["failed"]:
            raise Transient(f"Elasticsearch could not refresh all of {self.name}")

    def _raise(self, kind: str) -> NoReturn:
        """A document could not be read, for a reason of this type."""
        if kind == "index_not_found_exception":
            raise missing_index(self.name)
        raise Transient(f"Elasticsearch cannot read from {self.name}: {kind}")


@asynccontextmanager
async def open_view_store(
    settings: Settings, view: View[Any], *, timeout: float
) -> AsyncIterator[ViewStore]:
    """What people read of a view in the settings' namespace, with a connection of its own.

    `timeout`: seconds for any one request.
    """
    async with connect(settings, timeout=timeout) as client:
        yield ViewStore(client, in_namespace(settings, view.index))
