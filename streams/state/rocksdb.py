"""State of a partition in RocksDB on this host's disk; `CQRS_STATE_DIR` switches it on.

The changelog is the write-ahead log; RocksDB writes none. Changes are applied only when they are
known to be committed, in one batch with the changelog offset after them. RocksDB writes its memory
to files in the order of the batches, and each file as a whole or not at all. So whenever the
process or the machine dies, the files contain the committed changes up to some offset and nothing
else. The next start reads the changelog from that offset. Reading a change twice does no harm,
because values are absolute. Aggregates are never removed from the changelog (an erased one is
replaced), so an old store cannot bring one back that compaction has removed meanwhile.

A store that cannot be used is removed, with one log line that says why, and the state is read from
the beginning of the changelog. That is a store that RocksDB cannot open or read, that belongs to
another topic (of another deployment, or deleted and created again: `topic_ids`), that was written
by another version of this format, or whose offset is not within the changelog.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from functools import lru_cache
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
from streams import metrics
from streams.logs import about
from streams.private_folders import ensure_private
from streams.state.store import RESERVED, Position, StateStore, decode_position, position_key

logger = logging.getLogger(__name__)

FORMAT = 1

# Keys of the store itself. The other keys are those of the changelog.
_IDENTITY_KEY = RESERVED + b"store"
_END_KEY = RESERVED + b"end"

# The ids of aggregates are at or after this key, all reserved keys before it.
_FIRST_ID = b"\x01"

# Errors of a disk that may have space again, by itself.
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)

# Memory of all stores of a process together: cached blocks, filters and indices, and the write
# buffers, whose content waits to be written to files (and is read from the changelog again after
# a kill -9).
_MEMORY_BYTES = 128 << 20
_WRITE_BUFFERS_BYTES = 64 << 20
_WRITE_BUFFER_PER_STORE_BYTES = 16 << 20


class Identity(NamedTuple):
    """Changelog partition that a store belongs to, by topic id: a name can be used again."""

    topic_id: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic_id}[{self.partition}]"


class RocksDBStore(StateStore):
    """State of one partition in a folder that it has locked; opened by `open_rocksdb_store`.

    Any error of RocksDB (a full disk, a damaged file) removes the store and raises Transient: the
    partition starts again and reads the changelog from its beginning.
    """

    def __init__(self, folder: _LockedFolder, db: Rdict, end: int) -> None:
        self._folder = folder
        self._db = db
        self._end = end
        self._open = True

    @property
    def end(self) -> int:
        """Changelog offset up to which the store is complete (exclusive)."""
        return self._end

    def get(self, key: bytes) -> bytes | None:
        """Return the record of an aggregate, if there is one. Raises Transient: see the class."""
        try:
            return self._db.get(key)
        except Exception as error:
            self._remove_and_raise(error)

    def position(self, tp: TP) -> Position | None:
        """Return the position in an input partition. Raises Transient: see the class."""
        value = self.get(position_key(tp))
        return None if value is None else decode_position(value)

    def reserved(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over the reserved keys that begin with this, and their values.

        Raises Transient: see the class.
        """
        for key, value in self._items(prefix):
            if not key.startswith(prefix):
                return
            yield key, value

    def apply(self, changes: Mapping[bytes, bytes | None], end: int) -> None:
        """Apply records of the changelog, all or nothing; None deletes a key, `end` is exclusive.

        Raises Transient: see the class.
        """
        batch = WriteBatch(raw_mode=True)
        for key, value in changes.items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        batch.put(_END_KEY, b"%d" % end)
        try:
            self._db.write(batch, _write_options())
        except Exception as error:
            self._remove_and_raise(error)
        self._end = end

    def __iter__(self) -> Iterator[bytes]:
        """Iterate over the ids. Raises Transient: see the class."""
        return (key for key, _ in self._items(_FIRST_ID))

    def _items(self, first: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over keys and values from this key on. Raises Transient: see the class.

        Not `Rdict.items`: at what cannot be read it ends as if there were no more.
        """
        try:
            items = self._db.iter()
            items.seek(first)
            while items.valid():
                key, value = items.key(), items.value()
                items.next()
                yield key, value
            items.status()  # raises why it ended, if that is not the last key
        except Exception as error:
            self._remove_and_raise(error)

    def __len__(self) -> int:
        """Count the ids one by one: RocksDB itself has only an estimate."""
        return sum(1 for _ in self)

    def approximate_len(self) -> int:
        """Return RocksDB's estimate; it has a few more keys than there are aggregates.

        A store that has failed has none. Its partition is not the only one that asks: whichever is
        the last to start logs what all of them have.
        """
        if not self._open:
            return 0
        return self._db.property_int_value("rocksdb.estimate-num-keys") or 0

    def close(self) -> None:
        """Write everything to files, if that is possible, and unlock the folder."""
        if self._open:
            self._close_db()
            self._folder.release()

    def _close_db(self) -> None:
        self._open = False
        try:
            self._db.close()
        except Exception as error:  # it is closed all the same
            logger.warning(
                "%s: the last changes were not written: %s",
                self._folder.files,
                error,
                extra=about("store-not-written"),
            )

    def _remove_and_raise(self, error: Exception) -> NoReturn:
        if not self._open:
            raise error  # the files may belong to another process now
        self._close_db()
        _say_removed(self._folder, str(error))
        self._folder.remove_files()
        self._folder.release()
        raise Transient(
            f"{self._folder.files}: the local store failed and was removed: {error}"
        ) from error


def open_rocksdb_store(path: Path, identity: Identity, begin: int, end: int) -> RocksDBStore:
    """Open the store of a partition; create an empty one if there is none that can be used.

    A suspended process may still hold the store, although the partition has moved here. Then the
    next folder beside it is used; a later owner that gets the first one again removes that.

    Args:
        path: the partition's directory on this host, with the numbered folders in it.
        identity: the changelog partition that the store has to belong to.
        begin: the first offset of the changelog.
        end: the changelog's end (exclusive).

    Raises:
        Fatal: that directory cannot be used.
        Transient: a new store could not be created there.
    """
    folder = _lock_folder(path)
    try:
        if folder.files.exists():
            try:
                return _reopen(folder, identity, begin, end)
            except _Unusable as why:
                _say_removed(folder, str(why))
        return _create(folder, identity)
    except BaseException:
        folder.release()
        raise


def _say_removed(folder: _LockedFolder, why: str) -> None:
    metrics.STORES_DISCARDED.inc()
    logger.warning(
        "%s: this local store is removed, and the state is read from the beginning of the "
        "changelog: %s",
        folder.files,
        why,
        extra=about("store-removed"),
    )


class _Unusable(Exception):  # noqa: N818 - a reason, no error
    """Reason why a store cannot be used."""


class _LockedFolder:
    """Numbered folder for the files of one store. The holder of its lock owns the files."""

    def __init__(self, files: Path, lock_fd: int) -> None:
        self.files = files
        self._lock_fd = lock_fd

    @classmethod
    def try_lock(cls, path: Path, number: int) -> _LockedFolder | None:
        """Lock the folder of this number, or return None if it is locked already.

        The end of a process releases its locks.
        """
        lock_fd = os.open(path / f"{number}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock_fd)
            return None
        return cls(path / str(number), lock_fd)

    def remove_files(self) -> None:
        shutil.rmtree(self.files, ignore_errors=True)

    def release(self) -> None:
        os.close(self._lock_fd)


def _lock_folder(path: Path) -> _LockedFolder:
    """Lock the first free folder, and remove unlocked ones after it."""
    try:
        ensure_private(path)
        number = 0
        while (folder := _LockedFolder.try_lock(path, number)) is None:
            number += 1
        for other in path.iterdir():
            if other.name.isdecimal() and int(other.name) > number:
                unused = _LockedFolder.try_lock(path, int(other.name))
                if unused is not None:
                    unused.remove_files()
                    unused.release()
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise Transient(f"{path}: no local store can be created: {error.strerror}") from error
        raise Fatal(
            f"the state cannot be kept in {path}: {error.strerror}; set CQRS_STATE_DIR to a "
            "folder that the worker can write to"
        ) from error
    return folder


def _reopen(folder: _LockedFolder, identity: Identity, begin: int, end: int) -> RocksDBStore:
    try:
        db = Rdict(str(folder.files), _options(create=False))
    except Exception as error:
        raise _Unusable(f"it cannot be opened: {error}") from error
    try:
        found, position = orjson.loads(db.get(_IDENTITY_KEY) or b"{}"), int(db.get(_END_KEY) or -1)
    except Exception as error:
        db.close()
        raise _Unusable(f"it cannot be read: {error}") from error
    if found.get("format") != FORMAT:
        why = f"its format is {found.get('format')}, not {FORMAT}"
    elif (owner := Identity(found["topic"], found["partition"])) != identity:
        why = f"it is of another topic: its id is {owner}, not {identity}"
    elif not begin <= position <= end:
        why = f"it stands at {position}, the changelog has {begin} to {end}"
    else:
        return RocksDBStore(folder, db, position)
    db.close()
    raise _Unusable(why)


def _create(folder: _LockedFolder, identity: Identity) -> RocksDBStore:
    folder.remove_files()
    try:
        db = Rdict(str(folder.files), _options(create=True))
        owner = {"format": FORMAT, "topic": identity.topic_id, "partition": identity.partition}
        db.put(_IDENTITY_KEY, orjson.dumps(owner), write_opt=_write_options())
    except Exception as error:
        raise Transient(f"{folder.files}: no local store can be created: {error}") from error
    return RocksDBStore(folder, db, 0)


@lru_cache
def _write_options() -> WriteOptions:
    options = WriteOptions()
    options.disable_wal = True  # type: ignore[assignment, method-assign]
    return options


@lru_cache
def _memory() -> tuple[Cache, WriteBufferManager]:
    """Return the block cache and the write buffers, which all stores of this process share."""
    cache = Cache(_MEMORY_BYTES)
    manager = WriteBufferManager.new_write_buffer_manager_with_cache(
        _WRITE_BUFFERS_BYTES, False, cache
    )
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
    options.set_error_if_exists(create)  # what could not be removed must not pass for an empty one
    options.set_block_based_table_factory(blocks)
    options.set_write_buffer_manager(manager)
    options.set_write_buffer_size(_WRITE_BUFFER_PER_STORE_BYTES)
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(1 << 20)
    return options
