"""What people see of a running deployment: `cqrs top` and `cqrs follow`."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest

from agents.client import open_commands
from deploy.embedded.stack import EmbeddedStack
from deploy.environment import child_environment
from deploy.ephemeral import Deployment, WorkerProcess
from deploy.waiting import wait_until
from models.commands import RegisterUser, UpdateUserProfile
from tests.conftest import Deploy
from tests.harness.command_line import ROOT, cqrs, cqrs_command
from tests.harness.deployments import deployment
from tests.harness.outputs import misfits


@pytest.fixture(scope="module")
def deployed(stack: EmbeddedStack) -> Iterator[Deployment]:
    with deployment(stack, "commands", "views", partitions=2, health_port=0) as found:
        yield found


async def target(worker: WorkerProcess) -> str:
    """Where a worker serves its metrics."""
    await wait_until(lambda: worker.has_begun)
    return str(re.findall(r"health: http://([\w.:]+)/health", worker.log_text)[-1])


def anna(**changes: Any) -> RegisterUser:
    fields = {
        "aggregate_id": f"anna-{uuid4().hex[:8]}",
        "email": "anna@example.org",
        "first_name": "Anna",
        "last_name": "Li",
        "registration_source": "web",
    }
    return RegisterUser(**fields | changes)


@asynccontextmanager
async def commands_going_on(deployed: Deployment) -> AsyncIterator[None]:
    """Commands during the block, one after the other."""

    async def send() -> None:
        async with open_commands(deployed.settings) as commands:
            while True:
                outcome = await commands.dispatch(anna())
                assert outcome.status == "accepted"
                begun.set()

    begun = asyncio.Event()
    sending = asyncio.create_task(send())
    begin = asyncio.create_task(begun.wait())
    await asyncio.wait({sending, begin}, return_when=asyncio.FIRST_COMPLETED)
    try:
        yield
    finally:
        begin.cancel()
        sending.cancel()
        await asyncio.gather(begin, sending, return_exceptions=True)


@contextmanager
def following(
    deployed: Deployment, command_id: UUID, *options: str
) -> Iterator[subprocess.Popen[str]]:
    """A running `cqrs follow`."""
    process = subprocess.Popen(
        cqrs_command("follow", str(command_id), *options),
        cwd=ROOT,
        env=child_environment(deployed.settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        with process:
            yield process
    finally:
        process.kill()


class TestTop:
    async def test_it_shows_what_happens_amid_commands(self, deployed: Deployment) -> None:
        targets = [await target(worker) for worker in deployed.workers]
        top = ("top", *targets, "--once", "--json", "--interval", "1")
        seen: list[str] = []

        async def all_answer() -> bool:  # each has two seconds, which is short on a busy machine
            done = await asyncio.to_thread(cqrs, deployed.settings, *top)
            seen.append(done.stdout)
            if done.returncode:
                return False
            now = json.loads(done.stdout)
            counted = now["commandsPerSecond"]["accepted"], now["eventsPerSecond"]
            return bool(min(*counted, now["transactionsPerSecond"]["committed"]) > 0)

        async with commands_going_on(deployed):
            await wait_until(all_answer)
        found = json.loads(seen[-1])
        assert [one["problem"] for one in found["workers"]] == [None, None]
        assert {(one["worker"], one["topic"], one["partition"]) for one in found["partitions"]} == {
            (worker, topic, number)
            for worker, topic in zip(
                targets, (deployed.names.commands, deployed.names.events), strict=True
            )
            for number in (0, 1)
        }
        assert found["unowned"] == []
        (index,) = found["indices"]
        assert index["state"] == "serving"
        assert index["name"] == f"{deployed.settings.namespace}user-views-v1"
        times = {one["what"]: one for one in found["latencies"]}
        assert 0 < times["command to commit, oldest of a chunk"]["p50"] < 30

    async def test_who_does_not_answer_is_named(self, deployed: Deployment, deploy: Deploy) -> None:
        """Its partitions are nobody's then, as far as the others say."""
        other = deploy("commands", partitions=2, health_port=0)
        gone = await target(other.workers[0])
        other.workers[0].kill()
        views = await target(deployed.of("views")[0])
        seen: list[str] = []

        async def one_answers() -> bool:
            done = await asyncio.to_thread(
                cqrs, deployed.settings, "top", views, gone, "--once", "--interval", "0.2"
            )
            assert done.returncode == 75
            seen.append(done.stdout)
            return "1 of 2 workers answer" in done.stdout

        await wait_until(one_answers)
        assert f"{gone} does not answer: " in seen[-1]
        assert max(map(len, seen[-1].splitlines())) <= 80


class TestFollow:
    async def test_from_dispatch_to_the_document(self, deployed: Deployment) -> None:
        """It waits for a command that is not there yet."""
        command = anna()
        with following(deployed, command.id, "--json", "--timeout", "100") as process:
            assert process.stderr is not None
            said = await asyncio.to_thread(process.stderr.readline)
            assert said.startswith("cqrs: reading 2 partitions of 3 topics, some ")
            async with open_commands(deployed.settings) as commands:
                outcome = await commands.dispatch(command)
            output, _ = await asyncio.to_thread(process.communicate)
        assert misfits("follow", "json", output) == []
        hops = [json.loads(line) for line in output.splitlines()]
        assert [hop["hop"] for hop in hops] == [
            "produced",
            "decided",
            "event",
            "projected",
            "searchable",
        ]
        produced, decided, event, *_ = hops
        assert produced["topic"] == deployed.names.commands
        assert (produced["type"], produced["aggregateId"]) == ("RegisterUser", command.aggregate_id)
        assert decided["outcome"]["token"] == outcome.token
        assert (event["type"], event["sequence"]) == ("UserRegistered", 1)
        assert process.returncode == 0

    async def test_of_the_past_with_the_user(self, deployed: Deployment) -> None:
        """A rejected command ends there, with exit code 1."""
        command = UpdateUserProfile(aggregate_id="nobody", email="nobody@example.org")
        async with open_commands(deployed.settings) as commands:
            await commands.dispatch(command)
        done = await asyncio.to_thread(
            cqrs, deployed.settings, "follow", str(command.id), "--aggregate", "nobody"
        )
        assert done.returncode == 1, done.stderr
        assert re.match(r"cqrs: reading partition [01] of 3 topics, some \d+ records", done.stderr)
        produced, decided = done.stdout.splitlines()
        assert "produced    UpdateUserProfile for nobody  " in produced
        assert "decided     rejected, user-not-found: " in decided

    async def test_what_does_not_come_is_said_in_time(self, deployed: Deployment) -> None:
        done = await asyncio.to_thread(
            cqrs, deployed.settings, "follow", str(uuid4()), "--timeout", "2"
        )
        assert done.returncode == 75
        assert done.stderr.splitlines()[-1] == (
            "cqrs: after 2 s: no such command has come: is its id right, and --since early enough?"
        )

    async def test_it_can_be_interrupted(self, deployed: Deployment) -> None:
        with following(deployed, uuid4()) as process:
            assert process.stderr is not None
            await asyncio.to_thread(process.stderr.readline)
            process.send_signal(signal.SIGINT)
            _, said = await asyncio.to_thread(process.communicate)
        assert process.returncode == 130
        assert said.endswith("cqrs: interrupted\n")
