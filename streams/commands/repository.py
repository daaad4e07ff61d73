"""The event-sourced repository of one partition: loads aggregates, stages their new events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

from models.messages import Command, Event
from streams.aggregate import Aggregate
from streams.encryption.sealer import PartitionSealer
from streams.state.snapshot import Remembered, Snapshot, decode_snapshot, encode_snapshot
from streams.state.store import StateStore

S = TypeVar("S")


class EventSourcedRepository(Generic[S]):
    """The aggregates of one partition.

    What is saved stays staged, invisible to the table, until the chunk's transaction is committed.
    """

    def __init__(
        self, aggregate: Aggregate[S], stored: StateStore, sealing: PartitionSealer | None = None
    ) -> None:
        """The aggregates that are `stored`, sealed like this or not at all."""
        self._aggregate = aggregate
        self._stored = stored
        self._sealing = sealing or PartitionSealer()
        self._staged: dict[str, Snapshot[S]] = {}

    def load(self, aggregate_id: str) -> S | None:
        """The aggregate's state, a fold of its events, or None if it does not exist."""
        return self.get(aggregate_id).state

    def save(self, command: Command, events: Sequence[Event]) -> None:
        """Append the events that ``command`` brings about to its aggregate."""
        entity = self.get(command.aggregate_id)
        state = entity.state
        for event in events:
            state = self._aggregate.evolve(state, event, command.timestamp)
        self.put(
            command.aggregate_id, Snapshot(state, entity.version + len(events), entity.remembered)
        )

    def get(self, aggregate_id: str) -> Snapshot[S]:
        """The aggregate with its version and dedupe window; version 0 if it does not exist."""
        entity = self._staged.get(aggregate_id)
        if entity is None:
            key = aggregate_id.encode()
            stored = self._sealing.open_state(key, self._stored.get(key))
            entity = decode_snapshot(self._aggregate, stored)
            self._staged[aggregate_id] = entity
        return entity

    def put(self, aggregate_id: str, entity: Snapshot[S]) -> None:
        """Stage this entity, or take back what was staged since it was got."""
        self._staged[aggregate_id] = entity

    def remember(self, aggregate_id: str, answer: Remembered) -> None:
        """Add an answer to the aggregate's dedupe window."""
        self.put(aggregate_id, self.get(aggregate_id).remembering(answer))

    def staged(self) -> dict[bytes, bytes]:
        """The state table's new records, of all aggregates that exist and were touched."""
        return {
            key: self._sealing.seal_state(key, encode_snapshot(entity))
            for key, entity in ((name.encode(), entity) for name, entity in self._staged.items())
            if entity.version > 0
        }

    def clear(self) -> None:
        """Forget what is staged: it is in the table now."""
        self._staged.clear()
