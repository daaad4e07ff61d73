"""Folders that contain what only this user may see, and whose files only this user may replace."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from models.errors import Fatal


def ensure_private(folder: Path) -> Path:
    """Create a folder that only this user can enter, or make sure that an existing one is such.

    Call it before anything in the folder is read or written: in a place like `/tmp`, somebody else
    may have created it first, as a link or with files in it. Rights to read and enter, which an
    older version gave, are taken away.

    Returns:
        The same folder.

    Raises:
        Fatal: It is a link or no folder, belongs to another user, or others can write to it.
        OSError: It cannot be created or opened.
    """
    try:
        folder.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        _check(folder)
    return folder


def _check(folder: Path) -> None:
    try:
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except NotADirectoryError:  # also for a link
        raise Fatal(f"{folder} is a link or no folder: remove it, or choose another") from None
    try:
        found = os.fstat(opened)
        if found.st_uid != os.geteuid():
            raise Fatal(f"{folder} belongs to another user: choose another folder")
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise Fatal(
                f"other users can write to {folder}: see whether what it contains is yours, and "
                f"then `chmod 700 {folder}`"
            )
        if stat.S_IMODE(found.st_mode) & ~stat.S_IRWXU:
            os.fchmod(opened, stat.S_IRWXU)
    finally:
        os.close(opened)
