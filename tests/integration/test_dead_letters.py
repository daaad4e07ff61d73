"""What could not be decided is shown, replayed and dropped by `cqrs dead`, whatever is killed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any, get_args
from uuid import uuid4

from agents.client import open_commands
from agents.users import USERS
from deploy.ephemeral import Deployment, WorkerProcess
from deploy.waiting import wait_until
from models.commands import DeactivateUser, UpdateUserProfile
from models.outcomes import Accepted, Parked
from streams.audit.verify import verify
from streams.encryption.keys import new_master_key
from tests.conftest import Deploy
from tests.harness.command_line import cqrs
from tests.harness.crash_points import APPS, Moment, Point
from tests.harness.defects import VARIABLE
from tests.harness.users import register

DEFECT = {VARIABLE: "1"}


def start(deployed: Deployment, **environment: str) -> WorkerProcess:
    return deployed.start("commands", app=APPS["commands"], **environment)


def dead(deployed: Deployment, *arguments: str, code: int = 0) -> Any:
    done = cqrs(deployed.settings, "dead", *arguments, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


async def test_parked_commands_are_replayed_once_at_whatever_step_a_worker_is_killed(
    deploy: Deploy,
) -> None:
    deployed = deploy(
        partitions=1,
        session_timeout=3.0,
        dead_letter_order="aggregate",
        control_key=new_master_key(),
    )
    worker = start(deployed, **DEFECT)
    async with open_commands(deployed.settings) as commands:
        assert isinstance(await commands.dispatch(register("anna")), Accepted)
        update = UpdateUserProfile(aggregate_id="anna", first_name="Bea")
        parked = await commands.dispatch(update)
        assert isinstance(parked, Parked)
        assert (parked.code, parked.behind) == ("decide-failed", 0)
        later = await commands.dispatch(DeactivateUser(aggregate_id="anna"))
        assert isinstance(later, Parked)
        assert later.behind == 1
        assert isinstance(await commands.dispatch(register("ben")), Accepted)

        (waiting,) = dead(deployed, "list")
        assert (waiting["user"], len(waiting["commands"])) == ("anna", 2)
        (shown,) = dead(deployed, "show", "anna")
        assert json.loads(shown["commands"][0]["value"])["firstName"] == "Bea"
        again = dead(deployed, "replay", "anna", "--yes", code=1)
        assert (again["ended"], again["left"]) == (0, 2)
        assert (await verify(deployed.settings, USERS)).parked == 2

        # The mended program is killed in the transaction of a replay, and after that of another.
        moments: Sequence[Moment] = get_args(Moment)
        for moment in moments:
            worker.terminate()
            worker.start(**Point("kill", moment, "commit").environment())
            replaying = asyncio.create_task(
                asyncio.to_thread(
                    cqrs, deployed.settings, "dead", "replay", "anna", "--yes", "--json"
                )
            )
            await wait_until(lambda: not worker.is_running, timeout=60, what="it is killed")
            worker.start(**DEFECT if moment == "after" else {})
            done = await replaying
            assert done.returncode == 0, done.stderr
            if moment == "before":
                worker.terminate()
                worker.start(**DEFECT)
            update = UpdateUserProfile(aggregate_id="anna", first_name=f"Cid {moment}")
            assert isinstance(await commands.dispatch(update), Parked)

        assert dead(deployed, "drop", "anna", "--first", "--yes")["ended"] == 1
        assert [one["code"] for one in dead(deployed, "list")] == ["dropped"]
    report = await verify(deployed.settings, USERS)
    assert report.first_violation is None
    assert (report.parked, report.dead, report.rejected) == (0, 1, 0)


async def test_dead_letters_are_sent_again_once(deploy: Deploy) -> None:
    """Of the order that goes on: the later commands were decided without them."""
    deployed = deploy(partitions=1, session_timeout=3.0)
    worker = start(deployed, **DEFECT)
    async with open_commands(deployed.settings) as commands:
        await commands.dispatch(register("anna"))
        first = UpdateUserProfile(id=uuid4(), aggregate_id="anna", first_name="Bea")
        answered = UpdateUserProfile(id=uuid4(), aggregate_id="anna", first_name="Cid")
        for command in (first, answered):
            assert (await commands.dispatch(command)).status == "dead-lettered"
        worker.terminate()
        worker.start()
        assert (await commands.dispatch(answered)).status == "accepted"
        assert len(dead(deployed, "list", "--code", "decide-failed")) == 2
        sent = [dead(deployed, "replay", "--all", "--yes")["sentAgain"] for _ in range(2)]
        assert sent == [1, 0]
        await commands.dispatch(register("ben"))
    report = await verify(deployed.settings, USERS)
    assert report.first_violation is None
    assert (report.dead, report.accepted) == (2, 4)
    assert dead(deployed, "replay", "--all", "--yes", "--code", "decide-failed")["sentAgain"] == 0
