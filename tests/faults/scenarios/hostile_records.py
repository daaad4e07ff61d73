"""F22: records that no client of ours could write, on each topic that is read."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import psutil  # type: ignore[import-untyped]
from pydantic import SecretStr

from deploy.ephemeral import Deployment
from deploy.samples.commands import generate
from streams.encryption.keys import new_master_key
from streams.kafka.clients import new_producer, started
from tests.faults.scenario import Run, Scenario
from tests.harness.checks import require
from tests.harness.hostile_records import OVERSIZED, hostile_batches, send_batch
from tests.harness.traffic import open_traffic, records_of

_PARTITIONS = 2
_RATE = 100.0  # commands per second
_BURST = 300  # commands
_MEMORY_BYTES = 700 << 20  # what a bomb unpacks to is 200 MiB


async def write_hostile_records(run: Run) -> None:
    """Write a bomb and unreadable header names under load, and kill a worker after each.

    On the command topic each is a dead letter. On the other topics `verify` names each that is no
    event, no outcome and no state, and nothing else; the workers go on.
    """
    deployed = await _deploy(run)
    sent, _ = await _write(run, deployed, [deployed.names.commands])
    report = await run.verify(deployed, sent=sent)
    require(report.dead == run.result.faults, f"{report.dead} dead letters")
    for worker in [*deployed.workers]:
        await deployed.retire(worker)

    deployed = await _deploy(
        run, encrypt_personal_data=True, master_key=SecretStr(new_master_key())
    )
    names = deployed.names
    others = [names.events, names.outcomes, names.dead_commands, names.dead_views]
    _, states = await _write(run, deployed, [*others, names.changelog, names.keys])
    # Of each topic; nothing is wrong with a view's dead letters that cannot be read.
    each = len(hostile_batches()) * run.pick(1, _PARTITIONS * 3)
    await run.verify(deployed, foreign={"I2": each, "I3": states, "I7": 2 * each})


async def _deploy(run: Run, **changes: Any) -> Deployment:
    return await run.deploy(
        "commands", "commands", "views", partitions=_PARTITIONS, session_timeout=3.0, **changes
    )


async def _write(run: Run, deployed: Deployment, topics: Sequence[str]) -> tuple[int, int]:
    """Write each hostile batch to each topic.

    Returns:
        How many records the command topic got; in how many partitions there is a state now that is
        none.
    """
    names, stream = deployed.names, generate(1_000_000, run.rng.randrange(1 << 30))
    places = [*product(topics, hostile_batches().items())] * run.pick(1, _PARTITIONS * 3)
    run.rng.shuffle(places)
    sent_to_others, states = 0, set[int]()
    async with (
        open_traffic(deployed, records_of(stream), rate=_RATE) as traffic,
        started(new_producer(deployed.settings), deployed.settings) as somebody,
    ):
        await traffic.until_deciding()
        for number, (topic, (what, batch)) in enumerate(places, 1):
            traffic.burst(_BURST)
            partition = number % _PARTITIONS
            if topic == names.changelog and what not in OVERSIZED:
                states.add(partition)
            if topic in (names.commands, names.outcomes):
                traffic.count_foreign(partition)
                sent_to_others += topic != names.commands
            await send_batch(somebody, topic, partition, batch)
            run.result.faults += 1
            victim = run.rng.choice(deployed.workers)
            victim.kill()
            victim.start()
            await traffic.until_deciding()
            for worker in deployed.workers:
                used = psutil.Process(worker.pid).memory_info().rss
                require(used < _MEMORY_BYTES, f"a {worker.role} worker uses {used >> 20} MiB")
            run.say(number, len(places))
        await traffic.finish()
    return traffic.sent - sent_to_others, len(states)


F22 = Scenario("F22", "bombs and unreadable records on every topic", write_hostile_records)
