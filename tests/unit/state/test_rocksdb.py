"""A partition's state, in memory and on disk: the same to use; and what the disk may do to it."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faust.types import TP

from models.errors import Fatal, Transient
from streams.state import rocksdb
from streams.state.parked import PARKED_PREFIX, parked_key
from streams.state.rocksdb import Identity, RocksDBStore, open_rocksdb_store
from streams.state.store import MemoryStore, Position, StateStore, encode_position, position_key

COMMANDS = TP("users.commands.v1", 1)
IDENTITY = Identity("a" * 32, 1)
END = 1_000_000  # of the changelog

Reopen = Callable[..., RocksDBStore]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "users.state-changelog.v1-1"


@pytest.fixture
def reopen(folder: Path) -> Iterator[Reopen]:
    """Opens the store after closing the one before, if it is open."""
    opened: list[RocksDBStore] = []

    def new(identity: Identity = IDENTITY, begin: int = 0, end: int = END) -> RocksDBStore:
        for state in opened:
            state.close()
        opened.append(open_rocksdb_store(folder, identity, begin, end))
        return opened[-1]

    yield new
    for state in opened:
        state.close()


@pytest.fixture(params=["memory", "local"])
def state(request: pytest.FixtureRequest, reopen: Reopen) -> StateStore:
    return MemoryStore() if request.param == "memory" else reopen()


def test_an_empty_store_has_no_records(state: StateStore) -> None:
    assert state.end == 0
    assert state.get(b"anna") is None
    assert state.position(COMMANDS) is None
    assert list(state) == []
    assert len(state) == 0


def test_applied_records_are_there(state: StateStore) -> None:
    state.apply(
        {b"anna": b"1", b"bert": b"1", position_key(COMMANDS): encode_position(Position(7))}, 3
    )
    state.apply({b"anna": b"2", position_key(COMMANDS): encode_position(Position(9))}, 6)
    assert state.end == 6
    assert (state.get(b"anna"), state.get(b"bert")) == (b"2", b"1")
    assert state.position(COMMANDS) == Position(9)
    assert state.position(TP("orgs.commands.v1", 1)) is None
    assert sorted(state) == [b"anna", b"bert"]
    assert len(state) == 2


def test_reserved_records_of_one_kind_are_found(state: StateStore) -> None:
    parked = {parked_key(b"anna"): b"1", parked_key(b"bert"): b""}
    position = {position_key(COMMANDS): encode_position(Position(7))}
    state.apply({b"parked anna": b"1", **parked, **position}, 3)
    assert dict(state.reserved(PARKED_PREFIX)) == parked
    assert list(state) == [b"parked anna"]


def test_a_tombstone_removes(state: StateStore) -> None:
    state.apply({b"anna": b"1"}, 1)
    state.apply({b"anna": None, b"nobody": None}, 3)
    assert state.get(b"anna") is None
    assert len(state) == 0


def test_a_store_that_is_opened_again_has_the_same_records(reopen: Reopen) -> None:
    reopen().apply({b"anna": b"1", position_key(COMMANDS): encode_position(Position(7))}, 2)
    state = reopen()
    assert (state.end, state.get(b"anna"), state.position(COMMANDS)) == (2, b"1", Position(7))


def test_what_cannot_be_removed_does_not_pass_for_an_empty_store(
    reopen: Reopen, monkeypatch: pytest.MonkeyPatch
) -> None:
    reopen().apply({b"anna": b"1"}, 2)
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    with pytest.raises(Transient, match="no local store can be created"):
        reopen(Identity("b" * 32, 1))


# Applies batch after batch, in which all keys have the number of the batch, until it is killed.
ENDLESS = f"""
from itertools import count
from pathlib import Path
from typing import Any
from streams.state import rocksdb
from streams.state.rocksdb import Identity, open_rocksdb_store
rocksdb._WRITE_BUFFER_PER_STORE_BYTES = 64 << 10
state = open_rocksdb_store(Path({{folder!r}}), Identity({IDENTITY.topic_id!r}, 1), 0, {END})
for number in count(state.end + 1):
    value = b"%d" % number
    state.apply({{{{b"user-%d" % n: value for n in range(100)}}}}, number)
    print(number, flush=True)
