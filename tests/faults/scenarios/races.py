"""F4: many clients change one user at once, all expecting the same version."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from uuid import UUID

from agents.client import open_commands, open_queries
from models.commands import RegisterUser, UpdateUserProfile
from models.messages import Command
from models.outcomes import Accepted, Outcome, Rejection
from models.queries import GetUserById
from tests.faults.scenario import Run, Scenario
from tests.harness.checks import require

_USER = "user-0"


async def race_for_versions(run: Run) -> None:
    """Send a change from every client in each round: one is accepted, the others are rejected.

    In the next round all expect the version of the accepted one.
    """
    clients, rounds = run.pick((16, 30), (64, 1000))
    deployed = await run.deploy("commands", "views")
    async with AsyncExitStack() as resources:
        buses = [
            await resources.enter_async_context(open_commands(deployed.settings))
            for _ in range(clients)
        ]
        await buses[0].dispatch(_registration(run))
        begin = time.monotonic()
        for version in range(1, rounds + 1):
            run.rng.shuffle(buses)  # who sends first
            outcomes = await asyncio.gather(
                *(bus.dispatch(_change(run, version, name)) for name, bus in enumerate(buses))
            )
            _check(outcomes, version)
            run.say(version, rounds)
        seconds = time.monotonic() - begin
    await run.verify(deployed, sent=1 + rounds * clients)
    async with open_queries(deployed.settings) as queries:
        user = await queries.execute(GetUserById(_USER))
    require(user.version == rounds + 1, f"the user's version is {user.version}")
    run.result.figures |= {
        "clients": clients,
        "rounds": rounds,
        "rounds/s": round(rounds / seconds, 1),
        "version at the end": user.version,
    }


def _registration(run: Run) -> Command:
    return RegisterUser(
        id=_new_id(run),
        aggregate_id=_USER,
        email="raced.for@example.org",
        first_name="Raced",
        last_name="For",
        registration_source="api",
    )


def _change(run: Run, version: int, name: int) -> Command:
    return UpdateUserProfile(
        id=_new_id(run),
        aggregate_id=_USER,
        first_name=f"Round {version}",
        last_name=f"Client {name}",
        expected_version=version,
    )


def _new_id(run: Run) -> UUID:
    return UUID(int=run.rng.getrandbits(128), version=4)


def _check(outcomes: Sequence[Outcome], version: int) -> None:
    """Check that one was accepted, as the next version, and all others have the wrong version."""
    won = [one.sequence for one in outcomes if isinstance(one, Accepted)]
    require(won == [version + 1], f"round {version} has {len(won)} accepted commands: {won}")
    late = sum(isinstance(one, Rejection) and one.code == "version-mismatch" for one in outcomes)
    require(
        late == len(outcomes) - 1,
        f"round {version}: {late} of {len(outcomes) - 1} others got version-mismatch",
    )


F4 = Scenario("F4", "clients race for the same version of a user", race_for_versions)
