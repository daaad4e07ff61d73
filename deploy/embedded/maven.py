"""Download Maven artifacts by their coordinates, with jgo: the only module that uses the network.

`python -m deploy.embedded.maven` resolves all of them again and writes `jars.lock`.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.embedded.lockfile import (
    LOCK,
    NETTY_MODULE,
    ROOTS,
    SECURITY,
    SECURITY_LEFT_OUT,
    SECURITY_MODULES,
    SECURITY_SAML,
    Jar,
    sha256_of,
)
from deploy.embedded.shared_files import write_atomically
from models.errors import Fatal

if TYPE_CHECKING:
    from jgo.maven import MavenContext

SCRATCH_PREFIX = ".download-"  # of folders with unfinished downloads
_ATTEMPTS = 3
_REQUEST_TIMEOUT_S = 30


def download(jar: Jar, path: Path, cache: Path) -> Jar:
    """Download one jar, verify it, then move it to `path`.

    Raises:
        Fatal: it cannot be downloaded, or has another SHA-256 than in `jars.lock`.
    """
    import requests

    path.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, _ATTEMPTS + 1):
        with _registry(cache) as registry:
            try:
                downloaded = _artifact(registry, jar.coordinates)
                found = sha256_of(downloaded)
                if found == jar.sha256:
                    downloaded.replace(path)
                    return jar
            except (requests.RequestException, RuntimeError) as error:  # the second is jgo's
                if attempt == _ATTEMPTS:
                    raise Fatal(f"cannot download {jar.name}: {_reason(error)}") from error
    raise Fatal(
        f"{jar.name} is not the pinned jar: its SHA-256 is {found}, jars.lock says {jar.sha256}; "
        "it was changed on its way and is not used"
    )


@contextmanager
def _registry(cache: Path) -> Iterator[MavenContext]:
    """Yield a Maven context that downloads into a new folder, and remove that at the end.

    jgo writes in place and assumes that an existing file is complete: in a shared folder it would
    keep using a jar that an interrupted download left incomplete.
    """
    from jgo.config import GlobalSettings
    from jgo.constants import MAVEN_CENTRAL_URL
    from jgo.maven import MavenContext

    mirrors = GlobalSettings.load().repositories  # from the user's jgo configuration
    folder = Path(tempfile.mkdtemp(prefix=SCRATCH_PREFIX, dir=cache))
    try:
        yield MavenContext(
            repo_cache=folder,
            remote_repos={**mirrors, "central": MAVEN_CENTRAL_URL},
            timeout=_REQUEST_TIMEOUT_S,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _artifact(registry: MavenContext, coordinates: str) -> Path:
    group, artifact, version = coordinates.split(":")
    path: Path = registry.project(group, artifact).at_version(version).artifact().resolve()
    return path


def _reason(error: Exception) -> str:
    """Return the reason in one line, without the nested objects that requests prints."""
    import requests

    if isinstance(error, requests.exceptions.SSLError):
        return (
            "the certificate of the Maven repository is not trusted here: if your network has a "
            "certificate authority of its own, set REQUESTS_CA_BUNDLE to its file"
        )
    if isinstance(error, requests.ConnectionError | requests.Timeout):
        return "no connection to the Maven repository, which only the first start needs"
    if isinstance(error, requests.RequestException):
        return f"the connection broke ({type(error).__name__})"
    return "no Maven repository has it"


def write_lock() -> None:
    """Resolve everything that is pinned with its dependencies, and write it to `jars.lock`."""
    lines = []
    with tempfile.TemporaryDirectory() as scratch, _registry(Path(scratch)) as registry:
        for server, folder, coordinates in (*_servers(), *_security()):
            path = _artifact(registry, coordinates)
            pinned = f"{sha256_of(path)} {path.stat().st_size}"
            lines.append(f"{server} {folder} {coordinates} {pinned}")
    header = "# server, folder, group:artifact:version, SHA-256, bytes; written by maven.py"
    write_atomically(LOCK, "\n".join([header, *sorted(lines)]) + "\n")


def _servers() -> Iterator[tuple[str, str, str]]:
    """Yield set, folder and coordinates of each jar of `ROOTS`."""
    for server, roots in ROOTS.items():
        for library, version in _resolve(roots).items():
            netty = library.startswith(("io.netty:", "org.elasticsearch.plugin:transport-"))
            yield server, NETTY_MODULE if netty else "lib", f"{library}:{version}"


def _security() -> Iterator[tuple[str, str, str]]:
    """Yield the same for `SECURITY`, without what the server or an earlier module has."""
    present = {
        library
        for library in _resolve(ROOTS["elasticsearch"])
        if not library.startswith("io.netty:")  # a module cannot use those of another module
    }
    for folder, roots in SECURITY_MODULES.items():
        for library, version in _resolve(roots).items():
            if library not in present and not library.startswith(SECURITY_LEFT_OUT):
                present.add(library)
                yield SECURITY, folder, f"{library}:{version}"
    for coordinates in SECURITY_SAML:
        yield SECURITY, "modules/x-pack-security", coordinates


def _resolve(roots: Iterable[str]) -> dict[str, str]:
    """Return the versions of these artifacts and of all that they need.

    Each root is resolved alone: together, managed versions of one would change another's.
    """
    import jgo

    versions: dict[str, str] = {}
    for artifact in (artifact for root in roots for artifact in jgo.resolve(root)):
        versions.setdefault(f"{artifact.groupId}:{artifact.artifactId}", artifact.version)
    return versions


if __name__ == "__main__":
    write_lock()
