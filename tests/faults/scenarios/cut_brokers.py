"""F17: one broker of three is cut off from the other two, one way or both; clients reach all."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping

from aiokafka.protocol.metadata import MetadataRequest

from deploy.embedded.cluster import EmbeddedCluster
from deploy.embedded.stack import StackAddress
from deploy.ephemeral import Deployment
from deploy.samples.commands import generate
from deploy.waiting import wait_until
from models.errors import Fatal
from streams.kafka.clients import admin_client
from tests.faults.scenario import Run, Scenario
from tests.faults.scenarios.brokers import is_in_sync
from tests.harness.network import Link, Network, Party
from tests.harness.traffic import Traffic, open_traffic, records_of

_RATE = 100.0  # commands per second
_BURST = 1000  # commands

# How long brokers wait for each other's responses, by default 30 s. So long a broker that has asked
# the one that is cut off does not ask another one: if that was the controller, all brokers lose
# their sessions, and nothing can be written meanwhile.
SOON: Mapping[str, object] = dict.fromkeys(
    ("controller.socket.timeout.ms", "replica.socket.timeout.ms", "request.timeout.ms"), 3000
)

_KINDS = ("both ways", "what it sends", "what it is sent")


async def cut_brokers_off(run: Run) -> None:
    """Cut one broker off from the other two, which are a majority; the active controller first.

    It still answers clients, as the leader that it was, and may keep nothing of that: its
    partitions get other leaders. When it is reached again it follows them.
    """
    network = run.resources.enter_context(Network.running())
    changes = run.pick(SOON, {})
    cluster = run.resources.enter_context(
        EmbeddedCluster.temporary(changes=changes, proxy_of=network.proxy_to)
    )
    deployed = await run.deploy(
        *("commands", "commands", "views"),
        servers=StackAddress(cluster.bootstrap_servers, run.stack.elasticsearch_url),
        partitions=6,
        replication_factor=3,
    )
    stream = generate(1_000_000, run.seed, rejected=0.05, duplicates=0.1)
    cuts = list(_cuts(run))
    async with open_traffic(deployed, records_of(stream), rate=_RATE) as traffic:
        await traffic.until_deciding()
        for number, (kind, seconds) in enumerate(cuts, 1):
            await _cut_off(run, deployed, cluster, network, traffic, kind, seconds)
            run.say(number, len(cuts))
        await traffic.finish()
    await run.verify(deployed, sent=traffic.sent)


def _cuts(run: Run) -> Iterator[tuple[str, float]]:
    """Yield what is lost, and for how many seconds at least."""
    for seconds in run.pick((0.0,), (0.0, 20.0, 60.0)):
        for kind in _KINDS:
            yield kind, seconds


async def _cut_off(
    run: Run,
    deployed: Deployment,
    cluster: EmbeddedCluster,
    network: Network,
    traffic: Traffic,
    kind: str,
    seconds: float,
) -> None:
    """Cut one broker off amid a burst, until others lead its partitions; then heal the network."""
    controller = await wait_until(lambda: cluster.controller, what="a controller is elected")
    leaders = await _leaders(deployed)
    victim = cluster.nodes.index(controller) if not run.result.faults else _first(leaders) - 1
    others = [id_ for id_ in range(1, len(cluster.nodes) + 1) if id_ != victim + 1]
    decided = traffic.decided
    traffic.burst(_BURST)
    await traffic.wait_for_decided(decided + run.rng.randrange(1, _BURST))
    begin, decided = time.monotonic(), traffic.decided
    network.lose(_links(_parties(cluster), victim, kind))
    run.result.faults += 1

    async def have_moved() -> bool:
        try:
            return not {victim + 1, -1} & set(await _leaders(deployed, run.rng.choice(others)))
        except Fatal:  # an election takes all of a small machine
            return False

    await wait_until(
        have_moved,
        timeout=120,
        what=f"others lead the partitions of the broker that is cut off ({kind})",
    )
    moved = time.monotonic() - begin
    await wait_until(lambda: time.monotonic() - begin >= seconds, timeout=seconds + 10)
    meanwhile = traffic.decided - decided
    network.lose(())
    healed = time.monotonic()
    await wait_until(
        lambda: is_in_sync(deployed.settings), timeout=120, what="every replica is in sync again"
    )
    await traffic.until_deciding()
    name = f"cut {run.result.faults}, {kind}"
    run.result.figures |= {
        f"{name}: it led": leaders[victim + 1],
        f"{name}: leaders moved s": round(moved, 1),
        f"{name}: decided meanwhile": meanwhile,
        f"{name}: all decide again s": round(time.monotonic() - healed, 1),
    }


def _first(leaders: Counter[int]) -> int:
    """Return the broker that leads the most partitions."""
    ((id_, _),) = leaders.most_common(1)
    return id_


def _parties(cluster: EmbeddedCluster) -> list[Party]:
    """Return the brokers as parties of the network."""
    parties = []
    for node, ports in zip(cluster.nodes, cluster.advertised, strict=True):
        assert node.pid is not None
        parties.append(Party(node.pid, frozenset(ports)))
    return parties


def _links(parties: list[Party], victim: int, kind: str) -> Iterator[Link]:
    one = parties[victim]
    for other in parties:
        if other is not one and kind != "what it is sent":
            yield one, other
        if other is not one and kind != "what it sends":
            yield other, one


async def _leaders(deployed: Deployment, ask: int | None = None) -> Counter[int]:
    """Return how many of the deployment's partitions each broker leads, as broker `ask` knows it.

    The one that is cut off knows nothing new. Without `ask` any broker is asked.
    """
    async with admin_client(deployed.settings) as admin:
        response = await admin._send_request(MetadataRequest(None), ask)
    return Counter(
        partition["leader"]
        for topic in response.to_object()["topics"]
        if topic["topic"].startswith(deployed.settings.namespace)
        for partition in topic["partitions"]
    )


F17 = Scenario("F17", "one of three brokers cut off from the others", cut_brokers_off)
