"""The servers' jars: pinned in `jars.lock`, downloaded once, verified at every start.

Each jar is downloaded by its exact Maven coordinates and must have the recorded SHA-256. Jars that
only `cqrs bench` needs are treated the same, but are not downloaded before it needs them.

`python -m deploy.embedded.jars` downloads all of them, but for those of older servers.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import platformdirs

from deploy.embedded.lockfile import (
    ELASTICSEARCH_VERSION,
    NETTY_MODULE,
    OLDER,
    ROOTS,
    SECURITY,
    Jar,
    read_lock,
    sha256_of,
)
from deploy.embedded.maven import SCRATCH_PREFIX, download
from deploy.embedded.preconditions import require_packages
from deploy.embedded.shared_files import locked, write_atomically
from deploy.embedded.start_progress import Progress
from deploy.programs import run_program
from models.errors import Fatal
from streams.private_folders import ensure_private
from streams.settings import read_folder

SERVERS = ("kafka", "elasticsearch")
# The full distribution contains this file beside the module's jars. This one names no Java module:
# here the server's own jars are on the class path, not on the module path.
_NETTY_DESCRIPTOR = """\
name=transport-netty4
description=Netty 4 based transport implementation
version={version}
elasticsearch.version={version}
java.version=21
classname=org.elasticsearch.transport.netty4.Netty4Plugin
extended.plugins=
has.native.controller=false
"""
_ELASTICSEARCH = {
    "elasticsearch": ELASTICSEARCH_VERSION,
    **{name: version for name, version in OLDER.items() if name.startswith("elasticsearch")},
}
_PARALLEL_DOWNLOADS = 6


def cache_home() -> Path:
    """Return the folder of downloads: `CQRS_CACHE_HOME`, or the user's cache folder."""
    home = read_folder("cache_home") or platformdirs.user_cache_path("cqrs-streams")
    return home.absolute()


def jar_folder(server: str) -> Path:
    """Return the folder in which `ensure_jars` puts the jars of `server`."""
    return _folder(server, read_lock())


def class_path(folder: Path) -> list[str]:
    """Return the class path of a server whose jars are in `folder`."""
    return sorted(str(jar) for jar in (folder / "lib").glob("*.jar"))


def ensure_jars(progress: Progress, servers: Collection[str] = SERVERS) -> None:
    """Download the jars of these servers that are missing or damaged.

    Safe in several processes at once. Uses the network only if a jar is missing or damaged.

    Raises:
        Fatal: a jar cannot be downloaded, or has another SHA-256 than in `jars.lock`; or the
            packages that run the servers are not installed.
    """
    require_packages()
    jars = [jar for jar in read_lock() if jar.server in servers]
    folders = {server: _folder(server, jars) for server in servers}
    paths = {jar: folders[jar.server] / jar.folder / jar.name for jar in jars}
    if all(_is_intact(jar, path) for jar, path in paths.items()):
        return
    cache = cache_home() / "jars"
    try:
        ensure_private(cache_home())
        with locked(cache / ".lock"):
            for server in _ELASTICSEARCH.keys() & folders.keys():
                descriptor = folders[server] / NETTY_MODULE / "plugin-descriptor.properties"
                text = _NETTY_DESCRIPTOR.format(version=_ELASTICSEARCH[server])
                write_atomically(descriptor, text)
            missing = {jar: path for jar, path in paths.items() if not _is_intact(jar, path)}
            if missing:  # another process may just have downloaded them
                _download(missing, cache, progress)
    except OSError as error:
        raise Fatal(f"cannot keep the servers' jars in {cache}: {error}") from error


def _folder(server: str, jars: Iterable[Jar]) -> Path:
    """Return the folder of this set of jars: two versions of a library must never share one."""
    pinned = "".join(jar.sha256 for jar in jars if jar.server == server)
    return cache_home() / "jars" / f"{server}-{hashlib.sha256(pinned.encode()).hexdigest()[:8]}"


def _is_intact(jar: Jar, path: Path) -> bool:
    return path.exists() and path.stat().st_size == jar.size and sha256_of(path) == jar.sha256


def _download(missing: dict[Jar, Path], cache: Path, progress: Progress) -> None:
    for left_over in cache.glob(f"{SCRATCH_PREFIX}*"):  # of a process that was killed
        shutil.rmtree(left_over, ignore_errors=True)
    total = sum(jar.size for jar in missing)
    text = f"Downloading the jars of {' and '.join(sorted({jar.server for jar in missing}))}"
    with (
        progress.downloading(text, total) as advance,
        ThreadPoolExecutor(_PARALLEL_DOWNLOADS) as pool,
    ):
        try:
            for jar in pool.map(lambda jar: download(jar, missing[jar], cache), missing):
                advance(jar.size)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


if __name__ == "__main__":
    from deploy.embedded.start_progress import TerminalProgress

    servers = (*(ROOTS.keys() - OLDER.keys()), SECURITY)
    run_program(lambda: ensure_jars(TerminalProgress(), servers))
