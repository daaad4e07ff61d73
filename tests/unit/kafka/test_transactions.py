"""What is raised when a transaction ends before all of it was sent."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.errors import (
    IllegalOperation,
    KafkaConnectionError,
    KafkaError,
    NoError,
    ProducerFenced,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
from aiokafka.producer.transaction_manager import TransactionManager
from faust.types import TP

from models.errors import Transient
from streams.kafka import transactions
from streams.kafka.transactions import Fenced, OtherTopic, TransactionalProducer
from streams.settings import Settings


class Full:
    """Takes the place of `Batches`."""

    def close(self) -> Sequence[bytes]:
        return [b"batch"]


class Ended:
    """A producer whose transaction ends with an error while the batches are handed to it."""

    def __init__(self, error: KafkaError | None) -> None:
        self._txn_manager = TransactionManager("id", 1000)
        self._txn_manager.set_pid_and_epoch(1, 1)
        self._error = error

    async def begin_transaction(self) -> None:
        self._txn_manager.begin_transaction()

    async def send_batch(self, *_: object, **__: object) -> None:
        if self._error is not None:
            self._txn_manager.fatal_error(self._error)
        raise IllegalOperation("Can't send messages while not in transaction")


async def commit(error: KafkaError | None) -> None:
    producer = TransactionalProducer(Settings(), "app", TP("things", 0))
    producer._producer = cast("Any", Ended(error))
    await producer.commit({"things": cast("Any", Full())})


@pytest.mark.parametrize(
    ("error", "raised"),
    [(ProducerFenced(), Fenced), (KafkaError("gone"), KafkaError)],
)
async def test_what_ended_the_transaction_is_raised(
    error: KafkaError, raised: type[Exception]
) -> None:
    """aiokafka refuses the rest of it with an error of its own, which says nothing."""
    with pytest.raises(raised):
        await commit(error)


async def test_an_operation_outside_of_a_transaction_is_a_defect() -> None:
    with pytest.raises(IllegalOperation):
        await commit(None)


async def test_an_error_that_an_operator_has_to_mend_stays_what_it_is() -> None:
    with pytest.raises(TopicAuthorizationFailedError):
        await commit(TopicAuthorizationFailedError("things"))


async def test_a_second_failure_of_a_transaction_is_no_line_of_asyncio(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def stop(_: object) -> None:
        pass

    logged: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context))
    monkeypatch.setattr(transactions, "stop", stop)
    ended = Ended(ProducerFenced())
    producer = TransactionalProducer(Settings(), "app", TP("things", 0))
    producer._producer = cast("Any", ended)
    with pytest.raises(Fenced):
        await producer.commit({"things": cast("Any", Full())})
    ended._txn_manager.fatal_error(ProducerFenced())
    await producer.close()
    del ended
    gc.collect()
    assert not logged


def answer(id_: int, error: type[KafkaError] = NoError) -> SimpleNamespace:
    """A broker's response to the question for the id of the input topic."""
    return SimpleNamespace(topics=[(error.errno, "input", (0, id_), False, [], 0, {})])


class Working:
    """A producer whose transactions succeed; its broker answers one thing after the other.

    It is also its client, and that one's view of the cluster.
    """

    def __init__(self, answers: Iterator[Any], leaders: dict[str, int]) -> None:
        self.client = self.cluster = self
        self.committed = False
        self._answers = answers
        self._leaders = leaders
        self._txn_manager = TransactionManager("id", 1000)
        self._txn_manager.set_pid_and_epoch(1, 1)

    async def begin_transaction(self) -> None:
        self._txn_manager.begin_transaction()

    async def send_batch(self, _: object, topic: str, **__: object) -> asyncio.Future[Any]:
        acknowledged = asyncio.get_running_loop().create_future()
        acknowledged.set_result(SimpleNamespace(topic=topic, offset=7))
        return acknowledged

    async def commit_transaction(self) -> None:
        self.committed = True

    def leader_for_partition(self, tp: Any) -> int | None:
        return self._leaders.get(tp.topic)

    async def send(self, node: int, _: object) -> Any:
        assert node == 5
        answered = next(self._answers)
        if isinstance(answered, KafkaError):
            raise answered
        return answered


