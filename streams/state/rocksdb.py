"""The state of a partition on this host's disk, in RocksDB: what `CQRS_STATE_DIR` switches on.

The changelog is the write-ahead log; RocksDB writes none. Each transaction of the changelog is one
batch together with the position in the changelog behind it, and is applied only when it is known to
be committed. RocksDB writes its memory to files in the order of the batches and each file whole or
not at all, so whenever the process or the machine dies, the files hold the committed transactions
up to some position and nothing else. From there the changelog is read on: its values are absolute,
so what is read twice does no harm, and it never removes an aggregate (an erased one is replaced),
so nothing comes back that compaction has taken out of it meanwhile.

A store that is of no use is removed, with one line that says why, and the state is read from the
changelog's beginning: one that RocksDB cannot open or read, of another topic (another deployment,
or one made anew with the same name: `topic_ids`), of another version of this format, or with a
position that is not in the changelog.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import NamedTuple, NoReturn

import orjson
from faust.types import TP
from rocksdict import (
    BlockBasedOptions,
    Cache,
    Options,
    Rdict,
    WriteBatch,
    WriteBufferManager,
    WriteOptions,
)

from models.errors import Fatal, Transient
from streams.state.store import OWN, StateStore, decode_position, position_key

logger = logging.getLogger(__name__)

FORMAT = 1

# The store's own keys, beside those of the changelog.
_OF = OWN + b"store"
_END = OWN + b"end"
_FIRST = b"\x01"  # no aggregate's key is before this one, and no other key is behind it

# Bytes of memory that the stores of a process take together: blocks that were read, filters and
# indices, and what waits to be written to files.
_MEMORY = 128 << 20
_UNWRITTEN = 64 << 20
_UNWRITTEN_EACH = 16 << 20  # also what is read from the changelog again after a kill -9, at most


class Identity(NamedTuple):
    """Whose state it is: another topic with the same name has another id."""

    topic_id: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic_id}[{self.partition}]"


class RocksDBStore(StateStore):
    """The state of one partition in a folder that no other process uses; `open_rocksdb_store`.

    Any error of RocksDB, a full disk or a damaged file, removes the store: it raises Transient, and
    the partition starts again from the changelog.
    """

    def __init__(self, slot: _LockedFolder, db: Rdict, end: int) -> None:
        self._slot = slot
        self._db = db
        self._end = end
        self._open = True

    @property
    def end(self) -> int:
        """How far it has the changelog."""
        return self._end

    def get(self, key: bytes) -> bytes | None:
        """The record of an aggregate. Raises Transient: see the class."""
        try:
            return self._db.get(key)
        except Exception as error:
            self._failed(error)

    def position(self, tp: TP) -> int | None:
        """Where the input partition was read to. Raises Transient: see the class."""
        value = self.get(position_key(tp))
        return None if value is None else decode_position(value)

    def apply(self, changes: Mapping[bytes, bytes | None], end: int) -> None:
        """Take over what was committed, all or nothing. Raises Transient: see the class."""
        batch = WriteBatch(raw_mode=True)
        for key, value in changes.items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        batch.put(_END, b"%d" % end)
        try:
            self._db.write(batch, _write_options())
        except Exception as error:
            self._failed(error)
        self._end = end

    def __iter__(self) -> Iterator[bytes]:
        yield from self._db.keys(from_key=_FIRST)

    def __len__(self) -> int:
        """Counts them: RocksDB itself only knows about how many there are."""
        return sum(1 for _ in self)

    def close(self) -> None:
        """Write everything to files, if that is possible, and let others have them."""
        if self._open:
            self._close_db()
            self._slot.release()

    def _close_db(self) -> None:
        self._open = False
        try:
            self._db.close()
        except Exception as error:  # closed it is nevertheless
            logger.warning("%s: the last changes stay unwritten: %s", self._slot.files, error)

    def _failed(self, error: Exception) -> NoReturn:
        if not self._open:
            raise error  # the files may belong to somebody else by now
        self._close_db()
        self._slot.remove_files()
        self._slot.release()
        raise Transient(
            f"{self._slot.files}: the local store failed and was removed: {error}"
        ) from error


def open_rocksdb_store(folder: Path, identity: Identity, begin: int, end: int) -> RocksDBStore:
    """The store of a partition, as it is or, if it is of no use, empty.

    A suspended process may hold the one that it used, although its partition has moved to us: then
    we take the next one in the same folder, and it is removed by whoever gets the first one again.

    Args:
        folder: of the partition, on this host.
        identity: whose state it has to be.
        begin: the first position of the changelog.
        end: the one behind its last committed record.

    Raises:
        Fatal: nothing can be kept in that folder.
        Transient: a new store could not be made there.
    """
    slot = _take_slot(folder)
    try:
        if slot.files.exists():
            try:
                return _reopened(slot, identity, begin, end)
            except _Unusable as why:
                logger.warning(
                    "%s: this local store is removed, and the state is read from the beginning "
                    "of the changelog: %s",
                    slot.files,
                    why,
                )
        return _new(slot, identity)
    except BaseException:
        slot.release()
        raise


class _Unusable(Exception):  # noqa: N818 - a reason, no error
    """Why a store cannot be used."""


class _LockedFolder:
    """One store's place in a partition's folder. Whoever has locked it owns the files."""

    def __init__(self, files: Path, lock: int) -> None:
        self.files = files
        self._lock = lock

    @classmethod
    def take(cls, folder: Path, number: int) -> _LockedFolder | None:
        """The place of this number, or None if somebody holds it; a process that ends lets go."""
        lock = os.open(folder / f"{number}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        return cls(folder / str(number), lock)

    def remove_files(self) -> None:
        shutil.rmtree(self.files, ignore_errors=True)

    def release(self) -> None:
        os.close(self._lock)


def _take_slot(folder: Path) -> _LockedFolder:
    """The first one that nobody holds; those behind it go, unless somebody holds them."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        slot = next(filter(None, (_LockedFolder.take(folder, number) for number in count())))
        for path in folder.iterdir():
            if path.name.isdecimal() and int(path.name) > int(slot.files.name):
                left = _LockedFolder.take(folder, int(path.name))
                if left is not None:
                    left.remove_files()
                    left.release()
    except OSError as error:
        raise Fatal(
            f"the state cannot be kept in {folder}: {error.strerror}; set CQRS_STATE_DIR to a "
            "folder that the worker can write to"
        ) from error
    return slot


