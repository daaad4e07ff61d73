"""V4: the master key is replaced under load, while users are erased and everything is killed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from itertools import chain
from typing import Any

from pydantic import SecretStr

from deploy.environment import child_environment
from deploy.ephemeral import Deployment
from deploy.samples.commands import plan
from deploy.supervisor import module_command, running
from deploy.waiting import wait_until
from models.commands import EraseUser
from models.messages import to_wire
from streams.commands.rotate_keys import WrappedKeys, read_wrapped_keys
from streams.encryption.keys import new_master_key
from streams.settings import Settings
from tests.faults.scenario import Run, Scenario
from tests.harness.checks import require
from tests.harness.command_line import ROOT, cqrs
from tests.harness.erasing_rotation import users_with_a_key
from tests.harness.traffic import open_traffic, records_of

_TIMEOUT_S = 300.0


async def replace_master_key(run: Run) -> None:
    """Kill `cqrs keys rotate` again and again while it writes, and workers with it.

    Half of the users exist before. While keys are wrapped again the others register, and every
    third of the first half is erased. Then the former master key is taken away.
    """
    users, kills, rate = run.pick((1_600, 4, 150.0), (40_000, 20, 400.0))
    deployed = await run.deploy(
        *("commands", "commands", "views"),
        encrypt_personal_data=True,
        master_key=SecretStr(new_master_key()),
    )
    old = deployed.settings
    new = old.model_copy(
        update={
            "master_key": SecretStr(new_master_key()),
            "second_master_key": old.master_key,
        }
    )
    only_new = new.model_copy(update={"second_master_key": None})
    first, others = _registrations(run.seed, users)
    erased = [one["aggregateId"] for one in first[::3]]
    records = records_of(chain(first, _mixed(others, map(_erasure, erased))))
    async with open_traffic(deployed, records) as traffic:
        traffic.burst(len(first))
        await traffic.wait_for_decided(len(first), timeout=_TIMEOUT_S)
        await _restart(deployed, new)
    async with open_traffic(deployed, records, rate=rate) as traffic:
        await traffic.until_deciding()
        for number in range(1, kills + 1):
            before = await _left(new, deployed)
            command = module_command("tests.faults.small_rotation")
            log = deployed.folder / f"rotation-{number}.log"
            environment = {**child_environment(new), "CQRS_DEBUG": "1"}
            with running(command, environment, log, cwd=ROOT) as process:

                async def has_written(before: int = before) -> bool:
                    ended = process.poll() is not None
                    return ended or await _left(new, deployed) < before

                await wait_until(has_written, timeout=_TIMEOUT_S, what="keys are wrapped again")
                if number % 2:
                    victim = run.rng.choice(deployed.workers)
                    victim.kill()
                    victim.start()
                    run.result.faults += 1
                process.kill()
                code = await asyncio.to_thread(process.wait)
            run.result.faults += code != 0
            require(code in (0, -9), f"the rotation ended with code {code}: {log.read_text()}")
            run.say(number, kills)
        left = await _left(new, deployed)
        done = await asyncio.to_thread(cqrs, new, "keys", "rotate", timeout=_TIMEOUT_S)
        require(done.returncode == 0, f"the rotation failed: {done.stderr}")
        traffic.burst(users)
        await traffic.finish(timeout=_TIMEOUT_S)
        await _restart(deployed, only_new)
    report = await run.verify(deployed, sent=users + len(erased))
    wrapped = [await _wrapped(only_new, deployed, number) for number in _numbers(deployed)]
    require(
        not sum(one.second + one.unknown + one.damaged for one in wrapped),
        "a key is wrapped with the former master key",
    )
    back = (await users_with_a_key(deployed)).intersection(erased)
    require(not back, f"the destroyed keys of {len(back)} users are back")
    run.result.figures |= {
        "users": report.aggregates,
        "erased": len(erased),
        "keys wrapped again": sum(one.replaced for one in wrapped),
        "left after the last kill": left,
        "destroyed keys that came back": 0,
    }


async def _restart(deployed: Deployment, settings: Settings) -> None:
    for worker in deployed.workers:
        require(await asyncio.to_thread(worker.terminate) == 0, f"{worker.role} did not stop")
        worker.settings = settings
        worker.start()
    deployed.settings = settings


def _numbers(deployed: Deployment) -> range:
    return range(deployed.settings.partitions)


async def _wrapped(settings: Settings, deployed: Deployment, number: int) -> WrappedKeys:
    return await read_wrapped_keys(settings, deployed.names, number)


async def _left(settings: Settings, deployed: Deployment) -> int:
    """Return how many keys are still wrapped with the former master key."""
    return sum([(await _wrapped(settings, deployed, one)).second for one in _numbers(deployed)])


def _registrations(seed: int, users: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the registrations of the users who exist before, and those of the others."""
    planned = plan(10 * users, seed, rejected=0, duplicates=0)
    found = [one for one, _ in planned if one["type"] == "RegisterUser"][:users]
    return found[: users // 2], found[users // 2 :]


def _mixed(
    many: Sequence[dict[str, Any]], few: Iterator[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Yield all of both, alternating while there are some of both."""
    for one in many:
        yield one
        yield from (another for another in (next(few, None),) if another is not None)
    yield from few


def _erasure(user: str) -> dict[str, Any]:
    return to_wire(EraseUser(aggregate_id=user, timestamp=datetime.now(timezone.utc)))


V4 = Scenario("V4", "the master key is replaced while users are erased", replace_master_key)
