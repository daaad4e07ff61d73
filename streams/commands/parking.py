"""The parked commands of one partition: which may be parked, and what a chunk changes of them.

Like the states, what a chunk changes stays staged until its transaction is committed. All of them
are in memory, sealed if they are sealed on the changelog: there is a bound on them, because more
are the sign of a program that can decide nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Final
from uuid import UUID

from faust.types import TP
from msgspec.structs import replace
from prometheus_client import Gauge

from models.errors import PartitionFatal, Poison
from models.messages import Command, aggregate_id_in, command_id_at
from streams import metrics
from streams.commands.reader import json_in
from streams.encryption.cipher import DecryptionError
from streams.encryption.sealer import PartitionSealer
from streams.kafka.partitioner import partition_of
from streams.kafka.records import Record, source_of
from streams.logs import name_of
from streams.state.parked import (
    PARKED_PREFIX,
    Content,
    ParkedCommand,
    ParkedQueue,
    decode_content,
    decode_parked,
    encode_content,
    encode_parked,
    park,
    parked_key,
)
from streams.state.store import StateStore

DEFECTS: Final = frozenset({"decide-failed", "unreadable"})
"""Codes of failures that are this program's fault. Too many of them stop a partition."""

CURABLE: Final = DEFECTS | {"unknown-type", "unknown-version"}
"""Codes of failures that a mended or newer program may cure: the fault may be this program's.

Whoever may send commands can also make up a type or a version, so those never stop a partition. All
other codes are faults of the record, or of the state (`unreadable-state`), and make dead letters at
once: else anybody who sends garbage could stop a user.
"""

MAX_AGGREGATES: Final = 1000
"""Most aggregates of a partition with parked commands."""

MAX_PARTITION_BYTES: Final = 16 << 20
"""Most bytes of the parked commands of a partition, in memory."""

_OF_PRODUCERS: Final = 0.5  # share of both that is left to what producers can bring about alone


