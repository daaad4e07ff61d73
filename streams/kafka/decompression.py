"""Decompression with a bound: the codecs of Kafka, none of which may fill the memory.

The size of a frame is bounded by its block headers, before anything is unpacked: a block of zstd
has 128 KiB at most (RFC 8878, 3.1.1.2.4), lz4 names its largest block in the frame header, snappy
its size. Only gzip says nothing, and is unpacked up to the bound.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Any

from aiokafka import codec

_ZSTD_BLOCK_BYTES = 128 * 1024


_LZ4_BLOCK_BYTES = {4: 1 << 16, 5: 1 << 18, 6: 1 << 20, 7: 1 << 22}


class OversizedError(ValueError):
    """What is packed has more bytes than it may have."""


def unpack(kind: int, data: bytes, limit: int) -> bytes:
    """Unpack what one of Kafka's codecs has packed.

    Args:
        kind: The codec's number in the attributes of a batch.
        data: What is packed.
        limit: The largest number of bytes that is unpacked.

    Raises:
        OversizedError: it has more bytes; no more than ``limit`` of them were in memory.
        ValueError: it is not packed by that codec, or the codec is not known.
    """
    codecs: dict[int, Callable[[bytes, int], bytes]] = {
        1: _gunzip,
        2: _unsnappy,
        3: _unlz4,
        4: _unzstd,
    }
    if kind not in codecs:
        raise ValueError(f"there is no codec {kind}")
    try:
        return codecs[kind](data, limit)
    except (IndexError, KeyError, struct.error):
        raise ValueError("it is cut, or not packed by its codec") from None


def _gunzip(data: bytes, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while data:  # one member after the other
        member = zlib.decompressobj(wbits=31)
        try:
            part = member.decompress(data, limit - size + 1)
        except zlib.error as error:
            raise ValueError(str(error)) from None
        size += len(part)
        if size > limit:
            raise OversizedError
        if not member.eof:
            raise ValueError("gzip: it is cut")
        parts.append(part)
        data = member.unused_data
    return b"".join(parts)


def _unsnappy(data: bytes, limit: int) -> bytes:
    """Unpack raw snappy, which begins with its size, or blocks of it behind a header of Java's."""
    if data.startswith(b"\x82SNAPPY\x00"):
        at, size = 16, 0
        while at < len(data):
            (length,) = struct.unpack_from(">i", data, at)
            if length <= 0:
                raise ValueError("snappy: a block has no bytes")
            size += _varint(data, at + 4)
            at += 4 + length
    else:
        size = _varint(data, 0)
    if size > limit:
        raise OversizedError
    return _decoded(codec.snappy_decode, data)


def _unlz4(data: bytes, limit: int) -> bytes:
    """Unpack one frame: no block of it is larger than its header says."""
    if data[:4] != b"\x04\x22\x4d\x18":
        raise ValueError("lz4: there is no frame")
    flags, descriptor = data[4], data[5]
    largest = _LZ4_BLOCK_BYTES[descriptor >> 4 & 0x07]
    at = 7 + (8 if flags & 0x08 else 0) + (4 if flags & 0x01 else 0)
    size = 0
    while True:
        (length,) = struct.unpack_from("<I", data, at)
        if length == 0:
            break
        size += largest if length < 1 << 31 else length & 0x7FFFFFFF
        at += 4 + (length & 0x7FFFFFFF) + (4 if flags & 0x10 else 0)
        if size > limit + largest:  # the last block of a frame is not full
            raise OversizedError
    return _within(_decoded(codec.lz4_decode, data), limit)


def _unzstd(data: bytes, limit: int) -> bytes:
    """Unpack frames: no block of them is larger than 128 KiB."""
    at = size = 0
    while at < len(data):
        at, largest = _zstd_frame(data, at, limit)
        size += largest
        if size > limit + _ZSTD_BLOCK_BYTES:
            raise OversizedError
    return _within(_decoded(codec.zstd_decode, data), limit)


def _zstd_frame(data: bytes, at: int, limit: int) -> tuple[int, int]:
    """Return the end of a frame, and the most bytes that it can unpack to (RFC 8878, 3.1)."""
    (magic,) = struct.unpack_from("<I", data, at)
    if 0x184D2A50 <= magic <= 0x184D2A5F:  # one to skip
        (length,) = struct.unpack_from("<I", data, at + 4)
        return at + 8 + length, 0
    if magic != 0xFD2FB528:
        raise ValueError("zstd: there is no frame")
    descriptor = data[at + 4]
    single, has_checksum = descriptor & 0x20, descriptor & 0x04
    at += 5 + (0 if single else 1)  # the window
    at += (0, 1, 2, 4)[descriptor & 0x03]  # the id of a dictionary
    at += (1 if single else 0, 2, 4, 8)[descriptor >> 6]  # the size, which may be wrong
    size, is_last = 0, 0
    while not is_last:
        block = int.from_bytes(data[at : at + 3], "little")
        if at + 3 > len(data):
            raise ValueError("zstd: a frame is cut")
        is_last, kind, length = block & 1, block >> 1 & 3, block >> 3
        size += length if kind < 2 else _ZSTD_BLOCK_BYTES
        if size > limit + _ZSTD_BLOCK_BYTES:
            raise OversizedError
        at += 3 + (1 if kind == 1 else length)  # a block of one byte, repeated
    return at + (4 if has_checksum else 0), size


def _decoded(decode: Callable[[bytes], Any], data: bytes) -> bytes:
    try:
        return bytes(decode(data))
    except Exception as error:  # cramjam's, and struct's
        raise ValueError(str(error) or type(error).__name__) from None


def _within(data: bytes, limit: int) -> bytes:
    if len(data) > limit:
        raise OversizedError
    return data


def _varint(data: bytes, at: int) -> int:
    """Read snappy's size: seven bits a byte, the lowest first, five bytes at most."""
    value = 0
    for shift in range(0, 35, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value
    raise ValueError("snappy: it has no size")
