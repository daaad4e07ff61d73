"""Whatever bytes somebody writes: every input ends in a value or in a named error.

A hundred examples each in every run. A hundred thousand: `./run test tests/unit/test_fuzz.py
--hypothesis-profile=full`. That takes one to two milliseconds of CPU each.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec
import orjson
import pytest
from click import unstyle
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agents.user_queries import _position
from agents.users import USERS
from deploy.cli.output import printable
from deploy.cli.tail import _SHOW, Kind, _line
from models.commands import USER_COMMANDS
from models.errors import CqrsError, InvalidToken, Poison
from models.event_decoder import event_decoder
from models.events import USER_EVENTS
from models.outcomes import parse_outcome
from models.tokens import Token
from streams.audit.folds import Frozen
from streams.audit.partition import PartitionAudit
from streams.audit.report import Report
from streams.commands.control import has_form_of_control
from streams.commands.reader import CommandReader, identify
from streams.encryption.cipher import (
    PERSONAL,
    DecryptionError,
    new_key,
    open_dead_letter,
    open_event,
    open_state,
)
from streams.encryption.events import read_event
from streams.encryption.keys import MasterKeys, PartitionKeys
from streams.kafka.dead_letters import dead_letter
from streams.kafka.records import Record
from streams.state.snapshot import decode_snapshot
from streams.views.checkpoint import read_checkpoint
from streams.views.event_reader import EventReader
from tests.unit.audit.histories import NAMES
from tests.unit.samples import ANNA, record, wire_of, wire_register

pytestmark = pytest.mark.timeout(1800)  # at full size, on a busy machine

KEY = new_key()


def damaged(sample: bytes) -> st.SearchStrategy[bytes]:
    """The sample with another piece in the place of some of it."""
    return st.builds(
        lambda at, length, piece: sample[:at] + piece + sample[at + length :],
        st.integers(0, len(sample)),
        st.integers(0, 20),
        st.binary(max_size=20),
    )


def nested(depth: int) -> bytes:
    return b'{"x":' + b"[" * depth + b"]" * depth + b',"type":"RegisterUser","id":"1"}'


REGISTRATION = json.dumps(wire_register()).encode()
EVENT = orjson.dumps(wire_of(record(ANNA)))

# Few draws, most of them from lists: a draw costs more than what is tested here.
json_values: st.SearchStrategy[Any] = st.sampled_from(
    [
        *(None, True, -1, 2**31, 2**63, 2**64, 10**400, -0.0, 1e308, float("nan"), float("inf")),
        *("", "\x00", "\ud800", "1", "user-1", "2026-01-01T00:00:00Z", "2026-13-01", "a@b"),
        *([], [[]], {}, {"": {"x": [None]}}, ["user-1", 1], {"id": 1, "type": []}, [{}] * 20),
        "x" * 300,
    ]
) | st.text(max_size=5)
fields = st.tuples(
    st.sampled_from([*wire_register(), *wire_of(record(ANNA)), PERSONAL, "status", "of"]),
    json_values,
)
objects = st.tuples(fields) | st.tuples(fields, fields, fields)
values = st.one_of(
    st.sampled_from([None, b"", nested(10), b"\xef\xbb\xbf{}", b'"\\ud800"', b"[" * 200]),
    st.binary(max_size=40),
    damaged(REGISTRATION),
    damaged(EVENT),
    objects.map(lambda fields: json.dumps(dict(fields)).encode()),
    objects.map(lambda fields: json.dumps(wire_register() | dict(fields)).encode()),
    objects.map(lambda fields: json.dumps(wire_of(record(ANNA)) | dict(fields)).encode()),
)
header = st.tuples(
    st.sampled_from(
        ["id", "type", "expectedVersion", "schemaVersion", "cqrs-dead-sealed", "", "\ufffd", "x"]
    ),
    st.sampled_from([None, b"", b"1", b"user-1", b"\xff", b"RegisterUser", b"9" * 5000]),
)
records = st.builds(
    Record,
    st.just(NAMES.commands),
    st.just(3),
    st.sampled_from([0, 1, 4, 2**63 - 1]),
    st.sampled_from([0, 1, -1, -(2**63), 1_700_000_000_000, 2**63 - 1]),
    st.sampled_from([None, b"", b"user-1", b"\xff\xfe", b"k" * 300]),
    values,
    st.just(()) | st.tuples(header) | st.tuples(header, header),
    st.sampled_from([None, None, None, Poison("oversized", "it is")]),
)
DEEP = Record(NAMES.commands, 3, 0, 0, b"user-1", nested(100_000), ())  # deeper than any stack
fuzz = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@fuzz
@given(records)
@example(DEEP)
def test_a_command_or_a_poison(found: Record) -> None:
    try:
        CommandReader(USER_COMMANDS).read(found)
    except Poison as poison:
        letter = dead_letter(found, poison)
        assert len(letter.value or b"") <= len(found.value or b"")
    command_id, aggregate_id = identify(found)
    assert (command_id is None) == (aggregate_id is None)


@fuzz
@given(records)
@example(DEEP)
def test_an_event_or_a_poison(found: Record) -> None:
    fast = None if found.value is None else event_decoder(USER_EVENTS)(found.value, found.offset)
    try:
        event = read_event(found, USER_EVENTS, PartitionKeys(MasterKeys(KEY)))
    except Poison:
        return
    assert fast in (None, event)


@fuzz
@given(found=st.tuples(records))
@example(found=[DEEP, DEEP])
async def test_an_event_reader_returns_something_for_each_record(found: Sequence[Record]) -> None:
    assert len(await EventReader(USER_EVENTS, None).read([*map(without_seal, found)])) == len(found)


def without_seal(found: Record) -> Record:
    """Sealed events need a master key, and without one a worker refuses."""
    value = (found.value or b"").replace(PERSONAL.encode(), b"plain")
    return msgspec.structs.replace(found, value=value)


@fuzz
@given(found=st.tuples(records))
@example(found=[DEEP, DEEP])
def test_the_checker_reports_what_it_cannot_read(found: Sequence[Record]) -> None:
    report = Report()
    audit = PartitionAudit(
        USERS, NAMES, 3, Frozen(5, 5), view=None, report=report, keys=PartitionKeys(MasterKeys(KEY))
    )
    audit.add_commands(found)
    audit.add_outcomes(found)
    audit.add_dead_letters(found)
    audit.add_events(found)
    audit.conclude({})


@fuzz
@given(found=records, kind=st.sampled_from(list(_SHOW)), as_json=st.booleans())
@example(found=DEEP, kind="dead", as_json=True)
async def test_tail_has_a_line_for_every_record(found: Record, kind: Kind, as_json: bool) -> None:
    line = unstyle(await _line(kind, found, None, as_json=as_json))
    assert printable(line) == line


PARSERS: Sequence[tuple[Callable[[bytes], object], type[Exception]]] = [
    (parse_outcome, Poison),
    (lambda data: Token.parse(data.decode("latin-1")), InvalidToken),
    (lambda data: _position(data.decode("latin-1")), CqrsError),
    (lambda data: decode_snapshot(USERS, data), ValueError),
    (lambda data: open_state(data, b"user-1", KEY), DecryptionError),
    (lambda data: open_dead_letter(data, b"user-1", KEY), DecryptionError),
    (has_form_of_control, Poison),
]


@fuzz
@given(data=values)
@example(data=nested(100_000))
@example(data=b'{"type":"\xff"}')
@example(data=b'{"type":"DropParked","x":' + nested(100_000))
def test_a_value_or_its_error(data: bytes | None) -> None:
    for parse, errors in PARSERS:
        with suppress(errors):
            parse(data or b"")


@fuzz
@given(objects)
@example([("aggregateId", "\ud800"), ("personal", "")])
def test_a_sealed_event_opens_or_says_so(fields: Sequence[tuple[str, Any]]) -> None:
    with suppress(DecryptionError):
        open_event(dict(fields), ("email",), KEY)


@fuzz
@given(
    st.tuples(
        *[
            st.tuples(st.sampled_from(["found", "_source", "_seq_no", "_primary_term"]), value)
            for value in (json_values, json_values, objects.map(dict))
        ]
    )
)
def test_a_checkpoint_or_one_line(item: Sequence[tuple[str, Any]]) -> None:
    with suppress(CqrsError):
        read_checkpoint("user-views-v1", {"_id": "x", **dict(item)})