class ParkedCommands:
    """The parked commands of one partition, by the ids of their aggregates."""

    def __init__(self, tp: TP, partitions: int, store: StateStore, sealer: PartitionSealer) -> None:
        """Load what the store has; `partitions` is the number of them.

        Raises:
            PartitionFatal: a record of the changelog is none of ours.
        """
        self._tp = tp
        self._partitions = partitions
        self._sealer = sealer
        self.by_id: dict[bytes, ParkedQueue] = {}  # to read; `put` changes it
        self._changed: set[bytes] = set()
        for key, value in store.reserved(PARKED_PREFIX):
            try:
                parked = decode_parked(value)
            except ValueError:
                raise PartitionFatal(
                    f"the parked commands of {key[len(PARKED_PREFIX) :].decode(errors='replace')} "
                    f"in the changelog of {name_of(tp)} cannot be read: a newer "
                    "program wrote them, start that one"
                ) from None
            if parked is not None:
                self.by_id[key[len(PARKED_PREFIX) :]] = parked
        self.bytes = sum(one.size for one in self.by_id.values())
        self.publish()

    def park(self, record: Record, command: Command | None, poison: Poison) -> ParkedQueue | None:
        """Park a command that could not be decided, the first of its aggregate.

        Returns None if it has to be a dead letter: it is too large, nothing says that another
        program can decide it, or producers have made this one wait for so much that there would be
        no room for what this program is at fault for.

        Raises:
            PartitionFatal: this program has failed too often.
        """
        waiting = self._waiting(record, command, poison)
        parked = None if waiting is None else park(waiting, poison.code, poison.reason)
        if parked is None or record.key is None:
            return None
        is_many = len(self.by_id) >= MAX_AGGREGATES * _OF_PRODUCERS
        if poison.code not in DEFECTS and (is_many or not self._leaves_room(parked.size)):
            return None
        self.put(record.key, parked)
        return parked

    def append(self, record: Record, command: Command | None, poison: Poison | None) -> int | None:
        """Let a command wait behind the parked ones of its aggregate; return how many there are.

        Returns None if it has to be a dead letter: as for `park`, or there is no room.
        """
        assert record.key is not None, "it has the key of its aggregate"
        parked = self.by_id[record.key]
        waiting = self._waiting(record, command, poison)
        if waiting is None or not parked.has_room_for(waiting.content):
            return None
        if not self._leaves_room(len(waiting.content)):
            return None
        self.put(record.key, parked.behind(waiting))
        return len(parked.commands)

    def put(self, aggregate_id: bytes, parked: ParkedQueue | None) -> None:
        """Stage these parked commands of an aggregate; None: no more.

        Raises:
            PartitionFatal: there are too many in this partition.
        """
        before = self.by_id.pop(aggregate_id, None)
        self.bytes -= 0 if before is None else before.size
        self._changed.add(aggregate_id)
        if parked is None:
            return
        self.by_id[aggregate_id] = parked
        self.bytes += parked.size
        if len(self.by_id) > MAX_AGGREGATES or self.bytes > MAX_PARTITION_BYTES:
            raise PartitionFatal(
                f"{name_of(self._tp)}: too much would be parked "
                f"({len(self.by_id)} aggregates, {self.bytes} bytes; the last failure: "
                f"{parked.failure.code}): this program decides too little. Start one that is "
                "mended, or with CQRS_DEAD_LETTER_ORDER=skip make dead letters of what it fails at"
            )

    def _leaves_room(self, size: int) -> bool:
        """Return whether so many bytes more leave room for what this program is at fault for."""
        return self.bytes + size <= MAX_PARTITION_BYTES * _OF_PRODUCERS

    def open(self, aggregate_id: bytes, waiting: ParkedCommand) -> Record | Poison:
        """Return the record of a parked command as it was read; the poison if it is unreadable.

        Raises:
            Fatal: the master key is missing or another one.
        """
        try:
            content = decode_content(
                self._sealer.open_parked(aggregate_id, waiting.offset, waiting.content)
            )
        except ValueError as error:
            why = str(error) if isinstance(error, DecryptionError) else type(error).__name__
            return Poison("unreadable-state", f"it was parked and cannot be read any more: {why}")
        return self._record(aggregate_id, waiting, content.value, content.headers)

    def without_content(self, aggregate_id: bytes, waiting: ParkedCommand) -> Record:
        """Return what is known of the record of a parked command without opening it."""
        return self._record(aggregate_id, waiting, None, ())

    def _record(
        self,
        aggregate_id: bytes,
        waiting: ParkedCommand,
        value: bytes | None,
        headers: tuple[tuple[str, bytes | None], ...],
    ) -> Record:
        topic, partition = self._tp
        return Record(
            topic, partition, waiting.offset, waiting.timestamp, aggregate_id, value, headers
        )

    def staged(self) -> Mapping[bytes, bytes]:
        """Return the records of the changelog that have changed.

        They are sealed only now: an event of the same chunk may have made the data key.
        """
        records = {}
        for id_ in sorted(self._changed):
            parked = self.by_id.get(id_)
            if parked is not None:
                sealed = self._sealed(id_, parked)
                self.bytes += sealed.size - parked.size
                self.by_id[id_] = parked = sealed
            records[parked_key(id_)] = encode_parked(parked)
        return records

    def _sealed(self, aggregate_id: bytes, parked: ParkedQueue) -> ParkedQueue:
        seal = self._sealer.seal_parked
        return replace(
            parked,
            commands=tuple(
                replace(one, content=seal(aggregate_id, one.offset, one.content))
                for one in parked.commands
            ),
        )

    def clear(self) -> None:
        """Forget what is staged: it is committed."""
        if self._changed:
            self.publish()
        self._changed.clear()

    def publish(self) -> None:
        """Set the metrics to what is parked."""
        waiting = [one for parked in self.by_id.values() for one in parked.commands]
        metrics.PARKED_AGGREGATES.labels(*self._tp).set(len(self.by_id))
        metrics.PARKED_COMMANDS.labels(*self._tp).set(len(waiting))
        if waiting:
            oldest = min(one.timestamp for one in waiting)
            metrics.PARKED_OLDEST.labels(*self._tp).set(oldest / 1000)
        else:
            _remove(metrics.PARKED_OLDEST, self._tp)

    @staticmethod
    def forget(tp: TP) -> None:
        """Remove the metrics of a partition: it is another worker's now."""
        for gauge in (metrics.PARKED_AGGREGATES, metrics.PARKED_COMMANDS, metrics.PARKED_OLDEST):
            _remove(gauge, tp)

    def _waiting(
        self, record: Record, command: Command | None, poison: Poison | None
    ) -> ParkedCommand | None:
        """Return a record as a parked command; None if it cannot be one.

        Args:
            record: the record.
            command: what it contains, if it could be read.
            poison: why it could not be decided, if it was tried.
        """
        if poison is not None and poison.code not in CURABLE:
            return None
        id_ = _id_in(record) if command is None else command.id
        if id_ is None or record.key is None or record.value is None:
            return None
        if partition_of(record.key, self._partitions) != self._tp.partition:
            return None
        content = encode_content(Content(record.value, record.headers))
        return ParkedCommand(record.offset, record.timestamp, id_.bytes, content)


def _remove(gauge: Gauge, tp: TP) -> None:
    with suppress(KeyError):
        gauge.remove(*tp)


def _id_in(record: Record) -> UUID | None:
    """Return the id of a command that could not be read; None if it is none of its key's aggregate.

    A producer that writes the wrong key, or no id of an aggregate, is wrong whoever reads it.
    """
    try:
        data = json_in(record)
        if aggregate_id_in(data).encode() != record.key:
            return None
        return command_id_at(source_of(record)) if data.get("id") is None else UUID(data["id"])
    except (ValueError, AttributeError):
        return None