async def commit_of(id_: int, *answers: Any, **checks: Any) -> Working:
    """Commit what was made of the topic with this id; return the producer."""
    working = Working(iter(answers), {"unknown": -1, "known": 5})
    producer = TransactionalProducer(Settings(), "app", TP("input", 0))
    producer._producer = cast("Any", working)
    outputs = dict.fromkeys(("unheard", "unknown", "known"), cast("Any", Full()))
    written = await producer.commit(outputs, of_topic=f"{id_:032x}", **checks)
    assert written == dict.fromkeys(outputs, 7)
    return working


async def test_what_was_made_of_this_topic_is_committed() -> None:
    assert (await commit_of(1, answer(1))).committed


async def test_what_was_made_of_another_topic_of_the_same_name_is_not_committed() -> None:
    with pytest.raises(OtherTopic, match=f"{2:032x}"):
        await commit_of(1, answer(2))


@pytest.mark.parametrize("end", [0, 6, 7])
async def test_an_output_that_continues_at_its_end_is_committed(end: int) -> None:
    """Markers of transactions, and aborted ones, are between the end and what is written."""
    assert (await commit_of(1, answer(1), ends={"known": end})).committed


async def test_an_output_that_was_created_again_is_not_committed() -> None:
    """Its offsets begin again: it is no longer the one that the end is of."""
    with pytest.raises(
        Transient, match=r"known\[0\] continued at offset 7 after 8: .* created again"
    ):
        await commit_of(1, answer(1), ends={"unheard": 7, "known": 8})


async def test_a_broker_that_cannot_answer_yet_is_asked_again() -> None:
    unknown = answer(0, UnknownTopicOrPartitionError)
    assert (await commit_of(1, KafkaConnectionError(), unknown, answer(1))).committed


async def test_a_broker_that_refuses_to_answer_is_not_asked_again() -> None:
    with pytest.raises(TopicAuthorizationFailedError):
        await commit_of(1, answer(0, TopicAuthorizationFailedError))


class HalfSent(Ended):
    """A producer whose transaction ends after one batch, which fails as well."""

    def __init__(self) -> None:
        super().__init__(ProducerFenced())
        self.acknowledgements: list[asyncio.Future[None]] = []

    async def send_batch(self, *_: object, **__: object) -> Any:
        if self.acknowledgements:
            await super().send_batch()
        self.acknowledgements.append(asyncio.get_running_loop().create_future())
        return self.acknowledgements[-1]


async def test_nobody_is_told_of_the_other_batches_of_a_failed_transaction() -> None:
    """asyncio logs each exception that nobody has retrieved."""
    logged: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: logged.append(context))
    half_sent = HalfSent()
    producer = TransactionalProducer(Settings(), "app", TP("things", 0))
    producer._producer = cast("Any", half_sent)
    with pytest.raises(Fenced):
        await producer.commit({"things": cast("Any", Full()), "others": cast("Any", Full())})
    half_sent.acknowledgements.pop().set_exception(ProducerFenced())
    await asyncio.sleep(0)
    gc.collect()
    assert logged == []


async def test_a_cancellation_is_not_lost_when_the_fencing_succeeds_in_that_moment() -> None:
    """`asyncio.wait_for` of Python 3.10 and 3.11 loses it: a partition that moved would start."""
    fenced = asyncio.get_running_loop().create_future()
    producer = TransactionalProducer(Settings(), "app", TP("things", 0))
    starting = asyncio.ensure_future(producer._in_time(fenced, "fencing"))
    await asyncio.sleep(0)
    fenced.set_result(None)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
