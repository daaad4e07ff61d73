from datetime import timezone
from typing import Any
from uuid import UUID, uuid5

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import Poison
from models.event_decoder import event_decoder
from models.events import (
    USER_EVENTS,
    UserDeactivated,
    UserErased,
    UserEvent,
    UserProfileUpdated,
    UserReactivated,
    UserRegistered,
)
from models.messages import (
    EventRecord,
    Source,
    WithoutPersonalData,
    event_id,
    indexed_event_id,
    parse_event,
)
from models.wire import encode
from tests.unit.samples import ANNA, COMMAND_ID, keys, record, times, wire_of

decode_at = event_decoder(USER_EVENTS)


def decode(value: bytes) -> EventRecord[UserEvent] | None:
    return decode_at(value, -1)


texts = st.text(st.characters(codec="utf-8"), max_size=20)
events: st.SearchStrategy[UserEvent] = st.one_of(
    st.builds(UserRegistered, texts, texts, texts, texts),
    st.builds(UserProfileUpdated, st.none() | texts, st.none() | texts, st.none() | texts),
    st.builds(UserDeactivated),
    st.builds(UserReactivated),
    st.builds(UserErased),
)


def wire_event(**fields: Any) -> dict[str, Any]:
    return {**wire_of(record(ANNA)), **fields}


def test_an_event_on_the_wire_is_flat() -> None:
    assert wire_of(record(ANNA, correlation_id="visit-7", causation_id="click-1")) == {
        "type": "UserRegistered",
        "schemaVersion": 1,
        "id": "22222222-2222-4222-8222-222222222222",
        "aggregateId": "user-1",
        "sequence": 1,
        "timestamp": "2026-11-23T12:00:00Z",
        "commandId": "11111111-1111-4111-8111-111111111111",
        "correlationId": "visit-7",
        "causationId": "click-1",
        "source": {"topic": "users.commands.v1", "partition": 3, "offset": 12345},
        "email": "Anna@example.org",
        "firstName": "Anna",
        "lastName": "Müller",
        "registrationSource": "web",
    }


def test_an_update_carries_only_what_changed() -> None:
    data = wire_of(record(UserProfileUpdated(last_name="Meier")))
    assert data["lastName"] == "Meier"
    assert not {"email", "firstName", "correlationId", "causationId"} & set(data)


envelopes = st.fixed_dictionaries(
    {
        "id": st.uuids(),
        "aggregate_id": keys,
        "timestamp": times,
        "command_id": st.uuids(),
        "correlation_id": st.none() | keys,
        "causation_id": st.none() | keys,
        "source": st.builds(Source, keys, st.integers(0, 999), st.integers(0, 2**63 - 1)),
    }
)


@settings(deadline=None)
@given(event=events, sequence=st.integers(1, 10**6), fields=envelopes)
def test_an_event_survives_the_wire(
    event: UserEvent, sequence: int, fields: dict[str, Any]
) -> None:
    sent = record(event, sequence, **fields)
    assert parse_event(wire_of(sent), USER_EVENTS) == sent
    assert decode(encode(sent.to_wire())) == sent
    assert sent.type in USER_EVENTS


def explained(value: bytes) -> EventRecord[UserEvent] | None:
    """What the checks that explain say of a record's value."""
    try:
        return parse_event(orjson.loads(value), USER_EVENTS)
    except (orjson.JSONDecodeError, Poison):
        return None


# What may stand in the place of a field, most of it wrong there.
odd: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, 1, 2, 2**63 - 1, 2**63, 2**64 - 1, 1.0, 1e300, 0.5]),
    texts,
    st.sampled_from(["1", "UserErased", "11111111111141118111111111111111"]),
    st.sampled_from([f"{{{COMMAND_ID}}}", str(COMMAND_ID).upper(), f"urn:uuid:{COMMAND_ID}"]),
    st.sampled_from(["2026-11-23T12:00:00" + end for end in ("", "Z", "z", ".1Z", ".1234567Z")]),
    st.sampled_from(["2026-11-23T12:00:00" + end for end in ("+00:00", "-00:00", "+01:00")]),
    st.sampled_from(
        ["2026-11-23 12:00:00Z", "2026-11-23T12:00Z", "20261123T120000Z", "2026-11-23Z"]
    ),
    st.sampled_from([[], {}, {"topic": "t", "partition": 0, "offset": 1}]),
    st.fixed_dictionaries(
        {"topic": texts, "partition": st.integers(-1, 1) | st.just(1.0)},
        optional={"offset": st.just(2**63), "more": st.just(0)},
    ),
)
field_names = st.sampled_from(sorted(wire_of(record(ANNA, correlation_id="a", causation_id="b"))))


@settings(deadline=None, max_examples=500)
@given(
    event=events,
    fields=st.dictionaries(field_names | st.just("personal"), odd, max_size=2),
    twice=st.dictionaries(field_names, odd, max_size=1),
    missing=st.none() | field_names,
)
def test_the_fast_path_decodes_the_same_as_the_checked_one(
    event: UserEvent, fields: dict[str, Any], twice: dict[str, Any], missing: str | None
) -> None:
    """Whatever the values: the decoder may leave an event to the checks, never contradict them."""
    data = {**wire_of(record(event)), **fields}
    data.pop(missing or "", None)
    value = orjson.dumps(data)
    if twice:  # of a name that is there twice, the last one counts
        value = value[:-1] + b"," + orjson.dumps(twice)[1:]
    decoded = decode(value)
    assert decoded is None or decoded == explained(value)
    assert decoded is None or decoded.timestamp.tzinfo is timezone.utc


