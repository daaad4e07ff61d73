"""Reading records that no producer of ours would write."""

from __future__ import annotations

import codecs
import json
from datetime import datetime, timezone

import pytest
from aiokafka.partitioner import murmur2
from hypothesis import given
from hypothesis import strategies as st

from agents.user_commands import app
from models.commands import USER_COMMANDS
from models.errors import Poison
from streams.commands.reader import CommandReader, command_id_in, command_type_in, identify
from streams.kafka.dead_letters import CUT, CUT_KEY, REASON, dead_letter
from streams.kafka.partitioner import partition_of
from streams.kafka.records import Record, reply_key, time_of
from streams.kafka.topics import OUTPUT_BYTES
from tests.unit.samples import COMMAND_ID, wire_register


def record(
    value: bytes | None = b"{}",
    timestamp: int = 0,
    headers: tuple[tuple[str, bytes | None], ...] = (),
    key: bytes | None = b"key",
) -> Record:
    return Record("t", 0, 7, timestamp, key, value, headers)


@pytest.mark.parametrize(
    ("timestamp", "time"),
    [
        (-1, datetime(1970, 1, 1, tzinfo=timezone.utc)),
        (-(2**62), datetime(1970, 1, 1, tzinfo=timezone.utc)),
        (1_763_899_200_123, datetime(2025, 11, 23, 12, 0, 0, 123000, tzinfo=timezone.utc)),
    ],
)
def test_the_time_of_a_record(timestamp: int, time: datetime) -> None:
    assert time_of(record(timestamp=timestamp)) == time


@given(st.binary(max_size=40), st.integers(1, 500))
def test_a_key_has_the_same_partition_as_in_other_clients(key: bytes, partitions: int) -> None:
    assert partition_of(key, partitions) == (murmur2(key) & 0x7FFFFFFF) % partitions


def test_a_time_after_the_year_9999_is_its_end() -> None:
    assert time_of(record(timestamp=2**62)).year == 9999


def test_a_dead_letter_has_the_records_bytes() -> None:
    letter = dead_letter(record(b"\xff", headers=(("a", b"1"),)), Poison("malformed-json", "no"))
    assert (letter.key, letter.value) == (b"key", b"\xff")
    assert letter.headers[0] == ("a", b"1")
    assert (REASON, b"no") in letter.headers


def test_a_dead_letter_that_no_topic_would_take_is_cut() -> None:
    value = b"x" * (OUTPUT_BYTES + 1)
    letter = dead_letter(record(value, headers=(("a", b"1"),)), Poison("malformed-json", "no"))
    assert letter.value is not None
    assert len(letter.value) < OUTPUT_BYTES - 1024
    assert value.startswith(letter.value)
    assert (CUT, str(len(value)).encode()) in letter.headers


def test_a_key_that_no_topic_would_take_is_cut() -> None:
    letter = dead_letter(record(key=b"k" * (OUTPUT_BYTES + 1)), Poison("malformed-json", "no"))
    assert (letter.key, letter.value) == (b"k" * 512, b"{}")
    assert {(CUT, b"2"), (CUT_KEY, str(OUTPUT_BYTES + 1).encode())} <= {*letter.headers}


