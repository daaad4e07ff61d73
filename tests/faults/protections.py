"""The protections, each a function that takes it away from a process.

Only tests use this: workers started with `TEST_WITHOUT` run without the protection it names. A
protection is taken away from outside, by patching, so production code has no switch for it.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakSet

import orjson
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition
from faust.types import TP

from deploy.supervisor import Role
from models.tokens import Token
from streams.aggregate import TopicNames
from streams.commands import partition as command_partition
from streams.commands import rotate_keys
from streams.commands.parking import ParkedCommands
from streams.commands.partition import CommandPartition
from streams.commands.rotate_keys import KeysLog
from streams.elasticsearch.bulk_writer import BulkWriter
from streams.elasticsearch.index import Document
from streams.kafka.clients import admin_client, new_consumer, new_producer, started
from streams.kafka.transactions import Batches, TransactionalProducer
from streams.settings import Settings
from streams.state import recovery
from streams.state.recovery import Recovered
from streams.state.rocksdb import Identity, RocksDBStore
from streams.state.store import MemoryStore, Position, encode_position, position_key
from streams.views.checkpoint import IndexCheckpoints
from streams.views.read_your_writes import ReadYourWrites
from streams.views.writer import PartitionWriter
from streams.worker.chunks import Chunk
from streams.worker.driver import PartitionDriver

VARIABLE = "TEST_WITHOUT"

# Worker modules that read the variable, by role.
APPS: Mapping[Role, str] = {
    "commands": "tests.faults.unprotected_commands_worker",
    "views": "tests.faults.unprotected_views_worker",
}

Set = Callable[[Any, str, Any], None]


def fencing_before_recovery(set_: Set) -> None:
    """Restore before fencing: what the old owner commits in between is missed.

    A transaction that it has open would be waited for; so the end is taken that hides it, too.
    """
    start, recover = TransactionalProducer.start, _recover()
    postponed: list[TransactionalProducer] = []

    async def postpone(self: TransactionalProducer) -> None:
        postponed.append(self)

    async def recover_then_fence(settings: Settings, names: TopicNames, tp: TP) -> Recovered:
        recovered = await recover(settings, names, tp)
        await start(postponed.pop())
        return recovered

    async def committed_ends(
        settings: Settings, partitions: Sequence[TopicPartition]
    ) -> dict[TopicPartition, int]:
        async with started(new_consumer(settings), settings) as consumer:
            consumer.assign(partitions)
            consumer.pause(*partitions)
            ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
            return ends

    set_(TransactionalProducer, "start", postpone)
    set_(command_partition, "recover_partition", recover_then_fence)
    set_(recovery, "written_ends", committed_ends)


def position_in_the_state(set_: Set) -> None:
    """Start at the group's committed offset, as Kafka's consumers do."""
    recover = _recover()

    async def at_the_groups_offset(settings: Settings, names: TopicNames, tp: TP) -> Recovered:
        recovered = await recover(settings, names, tp)
        partition = TopicPartition(tp.topic, tp.partition)
        async with admin_client(settings) as admin:
            found = await admin.list_consumer_group_offsets(
                f"{settings.namespace}users-commands", partitions=[partition]
            )
        position = Position(max(0, found[partition].offset))
        return replace(recovered, position=position)

    set_(command_partition, "recover_partition", at_the_groups_offset)


def end_offset_in_recovery(set_: Set) -> None:
    """Take the records of the first poll for the whole state."""
    max_records = 500  # the default of Kafka's consumers

    async def poll_once(
        consumer: AIOKafkaConsumer, changelog: TopicPartition, state: MemoryStore, end: int
    ) -> int:
        await consumer.seek_to_beginning(changelog)
        if not end:
            return 0  # an empty topic, such as that of the keys: a poll would wait
        found = await consumer.getmany(changelog, timeout_ms=10_000, max_records=max_records)
        for records in found.values():
            state.apply({record.key: record.value for record in records}, 0)
        return 0

    set_(recovery, "restore", poll_once)


def apply_after_commit(set_: Set) -> None:
    """Apply a chunk's changes to the local store before they are committed."""
    process = CommandPartition.process

    async def apply_first(
        self: CommandPartition[Any], records: Sequence[Any], position: int
    ) -> None:
        commit = self._producer.commit
        store = self._stored
        assert isinstance(store, RocksDBStore)

        async def apply_and_commit(
            outputs: Mapping[str, Batches], **checks: Any
        ) -> Mapping[str, int]:
            changes = {
                **self._repository.staged(),
                position_key(self._tp): encode_position(Position(position)),
            }
            store.apply(changes, store.end)
            store._db.flush()
            return await commit(outputs, **checks)

        vars(self._producer)["commit"] = apply_and_commit
        await process(self, records, position)
        del vars(self._producer)["commit"]

    set_(CommandPartition, "process", apply_first)