@settings(deadline=None, max_examples=500)
@given(at=st.integers(0), cut=st.integers(0, 3), put=st.binary(max_size=3), more=st.booleans())
def test_the_fast_path_decodes_no_invalid_event(at: int, cut: int, put: bytes, more: bool) -> None:
    """Whatever the bytes, such as UTF-8 that is none in a field that nobody knows."""
    fields = {"mood": "good"} if more else {}
    sound = orjson.dumps(wire_event(**fields))
    place = at % len(sound)
    value = sound[:place] + put + sound[place + cut :]
    decoded = decode(value)
    assert decoded is None or decoded == explained(value)


@pytest.mark.parametrize("value", [b"", b"null", b"[]", b"{}", b"5", b'{"type":"UserErased"}'])
def test_the_fast_path_leaves_other_data_to_the_checked_one(value: bytes) -> None:
    assert decode(value) is None
    assert event_decoder({"UserErased": UserErased})(value, -1) is None


def test_an_aggregate_may_have_one_type_of_events() -> None:
    erased = record(UserErased())
    decode_one = event_decoder({"UserErased": UserErased})
    assert decode_one(encode(erased.to_wire()), -1) == erased
    untyped = {name: value for name, value in wire_of(erased).items() if name != "type"}
    assert decode_one(orjson.dumps(untyped), -1) is None
    assert decode_one(encode(record(ANNA).to_wire()), -1) is None


def test_an_unknown_field_is_ignored() -> None:
    assert parse_event(wire_event(mood="good"), USER_EVENTS) == record(ANNA)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ([], "not-an-object"),
        ({}, "missing-field"),
        (wire_event(type=5), "invalid-field"),
        (wire_event(type="UserPromoted"), "unknown-type"),
        (wire_event(schemaVersion=2), "unknown-version"),
        (wire_event(schemaVersion=None), "missing-field"),
        (wire_event(schemaVersion="1"), "invalid-field"),
        (wire_event(id="x"), "invalid-field"),
        (wire_event(id=5), "invalid-field"),
        (wire_event(aggregateId=None), "missing-field"),
        (wire_event(sequence=0), "invalid-field"),
        (wire_event(sequence=True), "invalid-field"),
        (wire_event(timestamp="2026-11-23T12:00:00"), "invalid-field"),
        (wire_event(timestamp="2026-11-23T12:00:00+01:00Z"), "invalid-field"),
        (wire_event(timestamp="yesterdayZ"), "invalid-field"),
        (wire_event(timestamp=5), "invalid-field"),
        (wire_event(timestamp=None), "missing-field"),
        (wire_event(commandId=None), "missing-field"),
        (wire_event(source=None), "missing-field"),
        (wire_event(source="here"), "invalid-field"),
        (wire_event(source={"topic": "t", "partition": -1, "offset": 0}), "invalid-field"),
        (wire_event(email=None), "missing-field"),
        (wire_event(email=5), "invalid-field"),
        (wire_event(type="UserProfileUpdated", email=5), "invalid-field"),
    ],
)
def test_refuses_what_we_do_not_write(data: object, code: str) -> None:
    with pytest.raises(Poison) as caught:
        parse_event(data, USER_EVENTS)
    assert caught.value.code == code


def test_event_ids_never_change() -> None:
    # Written out: deciding again has to result in the same ids, in later versions as well.
    assert indexed_event_id(COMMAND_ID, 0) == UUID("c09c0359-59c7-5f10-8f5b-86a795c831fe")
    assert event_id(COMMAND_ID, "anna", 3) == UUID("c8788f63-22f7-54fb-95ee-4a41abeca96f")


@given(st.uuids(), st.text(), st.integers(0, 99))
def test_event_ids_are_uuids_of_version_5(command_id: UUID, user: str, sequence: int) -> None:
    assert event_id(command_id, user, sequence) == uuid5(command_id, f"{user}/{sequence}")
    assert indexed_event_id(command_id, sequence) == uuid5(command_id, str(sequence))


class Redeemed(WithoutPersonalData, frozen=True):
    """An event of another aggregate, with a field."""

    in_cents: int


def test_events_of_other_aggregates_need_only_their_fields() -> None:
    assert Redeemed.personal == ()
    assert not Redeemed.erases
    assert not Redeemed(5).is_shredded
    assert msgspec.to_builtins(Redeemed(5)) == {"inCents": 5}
    assert Redeemed.from_wire({"type": "Redeemed", "inCents": 5}) == Redeemed(5)


@pytest.mark.parametrize(
    ("data", "code"), [({}, "missing-field"), ({"inCents": "five"}, "invalid-field")]
)
def test_their_fields_are_checked(data: dict[str, Any], code: str) -> None:
    with pytest.raises(Poison, match="inCents") as raised:
        Redeemed.from_wire(data)
    assert raised.value.code == code
    assert "five" not in str(raised.value)
