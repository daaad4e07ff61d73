"""Each protection earns its place: without it, a scenario that passes with it fails."""

from __future__ import annotations

import random
import re
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from benchmarks.rig.sample_users import registering
from deploy.embedded.stack import EmbeddedStack
from deploy.samples.commands import generate
from deploy.supervisor import Role
from deploy.waiting import wait_until
from tests.faults.protections import APPS, PROTECTIONS, VARIABLE
from tests.faults.scenario import Result, Run, Scenario, play
from tests.faults.scenarios.forgetting import expire_commands, lose_offsets
from tests.faults.scenarios.local_stores import Stores, foreign_stores
from tests.faults.scenarios.reading_writes import read_what_was_written
from tests.faults.scenarios.replay import replay_events
from tests.faults.scenarios.zombies import wake_amid_the_takeover
from tests.harness.crash_points import Point
from tests.harness.traffic import open_traffic, records_of

_COMMANDS = 3_000  # so many that no poll brings all of their states


async def restart_after_a_long_history(run: Run) -> None:
    """A worker is killed when its changelog takes several polls to read."""
    deployed = await run.deploy("commands", "views", partitions=1, max_chunk_records=100)
    stream = generate(_COMMANDS + 100, run.seed, rejected=0, duplicates=0)
    async with open_traffic(deployed, records_of(stream)) as traffic:
        traffic.burst(_COMMANDS)
        await traffic.wait_for_decided(_COMMANDS)
        worker = deployed.of("commands")[0]
        worker.kill()
        worker.start()
        traffic.burst(100)
        await traffic.finish()
    await run.verify(deployed)


async def die(run: Run, role: Role, point: Point) -> None:
    """The only worker of this role is killed at a point, and started again, while users register.

    No other events: a view stops when some of a user's are missing, and goes on when all are.
    """
    others: Role = "views" if role == "commands" else "commands"
    deployed = await run.deploy(others, partitions=1, state_dir=run.new_folder())
    async with open_traffic(deployed, records_of(registering(900, run.seed))) as traffic:
        worker = run.start(deployed, role, point)
        traffic.burst(300)
        await traffic.wait_for_decided(1)
        traffic.burst(300)
        await wait_until(lambda: not worker.is_running, what=f"it is killed: {point}")
        worker.start()
        traffic.burst(300)
        await traffic.finish()
    await run.verify(deployed)


async def get_a_foreign_store(run: Run) -> None:
    """A worker finds the store of another deployment in its place; then all commands come again."""
    foreign = await foreign_stores(run, partitions=1, commands=50)
    deployed = await run.deploy("commands", "views", partitions=1, state_dir=run.new_folder())
    records = [*records_of(generate(500, run.seed, rejected=0, duplicates=0))]
    async with open_traffic(deployed, [*records, *records]) as traffic:
        traffic.burst(500)
        await traffic.wait_for_decided(500)
        worker = deployed.of("commands")[0]
        worker.terminate()
        Stores(deployed).put_back(foreign)
        worker.start()
        traffic.burst(500)
        await traffic.finish()
    await run.verify(deployed)


# What shows that a protection is gone, and what the checker or the scenario says then.
REVERTS: dict[str, tuple[Callable[[Run], Awaitable[None]], str]] = {
    "fencing_before_recovery": (wake_amid_the_takeover, r"^I1 is broken .* has the events"),
    "position_in_the_state": (
        partial(lose_offsets, rng=random.Random(1)),
        r"^I\d is broken",
    ),
    "end_offset_in_recovery": (restart_after_a_long_history, r"^I\d is broken"),
    "apply_after_commit": (
        partial(die, role="commands", point=Point("kill", "before", "commit", 2)),
        r"^I\d is broken",
    ),
    "identity_of_the_store": (get_a_foreign_store, r"^I\d is broken"),
    "gap_check": (
        partial(expire_commands, rng=random.Random(1)),
        r"goes on behind what expired$",
    ),
    "external_version": (replay_events, r"went back from version|were written again"),
    "commit_after_bulk": (
        partial(die, role="views", point=Point("kill", "before", "bulk")),
        r"^I4 is broken",
    ),
    "wait_for_the_view": (read_what_was_written, r"with their token finds"),
    "refresh_after_the_wait": (read_what_was_written, r"search with their token finds"),
}


async def played(stack: EmbeddedStack, protection: str) -> Result:
    scenario = Scenario("F0", protection, REVERTS[protection][0])
    return await play(scenario, stack, scale="small", seed=1, apps=APPS)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("protection", REVERTS)
async def test_without_it_something_breaks(
    stack: EmbeddedStack, protection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, protection)
    PROTECTIONS[protection](monkeypatch.setattr)  # for what a scenario does in this process
    result = await played(stack, protection)
    assert not result.ok
    assert re.search(REVERTS[protection][1], result.failure or ""), (result.failure, result.logs)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "protection", ["end_offset_in_recovery", "apply_after_commit", "identity_of_the_store"]
)
async def test_with_it_nothing_breaks(stack: EmbeddedStack, protection: str) -> None:
    """The others are parts of the scenarios F3, F7, F8 and F9, which show that."""
    result = await played(stack, protection)
    assert result.ok, (result.failure, result.logs)


def test_every_protection_is_taken_away() -> None:
    assert set(REVERTS) == set(PROTECTIONS)
