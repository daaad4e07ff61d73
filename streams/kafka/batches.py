"""Record batches with bounds: what a broker accepts costs a reader bounded memory and time.

A broker limits what is compressed. A batch of 6.5 kB may unpack to 200 MiB, and one of 1 MiB to 34
GiB. aiokafka unpacks a batch whole, before its first record. It also takes header names for UTF-8,
which the protocol does not ask for. `BoundedRecords` stands in the place of aiokafka's
`MemoryRecords`, so that nothing of a batch is unpacked before its size is known:

- A batch that unpacks to more than `MAX_UNPACKED_BYTES`, or that cannot be unpacked, gives an
  `UnreadableRecord` for each of its offsets.
- Of a batch that unpacks to more than `_MAX_QUICK_BYTES` one record is made after the other, and
  none with more headers than a smaller batch can have: the smallest ones take thirty times their
  bytes in memory.
- A fetch ends early when it has unpacked that many bytes in all. What follows is fetched again.
- A header name that is not UTF-8 has backslash escapes for its bytes, in its record only.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import decode_varint

from models.errors import Poison
from streams.kafka.decompression import OversizedError, unpack

# Bytes that a batch may unpack to. The largest batch of a producer (1 MiB, compressed 5:1) has 5.
MAX_UNPACKED_BYTES = 32 * 1024 * 1024

# Bytes that aiokafka may make records and headers of at once.
_MAX_QUICK_BYTES = 2 * 1024 * 1024

_MAX_HEADERS = _MAX_QUICK_BYTES // 2  # of one record: each takes two bytes at least

# Of a batch (KIP-98): its length is counted from behind the length, its CRC from the attributes on.
_LENGTH = struct.Struct(">qi")
_HEADER = struct.Struct(">qiibIhiqqqhii")
_MAGIC_AT = 16
_ATTRIBUTES = struct.Struct(">h")
_ATTRIBUTES_AT = 21
_CODEC_MASK = 0x07
_LOG_APPEND_TIME = 0x08


class UnreadableRecord(NamedTuple):
    """In the place of a record that cannot be read."""

    offset: int
    timestamp: int
    """Milliseconds since the epoch; of a batch that was not unpacked the first one."""
    poison: Poison

    key: None = None
    value: None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()


class LenientRecord(NamedTuple):
    """A record that is read here, and not by aiokafka."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


