"""Seal what a command partition writes: events, states and dead letters."""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from models.messages import Event, EventRecord
from models.wire import encode
from streams.encryption.cipher import (
    is_sealed_state,
    open_parked,
    open_state,
    seal_dead_letter,
    seal_event,
    seal_parked,
    seal_state,
)
from streams.encryption.keys import PartitionKeys
from streams.kafka.dead_letters import sealed_letter, withheld_letter
from streams.kafka.transactions import OutputRecord


class PartitionSealer:
    """Sealer of the events, states and dead letters of one partition; it also opens states.

    An aggregate gets its data key with its first encrypted event; the event that erases it destroys
    the key. Both take effect before the commit: if the chunk fails, the partition starts again from
    the log, with a new sealer.

    A key is unwrapped and prepared once per group, and kept until `end_group`: a group opens a
    state, and seals the events and the new state, with the same one. Those of a whole chunk would
    leave the CPU's caches.
    """

    def __init__(self, keys: PartitionKeys | None = None, *, encrypt: bool = False) -> None:
        """Start with the `keys` that exist; `encrypt` says whether new records are encrypted."""
        self._keys = keys or PartitionKeys(None)
        self._encrypt = encrypt
        self._changes: dict[bytes, bytes | None] = {}
        self._prepared: dict[bytes, AESGCM] = {}

    def seal_event(self, envelope: EventRecord[Event]) -> bytes:
        """Encode an event for its topic, with its personal fields sealed if that is switched on."""
        wire = envelope.to_wire()
        if envelope.event.erases:
            self._destroy(envelope.aggregate_id.encode())
        elif self._encrypt:
            key = self._key_of(envelope.aggregate_id.encode())
            seal_event(wire, envelope.event.personal, key)
        return encode(wire)

    def seal_dead_letter(self, plain: OutputRecord, *, keyed_elsewhere: bool) -> OutputRecord:
        """Seal a dead letter, if encryption is on and its aggregate has a data key.

        If that key is not here but may be elsewhere, or gone, or if it is damaged, what the record
        contained is left out instead.
        """
        aggregate_id = plain.key
        if not self._encrypt or aggregate_id is None:
            return plain
        key = self._get(aggregate_id)
        if key is None:
            is_lost = aggregate_id in self._keys  # damaged, so it opens nothing
            return withheld_letter(plain) if keyed_elsewhere or is_lost else plain
        return sealed_letter(plain, lambda content: seal_dead_letter(content, aggregate_id, key))

    def seal_state(self, aggregate_id: bytes, value: bytes) -> bytes:
        """Seal a state table record, if encryption is on and its aggregate has a data key."""
        key = self._get(aggregate_id) if self._encrypt else None
        return value if key is None else seal_state(value, aggregate_id, key)

    def open_state(self, aggregate_id: bytes, value: bytes | None) -> bytes | None:
        """Open a record of the state table; one that is not sealed is returned unchanged.

        Raises:
            DecryptionError: the data key is gone or another one, or the record was changed.
            Fatal: the master key is missing or another one.
        """
        if value is None or not is_sealed_state(value):
            return value
        return open_state(value, aggregate_id, self._get(aggregate_id))

    def seal_parked(self, aggregate_id: bytes, offset: int, content: bytes) -> bytes:
        """Seal a parked command, if encryption is on and its aggregate has a data key.

        One that is sealed is returned unchanged.
        """
        if not self._encrypt or is_sealed_state(content):
            return content
        key = self._get(aggregate_id)
        return content if key is None else seal_parked(content, aggregate_id, offset, key)

    def open_parked(self, aggregate_id: bytes, offset: int, content: bytes) -> bytes:
        """Open a parked command; one that is not sealed is returned unchanged.

        Raises:
            DecryptionError, Fatal: as `open_state`.
        """
        return open_parked(content, aggregate_id, offset, self._get(aggregate_id))

    def changes(self) -> list[OutputRecord]:
        """Return what the keys topic lacks: keys created and destroyed since the last commit."""
        return [
            OutputRecord(aggregate_id, wrapped) for aggregate_id, wrapped in self._changes.items()
        ]

    def end_group(self) -> None:
        """Forget the keys in the clear."""
        self._prepared.clear()

    def clear(self) -> None:
        """Forget the changes, which were committed, and the keys in the clear."""
        self._changes.clear()
        self.end_group()

    def _get(self, aggregate_id: bytes) -> AESGCM | None:
        """Return the data key of an aggregate; as `PartitionKeys.get`."""
        prepared = self._prepared.get(aggregate_id)
        if prepared is None:
            key = self._keys.get(aggregate_id)
            if key is not None:
                prepared = self._prepared[aggregate_id] = AESGCM(key)
        return prepared

    def _key_of(self, aggregate_id: bytes) -> AESGCM:
        """Return the data key of an aggregate, a new one if it has none that can be used."""
        prepared = self._get(aggregate_id)
        if prepared is None:
            wrapped, key = self._keys.make(aggregate_id)
            self._keys.apply(aggregate_id, wrapped)
            self._changes[aggregate_id] = wrapped
            prepared = self._prepared[aggregate_id] = AESGCM(key)
        return prepared

    def _destroy(self, aggregate_id: bytes) -> None:
        self._prepared.pop(aggregate_id, None)
        if aggregate_id in self._keys:
            self._changes[aggregate_id] = None
            self._keys.apply(aggregate_id, None)
