"""One Kafka transaction per chunk, by a producer that belongs to one input partition.

The transactional id is ``{app id}-{input topic}-{partition}``. Starting the producer fences any
earlier owner of the partition and ends the transaction that it left open.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import TypeVar

import async_timeout
import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    InvalidProducerEpoch,
    KafkaError,
    LeaderNotAvailableError,
    ProducerFenced,
)
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.structs import TopicPartition
from faust.types import TP

from models.errors import Transient
from streams import metrics
from streams.concurrency import retrieve
from streams.kafka.aiokafka_patches import end_transactions_once, retry_ever_more_slowly
from streams.kafka.clients import RETRY_BACKOFF_MS, new_producer, stop
from streams.kafka.topic_ids import ask_topic_id
from streams.logs import about
from streams.settings import Settings

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Time for an abort. What stays open is ended by the next owner, or by the transaction's timeout.
_ABORT_TIMEOUT_S = 1.0

# Wait before a broker is asked again for the input topic's id.
_CHECK_BACKOFF_S = 0.1

for _result in ("committed", "failed", "fenced", "timed-out"):
    metrics.TRANSACTIONS.labels(_result)  # from 0 on, so that the first failure is an increase


class Fenced(Exception):  # noqa: N818 - named as Kafka names it
    """The partition's transactional id has a newer owner, or its transaction took too long."""


class TookTooLong(Transient):
    """A step of a transaction took longer than a transaction may take."""


class OtherTopic(Exception):  # noqa: N818 - says what is so, as Fenced
    """The input topic was deleted and created again; its id is the argument."""


class OutputRecord(msgspec.Struct, frozen=True, gc=False):
    """A record to write, into the partition with the number of the input partition."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()


class Batches:
    """Records for one topic, packed into the producer's batches as they are added."""

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
            while not self._append(self._added, None, record.key, record.value, [*record.headers]):
                self._close()
                self._begin()
            self._added += 1

    def close(self) -> Sequence[BatchBuilder]:
        """Return all batches, in order, ready to be sent. Nothing can be added afterwards."""
        if self._added:
            self._close()
        return self._full

    def _begin(self) -> None:
        self._open = self._new_batch()
        # Not `BatchBuilder.append`, which takes twice as long as the inner builder that it calls:
        # 3% of a command. The inner one returns None if there is no room, but accepts any first
        # record.
        self._append = self._open._builder.append
        self._added = 0

    def _close(self) -> None:
        self._open._relative_offset = self._added
        self._open.close()
        self._full.append(self._open)


