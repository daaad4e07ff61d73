"""The event-sourced repository of one partition: loads aggregates, stages their new events."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Generic, TypeVar

from models.errors import Poison
from models.messages import Command, Event
from streams.aggregate import Aggregate
from streams.encryption.cipher import DecryptionError
from streams.encryption.sealer import PartitionSealer
from streams.logs import about
from streams.state.snapshot import Remembered, Snapshot, decode_snapshot, encode_snapshot
from streams.state.store import StateStore

logger = logging.getLogger(__name__)

S = TypeVar("S")


class EventSourcedRepository(Generic[S]):
    """The aggregates of one partition.

    What is saved stays staged, invisible in the table, until the chunk's transaction is committed.
    It is encoded group by group, while it is in the CPU's caches.
    """

    def __init__(
        self, aggregate: Aggregate[S], store: StateStore, sealer: PartitionSealer | None = None
    ) -> None:
        """Read states from `store`; `sealer` encrypts and decrypts them, if it is given."""
        self._aggregate = aggregate
        self._store = store
        self._sealer = sealer or PartitionSealer()
        self._group: dict[str, Snapshot[S]] = {}
        self._chunk: dict[str, Snapshot[S]] = {}
        self._records: dict[bytes, bytes] = {}

    def load(self, aggregate_id: str) -> S | None:
        """Return the aggregate's state, a fold of its events; None if it does not exist."""
        return self.get(aggregate_id).state

    def save(self, command: Command, events: Sequence[Event]) -> None:
        """Stage the new events of ``command``: fold them into the state of its aggregate.

        Raises what the aggregate's `evolve` raises.
        """
        snapshot = self.get(command.aggregate_id)
        state = snapshot.state
        for event in events:
            state = self._aggregate.evolve(state, event, command.timestamp)
        self.put(
            command.aggregate_id,
            Snapshot(state, snapshot.version + len(events), snapshot.remembered),
        )

    def get(self, aggregate_id: str) -> Snapshot[S]:
        """Return the aggregate's state, version and dedupe window; version 0: it does not exist.

        Raises:
            Poison: the record of its state cannot be read. Nothing is staged, so it stays as it is.
            Fatal: the master key is missing or another one.
        """
        snapshot = self._group.get(aggregate_id) or self._chunk.get(aggregate_id)
        if snapshot is None:
            try:
                snapshot = self._group[aggregate_id] = self._read(aggregate_id)
            except ValueError as error:
                raise _unreadable(aggregate_id, error) from None
        return snapshot

    def is_erased(self, key: bytes | None) -> bool:
        """Return whether the aggregate of a record's key was erased, if its state can be read.

        Nothing is staged.
        """
        try:
            id_ = (key or b"").decode()
            snapshot = self._group.get(id_) or self._chunk.get(id_) or self._read(id_)
        except ValueError:
            return False
        return snapshot.state is not None and self._aggregate.is_erased(snapshot.state)

    def put(self, aggregate_id: str, snapshot: Snapshot[S]) -> None:
        """Stage this snapshot; one that `get` returned takes back what was staged since."""
        self._group[aggregate_id] = snapshot

    def remember(self, aggregate_id: str, reply: Remembered) -> None:
        """Add a reply to the aggregate's dedupe window."""
        self.put(aggregate_id, self.get(aggregate_id).remembering(reply))

    def end_group(self) -> None:
        """Encode what the group has loaded or saved, if it exists; its events are sealed by now."""
        for aggregate_id, snapshot in self._group.items():
            if snapshot.version > 0:
                key = aggregate_id.encode()
                self._records[key] = self._sealer.seal_state(key, encode_snapshot(snapshot))
        self._chunk.update(self._group)
        self._group.clear()
        self._sealer.end_group()

    def staged(self) -> dict[bytes, bytes]:
        """Return the new records of the state table: all aggregates that exist and were loaded."""
        self.end_group()
        return self._records

    def clear(self) -> None:
        """Drop what is staged: it is in the table now."""
        self._group.clear()
        self._chunk.clear()
        self._records = {}

    def _read(self, aggregate_id: str) -> Snapshot[S]:
        """Read the snapshot of an aggregate from the table. Raises ValueError if that fails."""
        key = aggregate_id.encode()
        value = self._sealer.open_state(key, self._store.get(key))
        return decode_snapshot(self._aggregate, value)


def _unreadable(aggregate_id: str, error: ValueError) -> Poison:
    """Log that the state of an aggregate cannot be read; return the poison for its commands."""
    why = str(error) if isinstance(error, DecryptionError) else type(error).__name__
    logger.error(
        "The state of %s cannot be read (%s): its commands are dead letters until `cqrs state "
        "rebuild`, or a backup of its key, has repaired it",
        aggregate_id,
        why,
        extra=about("state-unreadable"),
    )
    return Poison("unreadable-state", f"the state of its aggregate cannot be read: {why}")
