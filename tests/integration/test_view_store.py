"""The documents and checkpoints of a view on the real Elasticsearch."""

from dataclasses import replace
from typing import Any

import pytest

from agents.user_views import ORDER, USER_VIEWS
from models.errors import NoSuchView, Transient
from streams.elasticsearch.bulk_writer import WriteStatus
from streams.elasticsearch.connection import connect
from streams.elasticsearch.index import REFUSED, Document
from streams.settings import Settings
from streams.views.checkpoint import Checkpoint, IndexChanged
from streams.views.indices import ViewIndices
from streams.views.store import ViewStore
from streams.views.tally import Tally
from tests.harness.read_side import delete_view, user_views


def user(key: str, version: int = 1, **fields: Any) -> Document:
    return {
        "id": key,
        "email": f"{key}@example.org",
        "firstName": "Anna",
        "lastName": "Müller",
        "isActive": True,
        "registeredAt": "2026-11-23T12:00:00.000Z",
        "lastUpdated": "2026-11-23T12:00:00.000Z",
        "version": version,
        **fields,
    }


async def fates(store: ViewStore, *documents: Document) -> list[WriteStatus]:
    return [answer.status for answer in await store.bulk_index(documents)]


# How far it is


async def test_an_index_has_its_checkpoints(store: ViewStore) -> None:
    assert (await store.checkpoints([0, 1])).checkpoints == {0: Checkpoint(), 1: Checkpoint()}
    saved = await store.save_checkpoint(1, Checkpoint(7, 5, 2, "cluster", Tally(3, (1 << 64) - 1)))
    found = await store.checkpoints([0, 1])
    assert found.name.endswith("user-views-v1")
    assert found.checkpoints == {0: Checkpoint(), 1: saved}
    assert await store.count() == 0
    assert [document async for document in store.scan()] == []


async def test_a_checkpoint_whose_answer_was_lost_is_saved_again(store: ViewStore) -> None:
    first = Checkpoint(7, 5, 2, "cluster", Tally(3, 4))
    saved = await store.save_checkpoint(0, first)
    assert await store.save_checkpoint(0, first) == saved
    second = replace(saved, position=9)
    saved = await store.save_checkpoint(0, second)
    assert await store.save_checkpoint(0, second) == saved
    assert (await store.checkpoints([0])).checkpoints == {0: saved}


async def test_documents_that_are_lost_while_they_are_read(store: ViewStore) -> None:
    """As when a node ends: whoever reads them may begin again, and closing them is no error."""
    async with store.point_in_time() as point:
        await store._client.close_point_in_time(id=point.id)
        with pytest.raises(Transient, match="has lost the documents that were being read"):
            await anext(store.pages(point))


async def test_a_checkpoint_is_saved_only_over_the_one_that_was_read(store: ViewStore) -> None:
    first = await store.save_checkpoint(0, Checkpoint(7))
    with pytest.raises(IndexChanged):
        await store.save_checkpoint(0, Checkpoint(8))  # of somebody who saw none
    second = await store.save_checkpoint(0, replace(first, position=9))
    with pytest.raises(IndexChanged):
        await store.save_checkpoint(0, replace(first, position=8))  # of a former owner
    assert (await store.checkpoints([0])).checkpoints == {0: second}


async def test_a_deleted_index_does_not_come_back_by_writing(
    settings: Settings, store: ViewStore
) -> None:
    await delete_view(settings)
    with pytest.raises(NoSuchView):
        await store.bulk_index([user("a")])
    with pytest.raises(NoSuchView):
        await store.save_checkpoint(0, Checkpoint(7))
    async with connect(settings, timeout=30) as client:
        assert await ViewIndices.from_settings(settings, client, USER_VIEWS).all() == []


# Writing


async def test_a_newer_version_replaces_an_older_one_and_never_the_other_way(
    store: ViewStore,
) -> None:
    assert await fates(store, user("a", 2)) == [WriteStatus.WRITTEN]
    assert await fates(store, user("a", 2), user("a", 1, email="old@example.org")) == [
        WriteStatus.WRITTEN,  # again: now on all copies of the index
        WriteStatus.STALE,
    ]
    assert await fates(store, user("a", 3, email="new@example.org")) == [WriteStatus.WRITTEN]
    assert await store.get("a") == user("a", 3, email="new@example.org")


