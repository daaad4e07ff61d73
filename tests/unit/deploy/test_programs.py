"""The programs that `./run test` starts before the tests: what fails is one line, as of `cqrs`."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest

from deploy.programs import run_program
from models.errors import Fatal
from tests.harness.command_line import ROOT


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (Fatal("a JVM has written nothing"), 1, "cqrs: a JVM has written nothing"),
        (OSError(errno.EROFS, "Read-only file system", "a"), 1, "cqrs: Read-only file system (a)"),
        (KeyboardInterrupt(), 130, "cqrs: interrupted"),
    ],
    ids=lambda it: type(it).__name__,
)
def test_a_failure_is_one_line(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, line: str
) -> None:
    def task() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        run_program(task)
    assert ended.value.code == code
    assert capsys.readouterr().err.strip() == line


def test_a_defect_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_program(lambda: print(1 / 0))


_FULL_DISK = """
import runpy
from deploy.embedded import {module}

def fail(*_):
    raise OSError(28, "No space left on device", "a")

{module}.{function} = fail
runpy.run_module("deploy.embedded.{program}", run_name="__main__")
"""


@pytest.mark.parametrize(
    ("program", "module", "function"),
    [
        ("jars", "preconditions", "require_packages"),
        ("aot_caches", "temporary_homes", "home"),
    ],
)
def test_both_programs_say_so(program: str, module: str, function: str) -> None:
    script = _FULL_DISK.format(program=program, module=module, function=function)
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "cqrs: No space left on device (a)\n"
