"""Each protection is needed: without it a scenario fails that passes with it.

The same test run shows that it passes: `here`, in `test_with_it_the_scenario_passes`; or under
another protection with the same scenario.

    protection               without it                                  shown to pass by
    fencing_before_recovery  commands are decided by two owners          here
    position_in_the_state    all commands are read again                 here
    end_offset_in_recovery   commands are decided again                  here
    apply_after_commit       commands are never decided                  here
    parked_with_the_chunk    parked commands are lost                    here
    identity_of_the_store    commands are decided again                  here
    gap_check                expired commands are passed over            here
    external_version         documents go back to older versions         here
    commit_after_bulk        documents are missing                       here
    wait_for_the_view        a query misses what its client wrote        here
    refresh_after_the_wait   a search misses what its client wrote       wait_for_the_view
    reading_after_fencing    a destroyed key comes back                  here
    fencing_of_the_owner     a destroyed key comes back                  reading_after_fencing
"""

from __future__ import annotations

import random
import re
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import NamedTuple

import pytest
from pydantic import SecretStr

from agents.client import open_commands
from benchmarks.rig.sample_users import registering
from deploy.embedded.stack import EmbeddedStack
from deploy.samples.commands import generate
from deploy.supervisor import Role
from deploy.waiting import wait_until
from streams.commands.rotate_keys import read_wrapped_keys
from streams.encryption.keys import new_master_key
from streams.kafka.clients import new_producer
from tests.faults.protections import APPS, PROTECTIONS, VARIABLE
from tests.faults.scenario import Result, Run, Scenario, play
from tests.faults.scenarios.forgetting import expire_commands, lose_offsets
from tests.faults.scenarios.local_stores import Stores, foreign_stores
from tests.faults.scenarios.reading_writes import write_and_read
from tests.faults.scenarios.replay import replay_events
from tests.faults.scenarios.zombies import wake_during_the_takeover
from tests.harness import defects
from tests.harness.checks import require
from tests.harness.crash_points import APPS as CRASHING
from tests.harness.crash_points import Point
from tests.harness.erasing_rotation import rotate_and_erase, users_with_a_key
from tests.harness.traffic import counting, open_traffic, records_of, send
from tests.harness.users import register

DEFECT = {defects.VARIABLE: "1"}

_COMMANDS = 3_000  # more than the changelog records of one poll


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

    There are no other events: a view stops if only some of a user's events are missing.
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


async def die_while_parking(run: Run) -> None:
    """The only worker, with a defective program, is killed when it has committed a failure."""
    deployed = await run.deploy("views", partitions=1, dead_letter_order="aggregate")
    (user,) = generate(1, run.seed)
    async with new_producer(deployed.settings) as producer, counting(deployed) as outcomes:
        app = run.apps.get("commands", CRASHING["commands"])
        worker = deployed.start(
            "commands", app=app, **Point("kill", "after", "commit", 2).environment(), **DEFECT
        )
        await send(producer, deployed, [user])
        await outcomes.reach(1)
        id_ = user["aggregateId"]
        update = {"type": "UpdateUserProfile", "aggregateId": id_, "firstName": "Bea"}
        await send(producer, deployed, [update])
        await wait_until(lambda: not worker.is_running, what="it is killed")
        worker.start()
        await send(producer, deployed, [{"type": "DeactivateUser", "aggregateId": id_}])
        await outcomes.reach(3)
    await run.verify(deployed)


async def lose_all_offsets(run: Run) -> None:
    """A part of F8."""
    await lose_offsets(run, random.Random(run.seed))


async def be_a_zombie(run: Run) -> None:
    """A part of F3. Of whatever accepted command is decided twice first, I1 says the same."""
    await wake_during_the_takeover(run, rejected=0, duplicates=0)


async def let_commands_expire(run: Run) -> None:
    """A part of F8."""
    await expire_commands(run, random.Random(run.seed))


async def write_then_read(run: Run) -> None:
    """As V1, without kills: a query that misses a write does so at once."""
    await write_and_read(run, pairs=100, kills=0)


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


