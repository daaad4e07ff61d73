"""Folders of temporary stacks: each locked by its owner, and removed when the owner has ended."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.embedded.processes import SERVERS, ServerProcess
from deploy.embedded.shared_files import locked
from streams.private_folders import ensure_private

_OWNER = "owner.lock"
_HOME = "home"  # beside the owner's lock


@contextmanager
def home() -> Iterator[Path]:
    """Create a folder for a stack, and remove it at the end of the block.

    After a kill -9 the next call removes it. The servers of a killed owner end by themselves (see
    `deploy.embedded.jvm`), unless they are suspended: the next call ends those too.

    Raises:
        Fatal: the folder of all these folders is not this user's alone.
    """
    parent = ensure_private(Path(tempfile.gettempdir()) / f"cqrs-streams-{os.getuid()}")
    with locked(parent / ".lock"):  # a new folder without a lock would look abandoned
        _remove_abandoned(parent)
        folder = Path(tempfile.mkdtemp(prefix="stack-", dir=parent))
        (folder / _HOME).mkdir()
        owner = (folder / _OWNER).open("w")
        fcntl.flock(owner, fcntl.LOCK_EX)
    try:
        yield folder / _HOME
    finally:
        owner.close()
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(parent: Path) -> None:
    for lock in parent.glob(f"stack-*/{_OWNER}"):
        with lock.open("w") as owner:
            try:
                fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            for server in SERVERS:
                ServerProcess(server, lock.parent / _HOME).kill()
            shutil.rmtree(lock.parent, ignore_errors=True)
