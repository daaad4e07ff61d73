"""The data keys of aggregates, wrapped with the master key, on a compacted topic: the keys topic.

A data key is the value of a record with the id of its aggregate, in the partition of the aggregate.
It is written in the transaction of the first event that is encrypted, and its tombstone in that of
the event that erases the aggregate.

It names its master key. So one that is damaged, which concerns its aggregate alone, is told from a
process that lacks a master key. Those of older versions do not: there a master key is another one
if it opens none of a partition.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import starmap

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from models.errors import Fatal, PartitionFatal
from streams.encryption.cipher import (
    KEY_BYTES,
    OVERHEAD_BYTES,
    DecryptionError,
    new_key,
    seal,
    unseal,
)
from streams.logs import about
from streams.settings import Settings

logger = logging.getLogger(__name__)

# A wrapped key has the id of its master key before it; those of older versions have not.
_MASTER_ID_BYTES = 8
_SEALED_BYTES = OVERHEAD_BYTES + KEY_BYTES

WRONG_MASTER_KEY = (
    "CQRS_MASTER_KEY is not the one that the keys of this deployment were made with: set that one "
    "(while keys are rotated, one of the two as CQRS_SECOND_MASTER_KEY)"
)


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

    @cached_property
    def _by_id(self) -> Mapping[bytes, AESGCM]:
        """The master keys by their ids, the first one first."""
        return {_id_of(one): AESGCM(one) for one in (self.first, self.second) if one is not None}

    @cached_property
    def _first(self) -> tuple[bytes, AESGCM]:
        return next(iter(self._by_id.items()))

    def wrap(self, aggregate_id: bytes, data_key: bytes) -> bytes:
        """Encrypt the data key of an aggregate with the first master key."""
        id_, master = self._first
        return id_ + seal(master, data_key, aggregate_id)

    def unwrap(self, aggregate_id: bytes, wrapped: bytes) -> bytes:
        """Decrypt a wrapped data key with the master key that it was wrapped with.

        Raises:
            DecryptionError: that one is not here, or the data key is damaged.
        """
        if names_its_master(wrapped):
            master = self._by_id.get(wrapped[:_MASTER_ID_BYTES])
            if master is None:
                raise DecryptionError("it was wrapped with another master key")
            return unseal(master, wrapped[_MASTER_ID_BYTES:], aggregate_id)
        for master in self._by_id.values():
            with suppress(DecryptionError):
                return unseal(master, wrapped, aggregate_id)
        raise DecryptionError("no master key opens it")

    def are_named_by(self, wrapped: bytes) -> bool:
        """Return whether a wrapped data key names one of them; those of older versions do not."""
        return names_its_master(wrapped) and wrapped[:_MASTER_ID_BYTES] in self._by_id

    def opens(self, aggregate_id: bytes, wrapped: bytes) -> bool:
        """Return whether one of the master keys opens a wrapped data key."""
        try:
            self.unwrap(aggregate_id, wrapped)
        except DecryptionError:
            return False
        return True

    def did_wrap(self, aggregate_id: bytes, wrapped: bytes) -> bool | None:
        """Return whether one of them wrapped a data key; None if that is not known.

        It is not known of one that is damaged, or of an older version and another master key.
        """
        if names_its_master(wrapped):
            return self.are_named_by(wrapped)
        return self.opens(aggregate_id, wrapped) or None


def names_its_master(wrapped: bytes) -> bool:
    """Return whether a wrapped data key says with which master key it was wrapped."""
    return len(wrapped) == _MASTER_ID_BYTES + _SEALED_BYTES


def _id_of(master: bytes) -> bytes:
    return sha256(b"cqrs master key id" + master).digest()[:_MASTER_ID_BYTES]


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
    """Data keys of one partition by aggregate id, kept wrapped and unwrapped when asked for.

    That takes a microsecond, so no data key has to be kept in memory in the clear.
    """

    def __init__(
        self, master: MasterKeys | None, wrapped: dict[bytes, bytes] | None = None
    ) -> None:
        """Start with these `wrapped` data keys; without a master key none can be used.

        Raises:
            PartitionFatal: there are some, and none is of this master key.
        """
        self._master = master
        self._wrapped = {} if wrapped is None else wrapped
        self._damaged: set[bytes] = set()  # those that the log has named
        if master is not None and self._wrapped:
            self._check_master_key(master)

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
            PartitionFatal: it is another one, or the data key is of one that is not here.
        """
        wrapped = self._wrapped.get(aggregate_id)
        if wrapped is None:
            return None
        if self._master is None:
            raise no_master_key()
        try:
            return self._master.unwrap(aggregate_id, wrapped)
        except DecryptionError:
            self._check_master_key(self._master)
            if self._master.did_wrap(aggregate_id, wrapped) is False:
                raise PartitionFatal(
                    f"the data key of {aggregate_id.decode(errors='replace')} is of a master key "
                    "that this process lacks: set that one as CQRS_SECOND_MASTER_KEY and run `cqrs "
                    "keys rotate`; if somebody restored an old record, restore the newer one"
                ) from None
        self._log_damage(aggregate_id)
        return None

    def make(self, aggregate_id: bytes) -> tuple[bytes, bytes]:
        """Create a data key; return it wrapped, for `apply` and the topic, and as it is."""
        assert self._master is not None, "nothing is encrypted without a master key"
        data_key = new_key()
        return self._master.wrap(aggregate_id, data_key), data_key

    def _check_master_key(self, master: MasterKeys) -> None:
        """Check that the master key is that of some data keys of the partition."""
        if not any(starmap(master.did_wrap, self._wrapped.items())):
            raise PartitionFatal(WRONG_MASTER_KEY)

    def _log_damage(self, aggregate_id: bytes) -> None:
        if aggregate_id not in self._damaged:
            self._damaged.add(aggregate_id)
            logger.error(
                "The data key of %s is damaged: CQRS_MASTER_KEY opens others, but not this one; "
                "what it encrypted cannot be read until its record on the keys topic is restored "
                "from a backup; then start the workers again, and run `cqrs views rebuild`",
                aggregate_id.decode(errors="replace"),
                extra=about("key-damaged"),
            )


def no_master_key() -> Fatal:
    """Build the one-line error for encrypted data without a master key."""
    return Fatal(
        "There is encrypted personal data and CQRS_MASTER_KEY is not set: set the one of this "
        "deployment"
    )
