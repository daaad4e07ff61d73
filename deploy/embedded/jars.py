"""The servers' jars: pinned in `jars.lock`, downloaded once, verified at every start.

`jars.lock` holds one line per jar, transitive dependencies included, so that a start resolves
nothing: each jar is fetched by its exact Maven coordinates through jgo (which knows the registry,
or the mirrors named in the user's own jgo configuration) and has to have the recorded SHA-256.
After changing a version below, `python -m deploy.embedded.jars` writes the lock anew.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from deploy.embedded.files import locked, write_atomically
from deploy.embedded.progress import Progress
from models.errors import Fatal

if TYPE_CHECKING:
    from jgo.maven import MavenContext

LOCK = Path(__file__).with_name("jars.lock")
KAFKA_VERSION = "4.4.0"
ELASTICSEARCH_VERSION = "9.5.3"
ROOTS = {
    "kafka": [
        f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}",
        "org.apache.logging.log4j:log4j-slf4j-impl:2.25.5",  # without it Kafka logs nothing
    ],
    "elasticsearch": [
        f"org.elasticsearch:elasticsearch:{ELASTICSEARCH_VERSION}",
        f"org.elasticsearch.plugin:transport-netty4:{ELASTICSEARCH_VERSION}",
    ],
}
NETTY_MODULE = "modules/transport-netty4"
# The registry's distribution zip would carry this file; the jar alone does not.
NETTY_DESCRIPTOR = f"""\
name=transport-netty4
description=Netty 4 based transport implementation
version={ELASTICSEARCH_VERSION}
elasticsearch.version={ELASTICSEARCH_VERSION}
java.version=21
classname=org.elasticsearch.transport.netty4.Netty4Plugin
extended.plugins=
has.native.controller=false
"""
_ATTEMPTS = 3
_DOWNLOADS_AT_A_TIME = 6
_SCRATCH = ".download-"


@dataclass(frozen=True)
class Jar:
    """One line of `jars.lock`."""

    sha256: str
    size: int  # bytes
    server: str
    folder: str  # below the server's folder: where the server looks for it
    coordinates: str  # group:artifact:version

    @property
    def name(self) -> str:
        """The jar's file name."""
        _, artifact, version = self.coordinates.split(":")
        return f"{artifact}-{version}.jar"


def read_lock(lock: Path) -> list[Jar]:
    """The pinned jars of both servers."""
    lines = (line.split() for line in lock.read_text().splitlines() if not line.startswith("#"))
    return [Jar(sha, int(size), server, folder, gav) for sha, size, server, folder, gav in lines]


def cache_home() -> Path:
    """Where downloads are kept: `CQRS_CACHE_HOME`, else the user's cache folder."""
    named = os.environ.get("CQRS_CACHE_HOME")
    return Path(named).expanduser() if named else platformdirs.user_cache_path("cqrs-streams")


def jar_folder(server: str) -> Path:
    """Where the jars of `server` are after `ensure_jars`."""
    return _folder(server, read_lock(LOCK), cache_home() / "jars")


def ensure_jars(progress: Progress) -> None:
    """Download what is missing or damaged.

    Safe in several processes at once. Touches the network only when a jar is missing.

    Raises:
        Fatal: a jar cannot be downloaded, or is not the one that the lock names.
    """
    cache = cache_home() / "jars"
    jars = read_lock(LOCK)
    folders = {server: _folder(server, jars, cache) for server in ROOTS}
    paths = {jar: folders[jar.server] / jar.folder / jar.name for jar in jars}
    if any(not _is_intact(jar, path) for jar, path in paths.items()):
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with locked(cache / ".lock"):
                missing = {jar: p for jar, p in paths.items() if not _is_intact(jar, p)}
                _download(missing, cache, progress)
        except OSError as error:
            raise Fatal(f"cannot keep the servers' jars in {cache}: {error}") from error
    descriptor = folders["elasticsearch"] / NETTY_MODULE / "plugin-descriptor.properties"
    if not descriptor.exists():
        write_atomically(descriptor, NETTY_DESCRIPTOR)


def class_path(folder: Path) -> list[str]:
    """The class path of a server whose jars are in `folder`."""
    return sorted(str(jar) for jar in (folder / "lib").glob("*.jar"))


