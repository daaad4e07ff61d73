"""The data keys of aggregates, wrapped with the master key, on a compacted topic: the keys topic.

A data key is the value of a record with the id of its aggregate, in the partition of the aggregate.
It is written in the transaction of the first event that is encrypted, and its tombstone in that of
the event that erases the aggregate.

A record that is damaged, or that somebody else wrote, opens nothing: its aggregate has lost its
key. It is told from a wrong master key, which opens none of a partition.
"""

from __future__ import annotations

import base64
import logging

from models.errors import Fatal, PartitionFatal
from streams.encryption.cipher import KEY_BYTES, DecryptionError, new_key, seal, unseal
from streams.logs import about
from streams.settings import Settings

logger = logging.getLogger(__name__)


def new_master_key() -> str:
    """Create a master key, in base64 as `CQRS_MASTER_KEY` takes it."""
    return base64.b64encode(new_key()).decode()


def master_key(settings: Settings) -> bytes | None:
    """Return the master key of the settings, 32 bytes, or None if there is none.

    Raises:
        Fatal: there is none, and personal data is to be encrypted.
    """
    encoded = settings.secret("master_key")
    if encoded is not None:
        key = base64.b64decode(encoded)
        assert len(key) == KEY_BYTES, "the settings check it"
        return key
    if settings.encrypt_personal_data:
        raise Fatal(
            "CQRS_ENCRYPT_PERSONAL_DATA is on and CQRS_MASTER_KEY is not set: set the one of this "
            "deployment; if there is none yet, `cqrs keys new` makes one"
        )
    return None


WRONG_MASTER_KEY = (
    "CQRS_MASTER_KEY is not the one that the keys of this deployment were made with: set that one"
)


class PartitionKeys:
    """Data keys of one partition by aggregate id, kept wrapped and unwrapped at each use.

    Unwrapping takes a microsecond, so no data key has to be kept in memory in the clear.
    """

    def __init__(self, master: bytes | None, wrapped: dict[bytes, bytes] | None = None) -> None:
        """Start with these `wrapped` data keys; without a master key none can be used."""
        self._master = master
        self._wrapped = {} if wrapped is None else wrapped
        self._damaged: set[bytes] = set()  # those that the log has named

    def __contains__(self, aggregate_id: bytes) -> bool:
        return aggregate_id in self._wrapped

    def apply(self, aggregate_id: bytes, wrapped: bytes | None) -> None:
        """Apply one record of the keys topic; None destroys the data key."""
        if wrapped is None:
            self._wrapped.pop(aggregate_id, None)
        else:
            self._wrapped[aggregate_id] = wrapped

    def get(self, aggregate_id: bytes) -> bytes | None:
        """Return the data key of an aggregate, or None if it has none that can be used.

        Raises:
            Fatal: the master key is missing.
            PartitionFatal: it opens none of these data keys.
        """
        wrapped = self._wrapped.get(aggregate_id)
        if wrapped is None:
            return None
        if self._master is None:
            raise no_master_key()
        key = unwrap(self._master, aggregate_id, wrapped)
        if key is None:
            self._check_master_key()
            self._log_damage(aggregate_id)
        return key

    def make(self, aggregate_id: bytes) -> bytes:
        """Create a data key and return it wrapped; `apply` puts it to use."""
        assert self._master is not None, "nothing is encrypted without a master key"
        return seal(self._master, new_key(), aggregate_id)

    def _check_master_key(self) -> None:
        """Check, after it did not open a data key, that the master key opens any other one."""
        assert self._master is not None
        if not any(unwrap(self._master, *item) for item in self._wrapped.items()):
            raise PartitionFatal(WRONG_MASTER_KEY)

    def _log_damage(self, aggregate_id: bytes) -> None:
        if aggregate_id not in self._damaged:
            self._damaged.add(aggregate_id)
            logger.error(
                "The data key of %s is damaged: CQRS_MASTER_KEY opens others, but not this one; "
                "what it encrypted cannot be read until its record on the keys topic is restored "
                "from a backup",
                aggregate_id.decode(errors="replace"),
                extra=about("key-damaged"),
            )


def unwrap(master: bytes, aggregate_id: bytes, wrapped: bytes) -> bytes | None:
    """Unwrap a data key; None if it is damaged, or of another master key."""
    try:
        return unseal(master, wrapped, aggregate_id)
    except DecryptionError:
        return None


def no_master_key() -> Fatal:
    """Build the one-line error for encrypted data without a master key."""
    return Fatal(
        "There is encrypted personal data and CQRS_MASTER_KEY is not set: set the one of this "
        "deployment"
    )
