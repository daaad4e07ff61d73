"""One Kafka transaction per chunk, of a producer that belongs to one input partition.

The transactional id is ``{app id}-{input topic}-{partition}``. Starting the producer fences any
earlier owner of the partition and finishes or aborts what that one left open.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TypeVar

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import InvalidProducerEpoch, KafkaError, ProducerFenced
from aiokafka.producer.message_accumulator import BatchBuilder
from faust.types import TP

from models.errors import Transient
from streams.kafka.clients import RETRY_BACKOFF_MS, new_producer, stop
from streams.settings import Settings

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Seconds for an abort. What is left behind the next owner ends, or the transaction's timeout.
_ABORT_TIMEOUT = 1.0


class Fenced(Exception):  # noqa: N818 - named as Kafka names it
    """The partition's transactional id has a newer owner, or its transaction took too long."""


class OutputRecord(msgspec.Struct, frozen=True, gc=False):
    """A record to write, in the partition of the input."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()


class Batches:
    """Records for one topic, put into the producer's batches as they come."""

    def __init__(
        self, new_batch: Callable[[], BatchBuilder], records: Iterable[OutputRecord]
    ) -> None:
        self._new_batch = new_batch
        self._full: list[BatchBuilder] = []
        self._begin()
        self.extend(records)

    def extend(self, records: Iterable[OutputRecord]) -> None:
        """Add these records."""
        for record in records:
            while not self._append(self._taken, None, record.key, record.value, [*record.headers]):
                self._close()
                self._begin()
            self._taken += 1

    def close(self) -> Sequence[BatchBuilder]:
        """All batches, in order, ready to be sent. Nothing can be added after it."""
        if self._taken:
            self._close()
        return self._full

    def _begin(self) -> None:
        self._open = self._new_batch()
        # Not `BatchBuilder.append`, which takes twice as long as the builder of aiokafka's that it
        # calls: 3% of a command. This gives None where there is no room, but takes any first one.
        self._append = self._open._builder.append
        self._taken = 0

    def _close(self) -> None:
        self._open._relative_offset = self._taken
        self._open.close()
        self._full.append(self._open)


class TransactionalProducer:
    """Writes the outputs of one input partition."""

    def __init__(self, settings: Settings, group: str, tp: TP) -> None:
        self._settings = settings
        self._group = group
        self._tp = tp
        self._producer: AIOKafkaProducer | None = None

    async def start(self) -> None:
        """Fence earlier owners; after this returns, nothing of theirs is open any more.

        Raises:
            KafkaError, Transient: it failed, or took longer than a transaction may.
        """
        await self.close()
        self._producer = new_producer(
            self._settings,
            transactional_id=f"{self._group}-{self._tp.topic}-{self._tp.partition}",
            transaction_timeout_ms=int(self._settings.transaction_timeout * 1000),
            retry_backoff_ms=RETRY_BACKOFF_MS,
        )
        await self._in_time(self._producer.start(), "fencing")

    def batches(self, records: Iterable[OutputRecord] = ()) -> Batches:
        """Batches for `commit`, with these records in them."""
        assert self._producer is not None, "start first"
        return Batches(self._producer.create_batch, records)

    async def commit(self, outputs: Mapping[str, Batches]) -> Mapping[str, int]:
        """Write all outputs (by topic), or nothing.

        The position in the input belongs to the outputs. The group's offset is no part of it: that
        would be two of five requests, for tools that show the lag (`ChunkConsumer.commit`).

        Returns the offset of the first record of each topic that has any.

        Raises:
            Fenced: a newer owner exists, or the broker has given the transaction up.
            KafkaError, Transient: it failed, or whether it was committed is not known. `start`
                again, and read from the log what holds.
        """
        assert self._producer is not None, "start first"
        try:
            return await self._in_time(self._commit(self._producer, outputs), "committing")
        except (ProducerFenced, InvalidProducerEpoch) as error:
            raise Fenced from error

    async def _in_time(self, work: Awaitable[T], what: str) -> T:
        """The broker gives a transaction up after its time; aiokafka may wait for ever, silently.

        Raises:
            Transient: the time of a transaction is over.
        """
        timeout = self._settings.transaction_timeout
        try:
            return await asyncio.wait_for(work, timeout)
        except asyncio.TimeoutError:
            raise Transient(f"{what} took longer than the {timeout:g} s of a transaction") from None

    async def _commit(
        self, producer: AIOKafkaProducer, outputs: Mapping[str, Batches]
    ) -> Mapping[str, int]:
        await producer.begin_transaction()
        acknowledgements = [
            await producer.send_batch(batch, topic, partition=self._tp.partition)
            for topic, batches in outputs.items()
            for batch in batches.close()
        ]
        written = await asyncio.gather(*acknowledgements)
        await producer.commit_transaction()
        # A batch's offset is that of its first record; the first batch of a topic counts.
        return {batch.topic: batch.offset for batch in reversed(written)}

    async def close(self) -> None:
        """Give the producer up; an open transaction is aborted as soon as anyone notices."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        try:
            if producer._txn_manager.is_in_transaction():
                await asyncio.wait_for(producer.abort_transaction(), _ABORT_TIMEOUT)
        except (KafkaError, asyncio.TimeoutError) as error:
            logger.info("%s: an open transaction was left behind: %r", self._tp, error)
        finally:
            with suppress(KafkaError):
                await stop(producer)