def test_headers_that_no_topic_would_take_are_left_out() -> None:
    headers = (("", b""),) * (OUTPUT_BYTES // 2)  # each has the bytes of its two lengths
    letter = dead_letter(record(headers=headers), Poison("malformed-json", "no"))
    assert (letter.key, letter.value) == (b"key", b"{}")
    assert len(letter.headers) == 8


def test_a_reply_has_the_records_key_if_it_is_a_valid_id() -> None:
    longest = ("\U0001f600" * 128).encode()
    assert reply_key(record(key=longest)) == longest
    assert reply_key(record(key=longest + b"k")) == longest
    assert reply_key(record(key=None)) is None


def test_a_worker_that_fetches_nothing_for_long_stays_in_its_group() -> None:
    year = 365 * 24 * 3600
    assert app.conf.broker_max_poll_interval > year


def command_with(**headers: bytes | None) -> Record:
    value = json.dumps(wire_register(expectedVersion=7)).encode()
    return record(value, key=b"user-1", headers=tuple(headers.items()))


@pytest.mark.parametrize(
    "id_", [str(COMMAND_ID), str(COMMAND_ID).upper(), f"{{{COMMAND_ID}}}", COMMAND_ID.hex]
)
def test_a_header_may_repeat_an_id_in_any_spelling(id_: str) -> None:
    """.NET, SQL Server and Swift write capitals."""
    reader = CommandReader(USER_COMMANDS)
    assert reader.read(command_with(id=id_.encode(), expectedVersion=b"07")).id == COMMAND_ID


@pytest.mark.parametrize(
    ("name", "value"),
    [("id", b"11111111"), ("id", b"\xff"), ("expectedVersion", b"8"), ("expectedVersion", None)],
)
def test_a_header_that_says_something_else_is_a_contradiction(
    name: str, value: bytes | None
) -> None:
    with pytest.raises(Poison) as refused:
        CommandReader(USER_COMMANDS).read(command_with(**{name: value}))
    assert refused.value.code == "header-mismatch"


def test_a_record_that_could_not_be_unpacked_has_that_reason() -> None:
    oversized = Record("t", 0, 7, 0, None, None, (), Poison("oversized", "it unpacks to more"))
    with pytest.raises(Poison) as refused:
        CommandReader(USER_COMMANDS).read(oversized)
    assert refused.value.code == "oversized"
    letter = dead_letter(oversized, refused.value)
    assert (letter.key, letter.value) == (None, None)
    assert dict(letter.headers)[REASON] == b"it unpacks to more"


def test_a_value_that_is_larger_than_any_command_is_not_parsed() -> None:
    """JSON of the smallest lists takes thirty times its bytes in memory."""
    command = wire_register(aggregateId="key") | {"padding": [[]] * (1 << 19)}
    large = record(json.dumps(command).encode())
    with pytest.raises(Poison) as refused:
        CommandReader(USER_COMMANDS).read(large)
    assert refused.value.code == "oversized"
    assert identify(large) == (None, None)
    assert command_id_in(large) is None
    assert command_type_in(large) is None


_TEXT = '{"type":"RegisterUser","firstName":"Renée"}'


@pytest.mark.parametrize(
    ("value", "mistake"),
    [
        (codecs.BOM_UTF8 + _TEXT.encode(), "byte order mark"),
        (_TEXT.encode("utf-16"), "UTF-16"),
        (_TEXT.encode("utf-16-le"), "UTF-16"),
        (_TEXT.encode("utf-16-be"), "UTF-16"),
        (b"\0\0\0\0\7" + _TEXT.encode(), "schema registry"),
        (_TEXT.encode("latin-1"), "byte 39 is not UTF-8"),
        (_TEXT.encode()[:-1], "line 1 column 43"),
        (b"", "line 1 column 1"),
    ],
)
def test_common_mistakes_of_producers_are_named(value: bytes, mistake: str) -> None:
    with pytest.raises(Poison) as refused:
        CommandReader(USER_COMMANDS).read(record(value))
    assert refused.value.code == "malformed-json"
    assert refused.value.reason.startswith("the value is not JSON: ")
    assert mistake in refused.value.reason


@pytest.mark.parametrize("depth", [2_000, 100_000])
def test_deep_nesting_is_malformed_wherever_it_is(depth: int) -> None:
    deep = b"[" * depth + b"]" * depth
    for value in (
        b'{"x":%b,"type":"RegisterUser"}' % deep,
        b'{"type":"RegisterUser","x":%b}' % deep,
    ):
        with pytest.raises(Poison) as refused:
            CommandReader(USER_COMMANDS).read(record(value))
        assert refused.value.code == "malformed-json"
