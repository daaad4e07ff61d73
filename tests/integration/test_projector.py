"""The projector on the real Elasticsearch: right after every cancellation, outage and refusal."""

import asyncio
import gc
import logging
import random
import tracemalloc
from collections.abc import AsyncIterator, Sequence

import pytest
from aiokafka.errors import KafkaConnectionError

from agents.user_views import USER_VIEWS
from deploy.ephemeral import Servers
from deploy.waiting import wait_until
from models.errors import Fatal, PartitionFatal
from models.events import UserDeactivated, UserEvent, UserProfileUpdated, UserReactivated
from models.user_view import project
from streams.elasticsearch.connection import connect
from streams.elasticsearch.index import REFUSED, Document, in_namespace, writes_alias
from streams.settings import Settings
from streams.views.indices import ViewIndices
from streams.views.projector import Projected, Projector, RefusedEvents, SequenceGap
from streams.views.store import ViewStore
from tests.harness.elasticsearch_proxy import Cut, Fault, FaultProxy, Refuse, Stall
from tests.harness.read_side import Record, none_refused, record, registered, user_views

# A surname that Elasticsearch refuses for good: a keyword may not have more than 32,766 bytes
IMMENSE = "x" * 33_000


@pytest.fixture
async def proxy(stack: Servers) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(stack.elasticsearch_url, random.Random(1)).serving() as proxy:
        yield proxy


@pytest.fixture
async def store(settings: Settings, proxy: FaultProxy) -> AsyncIterator[ViewStore]:
    """Behind the proxy, that every test can break."""
    through = settings.model_copy(update={"elasticsearch_url": proxy.url})
    async with user_views(through) as store:
        yield store


def projector(store: ViewStore, cached: int = 1000) -> Projector[UserEvent]:
    return Projector(store, USER_VIEWS, cached_documents=cached)


def history(user_id: str, *events: UserEvent) -> list[Record]:
    return [record(user_id, place, event) for place, event in enumerate(events, start=1)]


def fold(records: Sequence[Record]) -> dict[str, Document]:
    """What the view has to be: the pure fold of the events."""
    documents: dict[str, Document] = {}
    for one in records:
        documents[one.aggregate_id] = project(documents.get(one.aggregate_id), one)
    return documents


async def stored(store: ViewStore, records: Sequence[Record]) -> dict[str, Document]:
    return await store.fetch({one.aggregate_id for one in records})


ANNA = history("anna", registered("anna@example.org"), UserDeactivated(), UserReactivated())


async def test_a_chunk_becomes_documents(store: ViewStore) -> None:
    bert = history("bert", registered("bert@example.org"))
    chunk = [*ANNA[:2], *bert, *ANNA[2:]]
    assert await projector(store).project(0, chunk, none_refused) == Projected(4, 0, 0)
    assert await stored(store, chunk) == fold(chunk)


async def test_the_next_chunk_uses_documents_in_memory(store: ViewStore, proxy: FaultProxy) -> None:
    projecting = projector(store)
    for one in ANNA:
        assert await projecting.project(0, [one], none_refused) == Projected(1, 0, 0)
    assert await stored(store, ANNA) == fold(ANNA)
    assert proxy.requests["_mget"] == 1  # the line above


async def test_documents_that_are_not_in_memory_are_read_in_one_request(
    store: ViewStore, proxy: FaultProxy
) -> None:
    bert = history("bert", registered("bert@example.org"), UserDeactivated())
    projecting = projector(store)
    await projecting.project(0, [ANNA[0], bert[0]], none_refused)
    projecting.forget(0)
    assert await projecting.project(0, [ANNA[1], bert[1]], none_refused) == Projected(2, 0, 0)
    assert proxy.requests["_mget"] == 1
    assert await stored(store, bert) == fold(bert)


async def test_a_rebuild_reads_nothing_and_a_replay_what_is_later(
    store: ViewStore, proxy: FaultProxy
) -> None:
    projecting = projector(store)
    await projecting.project(0, ANNA, none_refused)
    assert proxy.requests["_mget"] == 0
    projecting.forget(0)
    # Again from the start, into the same index: the later document is read and written again, ...
    assert await projecting.project(0, ANNA[:2], none_refused) == Projected(0, 2, 0)
    # ... and so is the same version, so that all copies of the index have it.
    assert await projecting.project(0, ANNA[2:], none_refused) == Projected(1, 0, 0)
    assert proxy.requests["_mget"] == 1
    assert await stored(store, ANNA) == fold(ANNA)


