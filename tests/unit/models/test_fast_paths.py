"""What the fast decoders leave to the slow ones, and what the slow ones say of it."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from models.command_decoder import CommandDecoder
from models.commands import USER_COMMANDS
from models.errors import Poison
from models.event_decoder import event_decoder
from models.events import USER_EVENTS
from models.messages import Command, parse_command
from tests.unit.samples import ANNA, COMMAND_ID, NOON, record, wire_of, wire_register


class Count(Command):
    """Has a field of a type that the fast decoder does not know."""

    by: int


def test_null_is_no_command_where_no_type_has_a_fast_path() -> None:
    decoder = CommandDecoder({"Count": Count})
    assert decoder.read(b"null", lambda: COMMAND_ID, lambda: NOON) is None


@pytest.mark.parametrize("timestamp", ["2026-11-23T12:00:00", "2026-11-23T12:00:00+01:00"])
def test_only_an_event_with_its_time_in_utc_is_decoded_at_once(timestamp: str) -> None:
    decode = event_decoder(USER_EVENTS)
    event = wire_of(record(ANNA))
    assert decode(orjson.dumps(event), -1) == record(ANNA)
    assert decode(orjson.dumps({**event, "timestamp": timestamp}), -1) is None


def test_an_event_with_an_empty_type_is_not_decoded() -> None:
    decode = event_decoder(USER_EVENTS)
    assert decode(orjson.dumps({**wire_of(record(ANNA)), "type": ""}), -1) is None
    assert decode(b'{"type":""}', -1) is None


def test_a_reason_names_five_problems_and_counts_the_rest() -> None:
    data: dict[str, Any] = {
        "type": "RegisterUser",
        "id": str(COMMAND_ID),
        "timestamp": "2026-11-23T12:00:00Z",
        "surprise": 1,
        "other": 2,
    }
    with pytest.raises(Poison) as caught:
        parse_command(data, USER_COMMANDS)
    assert caught.value.code == "missing-field"
    assert str(caught.value).endswith("; and 2 more")
    assert str(caught.value).count("; ") == 5


def test_a_time_that_is_no_date_breaks_the_rule_for_times() -> None:
    with pytest.raises(Poison, match="timestamp: must be an ISO 8601 time with a zone") as caught:
        parse_command(wire_register(timestamp="2026-13-45T12:00:00Z"), USER_COMMANDS)
    assert caught.value.code == "invalid-field"