async def test_each_document_has_its_own_result(store: ViewStore) -> None:
    await store.bulk_index([user("there")])
    answers = await store.bulk_index(
        [
            user("new"),
            user("unknown field", secret="hidden-value"),
            user("there"),
            user("no date", registeredAt="hidden-value"),
            user("immense", lastName="hidden-value" * 4000),
            user("unsearchable", email="hidden-value" * 100),
            user("x" * 513),
            user(""),
            user("new too"),
        ]
    )
    assert [answer.status for answer in answers] == [
        WriteStatus.WRITTEN,
        WriteStatus.REFUSED,
        WriteStatus.WRITTEN,
        *[WriteStatus.REFUSED] * 5,
        WriteStatus.WRITTEN,
    ]
    reasons = [answer.reason for answer in answers if answer.status is WriteStatus.REFUSED]
    assert "strict_dynamic_mapping_exception" in reasons[0]
    assert "failed to parse field [registeredAt]" in reasons[1]
    assert "failed to parse field [lastName]" in reasons[2]
    assert "at most 1000" in reasons[3]
    assert "1 to 512 bytes" in reasons[4]
    # neither what was in the document nor its bytes, which Elasticsearch would list
    assert not any("hidden" in reason or "104, 105" in reason for reason in reasons)


async def test_many_documents_take_several_requests(settings: Settings, store: ViewStore) -> None:
    # more than fit into one request, by number and by bytes
    few = settings.model_copy(update={"bulk_documents": 100})
    documents = [user(f"u-{n}", lastName="x" * (20_000 if n < 150 else 1)) for n in range(1000)]
    documents[500]["more"] = 1
    async with user_views(few) as cutting:
        answers = await cutting.bulk_index(documents)
    assert [
        place for place, answer in enumerate(answers) if answer.status is WriteStatus.REFUSED
    ] == [500]
    assert [answer.status for answer in answers].count(WriteStatus.WRITTEN) == 999
    await store.refresh()
    assert await store.count() == 999


async def test_without_documents_no_request_is_sent(store: ViewStore) -> None:
    assert await store.bulk_index([]) == []
    assert await store.fetch([]) == {}


async def test_a_block_on_the_index_is_transient(settings: Settings, store: ViewStore) -> None:
    async with connect(settings, timeout=30) as client:
        alias = f"{settings.namespace}user-views"
        await client.indices.put_settings(index=alias, settings={"index.blocks.write": True})
        (answer,) = await store.bulk_index([user("a")])
        assert answer.status is WriteStatus.RETRY
        assert "cluster_block_exception" in answer.reason
        await client.indices.put_settings(index=alias, settings={"index.blocks.write": None})
    assert await fates(store, user("a")) == [WriteStatus.WRITTEN]


# Reading


async def test_a_document_is_read_back_as_it_was_before_any_refresh(store: ViewStore) -> None:
    await store.bulk_index([user("a"), user("b", 7, isActive=False)])
    assert await store.fetch(["a", "missing", "b"]) == {
        "a": user("a"),
        "b": user("b", 7, isActive=False),
    }
    assert await store.get("missing") is None


async def test_any_id_works(store: ViewStore) -> None:
    odd = ["..", ".", "a/b", "*", "a,b", "a b", "%2e", "_mget", "?", "ß😀", "😀" * 128, '"']
    assert await fates(store, *map(user, odd)) == [WriteStatus.WRITTEN] * len(odd)
    for key in odd:
        assert await store.get(key) == user(key)


async def test_a_document_with_an_impossible_id_does_not_exist(store: ViewStore) -> None:
    for key in ("", "x" * 513, "x" * 100_000, "😀" * 129, "\ud800"):
        assert await store.get(key) is None
        assert await fates(store, user(key)) == [WriteStatus.REFUSED]


async def test_a_stand_in_is_only_for_the_projector(store: ViewStore) -> None:
    bad = user("a", 2, registeredAt="no date")
    stand_in = {"id": "a", "version": 2, REFUSED: bad}
    assert await fates(store, stand_in) == [WriteStatus.WRITTEN]
    assert await store.get("a") is None
    assert await store.fetch(["a"]) == {"a": stand_in}
    await store.refresh()
    assert [document async for document in store.scan()] == [stand_in]


async def test_search_continues_after_sort_values(store: ViewStore) -> None:
    await store.bulk_index([user(key) for key in "edcba"])
    await store.refresh()
    everyone: dict[str, Any] = {"match_all": {}}
    first = await store.search(everyone, sort=ORDER, limit=2)
    rest = await store.search(everyone, sort=ORDER, limit=9, after=first[-1].sort_values)
    assert [hit.document["id"] for hit in [*first, *rest]] == list("abcde")
    bare = await store.search(everyone, sort=ORDER, limit=2, sort_values_only=True)
    assert [hit.sort_values for hit in bare] == [hit.sort_values for hit in first]


async def test_scan_yields_every_document_once(store: ViewStore) -> None:
    documents = [user(f"u-{n}") for n in range(2100)]
    await store.bulk_index(documents)
    await store.refresh()
    scanned = [document["id"] async for document in store.scan()]
    assert sorted(scanned) == sorted(document["id"] for document in documents)
    assert await store.count({"term": {"isActive": True}}) == 2100