async def test_events_that_the_view_has_are_skipped(store: ViewStore, proxy: FaultProxy) -> None:
    projecting = projector(store)
    await projecting.project(0, ANNA, none_refused)
    before = proxy.requests.total()
    assert await projecting.project(0, ANNA, none_refused) == Projected(0, 3, 0)
    assert proxy.requests.total() == before
    more = [*ANNA, record("anna", 4, UserDeactivated())]
    assert await projecting.project(0, more, none_refused) == Projected(1, 3, 0)
    assert await stored(store, more) == fold(more)


@pytest.mark.parametrize("known", [0, 1])
async def test_a_gap_stops_the_partition(store: ViewStore, known: int) -> None:
    projecting = projector(store)
    await projecting.project(0, ANNA[:known], none_refused)
    bert = history("bert", registered("bert@example.org"))
    with pytest.raises(
        SequenceGap, match=f"anna at version {known} and the next event is number 3"
    ):
        await projecting.project(0, [*bert, ANNA[2]], none_refused)
    assert await stored(store, bert) == {}
    # and it goes on when the missing events turn up
    await projecting.project(0, [*ANNA, *bert], none_refused)
    assert await stored(store, [*ANNA, *bert]) == fold([*ANNA, *bert])


def random_records(chance: random.Random, users: int, length: int) -> list[Record]:
    """A partition's history: the events of several users, mixed."""
    sequences: dict[str, int] = {}
    records = []
    for number in range(length):
        user_id = f"user-{chance.randrange(users)}"
        sequence = sequences[user_id] = sequences.get(user_id, 0) + 1
        event: UserEvent
        if sequence == 1:
            event = registered(f"{user_id}@example.org")
        elif sequence % 3 == 0:
            event = UserDeactivated() if sequence % 2 else UserReactivated()
        else:
            event = UserProfileUpdated(last_name=f"Name {number}")
        records.append(record(user_id, sequence, event))
    return records


@pytest.mark.parametrize("seed", range(4))
async def test_the_view_is_the_fold_for_any_chunks_and_repeats(store: ViewStore, seed: int) -> None:
    """Chunks of any size, a memory that is too small, other workers, redelivery, cancellation."""
    chance = random.Random(seed)
    records = random_records(chance, users=12, length=300)
    projecting = projector(store, cached=chance.choice((0, 3, 1000)))
    position = 0
    while position < len(records):
        end = position + chance.randint(1, 40)
        task = asyncio.create_task(projecting.project(7, records[position:end], none_refused))
        match chance.randrange(4):
            case 0:  # the partition moves on, somewhere amid the chunk
                for _ in range(chance.randrange(30)):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                projecting.forget(7)
            case 1:  # to a new worker, which begins where the position was committed last
                await task
                projecting = projector(store, cached=chance.choice((0, 3, 1000)))
            case _:
                await task
                position = end
    assert await stored(store, records) == fold(records)


async def is_at_version(store: ViewStore, version: int) -> bool:
    anna = await store.get("anna")
    return anna is not None and anna["version"] == version


@pytest.mark.parametrize("paths", ["_bulk", "_mget"])
@pytest.mark.parametrize("fault", [Stall("before"), Stall("after"), Cut("before")])
@pytest.mark.parametrize("new", [False, True])
async def test_a_chunk_that_was_cancelled_is_projected_correctly_later(
    store: ViewStore, proxy: FaultProxy, paths: str, fault: Fault, new: bool
) -> None:
    projecting = projector(store)
    await projecting.project(0, ANNA[:1], none_refused)
    projecting.forget(0)
    proxy.switch(fault, paths)
    task = asyncio.create_task(projecting.project(0, ANNA[1:], none_refused))
    await wait_until(lambda: proxy.met[fault])
    if fault == Stall("after") and paths == "_bulk":
        # Elasticsearch has done it, and nobody hears of it
        await wait_until(lambda: is_at_version(store, 3))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    proxy.switch(None)  # what was stalled before Elasticsearch goes there now
    if new:
        projecting = projector(store)
    # the next chunk may end elsewhere
    done = [await projecting.project(0, part, none_refused) for part in (ANNA[1:2], ANNA[2:])]
    assert sum(one.written + one.skipped for one in done) == 2
    assert await stored(store, ANNA) == fold(ANNA)
    await projecting.project(0, [record("anna", 4, UserDeactivated())], none_refused)
    assert await is_at_version(store, 4)


@pytest.mark.parametrize(
    "fault", [Refuse(429), Refuse(503), Cut("before"), Cut("response"), Cut("after")]
)
async def test_an_outage_is_waited_for_and_logged_once(
    store: ViewStore,
    proxy: FaultProxy,
    fault: Fault,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "streams.views.projector")
    projecting = projector(store)
    proxy.switch(fault)
    tasks = [
        asyncio.create_task(projecting.project(0, ANNA, none_refused)),
        asyncio.create_task(
            projecting.project(1, history("bert", registered("b@example.org")), none_refused)
        ),
    ]
    await wait_until(lambda: proxy.met[fault] >= 8)
    assert not any(task.done() for task in tasks)
    proxy.switch(None)
    assert [await asyncio.wait_for(task, 30) for task in tasks]
    assert await stored(store, ANNA) == fold(ANNA)
    warnings = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "Projecting waits: Elasticsearch at" in warnings[0].getMessage()
    assert "continues after" in caplog.records[-1].getMessage()


