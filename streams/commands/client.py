"""The client's command bus: sends a command to its topic and waits for the reply.

It has the same interface as the bus in the worker; here every handler is "send, then wait". The
consumer of the outcomes is at the end of their topic before anything is sent, so it misses none.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from itertools import chain
from typing import Any, NamedTuple
from uuid import UUID

import async_timeout
import orjson
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from typing_extensions import Self

from models.errors import InvalidCommand, OutcomeTimeout, PartitionFatal, Poison, Transient
from models.messages import Command, to_wire
from models.outcomes import Outcome, parse_outcome
from streams import metrics, tracing
from streams.aggregate import Aggregate, TopicNames
from streams.buses import CommandBus
from streams.commands.control import Control, encode_control
from streams.concurrency import cancel
from streams.kafka import rights
from streams.kafka.clients import new_consumer, started
from streams.kafka.lasting_producer import LastingProducer
from streams.kafka.partitioner import partition_of
from streams.kafka.records import Record
from streams.kafka.topics import COMMAND_BYTES, check_topics, partitions_of, topic_specs
from streams.kafka.transactions import OutputRecord
from streams.logs import about, name_of
from streams.settings import Settings

logger = logging.getLogger(__name__)

_CLOSED = (
    "this command bus was closed: open one, and send the command again with the same command id"
)
_READ_BACKOFF_S = 1.0  # after Kafka failed while outcomes were read


def encode_command(command: Command) -> tuple[bytes, bytes]:
    """Return key and value of a command's record.

    Raises:
        InvalidCommand: the record is too large for the command topic.
    """
    key, value = command.aggregate_id.encode(), orjson.dumps(to_wire(command))
    check_size(key, value)
    return key, value


def check_size(key: bytes, value: bytes) -> None:
    """Check that the command topic takes a record of this size.

    Raises:
        InvalidCommand: it is too large.
    """
    # The limit is for the batch around the record; at best the record is alone in it.
    size = DefaultRecordBatchBuilder.estimate_size_in_bytes(key, value, [])
    if size > COMMAND_BYTES:
        raise InvalidCommand(
            [f"a command may take {COMMAND_BYTES} bytes with its envelope, this one takes {size}"]
        )


class _PendingCommand(NamedTuple):
    """A command whose outcome is awaited."""

    command_id: UUID
    outcome: asyncio.Future[Outcome]


class KafkaCommandBus(CommandBus[Outcome]):
    """A bus for the commands of one aggregate, through Kafka; an async context manager.

    `dispatch` returns the outcome, also a rejection. Any number of commands may be dispatched at
    the same time. A command that is sent again with the same id, by any client, is decided once
    (within its aggregate's dedupe window): its outcome is a `Duplicate` with the first reply.
    """

    def __init__(
        self,
        settings: Settings,
        aggregate: Aggregate[Any],
        *,
        check: Callable[[Command], None] = lambda _command: None,
    ) -> None:
        """Create the bus with a handler for every command of `aggregate`.

        Args:
            settings: with the address of Kafka and `outcome_timeout`.
            aggregate: whose commands these are.
            check: called with each command before it is sent; may raise InvalidCommand.
        """
        super().__init__()
        self._settings = settings
        self._names = TopicNames.of(settings, aggregate.name)
        self._check = check
        # By record key, in the order in which they were sent.
        self._pending: dict[bytes, list[_PendingCommand]] = defaultdict(list)
        for command_type in aggregate.commands.values():
            self.register(command_type, self._send)

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            Fatal: Kafka does not respond, or the topics are missing or differ.
        """
        if self._settings.tracing:
            tracing.enable()
        wanted = (self._names.commands, self._names.outcomes)
        specs = [spec for spec in topic_specs(self._settings, self._names) if spec.name in wanted]
        await check_topics(self._settings, specs, rights.client(self._names))
        async with AsyncExitStack() as resources:
            self._producer = await resources.enter_async_context(LastingProducer(self._settings))
            reader = await resources.enter_async_context(
                started(new_consumer(self._settings), self._settings)
            )
            reader.assign(partitions_of(self._settings, self._names.outcomes))
            await _go_to_end(reader)
            self._reading = asyncio.create_task(self._read(reader))
            resources.push_async_callback(self._stop_reading)
            self._resources = resources.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Disconnect. Commands that are being sent are sent; who awaits their outcomes fails."""
        await self._resources.aclose()

    async def _send(self, command: Command) -> Outcome:
        """Send a command, wait for its outcome, and note how long that took; see `_dispatch`."""
        began = time.perf_counter()
        result = "failed"
        try:
            outcome = await self._dispatch(command)
            result = outcome.status
        except OutcomeTimeout:
            result = "timeout"
            raise
        except InvalidCommand:
            result = "invalid"
            raise
        finally:
            metrics.DISPATCH_SECONDS.labels(result).observe(time.perf_counter() - began)
        return outcome

    async def _dispatch(self, command: Command) -> Outcome:
        """Send a command and wait for its outcome: the handler of every command.

        Raises:
            InvalidCommand: it breaks a rule; nothing was sent.
            OutcomeTimeout: no outcome came in time; it may have been sent and decided.
            Transient: Kafka failed; whether it took the command is not known.
        """
        self._check(command)
        key, value = encode_command(command)
        return await self._exchange(command.id, OutputRecord(key, value))

    async def dispatch_control(self, control: Control, key: bytes) -> Outcome:
        """Send a control record, signed with the control key, and wait for its outcome.

        Raises:
            OutcomeTimeout, Transient: as `dispatch`; sending it again does no harm.
        """
        signed = encode_control(control, self._names.commands, key)
        return await self._exchange(control.id, signed)

    async def _exchange(self, id_: UUID, record: OutputRecord) -> Outcome:
        """Send a record and wait for the first outcome of the command or control with this id."""
        assert record.key is not None, "it has the key of its aggregate"
        pending = _PendingCommand(id_, asyncio.get_running_loop().create_future())
        self._pending[record.key].append(pending)
        try:
            async with async_timeout.timeout(self._settings.outcome_timeout):
                if self._reading.cancelled():
                    raise Transient(_CLOSED)
                if self._reading.done():
                    self._reading.result()  # raises what ended it
                with tracing.sending(self._names.commands) as headers:
                    async with self._producer.use() as producer:
                        await producer.send_and_wait(
                            self._names.commands,
                            record.value,
                            record.key,
                            partition=partition_of(record.key, self._settings.partitions),
                            headers=[*record.headers, *headers],
                        )
                return await pending.outcome
        except asyncio.TimeoutError:
            raise OutcomeTimeout(
                f"No outcome of command {id_} came in {self._settings.outcome_timeout:g} s. "
                "It may still be decided: send it again with the same command id. "
                "Is a command worker running? Does another producer hold a transaction open on the "
                "topic?"
            ) from None
        except KafkaError as error:
            raise Transient(
                f"Kafka did not take command {id_} ({type(error).__name__}): "
                "send it again with the same command id"
            ) from error
        finally:
            self._pending[record.key].remove(pending)
            if not self._pending[record.key]:
                del self._pending[record.key]

    async def _read(self, reader: AIOKafkaConsumer) -> None:
        """Deliver outcomes as they come. When Kafka fails, those who wait now get a Transient."""
        while True:
            try:
                found = await reader.getmany(timeout_ms=1000)
            except (KafkaError, PartitionFatal) as error:
                why = type(error).__name__
                if isinstance(error, PartitionFatal):  # behind the damage are outcomes again
                    why = str(error)
                    with suppress(KafkaError):
                        await _go_to_end(reader)
                self._fail_pending(
                    Transient(
                        f"Kafka failed while outcomes were read ({why}): send the command again "
                        "with the same command id"
                    )
                )
                await asyncio.sleep(_READ_BACKOFF_S)
                continue
            for record in chain.from_iterable(found.values()):
                self._deliver(record)

    def _fail_pending(self, error: Transient) -> None:
        for pending in chain.from_iterable(self._pending.values()):
            if not pending.outcome.done():
                pending.outcome.set_exception(error)

    def _deliver(self, record: Record) -> None:
        """Resolve the first pending command that an outcome is for; most are for other clients.

        What is no outcome is passed over: it may be somebody's record, or a newer worker's.
        """
        if record.key not in self._pending:
            return
        try:
            outcome = parse_outcome(record.value or b"")
        except Poison as poison:
            logger.warning(
                "%s offset %d is %s",
                name_of(record),
                record.offset,
                poison,
                extra=about("record-left-out", record, offset=record.offset),
            )
            return
        for pending in self._pending[record.key]:
            if outcome.command_id == pending.command_id and not pending.outcome.done():
                pending.outcome.set_result(outcome)
                return

    async def _stop_reading(self) -> None:
        await cancel(self._reading)
        self._fail_pending(Transient(_CLOSED))


async def _go_to_end(reader: AIOKafkaConsumer) -> None:
    for partition, end in (await reader.end_offsets(reader.assignment())).items():
        reader.seek(partition, end)
