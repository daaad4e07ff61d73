"""Sending many commands at a time, without waiting for what becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from models.errors import InvalidCommand, Poison, Transient
from models.messages import Command, parse_command
from streams.commands.client import check_size
from streams.kafka.partitioner import partition_of

# Of each partition: full batches that were handed over and not acknowledged yet.
_UNDER_WAY = 8


def read_line(line: bytes, types: Mapping[str, type[Command]]) -> tuple[bytes, bytes]:
    """The key and the value of the record for a command that was written as one line of JSON.

    The value is the line as it stands: what it leaves out (`id`, `timestamp`) the worker fills in.

    Raises:
        InvalidCommand: the worker would not take it; says why.
    """
    value = line.strip()
    try:
        command = parse_command(orjson.loads(value), types)
    except orjson.JSONDecodeError as error:
        raise InvalidCommand([f"not JSON: {error.msg} (column {error.colno})"]) from None
    except Poison as poison:
        raise InvalidCommand([poison.reason]) from None
    key = command.aggregate_id.encode()
    check_size(key, value)
    return key, value


class BulkSender:
    """Fills batches of its own, which costs a fifth of sending records one by one.

    Records of one key keep their order. `sent` counts what was acknowledged.
    """

    def __init__(self, producer: AIOKafkaProducer, topic: str, partitions: int) -> None:
        self._producer = producer
        self._topic = topic
        self._partitions = partitions
        self._filling: dict[int, Any] = {}
        self._under_way: set[asyncio.Task[None]] = set()
        self.sent = 0

    async def add(self, key: bytes, value: bytes) -> None:
        """Send a record, soon.

        Raises:
            Transient: Kafka did not take an earlier one.
        """
        partition = partition_of(key, self._partitions)
        batch = self._filling.get(partition)
        if batch is None or not self._append(batch, key, value):
            if batch is not None:
                await self._hand_over(partition)
            batch = self._filling[partition] = self._producer.create_batch()
            self._append(batch, key, value)

    async def flush(self) -> None:
        """Send what was added, and return when all of it is acknowledged.

        Raises:
            Transient: Kafka did not take some of it.
        """
        await self.hand_over()
        while self._under_way:
            await self._settle()

    async def hand_over(self) -> None:
        """Send what was added now, full batches or not."""
        for partition in list(self._filling):
            await self._hand_over(partition)

    def _append(self, batch: Any, key: bytes, value: bytes) -> bool:
        return batch.append(key=key, value=value, timestamp=None, headers=[]) is not None

    async def _hand_over(self, partition: int) -> None:
        while len(self._under_way) >= _UNDER_WAY * self._partitions:
            await self._settle()
        batch = self._filling.pop(partition)
        try:
            acknowledged = await self._producer.send_batch(batch, self._topic, partition=partition)
        except KafkaError as error:
            raise self._failure(error) from error
        task = asyncio.create_task(self._count(acknowledged, batch.record_count()))
        self._under_way.add(task)

    async def _count(self, acknowledged: asyncio.Future[Any], records: int) -> None:
        await acknowledged
        self.sent += records

    async def _settle(self) -> None:
        done, self._under_way = await asyncio.wait(
            self._under_way, return_when=asyncio.FIRST_COMPLETED
        )
        for task in done:
            error = task.exception()
            if error is not None:
                raise self._failure(error) from error

    def _failure(self, error: BaseException) -> Transient:
        return Transient(
            f"Kafka failed ({type(error).__name__}) when it had taken {self.sent} commands; "
            "those after them may have been taken or not"
        )
