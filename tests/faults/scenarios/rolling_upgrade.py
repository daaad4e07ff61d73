"""F26: this program replaces an older one, worker by worker under load, and is replaced by it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from deploy.ephemeral import Deployment, Launcher
from deploy.samples.commands import plan, tally
from deploy.supervisor import Role, command_line
from deploy.waiting import wait_until
from streams.encryption.keys import new_master_key
from tests.faults.scenario import Run, Scenario
from tests.harness.checks import require
from tests.harness.older_programs import OlderProgram, older_programs
from tests.harness.traffic import Traffic, open_traffic, records_of
from tests.harness.view_position import ViewPositions, open_view_positions

_WORKERS = 2
"""Of each role."""
_RATE = 100.0  # commands per second
_ORDERS: Sequence[Sequence[Role]] = (("commands", "views"), ("views", "commands"))


async def upgrade_and_go_back(run: Run) -> None:
    """Upgrade and go back, with either role first, from each older version.

    Nothing is lost or doubled, and no command becomes a dead letter because a worker of the other
    version reads it, or what was made of it.
    """
    older = list(older_programs(run.new_folder()))
    for program in run.pick(older[-1:], older):
        for order in _ORDERS:
            await _there_and_back(run, program, order)
    run.result.figures["older versions"] = ", ".join(one.name for one in older)


async def _there_and_back(run: Run, older: OlderProgram, order: Sequence[Role]) -> None:
    rounds, burst = run.pick((1, 200), (3, 2_000))
    planned = list(plan(run.pick(100_000, 1_000_000), run.seed, duplicates=0.1))
    deployed = await run.deploy(
        partitions=4,
        state_dir=run.new_folder(),
        encrypt_personal_data=older.encrypts,
        master_key=new_master_key(),
    )
    for role in order:
        for _ in range(_WORKERS):
            deployed.start(role, older)
    records = records_of(command for command, _ in planned)
    async with (
        open_traffic(deployed, records, rate=_RATE) as traffic,
        open_view_positions(deployed, run.stack) as view,
    ):
        await traffic.until_deciding()
        await view.catch_up()  # its first index is loaded
        replacing = _Replacing(run, deployed, traffic, view, burst)
        for _ in range(rounds):
            for role in order:
                await replacing.workers(role, command_line)
            await run.verify(deployed)
            for role in reversed(order):
                await replacing.workers(role, older)
        await traffic.finish()
    report = await run.verify(deployed, sent=traffic.sent)
    require(report.dead == 0, f"{report.dead} commands are dead letters")
    expected = tally(planned[: traffic.sent])
    for name in ("accepted", "rejected", "duplicate", "events", "documents"):
        there, due = getattr(report, name), getattr(expected, name)
        require(there == due, f"{there} {name}, {due} were expected")
    for role in order:
        what = f"{older.name}, {order[0]} first, a {role} worker replaced"
        run.result.figures |= {
            f"{what}: longest wait of a command s": round(max(replacing.waits[role]), 2),
            f"{what}: the view is behind for at most s": round(max(replacing.lags[role]), 2),
        }


@dataclass
class _Replacing:
    """Replaces workers under traffic, and measures how long commands and the view take."""

    run: Run
    deployed: Deployment
    traffic: Traffic
    view: ViewPositions
    burst: int
    waits: dict[Role, list[float]] = field(default_factory=lambda: defaultdict(list))
    """For each worker that was replaced: the longest wait of a command, in seconds."""
    lags: dict[Role, list[float]] = field(default_factory=lambda: defaultdict(list))
    """For each: how long the view then took to have all events, in seconds."""

    async def workers(self, role: Role, launcher: Launcher) -> None:
        """Replace the workers of a role one by one; the new one runs beside the old ones first."""
        for worker in self.deployed.of(role):
            self.traffic.burst(self.burst)
            begin = time.monotonic()
            await self._start(role, launcher)
            await self.deployed.retire(worker)
            self.run.result.faults += 1
            await self.traffic.until_deciding()
            decided = time.monotonic()
            await self.view.catch_up()
            self.waits[role].append(self.traffic.longest_wait(begin))
            self.lags[role].append(time.monotonic() - decided)
            self.run.say(self.run.result.faults, 0)

    async def _start(self, role: Role, launcher: Launcher) -> None:
        new = self.deployed.start(role, launcher)
        await wait_until(lambda: new.has_begun, timeout=60, what=f"a new {role} worker begins")


F26 = Scenario("F26", "an older version replaced role by role, and back", upgrade_and_go_back)
