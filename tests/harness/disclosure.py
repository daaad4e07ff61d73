"""Look for people and secrets in what others may see."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import psutil  # type: ignore[import-untyped]

from deploy.ephemeral import WorkerProcess


def lines_with(texts: Mapping[str, str], marks: Collection[str]) -> dict[str, str]:
    """Return a line in which one of the marks is, in upper or lower case, by where it is."""
    found = {}
    for where, text in texts.items():
        for line in text.splitlines():
            if any(mark.lower() in line.lower() for mark in marks):
                found[where] = line
    return found


def processes_of(workers: Iterable[WorkerProcess]) -> dict[str, str]:
    """Return the command lines of workers and their children, as `ps` shows them."""
    found = {}
    for worker in workers:
        process = psutil.Process(worker.pid)
        for one in (process, *process.children(recursive=True)):
            found[f"process {one.pid}"] = "\n".join(one.cmdline())
    return found
