"""Whose personal data was read without its key, although no event erased it so far."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast

from agents.daily_registrations import DAILY_REGISTRATIONS
from agents.user_views import USER_VIEWS
from models.events import (
    USER_EVENTS,
    UserDeactivated,
    UserErased,
    UserEvent,
    UserProfileUpdated,
    UserRegistered,
)
from models.wire import encode
from streams.encryption.cipher import new_key, seal_event
from streams.encryption.keys import MasterKeys, PartitionKeys
from streams.encryption.shredded import Shredded
from streams.kafka.records import Record
from streams.views.event_reader import EventReader
from tests.unit.samples import ANNA, record, wire_of

EMPTY = UserRegistered("", "", "", "web")


class Ring:
    """The keys that are there."""

    def __init__(self) -> None:
        self.keys = PartitionKeys(MasterKeys(new_key()))
        self._data_keys: dict[bytes, bytes] = {}

    def of(self, _partition: int) -> PartitionKeys:
        return self.keys

    async def ensure_loaded(self, _partition: int, _ids: Collection[bytes]) -> None: ...

    def sealed(self, user: str, *events: UserEvent) -> list[Record]:
        """The events of a user, with personal fields under a key of its own."""
        key = user.encode()
        if key not in self._data_keys:
            wrapped, self._data_keys[key] = self.keys.make(key)
            self.keys.apply(key, wrapped)
        written = []
        for number, event in enumerate(events, 1):
            wire = wire_of(record(event, number, aggregate_id=user))
            seal_event(wire, event.personal, self._data_keys[key])
            written.append(Record("users.events.v1", 0, number, 0, key, encode(wire)))
        return written

    def lose(self, *users: str) -> None:
        for user in users:
            self.keys.apply(user.encode(), None)


async def ids_after(ring: Ring, *chunks: list[Record], before: Collection[str] = ()) -> set[str]:
    shredded = Shredded(before)
    reader = EventReader[Any](USER_EVENTS, cast(Any, ring), shredded)
    for chunk in chunks:
        await reader.read(chunk)
    return shredded.ids


async def test_whose_key_was_lost_is_known() -> None:
    ring = Ring()
    anna = ring.sealed("anna", ANNA, UserDeactivated())
    ben = ring.sealed("ben", ANNA, UserProfileUpdated(last_name="Li"))
    assert await ids_after(ring, anna, ben) == set()
    ring.lose("anna", "ben")
    assert await ids_after(ring, anna, ben) == {"anna", "ben"}


async def test_who_was_erased_has_lost_nothing() -> None:
    """In the same chunk or in a later one, which may be read by the next run."""
    ring = Ring()
    anna = ring.sealed("anna", ANNA, UserDeactivated(), UserErased())
    ring.lose("anna")
    assert await ids_after(ring, anna) == set()
    assert await ids_after(ring, anna[:2]) == {"anna"}
    assert await ids_after(ring, anna[:2], anna[2:]) == set()
    assert await ids_after(ring, anna[2:], before={"anna", "ben"}) == {"ben"}


async def test_an_empty_field_that_somebody_wrote_is_not_a_lost_key() -> None:
    value = encode(record(EMPTY, aggregate_id="anna").to_wire())
    plain = Record("users.events.v1", 0, 1, 0, b"anna", value)
    broken = Record("users.events.v1", 0, 2, 0, b"anna", b'{"personal":')
    assert await ids_after(Ring(), [plain, broken]) == set()


def test_which_views_show_personal_data() -> None:
    assert USER_VIEWS.shows_personal_data
    assert not DAILY_REGISTRATIONS.shows_personal_data
