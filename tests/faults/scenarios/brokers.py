"""F5: kill -9 of Kafka brokers: the only one, and one of three, including the controller."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from statistics import median

from deploy.embedded.cluster import EmbeddedCluster
from deploy.embedded.processes import ServerProcess
from deploy.embedded.stack import StackAddress
from deploy.ephemeral import Deployment, Servers
from deploy.samples.commands import generate
from deploy.waiting import wait_until
from streams.kafka.clients import admin_client
from streams.settings import Settings
from tests.faults.scenario import Run, Scenario
from tests.harness.traffic import Traffic, open_traffic, records_of

_RATE = 100.0  # commands per second
_BURST = 1000  # commands


async def kill_brokers(run: Run) -> None:
    """Kill a broker during a burst and start it again, several times; no worker is restarted."""
    kills, kills_of_three = run.pick((1, 2), (5, 10))
    await _keep_killing(run, run.stack, 1, "the only broker", _the_only_one(run, kills))
    cluster = run.resources.enter_context(EmbeddedCluster.temporary(secrets=run.secrets))
    servers = StackAddress(cluster.bootstrap_servers, run.stack.elasticsearch_url)
    victims = _one_of_three(run, cluster, kills_of_three)
    await _keep_killing(run, servers, 3, "one of three brokers", victims)


async def _the_only_one(run: Run, kills: int) -> AsyncIterator[ServerProcess]:
    for _ in range(kills):
        yield run.stack.kafka


async def _one_of_three(
    run: Run, cluster: EmbeddedCluster, kills: int
) -> AsyncIterator[ServerProcess]:
    """Yield the controller first, then random brokers."""
    controllers = 0
    for number in range(kills):
        active = await wait_until(lambda: cluster.controller, what="a controller is elected")
        victim = active if number == 0 else run.rng.choice(cluster.nodes)
        controllers += victim is active
        yield victim
    run.result.figures["controllers among them"] = controllers


async def _keep_killing(
    run: Run, servers: Servers, replicas: int, what: str, victims: AsyncIterator[ServerProcess]
) -> None:
    """Kill and restart brokers under traffic, then verify."""
    deployed = await run.deploy(
        *("commands", "commands", "views"),
        servers=servers,
        partitions=6,
        replication_factor=replicas,
        session_timeout=10.0,  # this and the next are the defaults
        transaction_timeout=15.0,
    )
    stream = generate(1_000_000, run.rng.randrange(1 << 30), rejected=0.05, duplicates=0.1)
    pauses = []
    async with open_traffic(deployed, records_of(stream), rate=_RATE) as traffic:
        await traffic.until_deciding()
        async for victim in victims:
            pauses.append(await _kill(run, deployed, traffic, victim))
            run.say(run.result.faults, 0)
        await traffic.finish()
    await run.verify(deployed, sent=traffic.sent)
    for worker in [*deployed.workers]:
        await deployed.retire(worker)
    run.result.figures |= {
        f"{what}: pause p50 s": round(median(pauses), 1),
        f"{what}: pause max s": round(max(pauses), 1),
    }


async def _kill(run: Run, deployed: Deployment, traffic: Traffic, broker: ServerProcess) -> float:
    """Kill one broker and return the longest pause of a partition, in seconds.

    The broker restarts at once or, in half of the cases, when the others work without it.
    """
    traffic.burst(_BURST)
    await traffic.wait_for_decided(traffic.decided + run.rng.randrange(1, _BURST))
    killed = time.monotonic()
    broker.kill()
    run.result.faults += 1
    if deployed.settings.replication_factor > 1 and run.rng.random() < 0.5:
        await traffic.until_deciding()
    await asyncio.to_thread(broker.start)
    await wait_until(
        lambda: is_in_sync(deployed.settings), timeout=60, what="every replica is in sync again"
    )
    await traffic.until_deciding()
    return traffic.longest_silence(killed)


async def is_in_sync(settings: Settings) -> bool:
    """Return whether all replicas of all partitions are in sync, also of internal topics."""
    async with admin_client(settings) as admin:
        topics = await admin.describe_topics()
    return all(
        len(partition["isr"]) == len(partition["replicas"])
        for topic in topics
        for partition in topic["partitions"]
    )


F5 = Scenario("F5", "kill -9 of the only broker, and of one of three", kill_brokers)
