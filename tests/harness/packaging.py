"""The project as a package: built, and installed in environments that do not know the checkout."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from tests.harness.command_line import ROOT

WORKER_LOCK = ROOT / "deploy" / "worker.lock"
BUILD_LOCK = ROOT / "deploy" / "build.lock"
_REQUIREMENT = re.compile(r"^([\w.-]+)==(\S+).*?\n((?: +--hash.*\n)+)", re.MULTILINE)


def build(target: str, folder: Path, source: Path = ROOT) -> Path:
    """Build the wheel or the `sdist` of a source folder, and return the file in `folder`."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    subprocess.run(command, cwd=source, capture_output=True, timeout=60, check=True)
    (built,) = folder.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return built


def locked(lock: Path) -> Mapping[tuple[str, str], frozenset[str]]:
    """Return the hashes of each name and version in a lock."""
    return {
        (name, version): frozenset(re.findall(r"--hash=(\S+)", hashes))
        for name, version, hashes in _REQUIREMENT.findall(lock.read_text())
    }


def link_packages(lock: Path, folder: Path) -> None:
    """Fill a folder with links to those installed packages that a lock names, and no others."""
    folder.mkdir()
    for name, _ in locked(lock):
        try:
            found = distribution(name)
        except PackageNotFoundError:  # for another Python
            continue
        for file in found.files or ():
            top = file.parts[0]
            if top != ".." and not (folder / top).exists():
                (folder / top).symlink_to(Path(str(found.locate_file(top))).resolve())
