"""Record batches that a broker accepts, and that no producer of ours could write."""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping

import cramjam
from aiokafka import AIOKafkaProducer
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

_PLAIN, _ZSTD = 0, 4
_HEAD_BYTES = 61
_NAME = b"QQ"

BOMB = "a bomb"
HEADERS = "millions of headers"
OVERSIZED = frozenset({BOMB, HEADERS})
"""Those of which nothing can be read."""


def hostile_batches() -> Mapping[str, bytes]:
    """Return batches by what is hostile about them; each has one record, whose key is `hostile`."""
    named = _batch(b"{}", _NAME)
    at = named.find(_NAME)
    foreign = named[:at] + b"\xff\xfe" + named[at + 2 :]
    return {
        BOMB: _packed(_batch(bytes(200 << 20), b"")),
        "a header name that is not UTF-8": _packed(foreign, _PLAIN),
        "such a name in a compressed batch": _packed(foreign),
        HEADERS: _packed(_batch(b"{}", b"", 3 << 20)),
    }


async def send_batch(producer: AIOKafkaProducer, topic: str, partition: int, raw: bytes) -> int:
    """Write a batch as it is; return the offset of its first record."""
    batch = producer.create_batch()
    batch.append(key=b"", value=b"", timestamp=None)
    batch.close()
    batch._buffer = bytes(raw)
    sent = await (await producer.send_batch(batch, topic, partition=partition))
    return int(sent.offset)


def _batch(value: bytes, name: bytes, empty: int = 0) -> bytes:
    """Return a batch whose record has a header of this name, and so many empty ones."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 30)
    headers: list[tuple[str, bytes | None]] = [(name.decode(), b"x")] if name else []
    headers += [("", None)] * empty
    builder.append(0, int(time.time() * 1000), b"hostile", value, headers)
    return bytes(builder.build())


def _packed(plain: bytes, codec: int = _ZSTD) -> bytes:
    """Return the batch with its content packed and a CRC that is right."""
    head, body = bytearray(plain[:_HEAD_BYTES]), plain[_HEAD_BYTES:]
    if codec == _ZSTD:
        body = bytes(cramjam.zstd.compress(body))
    head[21:23] = struct.pack(">h", codec)
    head[8:12] = struct.pack(">i", _HEAD_BYTES - 12 + len(body))
    head[17:21] = struct.pack(">I", calc_crc32c(bytes(head[21:]) + body))
    return bytes(head) + body
