"""What a command partition writes: which key is made when, and what is sealed with it."""

from __future__ import annotations

import orjson
import pytest

from agents.users import USERS
from models.errors import Fatal, Poison
from models.events import UserDeactivated, UserErased
from models.messages import Event
from models.user import User
from streams.commands.repository import EventSourcedRepository
from streams.encryption.cipher import (
    PERSONAL,
    DecryptionError,
    is_sealed_state,
    new_key,
    open_dead_letter,
    open_event,
    seal_dead_letter,
)
from streams.encryption.keys import MasterKeys, PartitionKeys
from streams.encryption.sealer import PartitionSealer
from streams.kafka.dead_letters import (
    CODE,
    SEALED,
    WITHHELD,
    Headers,
    dead_letter,
    is_sealed,
    opened_letter,
)
from streams.kafka.transactions import OutputRecord
from streams.state.store import MemoryStore
from tests.unit.audit.histories import line
from tests.unit.samples import ANNA, record, register, wire_of

ID = b"user-1"
MASTER = MasterKeys(new_key())


@pytest.fixture
def keys() -> PartitionKeys:
    return PartitionKeys(MASTER)


@pytest.fixture
def sealing(keys: PartitionKeys) -> PartitionSealer:
    return PartitionSealer(keys, encrypt=True)


def write(sealing: PartitionSealer, event: Event, sequence: int = 1) -> bytes:
    return sealing.seal_event(record(event, sequence))  # type: ignore[arg-type]


HEADERS = (("email", b"anna@example.org"), (CODE, b"forged"), (SEALED, b"1"), ("empty", None))


def letter(value: bytes | None = b'{"email":"anna@example.org"}') -> OutputRecord:
    poisoned = line("t", 7, value, ID, HEADERS)
    return dead_letter(poisoned, Poison("missing-field", "it is"))


def own_headers(plain: OutputRecord) -> list[tuple[str, bytes | None]]:
    """Those that are not of the record."""
    assert tuple(plain.headers[: len(HEADERS)]) == HEADERS
    return [*plain.headers[len(HEADERS) :]]


def seal(sealing: PartitionSealer, plain: OutputRecord) -> OutputRecord:
    return sealing.seal_dead_letter(plain, keyed_elsewhere=False)


def test_a_dead_letter_whose_key_is_elsewhere_has_no_value(sealing: PartitionSealer) -> None:
    plain = letter()
    withheld = sealing.seal_dead_letter(plain, keyed_elsewhere=True)
    assert (withheld.key, withheld.value) == (ID, None)
    length = b"%d" % len(plain.value or b"")
    assert withheld.headers == [*own_headers(plain), (WITHHELD, length)]
    write(sealing, ANNA)  # its key is here after all
    sealed = sealing.seal_dead_letter(plain, keyed_elsewhere=True)
    assert is_sealed(sealed.headers)
    off = PartitionSealer(PartitionKeys(None))
    assert off.seal_dead_letter(plain, keyed_elsewhere=True) == plain


def test_the_first_event_makes_the_key_and_no_other(
    sealing: PartitionSealer, keys: PartitionKeys
) -> None:
    assert PERSONAL in orjson.loads(write(sealing, ANNA))
    (made,) = sealing.changes()
    assert made.key == ID
    sealing.clear()
    write(sealing, UserDeactivated(), 2)
    assert sealing.changes() == []
    opened = orjson.loads(write(PartitionSealer(keys, encrypt=True), ANNA))
    open_event(opened, ANNA.personal, PartitionKeys(MASTER, {ID: made.value or b""}).get(ID))
    assert opened == wire_of(record(ANNA))