async def test_an_outage_lasts_as_long_as_some_request_waits(
    store: ViewStore, proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "streams.views.projector")
    projecting = projector(store)
    await projecting.project(0, ANNA[:1], none_refused)
    projecting.forget(0)
    proxy.switch(Refuse(503), "_mget")
    reading_back = asyncio.create_task(projecting.project(0, ANNA[1:], none_refused))
    others = 0
    while proxy.met[Refuse(503)] < 5:  # another partition gets through all the while
        others += 1
        await projecting.project(
            1, history(f"bert-{others}", registered("bert@example.org")), none_refused
        )
    proxy.switch(None)
    await reading_back
    first, last = [one.getMessage() for one in caplog.records]
    assert "Projecting waits" in first
    assert "Projecting continues" in last


@pytest.mark.parametrize("fault", [Refuse(503), Cut("before"), Cut("after"), Stall("after")])
async def test_failed_requests_are_not_kept(
    settings: Settings, proxy: FaultProxy, fault: Fault
) -> None:
    """An outage may be long, and a request large: not one of them waits for garbage collection."""
    through = settings.model_copy(update={"elasticsearch_url": proxy.url})
    async with (
        user_views(settings) as store,
        connect(through, timeout=2) as client,
    ):
        impatient = ViewIndices.from_settings(through, client, USER_VIEWS).store(store.name)
        large = [
            record(f"user-{number}", 1, registered("anna@example.org", "x" * 10_000))
            for number in range(300)
        ]
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            proxy.switch(fault)
            task = asyncio.create_task(projector(impatient).project(0, large, none_refused))
            await wait_until(lambda: proxy.met[fault] >= 10)
            proxy.switch(None)
            await asyncio.wait_for(task, 60)
            kept, _ = tracemalloc.get_traced_memory()
            gc.collect()
            needed, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            gc.enable()
    assert kept - needed < 1_000_000  # bytes; less than one request


async def test_a_block_on_the_index_is_waited_for(
    settings: Settings, store: ViewStore, proxy: FaultProxy
) -> None:
    async with connect(settings, timeout=30) as client:
        alias = f"{settings.namespace}user-views"
        await client.indices.put_settings(index=alias, settings={"index.blocks.write": True})
        task = asyncio.create_task(projector(store).project(0, ANNA, none_refused))
        await wait_until(lambda: proxy.requests["_bulk"] >= 3)
        await client.indices.put_settings(index=alias, settings={"index.blocks.write": None})
    assert await asyncio.wait_for(task, 30) == Projected(3, 0, 0)


async def test_a_lost_index_stops_the_projector(settings: Settings, store: ViewStore) -> None:
    async with connect(settings, timeout=30) as client:
        await client.indices.delete(index=f"{settings.namespace}user-views-v1")
    with pytest.raises(Fatal, match="has no index"):
        await projector(store).project(0, ANNA, none_refused)


# What Elasticsearch refuses for good


class Letters(list[tuple[Record, ...]]):
    """The events that were buried, a document's together."""

    async def bury(self, refused: Sequence[RefusedEvents]) -> None:
        self.extend(one.records for one in refused)
        self.reason = refused[-1].reason


RENAMED = [
    record("anna", 1, registered("anna@example.org")),
    record("anna", 2, UserProfileUpdated(last_name=IMMENSE)),
    record("anna", 3, UserDeactivated()),
    record("anna", 4, UserProfileUpdated(last_name="Short")),
    record("anna", 5, UserReactivated()),
]


@pytest.mark.parametrize("remembers", [True, False])
async def test_a_refused_document_is_reported_and_later_events_apply(
    store: ViewStore, remembers: bool
) -> None:
    bert = history("bert", registered("bert@example.org"))
    letters = Letters()
    projecting = projector(store)
    await projecting.project(0, RENAMED[:1], none_refused)

    async def next_chunk(*chunk: Record) -> Projected:
        if not remembers:
            projecting.forget(0)
        return await projecting.project(0, chunk, letters.bury)

    assert await next_chunk(RENAMED[1], *bert) == Projected(1, 0, 1)
    assert letters == [(RENAMED[1],)]
    assert "lastName" in letters.reason
    assert await store.get("anna") is None
    assert await stored(store, bert) == fold(bert)

    # still too long
    assert await next_chunk(RENAMED[2]) == Projected(0, 0, 1)
    assert letters == [(RENAMED[1],), (RENAMED[2],)]
    assert (await store.fetch(["anna"]))["anna"][REFUSED] == fold(RENAMED[:3])["anna"]

    # an event that mends it makes the document complete
    assert await next_chunk(RENAMED[3]) == Projected(1, 0, 0)
    assert await stored(store, RENAMED) == fold(RENAMED[:4])
    assert await next_chunk(RENAMED[4]) == Projected(1, 0, 0)
    assert await stored(store, RENAMED) == fold(RENAMED)
    assert len(letters) == 2


