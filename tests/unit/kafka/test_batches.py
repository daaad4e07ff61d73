"""Record batches that a broker accepts and that no reader may be ended by."""

from __future__ import annotations

import gzip
import os
import struct
import tracemalloc
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any

import cramjam
import pytest
from aiokafka import codec as codecs
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.kafka.batches import MAX_UNPACKED_BYTES, BoundedRecords, UnreadableRecord
from streams.kafka.decompression import OversizedError, unpack

NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
CODECS: Mapping[int, Callable[[bytes], Any]] = {
    GZIP: gzip.compress,
    SNAPPY: cramjam.snappy.compress_raw,
    LZ4: cramjam.lz4.compress,
    ZSTD: cramjam.zstd.compress,
}
NAME = b"QQ"  # of the header that a test puts other bytes in the place of


def batch(*values: bytes | None, codec: int = NONE, name: str = "") -> bytes:
    """A batch as a producer builds it, with a header of this name in each record."""
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 1 << 31)
    for number, value in enumerate(values):
        headers: list[tuple[str, bytes | None]] = [(name, b"x")] if name else []
        builder.append(number, 1_700_000_000_000 + number, b"key", value, headers)
    return bytes(builder.build())


def forged(plain: bytes, codec: int = NONE) -> bytes:
    """The same batch with its content packed, and a CRC that is right."""
    head, body = bytearray(plain[:61]), plain[61:]
    if codec:
        body = bytes(CODECS[codec](body))
        head[21:23] = struct.pack(">h", codec)
    head[8:12] = struct.pack(">i", len(head) - 12 + len(body))
    head[17:21] = struct.pack(">I", calc_crc32c(bytes(head[21:]) + body))
    return bytes(head) + body


def fetch(data: bytes) -> tuple[list[Any], int]:
    """The records of one fetch, and how many batches it took them from."""
    records, found, batches = BoundedRecords(data), [], 0
    while records.has_next():
        found_batch = records.next_batch()
        assert found_batch.validate_crc()
        found.extend(found_batch)
        batches += 1
    return found, batches


def read(*batches: bytes) -> list[Any]:
    """The records of these batches, in as many fetches as it takes."""
    found = []
    while batches:
        records, taken = fetch(b"".join(batches))
        assert taken
        found += records
        batches = batches[taken:]
    return found


@pytest.mark.parametrize("codec", range(5))
def test_records_are_what_was_written(codec: int) -> None:
    values = [b"", None, b"a", os.urandom(70_000), bytes(300_000)]
    twice = batch(*values, codec=codec) * 2
    found = read(*[batch(*values, codec=codec)] * 2)
    assert [record.value for record in found] == values * 2
    assert [record.offset for record in found] == [0, 1, 2, 3, 4] * 2
    assert BoundedRecords(twice).size_in_bytes() == len(twice)


@pytest.mark.parametrize("codec", range(5))
def test_records_of_a_large_batch_are_what_was_written(codec: int) -> None:
    values = [b"a", None, bytes(3_000_000), b""]
    found = read(batch(*values, codec=codec, name="name"))
    assert [(one.offset, one.timestamp, one.key, one.value, *one.headers) for one in found] == [
        (number, 1_700_000_000_000 + number, b"key", value, ("name", b"x"))
        for number, value in enumerate(values)
    ]