async def erase_while_rotating(run: Run) -> None:
    """Users are erased at each moment of a rotation of the master key."""
    one, other = (SecretStr(new_master_key()) for _ in range(2))
    deployed = await run.deploy(
        *("commands", "views"),
        partitions=1,
        encrypt_personal_data=True,
        master_key=one,
        second_master_key=other,
    )
    new = deployed.settings.model_copy(update={"master_key": other, "second_master_key": one})
    users = [f"user-{number}" for number in range(7)]
    async with open_commands(deployed.settings) as bus:
        for user in users:
            await bus.dispatch(register(user))
    refused = await rotate_and_erase(new, deployed, users[:5])
    back = await users_with_a_key(deployed) - set(users[5:])
    require(not back, f"the destroyed keys of {len(back)} users are back")
    require(refused > 0, "no transaction was refused")
    left = (await read_wrapped_keys(new, deployed.names, 0)).second
    require(not left, f"{left} keys were not wrapped anew")
    await run.verify(deployed, sent=12)


class Revert(NamedTuple):
    """A protection that is taken away."""

    scenario: Callable[[Run], Awaitable[None]]
    violation: str
    """What the checker or the scenario then reports, as a regular expression."""


REVERTS: Mapping[str, Revert] = {
    "fencing_before_recovery": Revert(
        be_a_zombie,
        # The zombie commits what its successor decides as well.
        r"^I1 is broken .* has the events .* where its outcome says",
    ),
    "position_in_the_state": Revert(
        lose_all_offsets,
        # All commands are read again. The dedupe window still knows the first of them.
        r"^I7 is broken .*: the command at offset \d+ has 2 outcomes: .*, duplicate at offset \d+$",
    ),
    "end_offset_in_recovery": Revert(
        restart_after_a_long_history,
        # The commands behind the part that was read are decided again.
        r"^I1 is broken .* has the events .* where its outcome says",
    ),
    "apply_after_commit": Revert(
        partial(die, role="commands", point=Point("kill", "before", "commit", 2)),
        # The store is ahead of what was committed, so that chunk is skipped.
        r"^I7 is broken .*: the command at offset \d+ has 0 outcomes$",
    ),
    "parked_with_the_chunk": Revert(
        die_while_parking,
        # Nobody knows any more that it waits, and what comes after it is decided.
        r"^I7 is broken .* was parked, and is neither parked nor decided$",
    ),
    "identity_of_the_store": Revert(
        get_a_foreign_store,
        # The foreign store knows nothing of commands that come again.
        r"^I1 is broken .* was decided again as accepted; it was accepted before$",
    ),
    "gap_check": Revert(
        let_commands_expire,
        r"^the worker continues after the expired commands$",
    ),
    "external_version": Revert(replay_events, r"went back from version|were written again$"),
    "commit_after_bulk": Revert(
        partial(die, role="views", point=Point("kill", "before", "bulk")),
        # The index has the position of a chunk that it does not have.
        r"^I4 is broken .* has 1 events and no document$",
    ),
    "wait_for_the_view": Revert(write_then_read, r"(by id|search) with their token finds"),
    "refresh_after_the_wait": Revert(write_then_read, r"search with their token finds"),
    "reading_after_fencing": Revert(erase_while_rotating, r"^the destroyed keys of \d users"),
    "fencing_of_the_owner": Revert(erase_while_rotating, r"^the destroyed keys of \d users"),
}

# By protection, the last column of the table above.
_, *_ROWS = (line.split() for line in (__doc__ or "").splitlines() if line.startswith("    "))
CONTROLS = {row[0]: row[-1] for row in _ROWS}


async def played(stack: EmbeddedStack, protection: str) -> Result:
    scenario = Scenario("F0", protection, REVERTS[protection].scenario)
    return await play(scenario, stack, scale="small", seed=1, apps=APPS)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("protection", REVERTS)
async def test_without_it_the_scenario_fails(
    stack: EmbeddedStack, protection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, protection)
    PROTECTIONS[protection](monkeypatch.setattr)  # for what a scenario does in this process
    result = await played(stack, protection)
    assert not result.ok
    assert re.search(REVERTS[protection].violation, result.failure or ""), (
        result.failure,
        result.logs,
    )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("protection", [name for name, by in CONTROLS.items() if by == "here"])
async def test_with_it_the_scenario_passes(stack: EmbeddedStack, protection: str) -> None:
    result = await played(stack, protection)
    assert result.ok, (result.failure, result.logs)


def test_every_protection_is_taken_away() -> None:
    assert set(REVERTS) == set(PROTECTIONS)


def test_every_revert_has_a_control() -> None:
    assert set(CONTROLS) == set(REVERTS)
    for protection, control in CONTROLS.items():
        scenario = REVERTS[protection].scenario
        if control != "here":
            assert CONTROLS[control] == "here"
            assert scenario is REVERTS[control].scenario
