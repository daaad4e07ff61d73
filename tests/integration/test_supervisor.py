"""Keeping worker processes running: with children that are no workers, so that it is quick."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from deploy.waiting import wait_until
from tests.harness.command_line import ROOT

# A supervisor of two children that run the given script; what it says goes to standard output.
SUPERVISOR = """
import asyncio, os, sys
from deploy.supervisor import Child, Supervisor

command = [sys.executable, "-c", sys.argv[1], sys.argv[2]]
children = [Child(f"worker {number}", command, os.environ) for number in (1, 2)]
supervisor = Supervisor(children, lambda line: print(line, flush=True))
sys.exit(asyncio.run(supervisor.run()))
"""
# What children do: they note their process ids, one a line, and then...
NOTE = """
import os, signal, sys

def note(*_):
    open(sys.argv[1], "a").write(f"{os.getpid()}\\n")

def wait():
    while True:
        signal.pause()
"""
WAIT = NOTE + "note(); wait()"
STOP = NOTE + "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); note(); wait()"
STUBBORN = NOTE + "signal.signal(signal.SIGTERM, note); note(); wait()"
FAIL = NOTE + "note(); sys.exit(3)"
END = NOTE + "note()"


@contextmanager
def supervised(
    script: str, folder: Path, before: str = ""
) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """The supervisor's process, and the file with the children's process ids."""
    pids = folder / "pids"
    pids.touch()
    process = subprocess.Popen(
        [sys.executable, "-c", f"{before}\n{SUPERVISOR}", script, str(pids)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process, pids
    finally:
        process.kill()
        process.communicate()


def pids_in(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().splitlines()]


async def started(path: Path, count: int) -> list[int]:
    await wait_until(lambda: len(pids_in(path)) >= count, what=f"{count} children")
    return pids_in(path)


def is_gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


async def test_sigterm_stops_all_and_the_exit_code_is_0(tmp_path: Path) -> None:
    with supervised(STOP, tmp_path) as (process, pids):
        children = await started(pids, 2)
        process.terminate()
        said, _ = process.communicate(timeout=20)
    assert (process.returncode, said) == (0, "")
    assert all(map(is_gone, children))


async def test_ctrl_c_stops_all_too(tmp_path: Path) -> None:
    with supervised(STOP, tmp_path) as (process, pids):
        children = await started(pids, 2)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == 0
    assert all(map(is_gone, children))


async def test_a_second_signal_kills(tmp_path: Path) -> None:
    with supervised(STUBBORN, tmp_path) as (process, pids):
        children = await started(pids, 2)
        process.terminate()
        await started(pids, 4)  # they have heard of it
        assert not any(map(is_gone, children))
        process.terminate()
        process.communicate(timeout=20)
    assert process.returncode == 1
    assert all(map(is_gone, children))


async def test_one_that_does_not_stop_in_time_is_killed(tmp_path: Path) -> None:
    impatient = "import deploy.supervisor; deploy.supervisor._STOP_TIMEOUT_S = 0.5"
    with supervised(STUBBORN, tmp_path, impatient) as (process, pids):
        children = await started(pids, 2)
        process.terminate()
        process.communicate(timeout=20)
    assert process.returncode == 1
    assert all(map(is_gone, children))


async def test_one_that_fails_is_started_again_with_backoff_and_a_line(tmp_path: Path) -> None:
    with supervised(FAIL, tmp_path) as (process, pids):
        await started(pids, 6)
        process.terminate()
        said, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "worker 1 ended with code 3; starting it again in 0.5 s\n" in said
    assert "worker 2 ended with code 3; starting it again in 1 s\n" in said


async def test_one_that_was_killed_is_started_again(tmp_path: Path) -> None:
    with supervised(WAIT, tmp_path) as (process, pids):
        first, second = await started(pids, 2)
        os.kill(first, signal.SIGKILL)
        children = await started(pids, 3)
        assert not is_gone(second)
        process.terminate()
        said, _ = process.communicate(timeout=20)
    assert "was ended by SIGKILL; starting it again in 0.5 s\n" in said
    assert all(map(is_gone, children))


async def test_when_all_have_ended_well_it_ends_too(tmp_path: Path) -> None:
    with supervised(END, tmp_path) as (process, pids):
        process.communicate(timeout=20)
        assert process.returncode == 0
        assert len(pids_in(pids)) == 2


async def test_children_do_not_outlive_a_kill_9(tmp_path: Path) -> None:
    with supervised(WAIT, tmp_path) as (process, pids):
        children = await started(pids, 2)
        process.kill()
        await wait_until(lambda: all(map(is_gone, children)), timeout=10)