def test_a_key_is_unwrapped_once_per_chunk_and_not_kept_longer(
    sealing: PartitionSealer, keys: PartitionKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []

    def get(aggregate_id: bytes) -> bytes | None:
        asked.append(aggregate_id)
        return PartitionKeys.get(keys, aggregate_id)

    write(sealing, ANNA)
    sealed = sealing.seal_state(ID, b"[]")
    sealing.clear()
    monkeypatch.setattr(keys, "get", get)
    for _ in range(3):
        assert sealing.open_state(ID, sealed) == b"[]"
        write(sealing, ANNA, 2)
        sealing.seal_state(ID, b"[]")
    assert asked == [ID]
    sealing.clear()
    keys.apply(ID, None)
    assert sealing.seal_state(ID, b"[]") == b"[]"


def test_the_event_that_erases_destroys_the_key(
    sealing: PartitionSealer, keys: PartitionKeys
) -> None:
    write(sealing, ANNA)
    sealing.clear()
    write(sealing, UserErased(), 2)
    assert sealing.changes() == [OutputRecord(ID, None)]
    assert ID not in keys


def test_an_erasure_needs_no_key(sealing: PartitionSealer, keys: PartitionKeys) -> None:
    assert PERSONAL not in orjson.loads(write(sealing, UserErased(), 2))
    assert sealing.changes() == []


def test_a_key_is_destroyed_even_if_encryption_is_off(
    sealing: PartitionSealer, keys: PartitionKeys
) -> None:
    write(sealing, ANNA)
    off = PartitionSealer(keys)
    write(off, UserErased(), 2)
    assert off.changes() == [OutputRecord(ID, None)]


def test_switched_off_nothing_is_sealed(keys: PartitionKeys) -> None:
    off = PartitionSealer(keys)
    assert orjson.loads(write(off, ANNA)) == wire_of(record(ANNA))
    assert off.changes() == []
    assert off.seal_state(ID, b"[]") == b"[]"
    assert seal(off, letter()) == letter()


def test_a_dead_letter_of_a_user_is_sealed_and_says_so(
    sealing: PartitionSealer, keys: PartitionKeys
) -> None:
    assert seal(sealing, letter()) == letter()  # there is no such user, hence no key
    write(sealing, ANNA)
    key = keys.get(ID)
    assert key is not None
    for plain in (letter(), letter(None)):
        assert not is_sealed(plain.headers)  # whatever the record's own headers say
        sealed = seal(sealing, plain)
        assert (sealed.key, sealed.headers) == (ID, [*own_headers(plain), (SEALED, b"2")])
        assert opened(sealed, key) == (plain.value, plain.headers)


def opened(sealed: OutputRecord, key: bytes) -> tuple[bytes | None, Headers]:
    return opened_letter(
        sealed.value or b"", sealed.headers, lambda content: open_dead_letter(content, ID, key)
    )


def test_a_dead_letter_that_an_older_version_sealed_is_opened(
    sealing: PartitionSealer, keys: PartitionKeys
) -> None:
    write(sealing, ANNA)
    key = keys.get(ID)
    assert key is not None
    plain = letter()
    older = OutputRecord(
        ID, seal_dead_letter(plain.value or b"", ID, key), [*plain.headers, (SEALED, b"1")]
    )
    assert is_sealed(older.headers)
    assert opened(older, key) == (plain.value, plain.headers)


def test_what_is_no_dead_letter_is_not_sealed() -> None:
    assert not is_sealed([(SEALED, b"1")])


def test_a_dead_letter_whose_key_is_damaged_has_no_value() -> None:
    master = new_key()
    other = PartitionKeys(MasterKeys(master)).make(b"user-2")[0]
    sealing = PartitionSealer(
        PartitionKeys(MasterKeys(master), {ID: b"?", b"user-2": other}), encrypt=True
    )
    assert seal(sealing, letter()).value is None
    assert write(sealing, ANNA)  # a user who has only now come: the record was never a key
    assert is_sealed(seal(sealing, letter()).headers)


def test_the_state_is_kept_sealed_until_the_user_is_erased(sealing: PartitionSealer) -> None:
    stored = MemoryStore()

    def users() -> EventSourcedRepository[User]:
        return EventSourcedRepository(USERS, stored, sealing)

    def save(event: Event, sequence: int) -> None:
        repository = users()
        repository.save(register(), [event])
        write(sealing, event, sequence)
        stored.records.update(repository.staged())

    save(ANNA, 1)
    assert is_sealed_state(stored.records[ID])
    user = users().load("user-1")
    assert user is not None
    assert user.email == ANNA.email
    save(UserErased(), 2)
    assert not is_sealed_state(stored.records[ID])
    user = users().load("user-1")
    assert user is not None
    assert (user.erased, user.email) == (True, "")


def test_a_state_whose_key_is_lost_cannot_be_opened(sealing: PartitionSealer) -> None:
    write(sealing, ANNA)
    sealed = sealing.seal_state(ID, b"[]")
    with pytest.raises(DecryptionError, match="its key is gone"):
        PartitionSealer(PartitionKeys(MasterKeys(new_key())), encrypt=True).open_state(ID, sealed)
    with pytest.raises(Fatal, match="CQRS_MASTER_KEY is not set"):
        PartitionSealer(PartitionKeys(None, {ID: b"x"})).open_state(ID, sealed)
