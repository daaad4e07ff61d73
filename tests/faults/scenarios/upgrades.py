"""F23: a program with another state of users replaces the older one, while commands are decided."""

from __future__ import annotations

from deploy.ephemeral import WorkerProcess
from deploy.samples.commands import generate
from deploy.waiting import wait_until
from streams.audit.states import verify_states
from tests.faults.scenario import Run, Scenario
from tests.harness.checks import require
from tests.harness.crash_points import Point
from tests.harness.newer_users_worker import NEWER_USERS
from tests.harness.traffic import open_traffic, records_of

_NEWER_APP = "tests.harness.newer_users_worker"
_REFUSED = "was made by a newer program (state version 2, this is 1): start that one"
_PARTITIONS = 4
_RATE = 100.0  # commands per second

# By then a partition has sent its second transaction, so it has committed the first: its states are
# of two versions.
_IN_A_REBUILD = Point("kill", "after", "changelog", _PARTITIONS + 1).environment()


async def upgrade_workers(run: Run) -> None:
    """Start newer workers beside older ones, and kill each in the middle of a rebuild, at first.

    An older worker that gets a partition from a newer one ends with one line, and again when it is
    started again: it never writes over the newer state. The newer ones take all over.
    """
    kills, burst = run.pick((2, 1_500), (10, 20_000))
    deployed = await run.deploy(
        "commands", "commands", "views", partitions=_PARTITIONS, session_timeout=3.0
    )
    older = deployed.of("commands")
    stream = generate(1_000_000, run.seed, rejected=0.05, duplicates=0.1)
    async with open_traffic(deployed, records_of(stream), rate=_RATE) as traffic:
        traffic.burst(burst)
        await traffic.until_deciding()
        newer = deployed.start("commands", app=_NEWER_APP, **_IN_A_REBUILD)
        for number in range(1, kills + 1):
            await wait_until(lambda: newer.exit_code == -9, timeout=60, what="it is killed")
            run.result.faults += 1
            await wait_until(
                lambda: any(_has_refused(one) for one in older),
                timeout=60,
                what="an older worker refuses the newer state",
            )
            for worker in older:
                if not worker.is_running:
                    worker.start()
            newer.start(**_IN_A_REBUILD if number < kills else {})
            run.say(number, kills)
        deployed.start("commands", app=_NEWER_APP)
        for worker in older:
            deployed.workers.remove(worker)
            worker.close()
            run.result.faults += 1
        await traffic.until_deciding()
        newer.kill()
        newer.start()
        run.result.faults += 1
        traffic.burst(burst)
        await traffic.until_deciding()
        await traffic.finish()
    report = await run.verify(deployed, sent=traffic.sent, aggregate=NEWER_USERS)
    states = await verify_states(deployed.settings, NEWER_USERS, range(_PARTITIONS))
    require(states.ok, str(states.first_violation))
    require(states.aggregates == report.aggregates, "the two checks saw other states")


def _has_refused(worker: WorkerProcess) -> bool:
    return worker.exit_code == 1 and _REFUSED in worker.log_text


F23 = Scenario("F23", "an older and a newer program side by side", upgrade_workers)
