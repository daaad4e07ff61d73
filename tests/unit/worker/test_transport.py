"""What is changed of Faust and aiokafka, so that another release of them is noticed here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, cast

import async_timeout
import pytest
from aiokafka.client import ConnectionGroup
from aiokafka.consumer.fetcher import READ_COMMITTED, FetchResult
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.errors import (
    CommitFailedError,
    KafkaError,
    NodeNotReadyError,
    NoError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.producer.sender import AddPartitionsToTxnHandler
from aiokafka.protocol.group import HeartbeatRequest, HeartbeatRequest_v1, HeartbeatResponse_v1
from aiokafka.structs import TopicPartition
from faust.transport.consumer import Fetcher
from faust.types import TP

from deploy.waiting import wait_until
from models.errors import Fatal
from streams.kafka import aiokafka_patches
from streams.kafka import clients as kafka
from streams.kafka.batches import BoundedRecords
from streams.kafka.records import Record
from streams.kafka.transactions import Batches, OutputRecord
from streams.settings import Settings
from streams.worker import fetcher
from streams.worker.chunks import MAX_CHUNK_BYTES, Chunk
from streams.worker.transport import ChunkConsumer, RebalanceHook

ONE, TWO = TP("things", 0), TP("things", 1)

CONCURRENT_TRANSACTIONS = 51


class FakeThread:
    """Takes what is committed, unless it is told to refuse."""

    def __init__(self) -> None:
        self.committed: list[dict[TP, int]] = []
        self.refuses = False

    async def commit_positions(self, positions: Mapping[TP, int]) -> None:
        if self.refuses:
            raise CommitFailedError
        self.committed.append(dict(positions))


class Positions(ChunkConsumer):
    """A consumer without Faust around it: what `commit` needs."""

    def __init__(self, positions: dict[TP, int]) -> None:
        self.now = positions
        self.thread = FakeThread()
        self._thread = cast(Any, self.thread)
        self._committed = {}
        self.app = cast(
            Any,
            SimpleNamespace(
                rebalancing=False, partitions=SimpleNamespace(positions=lambda: self.now)
            ),
        )
        self.log = cast(Any, SimpleNamespace(info=lambda *_, **__: None))

    def assignment(self) -> set[TP]:
        return {ONE, TWO}


class Full(ChunkConsumer):
    """A consumer without Faust around it, of which no partition wants more chunks by now."""

    def __init__(self) -> None:
        self.flow_active = True
        self._active_partitions: set[TP] = set()
        self._paused_partitions = {ONE, TWO}
        self._resumed = asyncio.Event()
        self.app = cast(
            Any, SimpleNamespace(partitions=SimpleNamespace(is_ready=lambda tp: tp == ONE))
        )

    async def wait(self, *events: Any, timeout: Any = None) -> Any:
        """As long as it takes: here no time is ever over."""
        await events[0].wait()


async def test_a_resumed_partition_wakes_the_waiting_reader() -> None:
    """It would starve for a quarter of a second, with chunks that were fetched."""
    consumer = Full()
    reading = asyncio.ensure_future(anext(consumer.getmany(1), None))
    await asyncio.sleep(0)
    assert not reading.done()
    consumer.resume_partitions({ONE, TWO})
    await asyncio.wait_for(reading, 5)
    assert consumer.active_partitions == {ONE}


class Rebalancing(ChunkConsumer):
    """A consumer without Faust around it; a rebalance stops its flow while a read is under way."""

    def __init__(self, chunk: Chunk) -> None:
        self.flow_active = True
        self._active_partitions = {ONE}
        self._paused_partitions = set()
        self._thread = cast(Any, SimpleNamespace(getmany=self._fetch))
        self._chunk = chunk
        self.app = cast(Any, SimpleNamespace(consumer_generation_id=1))

    @property
    def should_stop(self) -> bool:
        return False

    async def _fetch(self, *_: Any) -> list[Chunk]:
        self.flow_active = False
        return [self._chunk]


async def test_what_is_read_during_a_rebalance_is_passed_on() -> None:
    """The rebalance may have sought before it was read, so it would not be read again."""
    chunk = Chunk(ONE, [Record(*ONE, 0, 1_763_899_200_123, None, b"{}", ())], 0, 1)
    passed: list[object] = [message.value async for _, message in Rebalancing(chunk).getmany(1)]
    assert passed == [chunk]


class Leaderless:
    """A client of brokers of which none leads a partition; aiokafka asks for as long as it may."""

    def __init__(self) -> None:
        self.asking = self.rejoined = 0
        self._coordinator = self

    async def beginning_offsets(self, _: object) -> None:
        self.asking += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.asking -= 1

    def request_rejoin(self) -> None:
        self.rejoined += 1


class Calls(fetcher.ChunkConsumerThread):
    """A consumer's thread without Faust around it: what calls into it need."""

    def __init__(self, client: Leaderless | Group) -> None:
        self.client = client
        self.thread_loop = asyncio.get_running_loop()

    def _ensure_consumer(self) -> Any:
        return self.client


