"""Makes the AOT caches of the servers: their classes, as a JVM has loaded and linked them before.

A server that has one starts with half of the CPU and in half of the time (JEP 483 and 514). A JVM
writes it when it ends, and takes half a minute for it. That is too long for a first look at a
stack, and is earned back by tests, which start dozens of servers: so `./run test` makes the caches
that are missing, with `python -m deploy.embedded.aot_caches`. Any start uses those that are there.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deploy.embedded import temporary_homes as temporary
from deploy.embedded.jars import class_path, jar_folder
from deploy.embedded.processes import ServerProcess
from deploy.embedded.shared_files import locked
from deploy.embedded.stack import EmbeddedStack
from deploy.embedded.start_progress import Progress, TerminalProgress
from deploy.programs import run_program
from models.errors import Fatal

# Until a JVM has written its cache, on the slowest machine.
_TIMEOUT_S = 300.0


def ensure_aot_caches(progress: Progress) -> None:
    """Make the AOT caches of both servers that are missing; several processes make them once.

    Raises:
        Fatal: a server did not start, or its JVM has written no cache.
    """
    with temporary.home() as home:
        stack = EmbeddedStack(home)
        with locked(stack.kafka.aot_cache.with_name(".lock")):
            missing = [one for one in (stack.kafka, stack.elasticsearch) if _is_missing(one)]
            if missing:
                with progress.waiting("Making AOT caches, with which servers start faster"):
                    _make(stack, missing)


def _is_missing(server: ServerProcess) -> bool:
    """Check whether there is none, or one of jars that were downloaded again: a JVM refuses it."""
    if not server.aot_cache.exists():
        return True
    made = server.aot_cache.stat().st_mtime
    return any(Path(jar).stat().st_mtime > made for jar in class_path(jar_folder(server.jars)))


def _make(stack: EmbeddedStack, missing: list[ServerProcess]) -> None:
    new = {server: server.aot_cache.with_suffix(".new") for server in missing}
    for server, path in new.items():
        server.aot_output = path
    with stack.borrowed(), ThreadPoolExecutor() as pool:
        list(pool.map(lambda server: server.stop(_TIMEOUT_S), missing))
    for server, path in new.items():
        try:
            path.replace(server.aot_cache)
        except FileNotFoundError:
            raise Fatal(f"the JVM of {server.title} has written no AOT cache") from None


if __name__ == "__main__":
    run_program(lambda: ensure_aot_caches(TerminalProgress()))
