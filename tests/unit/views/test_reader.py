"""What the store makes of Elasticsearch's answers that no test can get from a real node here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from elastic_transport import (
    AiohttpHttpNode,
    ApiResponseMeta,
    HttpHeaders,
    NodeConfig,
    ObjectApiResponse,
)
from elasticsearch import AsyncElasticsearch

from agents.user_views import USER_VIEWS
from models.errors import Fatal, NoSuchView, Transient
from streams.elasticsearch.connection import OneNodeAtATime
from streams.elasticsearch.index import Document
from streams.views.asked_nodes import noting_nodes
from streams.views.checkpoint import Checkpoint, IndexChanged
from streams.views.reader import ViewReader

NODES = [NodeConfig("http", name, 9200) for name in ("a", "b")]
META = ApiResponseMeta(200, "1.1", HttpHeaders(), 0.0, NODES[0])
SHARDS = {"total": 2, "successful": 1, "failed": 1}


def store(**answers: Any) -> ViewReader:
    """Return a reader whose client has these methods."""
    return ViewReader(cast(AsyncElasticsearch, SimpleNamespace(**answers)), USER_VIEWS.index.alias)


def answer(value: Any) -> Any:
    async def method(**_: Any) -> Any:
        return ObjectApiResponse(value, META)

    return method


@pytest.mark.parametrize(
    ("kind", "error", "line"),
    [
        ("index_not_found_exception", NoSuchView, "has no index user-views"),
        ("security_exception", Fatal, "does not let this user read user-views"),
        ("no_shard_available_action_exception", Transient, "cannot read from user-views: no_shard"),
    ],
)
async def test_a_document_that_cannot_be_read(kind: str, error: type[Exception], line: str) -> None:
    docs = {"docs": [{"_id": "anna", "error": {"type": kind}}]}
    reading = store(mget=answer(docs))
    with pytest.raises(error, match=line):
        await reading.fetch(["anna"])
    with pytest.raises(error, match=line):
        await reading.checkpoints([0])


def copy_at(position: int) -> Any:
    """Return the answer of a copy of an index with this checkpoint, and with Anna at version 1."""
    fields = Checkpoint(position=position).to_source()
    revision = {"_seq_no": 1, "_primary_term": 1, "_index": "user-views-v1", "found": True}
    anna = {"_id": "anna", "found": True, "_source": {"id": "anna", "version": 1}}
    return {"docs": [{"_id": " progress 0", "_source": fields, **revision}, anna]}


async def test_a_document_of_a_copy_that_is_behind_the_checkpoint_is_not_used() -> None:
    """A node that is cut off answers of what it had when it was."""
    written = Checkpoint(position=5)
    pool = OneNodeAtATime(NODES, AiohttpHttpNode, randomize_nodes=False)
    behind = store(mget=answer(copy_at(4)), transport=SimpleNamespace(node_pool=pool))
    current = store(mget=answer(copy_at(5)))
    assert set(await current.fetch_since(["anna"], 0, written)) == {"anna"}
    with pytest.raises(IndexChanged, match="a copy of user-views that was read is out of date"):
        await behind.fetch_since(["anna"], 0, written)
    assert pool.get().config == NODES[1], "the next one is asked"


async def test_which_nodes_were_asked_is_noted() -> None:
    reading = store(mget=answer({"docs": copy_at(5)["docs"][:1]}))
    with noting_nodes() as all_of_them:
        with noting_nodes() as nodes:
            assert (await reading.checkpoints([0])).node == NODES[0]
        assert nodes == {NODES[0]}
    assert all_of_them == {NODES[0]}


async def test_a_part_of_the_documents_is_no_count() -> None:
    with pytest.raises(Transient, match="could not count all"):
        await store(count=answer({"count": 7, "_shards": SHARDS})).count()


async def test_a_refresh_of_some_shards_is_none() -> None:
    indices = SimpleNamespace(refresh=answer({"_shards": SHARDS}))
    with pytest.raises(Transient, match="could not refresh all"):
        await store(indices=indices).refresh()


def hit(key: str, source: Document) -> dict[str, Any]:
    return {"_id": key, "_source": source, "sort": [0]}


def page_of(hits: list[dict[str, Any]], *, point: str = "point") -> ObjectApiResponse[Any]:
    found = {"pit_id": point, "_shards": {"total": 1}, "hits": {"hits": hits}}
    return ObjectApiResponse(found, META)


async def _scan(reading: ViewReader) -> list[Document]:
    return [document async for document in reading.scan()]


async def _read_the_only_part(reading: ViewReader) -> list[Document]:
    async with reading.point_in_time() as point:
        return [one async for page in reading.pages(point.part(0, 1)) for one in page]


@pytest.mark.parametrize("read", [_scan, _read_the_only_part])
async def test_a_scan_goes_on_with_the_point_in_time_of_the_last_answer(
    read: Callable[[ViewReader], Awaitable[list[Document]]],
) -> None:
    """Elasticsearch may give another id for the same point; the last one has to be closed."""
    used: list[str] = []

    async def search(*, pit: dict[str, str], search_after: Any, **_: Any) -> Any:
        used.append(pit["id"])
        hits = [hit(f"{n}", {"id": f"{n}", "version": 1}) for n in range(2000)]
        return page_of(hits[:3] if search_after else hits, point=f"point-{len(used)}")

    async def close(**request: str) -> None:
        used.append(f"close {request['id']}")

    scanning = store(
        open_point_in_time=answer({"id": "point-0"}), search=search, close_point_in_time=close
    )
    assert len(await read(scanning)) == 2003
    assert used == ["point-0", "point-1", "close point-2"]


ANNA = {"id": "anna", "version": 1}


@pytest.mark.parametrize(
    "source",
    [
        {},
        {"version": 1},
        {"id": "ben", "version": 1},
        {"id": ["anna"], "version": 1},
        {"id": "anna"},
        {"id": "anna", "version": "1"},
        {"id": "anna", "version": 1.0},
        {"id": "anna", "version": True},
        {**ANNA, "refused": 5},
        {**ANNA, "refused": {"id": "anna"}},
        {**ANNA, "refused": {"id": "ben", "version": 1}},
        {"progress": {}},
    ],
)
@pytest.mark.parametrize("read", [_scan, _read_the_only_part])
async def test_of_a_document_that_somebody_else_wrote_its_id_is_read(
    read: Callable[[ViewReader], Awaitable[list[Document]]], source: Document
) -> None:
    stand_in = {"id": "carl", "version": 2, "refused": {"id": "carl", "version": 2}}
    checkpoint = Checkpoint(position=5).to_source()
    page = page_of([hit("anna", source), hit(" progress 0", checkpoint), hit("carl", stand_in)])

    async def answered(**_: Any) -> ObjectApiResponse[Any]:
        return page

    reading = store(
        open_point_in_time=answer({"id": "point"}),
        search=answered,
        close_point_in_time=answer({}),
    )
    assert await read(reading) == [{"id": "anna"}, stand_in]


async def test_no_search_is_answered_from_two_indices() -> None:
    """Behind the alias; whoever names an index gets what that has."""
    found = {"_shards": {"total": 2, "failed": 0}, "count": 7, "hits": {"hits": []}}
    both = {"count": answer(found), "search": answer(found)}
    with pytest.raises(Fatal, match="user-views is not one index with one shard"):
        await store(**both).count()
    with pytest.raises(Fatal, match="its documents may be found twice"):
        await store(**both).search({"match_all": {}}, sort=["id"], limit=1)
    client = cast(AsyncElasticsearch, SimpleNamespace(**both))
    assert await ViewReader(client, "user-views-v1", is_alias=False).count() == 7
