"""The data keys of aggregates, wrapped with the master key, on a compacted topic: the keys topic.

A data key is the value of a record with the id of its aggregate, in the partition of the aggregate.
It is written in the transaction of the first event that is encrypted, and its tombstone in that of
the event that erases the aggregate.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

from models.errors import Fatal
from streams.encryption.cipher import KEY_BYTES, DecryptionError, new_key, seal, unseal
from streams.settings import Settings


def new_master_key() -> str:
    """Create a master key, in base64 as `CQRS_MASTER_KEY` takes it."""
    return base64.b64encode(new_key()).decode()


@dataclass(frozen=True, repr=False)
class MasterKeys:
    """The master key, which wraps data keys, and during a rotation a second one.

    The second one only unwraps. So every process can read the data keys of both, whichever of them
    the process that wrapped them had as its first.
    """

    first: bytes
    second: bytes | None = None

    def wrap(self, aggregate_id: bytes, data_key: bytes) -> bytes:
        """Encrypt the data key of an aggregate with the first master key."""
        return seal(self.first, data_key, aggregate_id)

    def unwrap(self, aggregate_id: bytes, wrapped: bytes) -> bytes:
        """Decrypt a wrapped data key with the master key that it was wrapped with.

        Raises:
            DecryptionError: neither opens it.
        """
        try:
            return unseal(self.first, wrapped, aggregate_id)
        except DecryptionError:
            if self.second is None:
                raise
            return unseal(self.second, wrapped, aggregate_id)


def master_keys(settings: Settings) -> MasterKeys | None:
    """Return the master keys of the settings, or None if there is none.

    Raises:
        Fatal: there is none, and personal data is to be encrypted.
    """
    first, second = (
        None if encoded is None else base64.b64decode(encoded)
        for encoded in (settings.secret("master_key"), settings.secret("second_master_key"))
    )
    if first is not None:
        assert len(first) == KEY_BYTES, "the settings check it"
        return MasterKeys(first, second)
    if settings.encrypt_personal_data:
        raise Fatal(
            "CQRS_ENCRYPT_PERSONAL_DATA is on and CQRS_MASTER_KEY is not set: set the one of this "
            "deployment; if there is none yet, `cqrs keys new` makes one"
        )
    return None


class PartitionKeys:
    """Data keys of one partition by aggregate id, kept wrapped and unwrapped at each use.

    Unwrapping takes a microsecond, so no data key has to be kept in memory in the clear.
    """

    def __init__(
        self, master: MasterKeys | None, wrapped: dict[bytes, bytes] | None = None
    ) -> None:
        """Start with these `wrapped` data keys; without a master key none can be used."""
        self._master = master
        self._wrapped = {} if wrapped is None else wrapped

    def __contains__(self, aggregate_id: bytes) -> bool:
        return aggregate_id in self._wrapped

    def apply(self, aggregate_id: bytes, wrapped: bytes | None) -> None:
        """Apply one record of the keys topic; None destroys the data key."""
        if wrapped is None:
            self._wrapped.pop(aggregate_id, None)
        else:
            self._wrapped[aggregate_id] = wrapped

    def get(self, aggregate_id: bytes) -> bytes | None:
        """Return the data key of an aggregate, or None if it has none.

        Raises:
            Fatal: the master key is missing or another one.
        """
        wrapped = self._wrapped.get(aggregate_id)
        return None if wrapped is None else self.unwrap(aggregate_id, wrapped)

    def make(self, aggregate_id: bytes) -> bytes:
        """Create a data key and return it wrapped; `apply` puts it to use."""
        assert self._master is not None, "nothing is encrypted without a master key"
        return self._master.wrap(aggregate_id, new_key())

    def unwrap(self, aggregate_id: bytes, wrapped: bytes) -> bytes:
        """Unwrap the data key in a record of the keys topic. Raises Fatal as `get` does."""
        if self._master is None:
            raise no_master_key()
        try:
            return self._master.unwrap(aggregate_id, wrapped)
        except DecryptionError:
            raise Fatal(
                "CQRS_MASTER_KEY is not the one that the keys of this deployment were made with: "
                "set that one (while keys are rotated, one of the two as CQRS_SECOND_MASTER_KEY)"
            ) from None


def no_master_key() -> Fatal:
    """Build the one-line error for encrypted data without a master key."""
    return Fatal(
        "There is encrypted personal data and CQRS_MASTER_KEY is not set: set the one of this "
        "deployment"
    )