class TransactionalProducer:
    """Producer of the outputs of one input partition."""

    def __init__(self, settings: Settings, app_id: str, tp: TP) -> None:
        self._settings = settings
        self._app_id = app_id
        self._tp = tp
        self._producer: AIOKafkaProducer | None = None

    async def start(self) -> None:
        """Fence earlier owners. After that, no transaction of theirs is open.

        Raises:
            KafkaError, Transient: it failed, or took longer than a transaction may take.
        """
        await self.close()
        self._producer = new_producer(
            self._settings,
            transactional_id=f"{self._app_id}-{self._tp.topic}-{self._tp.partition}",
            transaction_timeout_ms=int(self._settings.transaction_timeout * 1000),
            retry_backoff_ms=RETRY_BACKOFF_MS,
        )
        self._retries = retry_ever_more_slowly(self._producer)
        end_transactions_once(self._producer)
        await self._in_time(
            self._producer.start(),
            "fencing (the coordinator is away, or cannot end the transaction before: replicas may "
            "be missing)",
        )

    def batches(self, records: Iterable[OutputRecord] = ()) -> Batches:
        """Return batches for `commit` that contain these records."""
        assert self._producer is not None, "start first"
        return Batches(self._producer.create_batch, records)

    async def commit(
        self,
        outputs: Mapping[str, Batches],
        *,
        of_topic: str | None = None,
        ends: Mapping[str, int] = MappingProxyType({}),
    ) -> Mapping[str, int]:
        """Write all outputs (by topic), or nothing, in one transaction.

        With `of_topic` nothing is committed unless the input topic has this id. `ends` are offsets
        up to which outputs (by topic) were read or written before; nothing is committed if one of
        those does not continue there.

        The position in the input is one of the outputs. The group's offset is not committed here:
        that would be two of five requests, only for tools that show the lag. `ChunkConsumer.commit`
        does it.

        Returns the offset of the first record of each topic that has any.

        Raises:
            Fenced: a newer owner exists, or the broker has given up the transaction.
            OtherTopic: the input topic has another id.
            KafkaError, Transient: it failed, or it is not known whether it was committed, or an
                output does not continue at its end. Call `start` again, and read from the log what
                was.
        """
        assert self._producer is not None, "start first"
        result = "failed"
        try:
            written = await self._in_time(
                self._commit(self._producer, outputs, of_topic, ends), "committing"
            )
            result = "committed"
        except (ProducerFenced, InvalidProducerEpoch) as error:
            result = "fenced"
            raise Fenced from error
        except TookTooLong:
            result = "timed-out"
            raise
        finally:
            metrics.TRANSACTIONS.labels(result).inc()
        return written

    async def _in_time(self, work: Awaitable[T], what: str) -> T:
        """Wait for this no longer than a transaction may take.

        The broker gives up the transaction then, but aiokafka may wait forever, silently.

        Raises:
            TookTooLong: the time is over.
        """
        timeout = self._settings.transaction_timeout
        try:
            async with async_timeout.timeout(timeout):
                return await work
        except asyncio.TimeoutError:
            refusal = self._retries.refusal
            raise TookTooLong(
                f"{what} took longer than the {timeout:g} s of a transaction"
                + (f"; the last refusal was of {refusal}" if refusal else "")
            ) from None

    async def _commit(
        self,
        producer: AIOKafkaProducer,
        outputs: Mapping[str, Batches],
        of_topic: str | None,
        ends: Mapping[str, int],
    ) -> Mapping[str, int]:
        await producer.begin_transaction()
        ended = producer._txn_manager.wait_for_transaction_end()
        ended.add_done_callback(retrieve)
        checking: asyncio.Future[None] | None = None
        try:
            acknowledgements = []
            for topic, batches in outputs.items():
                for batch in batches.close():
                    sent = await producer.send_batch(batch, topic, partition=self._tp.partition)
                    sent.add_done_callback(retrieve)
                    acknowledgements.append(sent)
            checking = asyncio.ensure_future(self._check_input(producer, outputs, of_topic))
            _, *written = await asyncio.gather(checking, *acknowledgements)
            for batch in written:
                if batch.offset < (end := ends.get(batch.topic, 0)):
                    raise Transient(
                        f"{batch.topic}[{self._tp.partition}] continued at offset {batch.offset} "
                        f"after {end}: it was deleted and created again, or Kafka lost records "
                        "that it had acknowledged; reading it again"
                    )
            await producer.commit_transaction()
        except Exception:
            # If the transaction has ended early (fenced, for instance), aiokafka refuses the rest
            # with errors that do not say why.
            if ended.done():
                ended.result()
            raise
        finally:
            if checking is not None:
                checking.cancel()
        # A batch's offset is that of its first record; the first batch of a topic counts.
        return {batch.topic: batch.offset for batch in reversed(written)}

    async def _check_input(
        self, producer: AIOKafkaProducer, outputs: Iterable[str], id_: str | None
    ) -> None:
        """Check that the input topic has this id; it is asked for while the records are written.

        The leader of an output is asked: the transaction has to wait for that one anyway.
        """
        cluster = producer.client.cluster
        while id_ is not None:
            try:
                for topic in outputs:
                    leader = cluster.leader_for_partition(TopicPartition(topic, self._tp.partition))
                    if leader is not None and leader >= 0:
                        break
                else:
                    raise LeaderNotAvailableError
                found = await ask_topic_id(producer.client, leader, self._tp.topic)
            except KafkaError as error:
                if not error.retriable:
                    raise
                await asyncio.sleep(_CHECK_BACKOFF_S)
            else:
                if found != id_:
                    raise OtherTopic(found)
                return

    async def close(self) -> None:
        """Stop the producer, and abort its open transaction if that works within a second."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        try:
            if producer._txn_manager.is_in_transaction():
                async with async_timeout.timeout(_ABORT_TIMEOUT_S):
                    await producer.abort_transaction()
        except (KafkaError, asyncio.TimeoutError) as error:
            logger.info(
                "%s: the open transaction could not be aborted: %r",
                self._tp,
                error,
                extra=about("transaction-not-aborted", self._tp),
            )
        finally:
            with suppress(KafkaError):
                await stop(producer)
            # One that failed twice has a second future, which nobody has seen.
            ended = producer._txn_manager.wait_for_transaction_end()
            if ended is not None and ended.done():
                retrieve(ended)
