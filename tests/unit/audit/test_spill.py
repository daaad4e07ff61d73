"""Records on disk: what was added comes back bucket by bucket, and nothing is left to be read."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import Fatal
from streams.audit.spill import Spill

KEYS = st.binary(max_size=4)
ITEMS = st.lists(st.tuples(st.integers(0, 2), KEYS, st.binary(max_size=40)))


def with_key(key: bytes, item: bytes) -> bytes:
    return bytes([len(key)]) + key + item


@given(ITEMS, st.integers(1, 5), st.integers(1, 100))
def test_each_item_is_in_the_bucket_of_its_key_in_order(
    items: list[tuple[int, bytes, bytes]], buckets: int, block_bytes: int
) -> None:
    with Spill(3, buckets) as spilled:
        spilled._block_bytes = block_bytes  # written in the middle of an item's run, or never
        for shelf, key, item in items:
            spilled.add(shelf, key, with_key(key, item))
        seen: dict[tuple[int, bytes], int] = {}
        found = []
        for shelf in range(3):
            for bucket in range(buckets):
                for read in spilled.read(shelf, bucket):
                    key = read[1 : 1 + read[0]]
                    assert seen.setdefault((shelf, key), bucket) == bucket
                    found.append((shelf, read))
        for key in {key for _, key, _ in items}:
            for shelf in range(3):
                expected = [with_key(key, item) for s, k, item in items if (s, k) == (shelf, key)]
                assert [
                    read for s, read in found if s == shelf and read[1 : 1 + read[0]] == key
                ] == expected
        assert len(found) == len(items)


def test_a_key_that_is_too_long_for_an_id_is_with_its_replies() -> None:
    """Their keys are cut to the longest id."""
    with Spill(1, 64) as spilled:
        spilled.add(0, b"k" * 600, b"command")
        spilled.add(0, b"k" * 512, b"outcome")
        (bucket,) = (items for n in range(64) if (items := list(spilled.read(0, n))))
        assert bucket == [b"command", b"outcome"]


def test_nothing_of_it_can_be_read_from_the_disk() -> None:
    """The file has no name, and its content is encrypted with a key in memory."""
    before = set(Path(tempfile.gettempdir()).iterdir())
    with Spill(1, 1) as spilled:
        for _ in range(10_000):
            spilled.add(0, b"anna", b"anna@example.org")
        assert spilled._end > 0
        assert b"example" not in os.pread(spilled._file.fileno(), spilled._end, 0)
        assert not {
            path
            for path in set(Path(tempfile.gettempdir()).iterdir()) - before
            if path.name.startswith("cqrs-") and path.is_file()
        }


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", fail)
    with Spill(1, 1) as spilled, pytest.raises(Fatal, match=r"No space left on device; set TMPDIR"):
        spilled.add(0, b"anna", bytes(64 * 1024))


def test_what_is_not_written_yet_is_bounded_for_any_number_of_buckets() -> None:
    with Spill(100, 100) as spilled:
        assert spilled._block_bytes * 100 * 100 <= 64 * 1024 * 1024