class BoundedRecords:
    """The batches of one fetched partition; in the place of aiokafka's `MemoryRecords`."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._at = 0
        self._inner = MemoryRecords(data)
        self.unpacked_bytes = 0  # in all batches so far

    def size_in_bytes(self) -> int:
        """Return the size of all batches, as they were fetched."""
        return int(self._inner.size_in_bytes())

    def has_next(self) -> bool:
        """Return whether there is another complete batch that this fetch has room for."""
        return self.unpacked_bytes < MAX_UNPACKED_BYTES and bool(self._inner.has_next())

    def next_batch(self) -> Any:
        """Return the next batch; None if there is none."""
        batch = self._inner.next_batch()
        if batch is None:
            return None
        _, length = _LENGTH.unpack_from(self._data, self._at)
        end = self._at + _LENGTH.size + length
        raw = self._data[self._at : end]
        self._at = end
        return batch if raw[_MAGIC_AT] < 2 else _BoundedBatch(self, batch, raw)


class _BoundedBatch:
    """A batch whose records are read with bounds; everything else is aiokafka's."""

    def __init__(self, fetch: BoundedRecords, batch: DefaultRecordBatch, raw: memoryview) -> None:
        self._fetch = fetch
        self._batch = batch
        self._raw = raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        """Return the first record of a control batch, which a broker has written."""
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        """Return the records, or what stands in their place."""
        batch, plain = self._batch, None
        if batch.compression_type:
            try:
                plain = self._unpacked()
            except OversizedError:
                self._fetch.unpacked_bytes += MAX_UNPACKED_BYTES
                reason = f"its batch unpacks to more than {MAX_UNPACKED_BYTES >> 20} MiB"
                return self._unreadable(0, "oversized", reason)
            except ValueError as error:
                return self._unreadable(0, "unreadable", f"its batch does not unpack: {error}")
            self._fetch.unpacked_bytes += len(plain)
            if len(plain) > _MAX_QUICK_BYTES:
                return self._read_one_by_one(plain)
            batch = DefaultRecordBatch(plain)
        try:
            return iter(list(batch))
        except (ValueError, IndexError, CorruptRecordException):  # of a header's name, for instance
            return self._read_one_by_one(plain or bytes(self._raw))

    def _unpacked(self) -> bytes:
        """Return the same batch without compression; its CRC is not that of the content then."""
        head = bytearray(self._raw[: _HEADER.size])
        (attributes,) = _ATTRIBUTES.unpack_from(head, _ATTRIBUTES_AT)
        _ATTRIBUTES.pack_into(head, _ATTRIBUTES_AT, attributes & ~_CODEC_MASK)
        packed = bytes(self._raw[_HEADER.size :])
        return bytes(head) + unpack(attributes & _CODEC_MASK, packed, MAX_UNPACKED_BYTES)

    def _unreadable(
        self, index: int, code: Literal["oversized", "unreadable"], reason: str
    ) -> Iterator[UnreadableRecord]:
        """Stand in for the records from this index on: as they come, for they may be millions."""
        first, poison = self._batch.base_offset, Poison(code, reason)
        for offset in range(first + index, first + self._batch.last_offset_delta + 1):
            yield UnreadableRecord(offset, self._batch.first_timestamp, poison)

    def _read_one_by_one(self, plain: bytes) -> Iterator[Any]:
        """Read a batch that aiokafka cannot read, or that would take too much memory at once.

        From a record on that has no structure, none is readable.
        """
        batch = self._batch
        fixed = batch.max_timestamp if batch.attributes & _LOG_APPEND_TIME else None
        count, at = _HEADER.unpack_from(plain)[12], _HEADER.size
        for index in range(count):
            try:
                record, at = _lenient_record(
                    plain, at, batch.base_offset, batch.first_timestamp, fixed
                )
            except (ValueError, IndexError) as error:
                reason = f"its batch has no structure: {_kind(error)}"
                yield from self._unreadable(index, "unreadable", reason)
                return
            yield record


def _lenient_record(
    data: bytes, at: int, base_offset: int, first_timestamp: int, fixed_timestamp: int | None
) -> tuple[LenientRecord | UnreadableRecord, int]:
    """Read one record as KIP-98 has it, whatever bytes the names of its headers are.

    Returns it, and where the next one begins.
    """
    length, at = decode_varint(data, at)
    end = at + length
    if not at < end <= len(data):
        raise ValueError("a record has a length that its batch has not")
    timestamp, at = decode_varint(data, at + 1)  # behind its attributes
    offset, at = decode_varint(data, at)
    key, at = _bytes_at(data, at, end)
    value, at = _bytes_at(data, at, end)
    at_time = first_timestamp + timestamp if fixed_timestamp is None else fixed_timestamp
    count, at = decode_varint(data, at)
    if count > _MAX_HEADERS:
        poison = Poison("oversized", f"it has more than {_MAX_HEADERS:,} headers")
        return UnreadableRecord(base_offset + offset, at_time, poison), end
    headers = []
    for _ in range(count):
        name, at = _bytes_at(data, at, end)
        header, at = _bytes_at(data, at, end)
        headers.append(((name or b"").decode("utf-8", "backslashreplace"), header))
    if at != end:
        raise ValueError("a record has another length than it says")
    return LenientRecord(base_offset + offset, at_time, key, value, tuple(headers)), at


def _bytes_at(data: bytes, at: int, end: int) -> tuple[bytes | None, int]:
    length, at = decode_varint(data, at)
    if length < 0:
        return None, at
    if at + length > end:
        raise ValueError("a part of a record is longer than the record")
    return data[at : at + length], at + length


def _kind(error: BaseException) -> str:
    return str(error) or type(error).__name__