def parked_with_the_chunk(set_: Set) -> None:
    """Write what is parked with another producer, when the chunk's transaction is committed."""
    process, staged = CommandPartition.process, ParkedCommands.staged
    postponed: dict[bytes, bytes] = {}

    def postpone(self: ParkedCommands) -> Mapping[bytes, bytes]:
        postponed.update(staged(self))
        return {}

    async def write_afterwards(
        self: CommandPartition[Any], records: Sequence[Any], position: int
    ) -> None:
        await process(self, records, position)
        if postponed:
            async with started(new_producer(self._settings), self._settings) as producer:
                for key, value in postponed.items():
                    changelog, number = self._table.changelog, self._tp.partition
                    await producer.send_and_wait(changelog, value, key, partition=number)
            postponed.clear()

    set_(ParkedCommands, "staged", postpone)
    set_(CommandPartition, "process", write_afterwards)


def identity_of_the_store(set_: Set) -> None:
    """Use any store that is in the right folder."""

    def same_for_all(topic_id: str, partition: int) -> Identity:
        return Identity("any", partition)

    set_(recovery, "Identity", same_for_all)


def gap_check(set_: Set) -> None:
    """Process chunks that start after the position, too."""

    process = PartitionDriver._process

    async def without_gap(self: PartitionDriver, chunk: Chunk) -> None:
        await process(self, replace(chunk, start=min(chunk.start, self.position or 0)))

    set_(PartitionDriver, "_process", without_gap)


def _recover() -> Callable[[Settings, TopicNames, TP], Awaitable[Recovered]]:
    """Return what restores a partition, including a crash point that wraps it."""
    recover: Callable[..., Awaitable[Recovered]] = vars(command_partition)["recover_partition"]
    return recover


def external_version(set_: Set) -> None:
    """Write documents whatever version the index has."""
    lines = BulkWriter._lines

    def without_version(self: BulkWriter, document: Document, *, only_try: bool) -> bytes:
        _, source = lines(self, document, only_try=only_try).splitlines()
        return b"%b\n%b\n" % (orjson.dumps({"index": {"_id": document["id"]}}), source)

    set_(BulkWriter, "_lines", without_version)


def commit_after_bulk(set_: Set) -> None:
    """Save the checkpoint of a chunk before its documents are written."""

    write = PartitionWriter.write

    async def save_first(self: PartitionWriter[Any], *chunk: Any) -> None:
        before = self.checkpoint
        after = replace(before, position=chunk[-1])
        saved = await self._store.save_checkpoint(self._partition, after)
        self.checkpoint = replace(before, revision=saved.revision)
        await write(self, *chunk)

    set_(PartitionWriter, "write", save_first)


def wait_for_the_view(set_: Set) -> None:
    """Execute a query without waiting until the view has the write."""

    async def at_once(self: ReadYourWrites, token: Token) -> IndexCheckpoints:
        return await self._checkpoints()

    set_(ReadYourWrites, "_if_projected", at_once)


def refresh_after_the_wait(set_: Set) -> None:
    """Search when the view has the write, as if searches saw it then."""
    set_(ReadYourWrites, "_if_searchable", ReadYourWrites._if_projected)


def reading_after_fencing(set_: Set) -> None:
    """Rotate the keys that were read before their owner was fenced."""
    read_on, have_read = KeysLog.read_on, WeakSet[KeysLog]()

    async def read_once(self: KeysLog, *args: Any) -> None:
        if self not in have_read:
            have_read.add(self)
            await read_on(self, *args)

    set_(KeysLog, "read_on", read_once)


def fencing_of_the_owner(set_: Set) -> None:
    """Rotate keys with a producer of one's own, beside that of the partition's owner."""
    work = vars(rotate_keys)["work_as_owner"]

    async def work_beside(settings: Settings, tp: TP, worker: str, *args: Any) -> Any:
        return await work(settings, tp, f"{worker}-rotation", *args)

    set_(rotate_keys, "work_as_owner", work_beside)


PROTECTIONS: Mapping[str, Callable[[Set], None]] = {
    protection.__name__: protection
    for protection in (
        fencing_before_recovery,
        position_in_the_state,
        end_offset_in_recovery,
        apply_after_commit,
        parked_with_the_chunk,
        identity_of_the_store,
        gap_check,
        external_version,
        commit_after_bulk,
        wait_for_the_view,
        refresh_after_the_wait,
        reading_after_fencing,
        fencing_of_the_owner,
    )
}


def take_away() -> None:
    """Take the protection that the environment names away from this process."""
    if VARIABLE in os.environ:
        PROTECTIONS[os.environ[VARIABLE]](setattr)