def test_millions_of_headers_are_not_made() -> None:
    """Each takes two bytes on the wire, and sixty in memory."""
    builder = DefaultRecordBatchBuilder(2, ZSTD, 0, -1, -1, -1, 1 << 31)
    builder.append(0, 5, b"key", b"value", [("", None)] * (3 << 20))
    builder.append(1, 6, b"key", b"value", [("", None)])
    data = bytes(builder.build())
    tracemalloc.start()
    try:
        refused, after = read(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (refused.offset, refused.timestamp, refused.poison.code) == (0, 5, "oversized")
    assert refused.poison.reason == "it has more than 1,048,576 headers"
    assert (after.offset, after.value, after.headers) == (1, b"value", (("", None),))
    assert peak < 25 << 20


def test_of_a_large_batch_no_record_is_made_before_its_turn() -> None:
    data = batch(*[b""] * 300_000, codec=ZSTD)
    tracemalloc.start()
    try:
        first = list(islice(BoundedRecords(data).next_batch(), 1000))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [one.offset for one in first] == list(range(1000))
    assert peak < 16 << 20


@pytest.mark.parametrize("codec", CODECS)
def test_a_bomb_has_an_unreadable_record_for_each_offset(codec: int) -> None:
    bomb = batch(b"first", bytes(2 * MAX_UNPACKED_BYTES), b"last", codec=codec)
    tracemalloc.start()
    try:
        found = read(bomb, batch(b"after it"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [(one.offset, one.poison.code) for one in found[:3]] == [
        (n, "oversized") for n in range(3)
    ]
    assert "more than 32 MiB" in found[0].poison.reason
    assert found[3].value == b"after it"
    assert peak < 2.5 * MAX_UNPACKED_BYTES


@pytest.mark.parametrize("codec", CODECS)
def test_what_is_just_small_enough_is_read(codec: int) -> None:
    value = bytes(MAX_UNPACKED_BYTES - 1000)
    assert read(batch(value, codec=codec))[0].value == value


@pytest.mark.parametrize("codec", range(5))
def test_a_header_name_that_is_not_utf_8_is_one_record_s_own(codec: int) -> None:
    plain = batch(b"before", b"{}", b"after", name=NAME.decode())
    at = plain.find(NAME, plain.find(NAME) + 1)
    found = read(forged(plain[:at] + b"\xff\xfe" + plain[at + 2 :], codec))
    assert [one.value for one in found] == [b"before", b"{}", b"after"]
    assert [one.key for one in found] == [b"key"] * 3
    assert [one.timestamp for one in found] == [1_700_000_000_000 + n for n in range(3)]
    assert [one.headers[0][0] for one in found] == ["QQ", "\\xff\\xfe", "QQ"]


def test_a_batch_without_structure_has_an_unreadable_record_for_each_offset() -> None:
    plain = batch(b"one", b"two", b"three")
    cut = forged(plain[: plain.find(b"two")])
    found = read(cut)
    assert [one.offset for one in found] == [0, 1, 2]
    assert found[0].value == b"one"
    assert {one.poison.code for one in found[1:]} == {"unreadable"}


@pytest.mark.parametrize("codec", [*CODECS, 5, 7])
def test_what_does_not_unpack_is_unreadable(codec: int) -> None:
    head = bytearray(batch(b"one", b"two"))
    head[21:23] = struct.pack(">h", codec)
    head[17:21] = struct.pack(">I", calc_crc32c(bytes(head[21:])))
    found = read(bytes(head))
    assert [(one.offset, type(one), one.poison.code) for one in found] == [
        (number, UnreadableRecord, "unreadable") for number in range(2)
    ]


@given(codec=st.sampled_from(list(CODECS)), data=st.binary(max_size=200))
def test_unpacking_anything_ends_in_bytes_or_a_named_error(codec: int, data: bytes) -> None:
    begins = {
        GZIP: b"\x1f\x8b\x08",
        SNAPPY: b"\x82SNAPPY\x00",
        LZ4: b"\x04\x22\x4d\x18",
        ZSTD: b"\x28\xb5\x2f\xfd",
    }
    for attempt in (data, begins[codec] + data, bytes(CODECS[codec](data))):
        with suppress(ValueError):
            assert len(unpack(codec, attempt, 100)) <= 100


@given(
    codec=st.sampled_from(list(CODECS)), data=st.binary(max_size=5000), limit=st.integers(0, 6000)
)
def test_the_limit_is_the_limit(codec: int, data: bytes, limit: int) -> None:
    packed = bytes(CODECS[codec](data))
    if len(data) <= limit:
        assert unpack(codec, packed, limit) == data
    else:
        with pytest.raises(OversizedError):
            unpack(codec, packed, limit)


@settings(deadline=None)
@given(
    values=st.lists(st.none() | st.binary(max_size=30), min_size=1, max_size=4),
    codec=st.sampled_from(range(5)),
    at=st.integers(61, 300),
    byte=st.integers(0, 255),
)
def test_any_byte_may_be_another_one(
    values: list[bytes | None], codec: int, at: int, byte: int
) -> None:
    """Of the content; a broker has checked the head. Each offset has a record, whatever it is."""
    damaged = bytearray(batch(*values, name="name"))
    damaged[min(at, len(damaged) - 1)] = byte
    found = read(forged(bytes(damaged), codec))
    if all(isinstance(one, UnreadableRecord) for one in found):
        assert [one.offset for one in found] == list(range(len(values)))
    assert len(found) == len(values)


def test_a_fetch_ends_when_it_has_unpacked_enough() -> None:
    """A thousand small bombs, none of which is oversized, are no more than one of them."""
    small = batch(bytes(MAX_UNPACKED_BYTES // 3), codec=ZSTD)
    found, taken = fetch(small * 1000)
    assert taken == len(found) == 3
    assert fetch(batch(bytes(2 * MAX_UNPACKED_BYTES), codec=ZSTD) * 1000)[1] == 1
    assert fetch(batch(bytes(2000)) * 1000)[1] == 1000


def test_two_members_of_gzip_are_one() -> None:
    assert unpack(GZIP, gzip.compress(b"a") + gzip.compress(b"b"), 2) == b"ab"


def test_nothing_is_unpacked_to_find_out_how_large_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """But gzip, which does not say."""

    def unpacked(_: bytes) -> bytes:
        raise AssertionError("it was unpacked")

    for name in ("snappy_decode", "lz4_decode", "zstd_decode"):
        monkeypatch.setattr(codecs, name, unpacked)
    for codec in (SNAPPY, LZ4, ZSTD):
        with pytest.raises(OversizedError):
            unpack(codec, bytes(CODECS[codec](bytes(1 << 20))), 1000)
