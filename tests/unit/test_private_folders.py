"""Folders of ours are ours alone: nobody else can have made them, or look into them."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from deploy.embedded import jars, temporary_homes
from deploy.embedded.stack import EmbeddedStack
from deploy.embedded.start_progress import Progress
from models.errors import Fatal
from streams.private_folders import ensure_private
from streams.state.rocksdb import Identity, open_rocksdb_store


def mode(folder: Path) -> int:
    return stat.S_IMODE(folder.stat().st_mode)


def test_a_new_folder_is_for_this_user_alone(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert ensure_private(folder) == folder
    assert mode(folder) == 0o700
    assert ensure_private(folder) == folder


def test_others_can_no_longer_look_into_a_folder_of_an_older_version(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir(mode=0o755)
    assert mode(ensure_private(tmp_path / "b")) == 0o700


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "link").symlink_to("theirs")
    with pytest.raises(Fatal, match="is a link or no folder: remove it"):
        ensure_private(tmp_path / "link")
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(Fatal, match="is a link or no folder"):
        ensure_private(tmp_path / "dangling")
    assert not (tmp_path / "nowhere").exists()


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Fatal, match="is a link or no folder"):
        ensure_private(tmp_path / "file")


def test_a_folder_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(Fatal, match=r"belongs to another user: choose another folder"):
        ensure_private(tmp_path)


@pytest.mark.parametrize("bits", [0o777, 0o770, 0o702])
def test_a_folder_that_others_can_write_to_is_refused(tmp_path: Path, bits: int) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(bits)
    with pytest.raises(Fatal, match=r"other users can write to .*`chmod 700 "):
        ensure_private(tmp_path / "open")
    assert mode(tmp_path / "open") == bits


def test_a_planted_folder_of_temporary_stacks_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lock would be a link: opening it would have emptied a file of this user."""
    precious = tmp_path / "precious"
    precious.write_text("mine")
    parent = tmp_path / f"cqrs-streams-{os.getuid()}"
    (parent / "stack-x").mkdir(parents=True)
    (parent / "stack-x" / "owner.lock").symlink_to(precious)
    parent.chmod(0o777)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    with pytest.raises(Fatal, match="other users can write to"), temporary_homes.home():
        pass
    assert precious.read_text() == "mine"


def test_the_home_of_a_stack_is_private(tmp_path: Path) -> None:
    """It holds all personal data of a local deployment."""
    (tmp_path / "stack").mkdir(mode=0o755)
    stack = EmbeddedStack(tmp_path / "stack")
    stack.down()
    assert mode(stack.home) == 0o700


def test_the_cache_of_jars_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A jar is code that is run after its checksum was compared."""
    monkeypatch.setenv("CQRS_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(jars, "_download", lambda *_: None)
    jars.ensure_jars(Progress())
    assert mode(tmp_path / "cache") == 0o700


def test_the_folder_of_a_partitions_state_is_private(tmp_path: Path) -> None:
    (tmp_path / "state").symlink_to(tmp_path)
    with pytest.raises(Fatal, match="is a link or no folder"):
        open_rocksdb_store(tmp_path / "state", Identity("0" * 32, 0), 0, 0)
