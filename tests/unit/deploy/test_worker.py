"""What `cqrs worker` itself writes, beside its processes."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from click.testing import CliRunner

from deploy.cli import worker as command

RESTART = "worker 1 ended with code 1; starting it again in 0.5 s"


def written(monkeypatch: pytest.MonkeyPatch, log_format: str) -> str:
    """The line about a worker that ended."""

    class FakeSupervisor:
        def __init__(self, _: object, say: Callable[[str], None]) -> None:
            self._say = say

        async def run(self) -> int:
            self._say(RESTART)
            return 0

    async def check(*_: object) -> None:
        """There are no servers here."""

    monkeypatch.setattr(command, "Supervisor", FakeSupervisor)
    monkeypatch.setattr(command, "_check", check)
    monkeypatch.setenv("CQRS_LOG_FORMAT", log_format)
    done = CliRunner().invoke(command.worker, ["commands"])
    assert (done.exit_code, done.stdout) == (0, "")
    return done.stderr


def test_a_restart_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert written(monkeypatch, "text") == f"cqrs worker commands: {RESTART}\n"


def test_a_restart_has_the_form_of_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = written(monkeypatch, "json").splitlines()
    found = json.loads(line)
    assert found["message"] == f"commands: {RESTART}"
    assert (found["worker"], found["event"]) == ("cqrs worker", "worker-restarting")
    assert found["level"] == "WARNING"