async def test_many_documents_that_are_refused_alike_are_the_reason(store: ViewStore) -> None:
    """What else comes is accepted, so nobody waits for them."""
    immense = [record(f"u-{n}", 1, registered("u@example.org", IMMENSE)) for n in range(12)]
    letters = Letters()
    assert await projector(store).project(0, immense, letters.bury) == Projected(0, 0, 12)
    assert len(letters) == 12
    assert "lastName" in letters.reason
    assert await store.fetch(one["id"] for one in USER_VIEWS.example_documents) == {}
    bert = history("bert", registered("bert@example.org"))
    assert await projector(store).project(0, bert, none_refused) == Projected(1, 0, 0)


async def test_an_index_that_refuses_every_document_is_the_reason(settings: Settings) -> None:
    """Of a single one, too: somebody has made it with a mapping that lacks a field."""
    index = in_namespace(settings, USER_VIEWS.index)
    name = f"{index.alias}-v9"
    lacking = index.mappings()
    del lacking["properties"]["isActive"]
    async with connect(settings, timeout=30) as client:
        await client.indices.create(
            index=name, mappings=lacking, settings=index.settings, aliases={writes_alias(name): {}}
        )
        store = ViewStore(client, index, name=name)
        with pytest.raises(PartitionFatal, match="refuses even the examples .*strict_dynamic"):
            await projector(store).project(0, ANNA[:1], none_refused)
        assert await store.fetch(["anna"]) == {}
        await client.indices.delete(index=name)


async def test_no_stand_in_is_written_before_the_dead_letter(store: ViewStore) -> None:
    """Else whoever comes next would take the events for seen, and nobody would bury them."""
    bert = history("bert", registered("bert@example.org"))
    projecting = projector(store)
    await projecting.project(0, RENAMED[:1], none_refused)

    async def fail(refused: Sequence[RefusedEvents]) -> None:
        raise KafkaConnectionError

    for _ in range(2):  # also by what it remembers
        with pytest.raises(KafkaConnectionError):
            await projecting.project(0, [RENAMED[1], *bert], fail)
        assert await stored(store, RENAMED) == fold(RENAMED[:1])
    letters = Letters()
    # Bert's is written by now, which only Elasticsearch knows: it is written again
    assert await projecting.project(0, [RENAMED[1], *bert], letters.bury) == Projected(1, 0, 1)
    assert letters == [(RENAMED[1],)]
    assert (await store.fetch(["anna"]))["anna"][REFUSED] == fold(RENAMED[:2])["anna"]


async def test_a_registration_may_be_refused(store: ViewStore) -> None:
    unsearchable = history(
        "anna",
        registered("x" * 1001),
        UserDeactivated(),
        UserProfileUpdated(email="anna@example.org"),
    )
    projecting = projector(store)
    letters = Letters()
    assert await projecting.project(0, unsearchable[:2], letters.bury) == Projected(0, 0, 2)
    assert letters == [tuple(unsearchable[:2])]
    projecting.forget(0)
    assert await projecting.project(0, unsearchable[2:], none_refused) == Projected(1, 0, 0)
    assert await stored(store, unsearchable) == fold(unsearchable)


async def test_a_refused_document_never_replaces_a_newer_one(store: ViewStore) -> None:
    await projector(store).project(0, RENAMED, none_refused)
    letters = Letters()
    await projector(store).project(0, RENAMED[:2], letters.bury)
    assert letters == [tuple(RENAMED[:2])]  # once more
    assert await stored(store, RENAMED) == fold(RENAMED)


# The memory


async def test_the_memory_is_bounded_over_all_partitions(store: ViewStore) -> None:
    projecting = projector(store, cached=10)
    for partition in range(3):
        chunk = [
            record(f"user-{partition}-{n}", 1, registered("anna@example.org")) for n in range(8)
        ]
        await projecting.project(partition, chunk, none_refused)
        assert sum(map(len, projecting._caches.values())) <= 10
    last = next(reversed(projecting._caches[2]))
    assert last == "user-2-7"
