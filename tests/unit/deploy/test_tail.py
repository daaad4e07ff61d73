"""The lines of `cqrs tail` for dead letters: of commands and of views, also what does not open."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any, cast

import pytest

from deploy.cli.tail import Kind, _line
from models.errors import Poison
from models.wire import encode
from streams.encryption.cipher import new_key, seal_event
from streams.encryption.key_ring import KeyRing
from streams.encryption.keys import MasterKeys, PartitionKeys
from streams.kafka.dead_letters import VIEW, dead_letter
from streams.kafka.records import Record
from tests.unit.audit.histories import NAMES
from tests.unit.samples import ANNA, record

KEYS = PartitionKeys(MasterKeys(new_key()))
USER = b"user-1"
WRAPPED, DATA_KEY = KEYS.make(USER)
KEYS.apply(USER, WRAPPED)


class Ring:
    """A ring with one data key."""

    async def ensure_loaded(self, _partition: int, _ids: Collection[bytes]) -> None:
        """It is here."""

    def of(self, _partition: int) -> PartitionKeys:
        return KEYS


def event(data_key: bytes) -> bytes:
    wire = record(ANNA).to_wire()
    seal_event(wire, ANNA.personal, data_key)
    return encode(wire)


def letter(value: bytes, view: str | None = None, **headers: bytes) -> Record:
    """A dead letter of an event that has these headers of its producer."""
    source = Record(NAMES.events, 3, 7, 0, USER, value, tuple(headers.items()))
    output = dead_letter(source, Poison("refused-document", "it is too long"))
    own = [] if view is None else [(VIEW, view.encode())]
    return Record(NAMES.dead_views, 3, 0, 0, output.key, output.value, (*output.headers, *own))


async def line(found: Record, *, as_json: bool, kind: Kind = "dead-views") -> str:
    return await _line(kind, found, cast(KeyRing, Ring()), as_json=as_json)


async def test_a_dead_letter_of_a_view_says_of_which_and_why() -> None:
    found = letter(event(DATA_KEY), "user-views")
    shown = await line(found, as_json=False)
    assert shown.startswith("user-views  users.events.v1[3] offset 7  refused-document: it is too")
    assert ANNA.email in shown
    as_json: dict[str, Any] = json.loads(await line(found, as_json=True))
    assert (as_json["view"], as_json["code"]) == ("user-views", "refused-document")
    assert as_json["source"] == {"topic": NAMES.events, "partition": 3, "offset": 7}
    assert json.loads(as_json["value"])["email"] == ANNA.email


@pytest.mark.parametrize("value", [event(new_key()), b'{"personal":"'], ids=["sealed", "no JSON"])
@pytest.mark.parametrize("kind", ["dead", "dead-views"])
async def test_what_does_not_open_is_shown_as_it_is(value: bytes, kind: Kind) -> None:
    """That is why it is a dead letter."""
    found = letter(value, "user-views")
    assert "refused-document: it is too long" in await line(found, as_json=False, kind=kind)
    assert json.loads(await line(found, as_json=True, kind=kind))["value"] == value.decode()


async def test_a_header_of_the_producer_names_no_view() -> None:
    found = letter(b"{}", None, **{VIEW: b"user-views", "cqrs-dead-withheld": b"1"})
    assert json.loads(await line(found, as_json=True, kind="dead"))["view"] is None
    assert (await line(found, as_json=False, kind="dead")).endswith("'{}'")
