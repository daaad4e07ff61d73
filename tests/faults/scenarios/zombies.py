"""F3: a zombie, suspended for so long that its partitions move, comes back."""

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

_RATE = 100.0
_ENDLESS = 60.0  # seconds: nothing but fencing ends a zombie's transaction


async def wake_zombies(run: Run) -> None:
    """Zombies of all kinds, one after the other."""
    await wake_after_the_takeover(run, list(_points(run)))
    await wake_amid_the_takeover(run)


async def wake_after_the_takeover(run: Run, points: Sequence[Point]) -> None:
    """A worker suspends itself at a point of its transaction, and the other one takes over.

    When its time goes on, whatever it still sends is refused: it says that it was fenced, rejoins
    the group and gets partitions again. Until the takeover its open transaction holds back what
    `read_committed` readers see of its partitions, also what others have committed behind it.
    """
    deployed = await run.deploy(
        *("commands", "views"),
        partitions=4,
        transaction_timeout=_ENDLESS,
    )
    stream = generate(1_000_000, run.seed, duplicates=0.1)
    silences = []
    async with open_traffic(deployed, records_of(stream), rate=_RATE) as traffic:
        await traffic.decides_again()
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
    """A zombie's life; returns for how many seconds readers saw nothing of some partition."""
    zombie = run.start(deployed, "commands", point)
    await _until_suspended(zombie, traffic)
    suspended = time.monotonic()
    await traffic.decides_again()
    silence = traffic.longest_silence(suspended)
    before = len(zombie.log_text)
    zombie.resume()
    if _amid_transaction(point):
        await wait_until(
            lambda: "fenced; rejoining" in zombie.log_text[before:],
            what="the zombie says that it was fenced",
        )
    await wait_until(
        lambda: "going on at position" in zombie.log_text[before:],
        what="the zombie gets partitions again",
    )
    await traffic.decides_again()
    await deployed.retire(zombie)
    return silence


async def wake_amid_the_takeover(run: Run) -> None:
    """A zombie's time goes on when its heir has restored the state, and comes to its commit then.

    What it had sent must not become visible any more: the heir knows nothing of it.
    """
    deployed = await run.deploy("views", partitions=1, transaction_timeout=_ENDLESS)
    stream = generate(1_000_000, run.seed, duplicates=0.1)
    async with open_traffic(deployed, records_of(stream), rate=_RATE) as traffic:
        zombie = run.start(deployed, "commands", Point("stop", "before", "commit", 3))
        await _until_suspended(zombie, traffic)
        heir = run.start(deployed, "commands", Point("stop", "after", "restore"))
        await wait_until(lambda: heir.is_suspended, timeout=60, what="the heir has restored")
        decided = traffic.decided
        zombie.resume()
        await wait_until(
            lambda: "fenced; rejoining" in zombie.log_text or traffic.decided > decided,
            what="the zombie has come to its commit",
        )
        heir.resume()
        run.result.faults += 1
        await traffic.decides_again()
        await traffic.finish()
    await run.verify(deployed, sent=traffic.sent)
    require("fenced; rejoining" in zombie.log_text, "the zombie does not say that it was fenced")


async def _until_suspended(zombie: WorkerProcess, traffic: Traffic) -> None:
    traffic.burst(500)
    await wait_until(lambda: zombie.is_suspended, timeout=60, what="the zombie suspends itself")


def _amid_transaction(point: Point) -> bool:
    begin, commit = ("after", "begin"), ("before", "commit")
    moments = [(moment, step) for step in COMMAND_STEPS for moment in ("before", "after")]
    place = moments.index((point.moment, point.step))  # type: ignore[arg-type]
    return moments.index(begin) <= place <= moments.index(commit)  # type: ignore[arg-type]


F3 = Scenario("F3", "a zombie comes back after its partitions moved", wake_zombies)
