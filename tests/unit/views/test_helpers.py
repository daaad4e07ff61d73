"""Helper processes do what they are given, and never outlive who started them."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import subprocess
import sys
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError, KafkaError
from pydantic import SecretStr

from agents.views import VIEWS
from models.errors import Fatal, NoSuchView, Transient
from streams.encryption.keys import new_master_key
from streams.settings import Settings
from streams.views.checkpoint import IndexChanged
from streams.views.helpers import Report, open_helpers
from streams.views.projection import View
from streams.views.projector import SequenceGap
from streams.views.situation import EventLog
from tests.harness.command_line import ROOT

PROGRAM = """
import asyncio
from tests.unit.views.test_helpers import hang, open_helpers

async def main():
    async with open_helpers(1) as [helper]:
        await helper.run(hang, report=lambda pid, _: print(pid, flush=True))

asyncio.run(main())
"""


async def double(number: int, *, report: Report) -> int:
    report(number, 1)
    report(number, 2)
    return 2 * number


async def describe(
    settings: Settings, view: View[Any], log: EventLog, *, report: Report
) -> tuple[str | None, str, EventLog]:
    return settings.secret("control_key"), view.definition, log


async def refuse(error: Exception, *, report: Report) -> None:
    raise error


async def interrupt(*, report: Report) -> str:
    os.kill(os.getpid(), signal.SIGINT)
    return "went on"


async def hang(*, report: Report) -> None:
    """Say which process this is, and never end."""
    report(os.getpid(), 0)
    await asyncio.get_running_loop().create_future()


class Reports(list[tuple[int, int]]):
    def __call__(self, number: int, done: int) -> None:
        self.append((number, done))


async def test_they_work_at_the_same_time_and_one_thing_after_the_other() -> None:
    reports = Reports()
    async with open_helpers(2) as helpers:
        work = [helper.run(double, number, report=reports) for number, helper in enumerate(helpers)]
        assert await asyncio.gather(*work) == [0, 2]
        assert sorted(reports) == [(0, 1), (0, 2), (1, 1), (1, 2)]
        assert await helpers[0].run(double, 8, report=reports) == 16


async def test_what_the_work_raises_is_raised_here() -> None:
    async with open_helpers(1) as [helper]:
        for error in (Fatal("delete it"), Transient("later"), KeyError("a defect")):
            with pytest.raises(type(error)) as raised:
                await helper.run(refuse, error, report=Reports())
            assert raised.value.args == error.args
        assert await helper.run(double, 1, report=Reports()) == 2


async def test_a_killed_one_is_a_line() -> None:
    async with open_helpers(1) as [helper]:
        with pytest.raises(Transient, match=r"a helper process ended \(SIGKILL\): run this again"):
            await helper.run(hang, report=lambda pid, _: os.kill(pid, signal.SIGKILL))
        with pytest.raises(Transient, match=r"a helper process ended \(SIGKILL\)"):
            await helper.run(double, 1, report=Reports())


async def test_ctrl_c_is_for_the_parent_alone() -> None:
    async with open_helpers(1) as [helper]:
        assert await helper.run(interrupt, report=Reports()) == "went on"


async def test_they_end_with_the_block_whatever_they_do() -> None:
    pids, works = list[int](), asyncio.Event()

    def note(pid: int, _: int) -> None:
        pids.append(pid)
        works.set()

    async with open_helpers(1) as [helper]:
        working = asyncio.create_task(helper.run(hang, report=note))
        await works.wait()
        working.cancel()
        assert await asyncio.gather(working, return_exceptions=True)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
async def test_they_are_given_views_and_settings(view: View[Any]) -> None:
    settings = Settings(partitions=7, control_key=SecretStr(new_master_key()))
    log = EventLog("cluster", "topic", 7)
    async with open_helpers(1) as [helper]:
        found = await helper.run(describe, settings, view, log, report=Reports())
    assert found == (settings.secret("control_key"), view.definition, log)


async def test_a_function_of_no_module_is_a_line() -> None:
    async with open_helpers(1) as [helper]:
        with pytest.raises(Fatal, match=r"not lambdas; or run this with --processes 1"):
            await helper.run(double, lambda: 1, report=Reports())
        assert await helper.run(double, 1, report=Reports()) == 2


@pytest.mark.parametrize(
    "error",
    [IndexChanged("c"), SequenceGap("d"), NoSuchView("e"), KafkaConnectionError("x"), KafkaError()],
)
def test_errors_of_the_servers_can_be_handed_over(error: Exception) -> None:
    handed_over = pickle.loads(pickle.dumps(error))
    assert (type(handed_over), str(handed_over)) == (type(error), str(error))


def test_they_end_when_their_parent_is_killed() -> None:
    """They have its standard output, which ends with the last process that has it."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        assert int(parent.stdout.readline()) != parent.pid
        parent.kill()
        assert parent.stdout.read() == b""
