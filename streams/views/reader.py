"""Reads the documents of a view in Elasticsearch, behind its alias or in one of its indices."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, NoReturn

from elastic_transport import NodeConfig, ObjectApiResponse
from elasticsearch import AsyncElasticsearch

from models.errors import CqrsError, Fatal, PartitionFatal, Transient
from streams.elasticsearch.connection import (
    ask_another_node,
    connect,
    current_node,
    missing_index,
    translating,
)
from streams.elasticsearch.index import REFUSED, Document, in_namespace
from streams.settings import Settings
from streams.views.asked_nodes import note_node, noting_nodes
from streams.views.checkpoint import (
    Checkpoint,
    IndexChanged,
    IndexCheckpoints,
    can_be_document,
    checkpoint_id,
    read_checkpoint,
)
from streams.views.projection import View

_PAGE_DOCUMENTS = 2000  # per request; also the buckets of one page of an aggregation
_KEEP_ALIVE = "2m"  # of a point in time, between two requests

# What is wanted of a document that is read by id.
_ITEM = ",".join(
    f"docs.{name}"
    for name in ("_index", "_id", "found", "_seq_no", "_primary_term", "_source", "error.type")
)


class Hit(NamedTuple):
    """A document that a search found, and its sort values, from which the next search continues."""

    document: Document
    sort_values: list[Any]


@dataclass
class PointInTime:
    """The documents of an index at one moment, or one of `of` parts of them, from number 0 on.

    Each document is in one part. `ViewReader.point_in_time` opens and closes it.
    """

    id: str
    """Elasticsearch may give it another one; only the last one has to be closed."""
    number: int = 0
    of: int = 1

    def part(self, number: int, of: int) -> PointInTime:
        """Return a part, which may be read in another process; the only one is the whole."""
        return self if of == 1 else replace(self, number=number, of=of)


class ViewReader:
    """Reads the documents of one view.

    Every request raises `NoSuchView` if the index does not exist, `Transient` if Elasticsearch
    fails, and `Fatal` if it refuses.
    """

    def __init__(self, client: AsyncElasticsearch, name: str, *, is_alias: bool = True) -> None:
        """Create a reader of what this alias serves, or of the index with this name."""
        self._client = client
        self._is_alias = is_alias
        self.name = name

    async def fetch(self, ids: Iterable[str]) -> dict[str, Document]:
        """Return the latest documents by id, stand-ins included, before any refresh.

        Ids without a document are left out.
        """
        found: dict[str, Document] = {}
        for keys in _pages(ids):
            found |= _documents(await self._items(keys))
        return found

    async def fetch_since(
        self, ids: Iterable[str], partition: int, checkpoint: Checkpoint
    ) -> dict[str, Document]:
        """Return documents as `fetch` does, none of them older than this checkpoint.

        A node that is cut off from the others still answers, of its own copy of the index.

        Raises:
            IndexChanged: The copy that was read is older.
        """
        found: dict[str, Document] = {}
        for keys in _pages(ids):
            # One request reads one copy, in this order: no document is older than the checkpoint.
            with noting_nodes() as nodes:
                stored, *items = await self._items([checkpoint_id(partition), *keys])
            if read_checkpoint(self.name, stored).position < checkpoint.position:
                self.ask_another_node(*nodes)
                raise IndexChanged(f"a copy of {self.name} that was read is out of date")
            found |= _documents(items)
        return found

    async def get(self, key: str) -> Document | None:
        """Return the latest document, before any refresh; None also for a stand-in."""
        document = (await self.fetch([key])).get(key)
        return None if document is None or REFUSED in document else document

    async def checkpoints(self, partitions: Iterable[int]) -> IndexCheckpoints:
        """Return the name of the index and its latest checkpoints, before any refresh.

        Raises:
            PartitionFatal: A checkpoint document has other contents.
        """
        numbers = list(partitions)
        with noting_nodes() as nodes:
            items = await self._items([checkpoint_id(number) for number in numbers])
        found = zip(numbers, items, strict=True)
        return IndexCheckpoints(
            items[0]["_index"],
            {number: read_checkpoint(self.name, item) for number, item in found},
            *nodes,
        )

    async def sound_checkpoints(self, partitions: Iterable[int]) -> dict[int, Checkpoint]:
        """Return the latest checkpoints, without those that are damaged."""
        numbers, found = list(partitions), {}
        items = await self._items([checkpoint_id(number) for number in numbers])
        for number, item in zip(numbers, items, strict=True):
            with suppress(PartitionFatal):
                found[number] = read_checkpoint(self.name, item)
        return found

    async def _items(self, ids: Sequence[str]) -> Sequence[Mapping[str, Any]]:
        """Return Elasticsearch's item for each document."""
        with translating(self._client):
            response = await self._client.mget(index=self.name, ids=ids, filter_path=_ITEM)
        note_node(response.meta.node)
        items: Sequence[Mapping[str, Any]] = response["docs"]
        for item in items:
            if "error" in item:
                self._raise_read_error(item["error"]["type"])
        return items

    async def search(
        self,
        query: Mapping[str, Any],
        *,
        sort: Sequence[str],
        limit: int,
        after: Sequence[Any] | None = None,
        sort_values_only: bool = False,
    ) -> list[Hit]:
        """Return one page of the documents that match a query.

        Args:
            query: In Elasticsearch's query language.
            sort: Fields to sort by.
            limit: Size of the page, at most 10,000.
            after: Sort values of the hit before the page; None for the first page.
            sort_values_only: Leave the documents empty.
        """
        with translating(self._client):
            response = await self._client.search(
                index=self.name,
                query=query,
                sort=list(sort),
                size=limit,
                search_after=None if after is None else list(after),
                source=not sort_values_only,
                track_total_hits=False,
                allow_partial_search_results=False,  # an error is better than missing documents
                filter_path="_shards.total,hits.hits._source,hits.hits.sort",
            )
        note_node(response.meta.node)
        self._check_one_index(response)
        hits = response.body.get("hits", {}).get("hits", [])
        return [Hit(hit.get("_source", {}), hit["sort"]) for hit in hits]

    async def sums(
        self, query: Mapping[str, Any], *, by: Sequence[str], of: str
    ) -> list[tuple[dict[str, Any], int]]:
        """Sum an integer field over the documents that match a query, grouped by other fields.

        Args:
            query: In Elasticsearch's query language.
            by: Fields to group by.
            of: Field to sum.

        Returns:
            The values of the `by` fields and the sum for each group, sorted by those values; texts
            by their code points.
        """
        groups: dict[str, Any] = {
            "size": _PAGE_DOCUMENTS,
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
            note_node(response.meta.node)
            self._check_one_index(response)
            found = response["aggregations"]["groups"]
            sums.extend((one["key"], round(one["sum"]["value"])) for one in found["buckets"])
            if "after_key" not in found:
                return sums
            groups["after"] = found["after_key"]

    async def scan(self) -> AsyncIterator[Document]:
        """Yield every document as `pages` does, one at a time.

        They are as of one moment: the last refresh before the first is read.
        """
        async with self.point_in_time() as point:
            async for page in self.pages(point):
                for document in page:
                    yield document

    @asynccontextmanager
    async def point_in_time(self) -> AsyncIterator[PointInTime]:
        """Keep the documents of this moment, as of the last refresh, for the time of the block.

        A node that ends takes them along: `pages` raises `Transient` then.
        """
        with translating(self._client):
            opened = await self._client.open_point_in_time(index=self.name, keep_alive=_KEEP_ALIVE)
        point = PointInTime(opened["id"])
        try:
            yield point
        finally:
            with suppress(CqrsError), translating(self._client):  # it would end by itself
                await self._client.close_point_in_time(id=point.id)

    async def pages(self, point: PointInTime) -> AsyncIterator[list[Document]]:
        """Yield every document, or those of a part, in no order, many at a time.

        Stand-ins are included. Each has its own id as `id`, and a whole number as `version`. Of one
        that has not, because somebody else wrote it, `id` is all that is yielded.
        """
        part = None if point.of == 1 else {"id": point.number, "max": point.of}
        after = None
        while True:
            with translating(self._client):
                response = await self._client.search(
                    pit={"id": point.id, "keep_alive": _KEEP_ALIVE},
                    slice=part,
                    size=_PAGE_DOCUMENTS,
                    sort=["_shard_doc"],
                    search_after=after,
                    track_total_hits=False,
                    allow_partial_search_results=False,
                )
            self._check_one_index(response)
            point.id = response["pit_id"]
            hits = response["hits"]["hits"]
            yield [_document(hit) for hit in hits if can_be_document(hit["_id"])]
            if len(hits) < _PAGE_DOCUMENTS:
                return
            after = hits[-1]["sort"]

    async def count(self, query: Mapping[str, Any] | None = None) -> int:
        """Return how many documents match, as of the last refresh, stand-ins included.

        Raises:
            Transient: Not all shards could be counted.
        """
        wanted = query or {"exists": {"field": "id"}}  # checkpoint documents have no id
        with translating(self._client):
            response = await self._client.count(index=self.name, query=wanted)
        if response["_shards"]["failed"]:
            raise Transient(f"Elasticsearch could not count all of {self.name}")
        self._check_one_index(response)
        return int(response["count"])

    async def refresh(self) -> None:
        """Make all written documents visible to searches now, not within a second.

        A node that is cut off cannot do that for the others.

        Raises:
            Transient: Not all shards could be refreshed.
        """
        with translating(self._client):
            response = await self._client.indices.refresh(index=self.name)
        if response["_shards"]["failed"]:
            raise Transient(f"Elasticsearch could not refresh all of {self.name}")
        note_node(response.meta.node)

    @property
    def node(self) -> NodeConfig:
        """The node of Elasticsearch that is asked next."""
        return current_node(self._client)

    def ask_another_node(self, than: NodeConfig) -> None:
        """Send the next requests to another node, if there are several: this one may be cut off."""
        ask_another_node(self._client, than)

    def _check_one_index(self, response: ObjectApiResponse[Any]) -> None:
        """Check that a search behind the alias read one index, which has one shard.

        Raises:
            Fatal: The alias is on several: each document may have been found twice.
        """
        if self._is_alias and response["_shards"]["total"] > 1:
            raise Fatal(
                f"{self.name} is not one index with one shard, so its documents may be found "
                "twice: `cqrs views status` says what is wrong"
            )

    def _raise_read_error(self, kind: str) -> NoReturn:
        """Raise the error for a document that could not be read, by Elasticsearch's error type."""
        if kind == "index_not_found_exception":
            raise missing_index(self.name)
        if kind == "security_exception":
            raise Fatal(
                f"Elasticsearch does not let this user read {self.name}: check the privileges"
            )
        raise Transient(f"Elasticsearch cannot read from {self.name}: {kind}")


def _pages(ids: Iterable[str]) -> Iterator[list[str]]:
    """Yield the ids that a document can have, as many as one request asks for."""
    wanted = [key for key in ids if can_be_document(key)]
    for start in range(0, len(wanted), _PAGE_DOCUMENTS):
        yield wanted[start : start + _PAGE_DOCUMENTS]


def _document(hit: Mapping[str, Any]) -> Document:
    """Return the document of a hit as `ViewReader.pages` yields it."""
    key: str = hit["_id"]
    found: Document = hit["_source"]
    is_of_view = _is_of_view(key, found) and _is_of_view(key, found.get(REFUSED, found))
    return found if is_of_view else {"id": key}


def _is_of_view(key: str, document: Any) -> bool:
    return (
        isinstance(document, dict)
        and document.get("id") == key
        and type(document.get("version")) is int
    )


def _documents(items: Iterable[Mapping[str, Any]]) -> dict[str, Document]:
    return {item["_id"]: item["_source"] for item in items if "_source" in item}


@asynccontextmanager
async def open_view(
    settings: Settings, view: View[Any], *, timeout: float
) -> AsyncIterator[ViewReader]:
    """Open the view behind its alias, with its own connection to Elasticsearch.

    Args:
        settings: Contains the address of Elasticsearch, and the namespace.
        view: The view.
        timeout: Seconds that one request may take.
    """
    async with connect(settings, timeout=timeout) as client:
        yield ViewReader(client, in_namespace(settings, view.index).alias)