async def test_partitions_without_a_leader_hold_up_no_other() -> None:
    """Faust's queue has room for two calls. Those that nobody waits for any longer end."""
    client = Leaderless()
    thread = Calls(client)
    asking = [asyncio.ensure_future(thread.log_bounds(TP("things", one))) for one in range(3)]
    async with async_timeout.timeout(30):
        await wait_until(lambda: client.asking == 3)
        await thread.rejoin()
        await thread.call_thread(client.request_rejoin)  # Faust also passes plain functions
        assert client.rejoined == 2
        for one in asking:
            one.cancel()
        await wait_until(lambda: client.asking == 0)


class Group:
    """A consumer of a group, and the client that reaches its coordinator."""

    def __init__(self) -> None:
        self._coordinator = self._client = self
        self._subscription = SubscriptionState()
        self._subscription.subscribe({"things"})
        self._subscription.assign_from_subscribed({TopicPartition(*ONE)})
        self.group_id, self.generation, self.member_id = "workers", 7, "me"
        self.coordinator_id: int | None = 3
        self.error: type[KafkaError] = NoError
        self.answers = True
        self.heartbeats: list[tuple[int, object]] = []

    async def send(self, node: int, request: HeartbeatRequest, *, group: ConnectionGroup) -> Any:
        assert group is ConnectionGroup.COORDINATION
        self.heartbeats.append((node, request.build(HeartbeatRequest_v1)))
        if not self.answers:
            raise NodeNotReadyError
        return HeartbeatResponse_v1(throttle_time_ms=0, error_code=self.error.errno)


async def test_the_coordinator_confirms_who_owns_a_partition(
    caplog: pytest.LogCaptureFixture,
) -> None:
    group = Group()
    await Calls(group).until_owned(ONE)
    assert group.heartbeats == [(3, HeartbeatRequest_v1("workers", 7, "me"))]
    assert caplog.messages == []


def evicted(group: Group) -> None:
    group.error = UnknownMemberIdError


def rebalancing(group: Group) -> None:
    group.error = RebalanceInProgressError


def joining(group: Group) -> None:
    group._subscription.begin_reassignment()


def without_it(group: Group) -> None:
    group._subscription.assign_from_subscribed({TopicPartition(*TWO)})


def coordinator_unknown(group: Group) -> None:
    group.coordinator_id = None


def coordinator_silent(group: Group) -> None:
    group.answers = False


