"""F15: too few of three brokers are there, so nothing can be written for a while."""

from __future__ import annotations

import asyncio
import time

from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from deploy.embedded.cluster import EmbeddedCluster
from deploy.embedded.processes import ServerProcess
from deploy.embedded.stack import StackAddress
from deploy.ephemeral import Deployment
from deploy.samples.commands import generate
from deploy.waiting import wait_until
from streams.kafka.clients import admin_client
from streams.kafka.topics import topic_specs
from tests.faults.scenario import Run, Scenario
from tests.faults.scenarios.brokers import is_in_sync
from tests.harness.checks import require
from tests.harness.traffic import Traffic, open_traffic, records_of

_RATE = 100.0  # commands per second
_BURST = 1000  # commands


async def miss_replicas(run: Run) -> None:
    """Take two of three brokers away for a while, then one that the topics cannot do without.

    Workers wait, say for what, and continue by themselves when the brokers are back.
    """
    cluster = run.resources.enter_context(EmbeddedCluster.temporary())
    deployed = await run.deploy(
        *("commands", "commands", "views"),
        servers=StackAddress(cluster.bootstrap_servers, run.stack.elasticsearch_url),
        partitions=4,
        replication_factor=3,
    )
    stream = generate(1_000_000, run.seed, rejected=0.05, duplicates=0.1)
    async with open_traffic(deployed, records_of(stream), rate=_RATE) as traffic:
        await traffic.until_deciding()
        for number in range(run.pick(1, 5)):
            await _stop_two(run, deployed, cluster, traffic)
            run.say(number + 1, run.pick(1, 5))
        await _need_three(run, deployed, cluster, traffic)
        await traffic.finish()
    await run.verify(deployed, sent=traffic.sent)


async def _stop_two(
    run: Run, deployed: Deployment, cluster: EmbeddedCluster, traffic: Traffic
) -> None:
    """Kill two brokers amid a burst; start them again after 15 s, or a minute at full scale.

    The one that is left is no quorum: it cannot elect, and acknowledges nothing.
    """
    stopped = run.rng.sample(cluster.nodes, 2)
    before = {worker: len(worker.log_text) for worker in deployed.of("commands")}
    await _burst(run, traffic)
    await _kill(stopped)
    run.result.faults += 2
    begin = time.monotonic()
    for worker, length in before.items():
        await wait_until(
            lambda worker=worker, length=length: "trying again" in worker.log_text[length:],  # type: ignore[misc]
            timeout=60,
            what="each command worker says that it waits",
        )
    decided = traffic.decided
    await wait_until(
        lambda: time.monotonic() - begin > run.pick(15, 60), timeout=120, what="the outage is over"
    )
    require(traffic.decided == decided, "commands were decided while two brokers were away")
    await _start(stopped)
    back = time.monotonic()
    await traffic.until_deciding()
    run.result.figures["deciding after two brokers are back s"] = round(time.monotonic() - back, 1)
    await wait_until(
        lambda: is_in_sync(deployed.settings), timeout=60, what="every replica is in sync again"
    )


async def _need_three(
    run: Run, deployed: Deployment, cluster: EmbeddedCluster, traffic: Traffic
) -> None:
    """Kill one broker while the topics need three replicas: the others refuse what is written.

    They also cannot end a transaction that was open then, so who starts again is told to wait.
    """
    await _require_replicas(deployed, 3)
    before = {worker: len(worker.log_text) for worker in deployed.of("commands")}
    stopped = run.rng.sample(cluster.nodes, 1)
    await _burst(run, traffic)
    await _kill(stopped)
    run.result.faults += 1
    for worker, length in before.items():
        await wait_until(
            lambda worker=worker, length=length: "trying again" in worker.log_text[length:],  # type: ignore[misc]
            timeout=60,
            what="each command worker says that it waits",
        )
    await _start(stopped)
    back = time.monotonic()
    await traffic.until_deciding()
    run.result.figures["deciding after the third broker is back s"] = round(
        time.monotonic() - back, 1
    )
    await _require_replicas(deployed, 2)


async def _require_replicas(deployed: Deployment, count: int) -> None:
    specs = topic_specs(deployed.settings, deployed.names)
    wanted = {"min.insync.replicas": str(count)}
    async with admin_client(deployed.settings) as admin:
        await admin.alter_configs(
            [
                ConfigResource(ConfigResourceType.TOPIC, spec.name, {**spec.configs, **wanted})
                for spec in specs
            ]
        )


async def _burst(run: Run, traffic: Traffic) -> None:
    """Send a burst, and return amid it."""
    decided = traffic.decided
    traffic.burst(_BURST)
    await traffic.wait_for_decided(decided + run.rng.randrange(1, _BURST // 2))


async def _kill(brokers: list[ServerProcess]) -> None:
    await asyncio.gather(*(asyncio.to_thread(broker.kill) for broker in brokers))


async def _start(brokers: list[ServerProcess]) -> None:
    """Start brokers together: one without a quorum would wait for the other."""
    await asyncio.gather(*(asyncio.to_thread(broker.start) for broker in brokers))


F15 = Scenario("F15", "two of three brokers away: nothing can be written", miss_replicas)
