"""What a command partition writes and keeps, sealed where its aggregate has a key."""

from __future__ import annotations

from models.errors import Fatal
from models.messages import Event, EventRecord
from models.wire import encode
from streams.encryption.cipher import (
    DecryptionError,
    is_sealed_state,
    open_state,
    seal_dead_letter,
    seal_event,
    seal_state,
)
from streams.encryption.keys import PartitionKeys
from streams.kafka.dead_letters import sealed_letter
from streams.kafka.transactions import OutputRecord


class PartitionSealer:
    """Seals events, states and dead letters of one partition, and opens states.

    The first event of an aggregate makes its key, the one that erases it destroys it. Both take
    effect at once: a chunk that fails takes the whole partition back to what is on the log.
    """

    def __init__(self, keys: PartitionKeys | None = None, *, encrypt: bool = False) -> None:
        """Keys that exist, and whether what is written from now on is to be encrypted."""
        self._keys = keys or PartitionKeys(None)
        self._encrypt = encrypt
        self._changes: dict[bytes, bytes | None] = {}

    def seal_event(self, envelope: EventRecord[Event]) -> bytes:
        """An event as it is written."""
        wire = envelope.to_wire()
        if envelope.event.erases:
            self._destroy(envelope.aggregate_id.encode())
        elif self._encrypt:
            key = self._key_of(envelope.aggregate_id.encode())
            seal_event(wire, envelope.event.personal, key)
        return encode(wire)

    def seal_dead_letter(self, letter: OutputRecord) -> OutputRecord:
        """A dead letter as it is written: of an aggregate without a key it stays as it is."""
        if not self._encrypt or letter.key is None or letter.value is None:
            return letter
        key = self._keys.get(letter.key)
        if key is None:
            return letter
        return sealed_letter(letter, seal_dead_letter(letter.value, letter.key, key))

    def seal_state(self, aggregate_id: bytes, value: bytes) -> bytes:
        """A record of the state table as it is written and kept."""
        key = self._keys.get(aggregate_id) if self._encrypt else None
        return value if key is None else seal_state(value, aggregate_id, key)

    def open_state(self, aggregate_id: bytes, value: bytes | None) -> bytes | None:
        """The inverse of `state`.

        Raises:
            Fatal: the key is gone, or the master key is missing or another one.
        """
        if value is None or not is_sealed_state(value):
            return value
        try:
            return open_state(value, aggregate_id, self._keys.get(aggregate_id))
        except DecryptionError as error:
            raise Fatal(
                f"The state of {aggregate_id.decode(errors='replace')} cannot be decrypted "
                f"({error}): restore the topic of the keys from a backup"
            ) from None

    def changes(self) -> list[OutputRecord]:
        """The keys that were made and destroyed since the last commit, for their topic."""
        return [
            OutputRecord(aggregate_id, wrapped) for aggregate_id, wrapped in self._changes.items()
        ]

    def clear(self) -> None:
        """The changes were committed."""
        self._changes.clear()

    def _key_of(self, aggregate_id: bytes) -> bytes:
        key = self._keys.get(aggregate_id)
        if key is not None:
            return key
        wrapped = self._changes[aggregate_id] = self._keys.make(aggregate_id)
        self._keys.apply(aggregate_id, wrapped)
        return self._keys.unwrap(aggregate_id, wrapped)

    def _destroy(self, aggregate_id: bytes) -> None:
        if aggregate_id in self._keys:
            self._changes[aggregate_id] = None
            self._keys.apply(aggregate_id, None)