@pytest.mark.parametrize(
    "change",
    [evicted, rebalancing, joining, without_it, coordinator_unknown, coordinator_silent],
)
async def test_who_owns_a_partition_is_waited_for_and_said_once(
    change: Callable[[Group], None],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is changed by that: what follows from an answer is left to aiokafka."""
    slept = asyncio.Event()

    async def sleep(_: float, sleep: Any = asyncio.sleep) -> None:
        slept.set()
        await sleep(0)

    monkeypatch.setattr(fetcher, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": sleep}))
    group = Group()
    change(group)
    waiting = asyncio.ensure_future(Calls(group).until_owned(ONE))
    for _ in range(3):
        slept.clear()
        await asyncio.wait_for(slept.wait(), 10)
    assert not waiting.done()
    assert caplog.messages == [
        "things[0]: starts again when the group's coordinator confirms that this worker still "
        "owns it"
    ]
    group.coordinator_id, group.error, group.answers = 3, NoError, True
    group._subscription.assign_from_subscribed({TopicPartition(*ONE)})
    await asyncio.wait_for(waiting, 10)


async def test_only_positions_that_have_changed_are_committed() -> None:
    consumer = Positions({ONE: 5, TWO: 7})
    await consumer.commit()
    await consumer.commit()
    consumer.now = {ONE: 5, TWO: 9}
    await consumer.commit()
    assert consumer.thread.committed == [{ONE: 5, TWO: 7}, {TWO: 9}]


async def test_a_refused_commit_is_left_to_the_next_one() -> None:
    consumer = Positions({ONE: 5})
    consumer.thread.refuses = True
    assert not await consumer.commit()
    consumer.thread.refuses = False
    assert await consumer.commit()
    assert consumer.thread.committed == [{ONE: 5}]


async def test_nothing_is_committed_during_a_rebalance_or_for_lost_partitions() -> None:
    consumer = Positions({ONE: 5, TP("things", 2): 3})
    cast(Any, consumer.app).rebalancing = True
    await consumer.commit()
    assert consumer.thread.committed == []
    cast(Any, consumer.app).rebalancing = False
    await consumer.commit()
    assert consumer.thread.committed == [{ONE: 5}]


async def test_partitions_that_were_added_stop_the_worker_before_any_is_taken_over() -> None:
    taken_over: list[set[TP]] = []
    failures: list[Fatal] = []

    async def assign(assigned: set[TP]) -> None:
        taken_over.append(assigned)

    host = SimpleNamespace(
        settings=Settings(partitions=2),
        partitions=SimpleNamespace(assign=assign),
        consumer_generation_id=1,
        fail=failures.append,
    )
    hook = cast(Any, SimpleNamespace(_host=host))
    await RebalanceHook.on_rebalance(hook, {ONE, TP("things", 1)}, set(), set())
    assert (taken_over, failures) == ([{ONE, TP("things", 1)}], [])
    await RebalanceHook.on_rebalance(hook, {ONE, TP("things", 2)}, set(), set())
    assert len(taken_over) == 1
    [failure] = failures
    assert str(failure).startswith(
        "topic things has more than 2 partitions, CQRS_PARTITIONS says 2"
    )


def test_a_transaction_waits_no_longer_than_its_predecessors_markers_take() -> None:
    """aiokafka has 20 ms in its source, and keeps them for everybody else's producers."""
    sender = SimpleNamespace(
        _retry_backoff=kafka.RETRY_BACKOFF_MS / 1000,
        _txn_manager=SimpleNamespace(txn_partitions=set()),
    )
    refusal = SimpleNamespace(errors=[("things", [(0, CONCURRENT_TRANSACTIONS)])])
    ours = aiokafka_patches._AddPartitionsToTxnHandler(sender, set())
    assert ours.handle_response(refusal) == 0.002
    assert AddPartitionsToTxnHandler(sender, set()).handle_response(refusal) == 0.02


@pytest.mark.parametrize("stopped", ["consumer", "fetcher"])
async def test_faust_reads_by_the_loop_that_is_replaced(stopped: str) -> None:
    """Its fetcher awaits `_drain_messages`, which ends when either of them is stopped."""
    calls: list[Any] = []

    async def drain(fetcher: Any) -> None:
        calls.append(fetcher)

    app = SimpleNamespace(consumer=SimpleNamespace(_drain_messages=drain))
    fetcher = cast(Any, SimpleNamespace(app=app, set_shutdown=lambda: None))
    await Fetcher._fetcher.fun(fetcher)
    assert calls == [fetcher]
    consumer = cast(Any, SimpleNamespace(should_stop=stopped == "consumer", app=app))
    await ChunkConsumer._drain_messages(
        consumer, cast(Any, SimpleNamespace(should_stop=stopped == "fetcher"))
    )


@pytest.mark.parametrize("amount", [0, 1, 9])
def test_what_is_put_into_batches_is_what_is_fetched(amount: int) -> None:
    """In order, with and without keys, values and headers, also what is larger than a batch."""
    outputs = [
        *(OutputRecord(b"%d" % number, bytes(number * 60)) for number in range(amount)),
        OutputRecord(None, bytes(5000), [("a", b"b"), ("a", None)]),
        OutputRecord(b"gone", None),
    ]
    few = Batches(new_batch, outputs[:3])
    few.extend(outputs[3:])
    batches = few.close()
    assert sum(batch.record_count() for batch in batches) == len(outputs)
    fetched = [record for batch in batches for record in fetch(batch)]
    assert [OutputRecord(one.key, one.value, [*one.headers]) for one in fetched] == [
        OutputRecord(one.key, one.value, [*one.headers]) for one in outputs
    ]
    assert {type(one) for one in fetched} == {Record}
    assert {(one.topic, one.partition) for one in fetched} == {ONE}
    assert all(one.timestamp > 1_700_000_000_000 for one in fetched)


def test_no_records_make_no_batch() -> None:
    assert Batches(new_batch, []).close() == []


def new_batch() -> BatchBuilder:
    return BatchBuilder(1000, 0, is_transactional=1)


def test_headers_count_in_what_a_chunk_takes() -> None:
    """Batches of the same headers compress to next to nothing."""
    batch = BatchBuilder(1 << 30, 0, is_transactional=1)
    for _ in range(300):
        batch.append(timestamp=None, key=b"k", value=b"v", headers=[("name", bytes(1 << 16))])
    assert len(fetch(batch)) == MAX_CHUNK_BYTES >> 16


def fetch(batch: BatchBuilder) -> list[Record]:
    """What the consumer takes out of a fetch of this batch."""
    tp = TopicPartition(*ONE)
    position = SimpleNamespace(paused=False, position=0)
    position.consumed_to = lambda offset: setattr(position, "position", offset)
    assignment = SimpleNamespace(active=True, state_value=lambda _: position)
    records = aiokafka_patches._PartitionRecords(
        tp, BoundedRecords(bytes(batch._build())), [], 0, None, None, True, READ_COMMITTED
    )
    result = FetchResult(tp, assignment=assignment, partition_records=records, backoff=0)
    fetched = list(fetcher._take(result, None))
    assert [one.offset for one in fetched] == list(range(position.position))
    return fetched
