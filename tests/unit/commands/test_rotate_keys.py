"""Which master key wraps which data key, as the keys topic says it."""

from __future__ import annotations

from aiokafka.structs import TopicPartition

from streams.commands.rotate_keys import KeysLog, Rotated, WrappedKeys
from streams.encryption.cipher import new_key
from streams.encryption.keys import MasterKeys

NEW, OLD, FOREIGN = new_key(), new_key(), new_key()


def wrapped_with(master: bytes, user: bytes) -> bytes:
    return MasterKeys(master).wrap(user, new_key())


def keys_log() -> KeysLog:
    return KeysLog(MasterKeys(NEW, OLD), TopicPartition("keys", 3))


def test_the_last_record_of_a_user_counts() -> None:
    log = keys_log()
    for user, master in ((b"anna", OLD), (b"ben", OLD), (b"cleo", FOREIGN), (b"dan", NEW)):
        log.apply(user, wrapped_with(master, user))
    assert log.summary() == WrappedKeys(3, current=1, second=2, unknown=1, damaged=0, replaced=0)
    log.apply(b"anna", wrapped_with(NEW, b"anna"))
    log.apply(b"cleo", None)
    assert log.summary() == WrappedKeys(3, current=2, second=1, unknown=0, damaged=0, replaced=2)
    assert log.second.keys() == {b"ben"}


def test_a_destroyed_key_is_not_wrapped_anew() -> None:
    log = keys_log()
    log.apply(b"anna", wrapped_with(OLD, b"anna"))
    log.apply(b"anna", None)
    log.apply(b"\0roll", None)
    assert not log.second
    assert log.summary() == WrappedKeys(3, current=0, second=0, unknown=0, damaged=0, replaced=1)


def test_without_a_second_master_key_other_keys_are_unknown() -> None:
    log = KeysLog(MasterKeys(NEW), TopicPartition("keys", 0))
    log.apply(b"anna", wrapped_with(OLD, b"anna"))
    assert log.summary() == WrappedKeys(0, current=0, second=0, unknown=1, damaged=0, replaced=0)


def damaged(wrapped: bytes) -> bytes:
    """As if one bit of the medium had turned."""
    return wrapped[:-1] + bytes([wrapped[-1] ^ 1])


def test_what_cannot_be_opened_is_named_and_holds_up_nothing() -> None:
    log = keys_log()
    log.apply(b"anna", damaged(wrapped_with(OLD, b"anna")))
    log.apply(b"ben", wrapped_with(OLD, b"ben"))
    log.apply(b"cleo", wrapped_with(FOREIGN, b"cleo"))
    log.apply(b"dan", damaged(wrapped_with(NEW, b"dan")))
    log.apply(b"eve", b"of an older version, or garbage")
    assert log.summary() == WrappedKeys(3, current=0, second=1, unknown=2, damaged=2, replaced=0)
    assert log.second.keys() == {b"ben"}
    assert log.rotated(1) == Rotated(3, 1, unknown=("cleo", "eve"), damaged=("anna", "dan"))
    log.apply(b"anna", wrapped_with(OLD, b"anna"))
    log.apply(b"dan", None)
    assert log.summary() == WrappedKeys(3, current=0, second=2, unknown=2, damaged=0, replaced=2)
