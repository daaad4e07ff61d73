"""F13: a broker with Kafka's own defaults, which creates the topics that somebody asks about."""

from __future__ import annotations

import asyncio

from deploy.embedded.cluster import EmbeddedCluster
from deploy.embedded.stack import StackAddress
from deploy.ephemeral import Deployment, new_settings, open_deployment
from deploy.samples.commands import generate
from streams.kafka.clients import admin_client
from streams.kafka.topics import topic_specs
from streams.settings import Settings
from tests.faults.scenario import Run, Scenario
from tests.harness.checks import require
from tests.harness.command_line import cqrs, running_workers
from tests.harness.traffic import Traffic, open_traffic, records_of

_RATE = 100.0  # commands per second
_BURST = 1000  # commands

# Kafka's defaults where the servers of `cqrs up` have something else. Those for one broker
# (replicas of internal topics) are as in the configuration that Kafka is delivered with.
_DEFAULTS = {
    "auto.create.topics.enable": "true",
    "num.partitions": 1,
    "broker.session.timeout.ms": 9000,
    "broker.heartbeat.interval.ms": 2000,
    "group.initial.rebalance.delay.ms": 3000,
    "group.min.session.timeout.ms": 6000,
    "offsets.topic.num.partitions": 50,
    "transaction.state.log.num.partitions": 50,
    "share.coordinator.state.topic.num.partitions": 50,
}


async def use_defaults(run: Run) -> None:
    """Start everything before there are topics, create them, and kill broker and workers.

    Nobody may have a topic created by asking about it: it would have one partition, and retention.
    """
    cluster = run.resources.enter_context(EmbeddedCluster.temporary(nodes=1, changes=_DEFAULTS))
    servers = StackAddress(cluster.bootstrap_servers, run.stack.elasticsearch_url)
    settings = new_settings(servers, partitions=3)
    deployed = run.resources.enter_context(open_deployment(settings, ()))
    await _start_too_early(deployed)
    created = await asyncio.to_thread(cqrs, settings, "topics", "create")
    require(created.returncode == 0, f"`cqrs topics create` failed: {created.stderr}")
    for role in ("commands", "views"):
        log = deployed.folder / f"cqrs-worker-{role}.log"
        run.resources.enter_context(running_workers(settings, role, 1, log))
    killed = [deployed.start("commands"), deployed.start("views")]
    stream = generate(1_000_000, run.seed, rejected=0.05, duplicates=0.1)
    kills = run.pick(1, 5)
    async with open_traffic(deployed, records_of(stream), rate=_RATE) as traffic:
        await traffic.until_deciding()
        for number in range(kills):
            await _burst(run, traffic)
            cluster.nodes[0].kill()
            await asyncio.to_thread(cluster.nodes[0].start)
            await _burst(run, traffic)
            for worker in killed:
                worker.kill()
                worker.start()
            run.result.faults += 3
            await traffic.until_deciding()
            run.say(number + 1, kills)
        await traffic.finish()
    await run.verify(deployed, sent=traffic.sent)
    await _check_topics(settings, {spec.name for spec in topic_specs(settings, deployed.names)})


async def _start_too_early(deployed: Deployment) -> None:
    """Start what refuses to work without topics; it must create none."""
    settings = deployed.settings
    for worker in [deployed.start("commands"), deployed.start("views")]:
        code = await asyncio.to_thread(worker.wait)
        require(code == 1, f"a worker without topics ended with code {code}")
        require("missing topics:" in worker.log_text, "a worker does not say that topics miss")
        deployed.workers.remove(worker)
    for arguments in (("worker", "commands"), ("verify",), ("send", "--from", "-")):
        done = await asyncio.to_thread(cqrs, settings, *arguments, given=b"{}\n")
        require("missing topics:" in done.stderr, f"{arguments} without topics: {done.stderr}")
    await _check_topics(settings, set())


async def _check_topics(settings: Settings, wanted: set[str]) -> None:
    async with admin_client(settings) as admin:
        found = {name for name in await admin.list_topics() if not name.startswith("__")}
        described = await admin.describe_topics(sorted(wanted))
    require(found == wanted, f"the broker has the topics {sorted(found)}")
    partitions = {len(topic["partitions"]) for topic in described}
    require(partitions <= {settings.partitions}, f"a topic has {partitions} partitions")


async def _burst(run: Run, traffic: Traffic) -> None:
    """Send a burst, and return amid it."""
    decided = traffic.decided
    traffic.burst(_BURST)
    await traffic.wait_for_decided(decided + run.rng.randrange(1, _BURST))


F13 = Scenario("F13", "a broker with Kafka's own defaults", use_defaults)
