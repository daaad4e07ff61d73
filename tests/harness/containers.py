"""The image, built here on a base of Debian's packages, and containers of it.

A container has a read-only root, no privileges and the network of this machine, on which the
embedded servers listen. It takes root and Debian's `buildah`, `debootstrap` and `runc`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from models.errors import Fatal
from tests.harness.command_line import ROOT

_TOOLS = ("buildah", "debootstrap", "runc")
_RELEASE = "bookworm"
_PACKAGES = "python3,python3-venv,ca-certificates"
_CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
_PIP_CONFIGURATION = Path("/etc/pip.conf")
_UNNEEDED = ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale")
_NAMESPACES = ("pid", "mount", "ipc", "uts")  # and no `network`
_CAPABILITY_SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")


def run(*command: str | Path) -> str:
    """Run a tool to its end and return its output.

    Raises:
        Fatal: it failed; the message has the last lines that it wrote.
    """
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-10:])
        raise Fatal(f"{command[0]} {command[1]} ended with code {done.returncode}:\n{last}")
    return done.stdout.strip()


def require_tools() -> None:
    """Check that there is what builds and runs an image.

    Raises:
        Fatal: a tool is missing, or this is not root.
    """
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        raise Fatal(f"images are not tried without {', '.join(missing)}: apt-get install them")
    if os.geteuid() != 0:
        raise Fatal("images are not tried: debootstrap and runc need root")


class Image:
    """The image `name` in buildah's storage; `root` is its file system, mounted."""

    def __init__(self, name: str, root: Path) -> None:
        self.name = name
        self.root = root

    @property
    def config(self) -> Mapping[str, Any]:
        """The configuration as OCI has it: `User`, `Entrypoint`, `Env`, ..."""
        found = json.loads(run("buildah", "inspect", "--type", "image", self.name))
        return dict(found["OCIv1"]["config"])

    @contextmanager
    def running(
        self, bundle: Path, words: Sequence[str], environment: Mapping[str, str], **mounts: Path
    ) -> Iterator[Container]:
        """Run `words` with the image's entry point for the block; kill what is left after it.

        Args:
            bundle: a new folder for the container's files.
            words: what replaces the image's command.
            environment: variables in addition to those of the image.
            mounts: `state=FOLDER` mounts a folder at `/var/lib/cqrs`, `secrets=FOLDER` another one,
                read-only, at `/run/secrets`.
        """
        bundle.mkdir()
        configuration = self._bundle(words, environment, mounts)
        (bundle / "config.json").write_text(json.dumps(configuration))
        name = f"cqrs-{uuid4().hex[:10]}"
        with (bundle / "log").open("wb") as log:
            process = subprocess.Popen(
                ["runc", "run", "--bundle", str(bundle), name],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            yield Container(name, process, bundle / "log")
        finally:
            subprocess.run(["runc", "delete", "--force", name], capture_output=True, check=False)
            process.wait()

    def _bundle(
        self, words: Sequence[str], environment: Mapping[str, str], mounts: Mapping[str, Path]
    ) -> Mapping[str, Any]:
        config = self.config
        user, _, group = config["User"].partition(":")
        added = [f"{name}={value}" for name, value in environment.items()]
        places = {"state": ("/var/lib/cqrs", "rw"), "secrets": ("/run/secrets", "ro")}
        return {
            "ociVersion": "1.0.0",
            "process": {
                "user": {"uid": int(user), "gid": int(group)},
                "args": [*config["Entrypoint"], *words],
                "env": [*config["Env"], *added],
                "cwd": config["WorkingDir"],
                "capabilities": {name: [] for name in _CAPABILITY_SETS},
                "noNewPrivileges": True,
            },
            "root": {"path": str(self.root), "readonly": True},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
                {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
                *(
                    {
                        "destination": places[name][0],
                        "type": "bind",
                        "source": str(folder),
                        "options": ["rbind", places[name][1]],
                    }
                    for name, folder in mounts.items()
                ),
            ],
            "linux": {"namespaces": [{"type": name} for name in _NAMESPACES]},
        }


class Container:
    """A running container; its first process is that of the image's entry point."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self._process = process
        self._log = log

    @property
    def log(self) -> str:
        """What it has written so far."""
        return self._log.read_text(errors="replace")

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def signal(self, name: str) -> None:
        """Send a signal to its first process, as a container engine does."""
        run("runc", "kill", self.name, name)

    def wait(self, timeout: float = 60) -> int:
        """Return its exit code. Raises TimeoutExpired if it does not end within some seconds."""
        return self._process.wait(timeout)


@contextmanager
def built_image(folder: Path) -> Iterator[Image]:
    """Build the image on a base of Debian's packages, and remove both at the end of the block."""
    require_tools()
    name = f"localhost/cqrs-{uuid4().hex[:10]}"
    with ExitStack() as leftovers:
        base = _base(folder / "base", f"{name}-base", leftovers)
        words = ["--isolation", "chroot", "--pull-never", "--build-arg", f"BASE_IMAGE={base}"]
        if _PIP_CONFIGURATION.exists():
            words += ["--secret", f"id=pip.conf,src={_PIP_CONFIGURATION}"]
        run("buildah", "bud", *words, "-f", "deploy/Dockerfile", "-t", name, ".")
        leftovers.callback(run, "buildah", "rmi", "--force", name)
        container = run("buildah", "from", "--pull-never", name)
        leftovers.callback(run, "buildah", "rm", container)
        yield Image(name, Path(run("buildah", "mount", container)))


def _base(folder: Path, name: str, leftovers: ExitStack) -> str:
    run("debootstrap", "--variant=minbase", f"--include={_PACKAGES}", _RELEASE, folder)
    for unneeded in _UNNEEDED:
        shutil.rmtree(folder / unneeded)
    # A registry here may have a certificate of its own.
    shutil.copy(Path("/") / _CERTIFICATES, folder / _CERTIFICATES)
    container = run("buildah", "from", "scratch")
    try:
        run("buildah", "add", container, folder, "/")
        run("buildah", "commit", container, name)
    finally:
        run("buildah", "rm", container)
    shutil.rmtree(folder)
    leftovers.callback(run, "buildah", "rmi", "--force", name)
    return name
