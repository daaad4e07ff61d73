"""F3: a zombie, suspended until its partitions have moved, resumes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from deploy.ephemeral import Deployment, WorkerProcess
from deploy.samples.commands import generate
from deploy.waiting import wait_until
from tests.faults.scenario import Run, Scenario
from tests.harness.checks import require
from tests.harness.crash_points import COMMAND_STEPS, Point
from tests.harness.traffic import Traffic, open_traffic, records_of

_RATE = 100.0  # commands per second
_TRANSACTION_TIMEOUT_S = 60.0  # so long that only fencing ends a zombie's transaction


async def wake_zombies(run: Run) -> None:
    """Resume zombies after the takeover of their partitions, and one during it."""
    await wake_after_the_takeover(run, list(_points(run)))
    await wake_during_the_takeover(run)


async def wake_after_the_takeover(run: Run, points: Sequence[Point]) -> None:
    """Suspend a worker at a point of its transaction, let the other take over, and resume it.

    Kafka must refuse whatever it still sends: it logs that it was fenced, rejoins the group and
    gets partitions again. Until the takeover its open transaction holds back `read_committed`
    readers of its partitions, also from what others have committed after it.
    """
    deployed = await run.deploy(
        *("commands", "views"),
        partitions=4,
        transaction_timeout=_TRANSACTION_TIMEOUT_S,
    )
    stream = generate(1_000_000, run.seed, duplicates=0.1)
    silences = []
    async with open_traffic(deployed, records_of(stream), rate=_RATE) as traffic:
        await traffic.until_deciding()
        for number, point in enumerate(points, 1):
            silences.append(await _wake_one(run, deployed, traffic, point))
            run.result.faults += 1
            run.say(number, len(points))
        await traffic.finish()
    await run.verify(deployed, sent=traffic.sent)
    run.result.figures["readers' longest silence s"] = round(max(silences), 1)
    run.result.figures["session timeout s"] = deployed.settings.session_timeout


def _points(run: Run) -> Iterator[Point]:
    if run.scale == "small":
        yield Point("stop", "before", "commit")
        return
    for step in COMMAND_STEPS:
        yield Point("stop", "before", step, run.rng.randint(1, 5))
        yield Point("stop", "after", step, run.rng.randint(1, 5))


async def _wake_one(run: Run, deployed: Deployment, traffic: Traffic, point: Point) -> float:
    """Suspend and resume one worker; return how long readers saw nothing of a partition."""
    zombie = run.start(deployed, "commands", point)
    await _until_suspended(zombie, traffic)
    suspended = time.monotonic()
    await traffic.until_deciding()
    silence = traffic.longest_silence(suspended)
    before = len(zombie.log_text)
    zombie.resume()
    if _in_transaction(point):
        await wait_until(
            lambda: "fenced; rejoining" in zombie.log_text[before:],
            what="the zombie logs that it was fenced",
        )
    await wait_until(
        lambda: "continuing at position" in zombie.log_text[before:],
        what="the zombie gets partitions again",
    )
    await traffic.until_deciding()
    await deployed.retire(zombie)
    return silence


async def wake_during_the_takeover(
    run: Run, *, rejected: float = 0.05, duplicates: float = 0.1
) -> None:
    """Resume a zombie when its successor has restored the state; it then tries to commit.

    What it has sent must not become visible any more: the successor does not have it.
    """
    deployed = await run.deploy("views", partitions=1, transaction_timeout=_TRANSACTION_TIMEOUT_S)
    stream = generate(1_000_000, run.seed, rejected=rejected, duplicates=duplicates)
    async with open_traffic(deployed, records_of(stream), rate=_RATE) as traffic:
        zombie = run.start(deployed, "commands", Point("stop", "before", "commit", 3))
        await _until_suspended(zombie, traffic)
        successor = run.start(deployed, "commands", Point("stop", "after", "restore"))
        await wait_until(
            lambda: successor.is_suspended, timeout=60, what="the successor has restored the state"
        )
        decided = traffic.decided
        zombie.resume()
        await wait_until(
            lambda: "fenced; rejoining" in zombie.log_text or traffic.decided > decided,
            what="the zombie tries to commit",
        )
        successor.resume()
        run.result.faults += 1
        await traffic.until_deciding()
        await traffic.finish()
    await run.verify(deployed, sent=traffic.sent)
    require("fenced; rejoining" in zombie.log_text, "the zombie does not log that it was fenced")


async def _until_suspended(zombie: WorkerProcess, traffic: Traffic) -> None:
    traffic.burst(500)
    await wait_until(lambda: zombie.is_suspended, timeout=60, what="the zombie suspends itself")


def _in_transaction(point: Point) -> bool:
    begin, commit = ("after", "begin"), ("before", "commit")
    moments = [(moment, step) for step in COMMAND_STEPS for moment in ("before", "after")]
    place = moments.index((point.moment, point.step))  # type: ignore[arg-type]
    return moments.index(begin) <= place <= moments.index(commit)  # type: ignore[arg-type]


F3 = Scenario("F3", "a zombie comes back after its partitions moved", wake_zombies)
