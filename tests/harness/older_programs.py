"""Older versions of this project, as they were: taken out of the checkout's history.

    for older in older_programs(folder):
        deployed.start("commands", older)

They run with the packages of today's environment.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from deploy.supervisor import ROLES
from models.errors import Fatal
from tests.harness.command_line import ROOT

# Versions from before there were tags, the oldest first. One from before data keys named their
# master key does not open those of today, so nobody goes back to it.
_UNTAGGED: Mapping[str, str] = {"before 0.1.0": "3a430094852c1d598ce8b7b8e6d6870baaacc42b"}
_PACKAGES = ("agents", "deploy", "models", "streams")
_COMMANDS = """
import json
from deploy.supervisor import ROLES, command_line
print(json.dumps({app: command_line(app) for app in ROLES.values()}))
"""


@dataclass(frozen=True)
class OlderProgram:
    """A version in a folder of its own; it is a `Launcher` of workers."""

    name: str
    root: Path
    encrypts: bool
    """Whether it can be relied on with encryption; before 0.1.0, view workers could miss a key."""
    commands: Mapping[str, Sequence[str]]
    """How it starts a worker, by the module of the app."""

    def __call__(self, app: str) -> Sequence[str]:
        """Return the command that starts one worker of this version."""
        return [*_in(self.root), *self.commands[app]]


def older_programs(folder: Path) -> Iterator[OlderProgram]:
    """Unpack older versions into a folder, the oldest first and the last tag last.

    Raises:
        Fatal: this is no clone, or one without its history.
    """
    for number, (name, commit) in enumerate({**_UNTAGGED, **_last_tag()}.items()):
        root = folder / str(number)
        with tarfile.open(fileobj=BytesIO(_git("archive", commit, *_PACKAGES))) as archive:
            archive.extractall(root)
        said = subprocess.check_output([*_in(root), sys.executable, "-c", _COMMANDS], cwd=root)
        commands = json.loads(said)
        assert set(commands) == set(ROLES.values())
        yield OlderProgram(name, root, name not in _UNTAGGED, commands)


def _in(root: Path) -> Sequence[str]:
    """Return a command that runs another one in a folder, with the packages that are there."""
    return ["env", f"--chdir={root}", f"PYTHONPATH={root}"]


def _last_tag() -> Mapping[str, str]:
    tags = _git("tag", "--list", "v*", "--sort=version:refname", "--merged", "HEAD").decode()
    return {tag: tag for tag in tags.split()[-1:]}


def _git(*words: str) -> bytes:
    try:
        return subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, check=True
        ).stdout
    except FileNotFoundError:
        why = "there is no git"
    except subprocess.CalledProcessError as error:
        why = error.stderr.decode().strip().splitlines()[0]
    raise Fatal(
        f"older versions are not tried: {why}. They are taken from the history of a clone: if it "
        "has none, `git fetch --unshallow --tags`"
    )