def _reopened(slot: _LockedFolder, identity: Identity, begin: int, end: int) -> RocksDBStore:
    try:
        db = Rdict(str(slot.files), _options(create=False))
    except Exception as error:
        raise _Unusable(f"it cannot be opened: {error}") from error
    try:
        of, position = orjson.loads(db.get(_OF) or b"{}"), int(db.get(_END) or -1)
    except Exception as error:
        db.close()
        raise _Unusable(f"it cannot be read: {error}") from error
    if of.get("format") != FORMAT:
        why = f"its format is {of.get('format')}, not {FORMAT}"
    elif Identity(of["topic"], of["partition"]) != identity:
        why = f"it is of another topic: its id is {of['topic']}[{of['partition']}], not {identity}"
    elif not begin <= position <= end:
        why = f"it stands at {position}, the changelog has {begin} to {end}"
    else:
        return RocksDBStore(slot, db, position)
    db.close()
    raise _Unusable(why)


def _new(slot: _LockedFolder, identity: Identity) -> RocksDBStore:
    slot.remove_files()
    try:
        db = Rdict(str(slot.files), _options(create=True))
        of = {"format": FORMAT, "topic": identity.topic_id, "partition": identity.partition}
        db.put(_OF, orjson.dumps(of), write_opt=_write_options())
    except Exception as error:
        raise Transient(f"{slot.files}: no local store can be made: {error}") from error
    return RocksDBStore(slot, db, 0)


@lru_cache
def _write_options() -> WriteOptions:
    options = WriteOptions()
    options.disable_wal = True  # type: ignore[assignment, method-assign]
    return options


@lru_cache
def _memory() -> tuple[Cache, WriteBufferManager]:
    """What all stores of this process share."""
    cache = Cache(_MEMORY)
    manager = WriteBufferManager.new_write_buffer_manager_with_cache(_UNWRITTEN, False, cache)
    return cache, manager


def _options(*, create: bool) -> Options:
    cache, manager = _memory()
    blocks = BlockBasedOptions()
    blocks.set_block_cache(cache)
    blocks.set_cache_index_and_filter_blocks(True)
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(True)
    blocks.set_bloom_filter(10, False)
    options = Options(raw_mode=True)
    options.create_if_missing(create)
    options.set_block_based_table_factory(blocks)
    options.set_write_buffer_manager(manager)
    options.set_write_buffer_size(_UNWRITTEN_EACH)
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(1 << 20)
    return options
