"""The keys of aggregates: one each, wrapped by the master key, on a compacted topic of their own.

A key lies on the keys topic under its aggregate's id, in the partition of the aggregate. It gets
there in the transaction of the aggregate's first event, and its tombstone in that of the event
which erases the aggregate.
"""

from __future__ import annotations

import base64

from models.errors import Fatal
from streams.encryption.cipher import KEY_BYTES, DecryptionError, new_key, seal, unseal
from streams.settings import Settings


def new_master_key() -> str:
    """A new one, as the settings take it."""
    return base64.b64encode(new_key()).decode()


def master_key(settings: Settings) -> bytes | None:
    """The master key of the settings.

    Raises:
        Fatal: there is none, and personal data is to be encrypted.
    """
    if settings.master_key is not None:
        key = base64.b64decode(settings.master_key.get_secret_value())
        assert len(key) == KEY_BYTES, "the settings check it"
        return key
    if settings.encrypt_personal_data:
        raise Fatal(
            "CQRS_ENCRYPT_PERSONAL_DATA is on and CQRS_MASTER_KEY is not set: set the one of this "
            "deployment; if there is none yet, `cqrs keys new` makes one"
        )
    return None


class PartitionKeys:
    """The keys of one partition by aggregate id, wrapped; each is unwrapped when it is used.

    To unwrap one takes a microsecond, so no key lies in memory in the clear.
    """

    def __init__(self, master: bytes | None, wrapped: dict[bytes, bytes] | None = None) -> None:
        self._master = master
        self._wrapped = {} if wrapped is None else wrapped

    def __contains__(self, aggregate_id: bytes) -> bool:
        return aggregate_id in self._wrapped

    def apply(self, aggregate_id: bytes, wrapped: bytes | None) -> None:
        """Take over one record of the topic; None destroys the key."""
        if wrapped is None:
            self._wrapped.pop(aggregate_id, None)
        else:
            self._wrapped[aggregate_id] = wrapped

    def get(self, aggregate_id: bytes) -> bytes | None:
        """The aggregate's key, or None if it has none.

        Raises:
            Fatal: the master key is missing or another one.
        """
        wrapped = self._wrapped.get(aggregate_id)
        return None if wrapped is None else self.unwrap(aggregate_id, wrapped)

    def make(self, aggregate_id: bytes) -> bytes:
        """A new key, wrapped; it is not in use before it is applied."""
        assert self._master is not None, "nothing is encrypted without one"
        return seal(self._master, new_key(), aggregate_id)

    def unwrap(self, aggregate_id: bytes, wrapped: bytes) -> bytes:
        """The key in a record of the topic. Raises Fatal as `get` does."""
        if self._master is None:
            raise no_master_key()
        try:
            return unseal(self._master, wrapped, aggregate_id)
        except DecryptionError:
            raise Fatal(
                "CQRS_MASTER_KEY is not the one that the keys of this deployment were made with: "
                "set that one"
            ) from None


def no_master_key() -> Fatal:
    """The one line for encrypted data without a master key."""
    return Fatal(
        "There is encrypted personal data and CQRS_MASTER_KEY is not set: set the one of this "
        "deployment"
    )