def _folder(server: str, jars: Iterable[Jar], cache: Path) -> Path:
    """One folder per set of jars: two versions of a library must never meet in one."""
    pinned = "".join(jar.sha256 for jar in jars if jar.server == server)
    return cache / f"{server}-{hashlib.sha256(pinned.encode()).hexdigest()[:8]}"


def _is_intact(jar: Jar, path: Path) -> bool:
    return path.exists() and path.stat().st_size == jar.size and _sha256(path) == jar.sha256


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _download(missing: dict[Jar, Path], cache: Path, progress: Progress) -> None:
    if not missing:  # another process has just done it
        return
    for left_over in cache.glob(f"{_SCRATCH}*"):  # of a process that was killed
        shutil.rmtree(left_over, ignore_errors=True)
    total = sum(jar.size for jar in missing)
    text = f"Downloading Kafka {KAFKA_VERSION} and Elasticsearch {ELASTICSEARCH_VERSION}"
    with (
        progress.downloading(text, total) as advance,
        ThreadPoolExecutor(_DOWNLOADS_AT_A_TIME) as pool,
    ):
        try:
            fetched = pool.map(lambda jar: _fetch(jar, missing[jar], cache), missing)
            for jar in fetched:
                advance(jar.size)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _fetch(jar: Jar, path: Path, cache: Path) -> Jar:
    """Download one jar into its place: verified first, then renamed."""
    import requests

    path.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, _ATTEMPTS + 1):
        with _registry(cache) as registry:
            try:
                downloaded = _artifact(registry, jar.coordinates)
                found = _sha256(downloaded)
                if found == jar.sha256:
                    downloaded.replace(path)
                    return jar
            except (requests.RequestException, RuntimeError) as error:  # jgo: RuntimeError
                if attempt == _ATTEMPTS:
                    raise Fatal(
                        f"cannot download {jar.name} (the first start needs a Maven repository): "
                        f"{_reason(error)}"
                    ) from error
    raise Fatal(
        f"{jar.name} is not the jar that was pinned: SHA-256 {found}, expected {jar.sha256}; "
        "something on the way replaced it, nothing was installed"
    )


@contextmanager
def _registry(cache: Path) -> Iterator[MavenContext]:
    """A Maven context that keeps what it downloads in a folder of its own, gone afterwards.

    jgo writes in place and takes whatever is there for complete, so a shared repository folder
    would keep a jar that an interrupted download cut short.
    """
    from jgo.config import GlobalSettings
    from jgo.constants import MAVEN_CENTRAL_URL
    from jgo.maven import MavenContext

    mirrors = GlobalSettings.load().repositories
    folder = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=cache))
    try:
        yield MavenContext(
            repo_cache=folder, remote_repos={**mirrors, "central": MAVEN_CENTRAL_URL}, timeout=30
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _artifact(registry: MavenContext, coordinates: str) -> Path:
    group, artifact, version = coordinates.split(":")
    path: Path = registry.project(group, artifact).at_version(version).artifact().resolve()
    return path


def _reason(error: Exception) -> str:
    """A connection error's text is a nest of objects; its type says enough."""
    import requests

    if isinstance(error, requests.ConnectionError):
        return "no connection"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    return str(error).splitlines()[0]


def write_lock() -> None:
    """Resolve both servers with all their dependencies and record every jar."""
    import jgo

    lines = ["# sha256 size server folder group:artifact:version; see jars.py"]
    with tempfile.TemporaryDirectory() as scratch, _registry(Path(scratch)) as registry:
        for server, roots in ROOTS.items():
            # Each root by itself: resolved together, one's managed versions change the other's.
            versions: dict[str, str] = {}
            for artifact in (artifact for root in roots for artifact in jgo.resolve(root)):
                versions.setdefault(f"{artifact.groupId}:{artifact.artifactId}", artifact.version)
            for library, version in versions.items():
                netty = library.startswith(("io.netty:", "org.elasticsearch.plugin:transport-"))
                path = _artifact(registry, f"{library}:{version}")
                folder = NETTY_MODULE if netty else "lib"
                pinned = f"{server} {folder} {library}:{version}"
                lines.append(f"{_sha256(path)} {path.stat().st_size} {pinned}")
    write_atomically(LOCK, "\n".join([lines[0], *sorted(lines[1:], key=_by_name)]) + "\n")


def _by_name(line: str) -> list[str]:
    return line.split()[2:]


if __name__ == "__main__":
    write_lock()
