"""Reading records that no producer of ours would write."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from aiokafka.partitioner import murmur2
from aiokafka.structs import ConsumerRecord
from hypothesis import given
from hypothesis import strategies as st

from agents.user_commands import app
from models.errors import Poison
from streams.kafka.dead_letters import CUT, CUT_KEY, REASON, dead_letter
from streams.kafka.partitioner import partition_of
from streams.kafka.records import reply_key, time_of
from streams.kafka.topics import OUTPUT_BYTES


def record(
    value: bytes | None = b"{}",
    timestamp: int = 0,
    headers: tuple[tuple[str, bytes], ...] = (),
    key: bytes | None = b"key",
) -> ConsumerRecord[bytes, bytes]:
    return ConsumerRecord("t", 0, 7, timestamp, 0, key, value, None, 3, 2, headers)


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
