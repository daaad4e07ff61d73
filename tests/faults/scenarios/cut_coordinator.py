"""F28: a worker does not reach the broker that coordinates its group, and reaches all others."""

from __future__ import annotations

import time

from agents.users import COMMAND_WORKER
from deploy.embedded.cluster import EmbeddedCluster
from deploy.embedded.stack import StackAddress
from deploy.ephemeral import Deployment
from deploy.samples.commands import generate
from deploy.waiting import wait_until
from streams.kafka.clients import admin_client
from tests.faults.scenario import Run, Scenario
from tests.harness.checks import require
from tests.harness.network import Network, Party
from tests.harness.traffic import open_traffic, records_of

_RATE = 100.0  # commands per second
_FENCED = "fenced; rejoining"


async def cut_off_from_the_coordinator(run: Run) -> None:
    """Cut one worker off from one broker of three until the others have done its work for a while.

    Its group gives it up, and nothing tells it: only that broker could. It can still fence at the
    other two, and must leave the new owner of its partitions alone.
    """
    network = run.resources.enter_context(Network.running())
    cluster = run.resources.enter_context(EmbeddedCluster.temporary(proxy_of=network.proxy_to))
    deployed = await run.deploy(
        *("commands", "commands", "views"),
        servers=StackAddress(cluster.bootstrap_servers, run.stack.elasticsearch_url),
        partitions=6,
        replication_factor=3,
        session_timeout=run.pick(3.0, 10.0),
        transaction_timeout=run.pick(6.0, 15.0),
    )
    stream = generate(1_000_000, run.seed, rejected=0.05, duplicates=0.1)
    cuts, seconds = run.pick((1, 40.0), (4, 120.0))
    silences = []
    async with open_traffic(deployed, records_of(stream), rate=_RATE) as traffic:
        await traffic.until_deciding()
        for number in range(1, cuts + 1):
            broker = await _coordinator(deployed, cluster)
            victim, other = run.rng.sample(deployed.of("commands"), 2)
            lengths = {worker: len(worker.log_text) for worker in (victim, other)}
            begin = time.monotonic()
            network.lose({(Party(victim.pid), broker), (broker, Party(victim.pid))})
            while time.monotonic() - begin < seconds:
                await traffic.until_deciding()
            silences.append(traffic.longest_silence(begin))
            fenced = other.log_text[lengths[other] :].count(_FENCED)
            require(not fenced, f"the worker that was cut off fenced the other one {fenced} times")
            network.lose(())
            await wait_until(
                lambda: "continuing at position" in victim.log_text[lengths[victim] :],  # noqa: B023
                timeout=90,
                what="the worker that was cut off gets partitions again",
            )
            await traffic.until_deciding()
            run.result.faults += 1
            run.say(number, cuts)
        await traffic.finish()
    await run.verify(deployed, sent=traffic.sent)
    run.result.figures |= {
        "longest silence of a partition s": round(max(silences), 1),
        "session timeout s": deployed.settings.session_timeout,
    }


async def _coordinator(deployed: Deployment, cluster: EmbeddedCluster) -> Party:
    """Return the broker that coordinates the group of the command workers."""
    group = f"{deployed.settings.namespace}{COMMAND_WORKER}"
    async with admin_client(deployed.settings) as admin:
        number = await admin.find_coordinator(group) - 1
    node, ports = cluster.nodes[number], cluster.advertised[number]
    assert node.pid is not None
    return Party(node.pid, frozenset(ports))


F28 = Scenario(
    "F28", "a worker cut off from its group's coordinator alone", cut_off_from_the_coordinator
)
