"""A producer for as long as a process runs, whatever brokers refuse meanwhile.

aiokafka numbers a batch when it takes it to send, and never takes the number back. Behind one that
was refused, or given up, there is a gap: the broker refuses all that follows on that partition
(OutOfOrderSequenceNumber), for as long as that producer lives.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError, KafkaError, ProducerClosed
from typing_extensions import Self

from streams.concurrency import cancel
from streams.kafka.clients import new_producer, not_connected, stop
from streams.settings import Settings


class LastingProducer:
    """Lends an idempotent producer, another one after an error; an async context manager."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer: AIOKafkaProducer | None = None
        self._starting: asyncio.Task[None] | None = None
        # How many use each producer that is open; one that had an error is stopped by its last.
        self._users: dict[AIOKafkaProducer, int] = {}
        self._stopping: set[asyncio.Task[None]] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            Fatal: no broker answers or takes this client.
        """
        try:
            await self._get()
        except KafkaConnectionError:
            raise await not_connected(self._settings) from None
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop the producer. What is being sent is sent, if that takes no longer than 2 s."""
        self._closed = True
        if self._starting is not None:
            await cancel(self._starting)
        await asyncio.gather(*map(stop, self._users), *self._stopping)

    @asynccontextmanager
    async def use(self) -> AsyncIterator[AIOKafkaProducer]:
        """Lend the producer, to send and to wait for the answers within the block.

        If a KafkaError leaves the block, the next call lends a new producer. Who uses the former
        one still gets its answers.

        Raises:
            KafkaError: there is no producer, and a new one could not be started.
            Fatal: a file of the settings cannot be used.
        """
        producer = await self._get()
        self._users[producer] += 1
        try:
            yield producer
        except KafkaError:
            if producer is self._producer:
                self._producer = None
            raise
        finally:
            self._users[producer] -= 1
            if producer is not self._producer and not self._users[producer]:
                self._stop(producer)

    async def _get(self) -> AIOKafkaProducer:
        """Return the producer. If there is none, all who ask wait for the same new one."""
        while self._producer is None:
            if self._closed:
                raise ProducerClosed
            if self._starting is None:
                self._starting = asyncio.create_task(self._start())
            await asyncio.shield(self._starting)
        return self._producer

    async def _start(self) -> None:
        try:
            producer = new_producer(self._settings)
            try:
                await producer.start()
            except BaseException:
                await stop(producer)
                if self._closed:  # who waits for it was not cancelled
                    raise ProducerClosed from None
                raise
            self._users[producer] = 0
            self._producer = producer
        finally:
            self._starting = None

    def _stop(self, producer: AIOKafkaProducer) -> None:
        """Stop a producer that nobody uses any more; nobody waits for that."""
        del self._users[producer]
        stopping = asyncio.create_task(stop(producer))
        self._stopping.add(stopping)
        stopping.add_done_callback(self._stopping.discard)
