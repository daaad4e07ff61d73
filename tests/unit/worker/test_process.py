"""A worker's process that cannot start ends with one line and code 1, whoever starts it."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence

import pytest

from deploy.supervisor import ROLES, Role


def run_faust(
    role: Role, variables: Mapping[str, str], closed: Sequence[int] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a worker as a person would, with these of its standard streams closed."""

    def close() -> None:
        for number in closed:
            os.close(number)

    faust = [sys.executable, "-m", "faust", "-A", ROLES[role], "-L", "uvloop"]
    return subprocess.run(
        [*faust, "worker", "--without-web"],
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=close,
    )


@pytest.mark.parametrize(
    ("role", "variable", "reason"),
    [
        ("commands", "CQRS_ENCRYPT_PERSONAL_DAT", "is not a setting; did you mean"),
        ("views", "CQRS_HEALTH_PORT", "is not valid: "),
        ("registrations", "CQRS_MASTER_KEY", "is not valid: it must be base64 of 32 bytes"),
    ],
)
def test_settings_that_are_not_valid(role: Role, variable: str, reason: str) -> None:
    ran = run_faust(role, {variable: "c2VjcmV0"})
    assert ran.returncode == 1
    assert ran.stderr.startswith(f"error: {variable} {reason}")
    assert ran.stderr.count("\n") == 1
    assert ran.stdout == ""
    assert "c2VjcmV0" not in ran.stderr


@pytest.mark.parametrize("closed", [(0,), (0, 1, 2)])
def test_closed_standard_streams(closed: Sequence[int]) -> None:
    """libuv aborted when it closed a descriptor of its own among the first three."""
    ran = run_faust("commands", {"CQRS_BOOTSTRAP_SERVERS": "127.0.0.1:1"}, closed)
    assert ran.returncode == 1
    if 2 not in closed:
        assert ran.stderr.splitlines()[-1].startswith("error: Kafka does not answer at 127.0.0.1:1")


_FAILS = """
import logging.config
from types import SimpleNamespace

import faust

from models.errors import Fatal
from streams.settings import Settings
from streams.worker.logs import logging_config
from streams.worker.process import StreamWorker


def log_the_same_again(_):
    logging.config.dictConfig(logging_config("INFO"))
    for _ in range(3):
        logging.getLogger("aiokafka").warning("again")


faust.Worker.execute_from_commandline = log_the_same_again
worker = StreamWorker.__new__(StreamWorker)
conf = SimpleNamespace(id="users")
worker.app = SimpleNamespace(failure=Fatal("do this"), settings=Settings(), conf=conf)
worker.execute_from_commandline()
"""


def test_the_reason_is_the_last_line_after_those_that_were_held_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FAILS], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert "(and 1 times before)" in done.stderr
    assert done.stderr.splitlines()[-1] == "error: do this"


_HOLDS_THE_INTERPRETER = """
import ctypes
import os
import signal
import threading
from types import SimpleNamespace

import faust

from streams.worker import process

asked = threading.Event()


def never_let_another_thread_run(_):
    os.kill(os.getpid(), signal.SIGTERM)
    asked.wait()
    ctypes.PyDLL(None).pause()


process.STOP_DEADLINE_S = process._BLOCKED_S = 0.1
faust.Worker.execute_from_commandline = never_let_another_thread_run
worker = process.StreamWorker.__new__(process.StreamWorker)
worker.loop = SimpleNamespace(call_soon_threadsafe=lambda _: asked.set())
worker.app = SimpleNamespace(failure=None)
worker.execute_from_commandline()
"""


def test_it_leaves_also_if_code_of_a_library_lets_no_other_code_run() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _HOLDS_THE_INTERPRETER],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "in never_let_another_thread_run" in done.stderr


def test_a_worker_may_open_as_many_files_as_the_system_allows() -> None:
    """The usual limit is less than the connections of a worker that takes all partitions over."""
    raised = subprocess.run(
        [
            *(sys.executable, "-c"),
            "import resource as r; from streams.worker.process import raise_descriptor_limit; "
            "raise_descriptor_limit(); print(*r.getrlimit(r.RLIMIT_NOFILE))",
        ],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, 300)),
    )
    assert raised.stdout.split() == ["300", "300"]
