"""Records on disk, in buckets by their key, so that only one bucket has to be in memory at a time.

What belongs to one aggregate has its id as its key, so it is in one bucket, on as many shelves as
there are kinds of records. (A database knows this as a Grace hash join.) The file has no name and
ends with the process, however that ends. It is compressed, and encrypted with a key that is only in
memory: what `cqrs verify` has read must not be left on a disk.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from types import TracebackType
from zlib import crc32

import cramjam
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from typing_extensions import Self

from models.errors import Fatal
from streams.kafka.records import cut_key

# Bytes in memory that are not written yet, of all buckets together and of one.
_BUFFERED_BYTES = 64 * 1024 * 1024
_MAX_BLOCK_BYTES = 64 * 1024

_LENGTH_BYTES = 4


class Spill:
    """Items that are written once, and read bucket by bucket; close it after use."""

    def __init__(self, shelves: int, buckets: int) -> None:
        """Create an empty one with this number of shelves, each with this number of buckets."""
        self.buckets = buckets
        self._file = tempfile.TemporaryFile(prefix="cqrs-")  # noqa: SIM115
        self._end = 0
        self._cipher = AESGCM(AESGCM.generate_key(256))
        self._buffers = [bytearray() for _ in range(shelves * buckets)]
        self._block_bytes = min(_MAX_BLOCK_BYTES, _BUFFERED_BYTES // len(self._buffers))
        self._blocks: list[list[tuple[int, int]]] = [[] for _ in self._buffers]

    def add(self, shelf: int, key: bytes, item: bytes) -> None:
        """Add an item to the bucket of its key.

        Raises:
            Fatal: The disk is full.
        """
        place = shelf * self.buckets + crc32(cut_key(key)) % self.buckets
        buffer = self._buffers[place]
        buffer += len(item).to_bytes(_LENGTH_BYTES, "big")
        buffer += item
        if len(buffer) >= self._block_bytes:
            self._write(place)

    def read(self, shelf: int, bucket: int) -> Iterator[bytes]:
        """Yield the items of one bucket, in the order in which they were added."""
        place = shelf * self.buckets + bucket
        for start, size in self._blocks[place]:
            sealed = os.pread(self._file.fileno(), size, start)
            yield from _items(bytes(cramjam.zstd.decompress(self._open(start, sealed))))
        yield from _items(bytes(self._buffers[place]))

    def close(self) -> None:
        """Remove the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _write(self, place: int) -> None:
        block = bytes(cramjam.zstd.compress(bytes(self._buffers[place]), 1))
        sealed = self._cipher.encrypt(_nonce(self._end), block, None)
        try:
            os.pwrite(self._file.fileno(), sealed, self._end)
        except OSError as error:
            raise Fatal(
                f"cannot write to {tempfile.gettempdir()}: {error.strerror}; set TMPDIR to a "
                "folder with more space"
            ) from None
        self._blocks[place].append((self._end, len(sealed)))
        self._end += len(sealed)
        self._buffers[place].clear()

    def _open(self, start: int, sealed: bytes) -> bytes:
        return self._cipher.decrypt(_nonce(start), sealed, None)


def _nonce(start: int) -> bytes:
    """Return a nonce that no other block of the same key has: it begins elsewhere."""
    return start.to_bytes(12, "big")


def _items(block: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(block):
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(block[at:start], "big")
        yield block[start:at]