"""


def test_after_kill_9_there_are_whole_transactions_up_to_some_position(
    folder: Path, reopen: Reopen
) -> None:
    done = 0
    for batches in (1, 300, 700):
        process = subprocess.Popen(
            [sys.executable, "-c", ENDLESS.format(folder=str(folder))], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        for _ in range(batches):
            done = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        done = int([str(done).encode(), *process.stdout.read().split(b"\n")[:-1]][-1])
        process.wait()
        process.stdout.close()
        state = reopen()
        # Killed between applying a batch and saying so, it has one more than it has said.
        assert 0 <= state.end <= done + 1
        assert batches == 1 or state.end > 0  # there are files by then
        found = {state.get(b"user-%d" % n) for n in range(100)}
        assert found == {b"%d" % state.end if state.end else None}
        state.close()


def in_every_file(folder: Path, pattern: str, change: Callable[[bytes], bytes]) -> None:
    files = list((folder / "0").glob(pattern))
    assert files
    for file in files:
        file.write_bytes(change(file.read_bytes()))


def garbage(content: bytes) -> bytes:
    return os.urandom(len(content))


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


@pytest.mark.parametrize("pattern", ["*.sst", "MANIFEST-*", "CURRENT", "OPTIONS-*"])
@pytest.mark.parametrize("change", [garbage, half, lambda _: b""])
def test_a_torn_store_has_no_wrong_values(
    folder: Path, reopen: Reopen, pattern: str, change: Callable[[bytes], bytes]
) -> None:
    """Either nothing of it is used, or nothing of it is wrong."""
    state = reopen()
    for end in (1, 2, 3):
        state.apply({b"anna": b"%d" % end}, end)
        state._db.flush()
    state.close()
    in_every_file(folder, pattern, change)
    state = reopen()
    assert state.get(b"anna") == (b"%d" % state.end if state.end else None)
    state.apply({b"anna": b"4"}, 4)
    assert reopen().get(b"anna") == b"4"


@pytest.mark.parametrize(
    "read", [lambda state: [state.get(b"user-%d" % n) for n in range(1000)], list]
)
def test_a_damage_that_is_found_when_it_is_read(
    folder: Path, reopen: Reopen, read: Callable[[StateStore], object]
) -> None:
    """RocksDB's own iterators end there as if there were no more."""
    state = reopen()
    state.apply({b"user-%d" % n: os.urandom(500) for n in range(1000)}, 3)
    state.close()
    [file] = (folder / "0").glob("*.sst")
    content = bytearray(file.read_bytes())
    content[20_000:200_000] = bytes(180_000)  # not the store's own keys, which come first
    file.write_bytes(content)
    state = reopen()
    assert state.end == 3
    with pytest.raises(Transient, match="local store failed and was removed: Corruption"):
        read(state)
    assert not (folder / "0").exists()
    assert state.approximate_len() == 0  # other partitions ask, before this one starts again
    state = reopen()
    assert (state.end, len(state)) == (0, 0)


def fill(state: StateStore) -> None:
    """More than the memory takes."""
    for n in range(1000):
        state.apply({b"%d" % n: bytes(1 << 20)}, n)


def test_a_store_that_cannot_be_written(folder: Path, reopen: Reopen) -> None:
    state = reopen()
    shutil.rmtree(folder / "0")
    with pytest.raises(Transient, match="local store failed and was removed: IO error"):
        fill(state)
    assert reopen().end == 0
    assert not (folder / "1").exists()


def test_a_failed_write_at_the_end_is_harmless(folder: Path, reopen: Reopen) -> None:
    state = reopen()
    state.apply({b"anna": b"1"}, 1)
    shutil.rmtree(folder / "0")
    state.close()
    assert reopen().end == 0


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"identity": Identity("b" * 32, 1)}, "of another topic"),
        ({"identity": Identity("a" * 32, 2)}, "of another topic"),
        ({"end": 4}, "stands at 5, the changelog has 0 to 4"),
        ({"begin": 6}, "stands at 5, the changelog has 6 to"),
    ],
)
def test_a_store_of_something_else(
    reopen: Reopen,
    caplog: pytest.LogCaptureFixture,
    change: dict[str, Any],
    why: str,
) -> None:
    reopen().apply({b"anna": b"1"}, 5)
    state = reopen(**change)
    assert (state.end, state.get(b"anna")) == (0, None)
    [record] = caplog.records
    assert why in record.getMessage()


def test_a_store_of_another_format(
    reopen: Reopen, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    reopen().apply({b"anna": b"1"}, 5)
    monkeypatch.setattr(rocksdb, "FORMAT", 2)
    assert reopen().end == 0
    assert "its format is 1, not 2" in caplog.text


def test_a_folder_without_a_store_is_not_logged(
    reopen: Reopen, caplog: pytest.LogCaptureFixture
) -> None:
    reopen()
    assert caplog.records == []


def test_an_older_copy_has_its_older_position(folder: Path, reopen: Reopen, tmp_path: Path) -> None:
    reopen().apply({b"anna": b"1"}, 1)
    reopen().close()
    shutil.copytree(folder, tmp_path / "copy")
    reopen().apply({b"anna": b"2"}, 2)
    reopen().close()
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "copy", folder)
    state = reopen()
    assert (state.end, state.get(b"anna")) == (1, b"1")


def test_a_new_owner_does_not_wait_for_one_that_holds_the_store(folder: Path) -> None:
    zombie = open_rocksdb_store(folder, IDENTITY, 0, END)
    zombie.apply({b"anna": b"1"}, 1)
    heir = open_rocksdb_store(folder, IDENTITY, 0, END)
    assert heir.end == 0
    heir.apply({b"anna": b"2"}, 2)
    zombie.close()  # its files stay as they are; the heir's are its own
    assert heir.get(b"anna") == b"2"
    heir.close()
    third = open_rocksdb_store(folder, IDENTITY, 0, END)
    assert (third.end, third.get(b"anna")) == (1, b"1")
    assert not (folder / "1").exists()
    third.close()


def test_a_former_owner_removes_nothing_of_the_next_one(folder: Path) -> None:
    former = open_rocksdb_store(folder, IDENTITY, 0, END)
    former.close()
    owner = open_rocksdb_store(folder, IDENTITY, 0, END)
    with pytest.raises(Exception, match="closed"):
        former.get(b"anna")
    owner.apply({b"anna": b"1"}, 1)
    owner.close()
    again = open_rocksdb_store(folder, IDENTITY, 0, END)
    assert again.get(b"anna") == b"1"
    again.close()


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Fatal, match=r"cannot be kept in .*: Not a directory; set CQRS_STATE_DIR"):
        open_rocksdb_store(tmp_path / "file" / "users-1", IDENTITY, 0, END)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_an_outage_also_for_a_new_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The worker waits for space; a folder that it may not write to is for a person to mend."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(Transient, match=os.strerror(number)):
        open_rocksdb_store(tmp_path / "things-0", IDENTITY, 0, 0)
