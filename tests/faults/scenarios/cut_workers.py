"""F16: workers are cut off from the broker, one way or both, until their partitions have moved."""

from __future__ import annotations

import time
from collections.abc import Iterator

from deploy.embedded.cluster import EmbeddedCluster
from deploy.embedded.stack import StackAddress
from deploy.ephemeral import Deployment, WorkerProcess
from deploy.samples.commands import generate
from deploy.waiting import wait_until
from tests.faults.scenario import Run, Scenario
from tests.harness.network import Link, Network, Party
from tests.harness.traffic import Traffic, open_traffic, records_of
from tests.harness.view_position import ViewPositions, open_view_positions

_RATE = 100.0  # commands per second
_BURST = 1000  # commands

_KINDS = ("both ways", "requests", "responses")


async def cut_workers_off(run: Run) -> None:
    """Cut off one worker of each role at a time; the others take its partitions over.

    When it is reached again, what it had sent arrives, late: Kafka must refuse it. It rejoins its
    group and gets partitions again, without a restart.
    """
    network = run.resources.enter_context(Network.running())
    cluster = run.resources.enter_context(
        EmbeddedCluster.temporary(nodes=1, proxy_of=network.proxy_to)
    )
    (node,), (ports,) = cluster.nodes, cluster.advertised
    assert node.pid is not None
    broker = Party(node.pid, frozenset(ports))
    deployed = await run.deploy(
        *("commands", "commands", "views", "views"),
        servers=StackAddress(cluster.bootstrap_servers, run.stack.elasticsearch_url),
        partitions=4,
        session_timeout=run.pick(3.0, 10.0),
        transaction_timeout=run.pick(6.0, 15.0),
    )
    stream = generate(1_000_000, run.seed, rejected=0.05, duplicates=0.1)
    silences = []
    cuts = list(_cuts(run))
    async with (
        open_traffic(deployed, records_of(stream), rate=_RATE) as traffic,
        open_view_positions(deployed, run.stack) as view,
    ):
        await traffic.until_deciding()
        for number, (kind, seconds) in enumerate(cuts, 1):
            await view.catch_up()
            victims = [run.rng.choice(deployed.of(role)) for role in ("commands", "views")]
            traffic.burst(_BURST)
            await traffic.wait_for_decided(traffic.decided + run.rng.randrange(1, _BURST))
            cut = _Cut(network, victims, broker, kind)
            silences.append(await _cut_off(cut, traffic, view, seconds))
            run.result.faults += len(victims)
            run.say(number, len(cuts))
        await traffic.finish()
    await run.verify(deployed, sent=traffic.sent)
    run.result.figures |= {
        "longest silence of a partition s": round(max(silences), 1),
        "session timeout s": deployed.settings.session_timeout,
        "transactions that came too late": _fenced(deployed),
    }


def _cuts(run: Run) -> Iterator[tuple[str, float]]:
    """Yield what is lost, and for how many seconds at least."""
    for seconds in run.pick((0.0,), (0.0, 30.0, 90.0)):  # requests time out after 40 s
        for kind in _KINDS:
            yield kind, seconds


class _Cut:
    """Workers that are cut off from the broker."""

    def __init__(
        self, network: Network, workers: list[WorkerProcess], broker: Party, kind: str
    ) -> None:
        self._network = network
        self._links: set[Link] = set()
        self._workers = {worker: len(worker.log_text) for worker in workers}
        for worker in workers:
            party = Party(worker.pid)
            if kind != "responses":
                self._links.add((party, broker))
            if kind != "requests":
                self._links.add((broker, party))

    def begin(self) -> None:
        self._network.lose(self._links)

    async def end(self) -> None:
        """Heal the network, and wait until each of the workers has partitions again."""
        self._network.lose(())
        for worker, length in self._workers.items():
            await wait_until(
                lambda worker=worker, length=length: (  # type: ignore[misc]
                    "continuing at position" in worker.log_text[length:]
                ),
                timeout=90,
                what=f"the {worker.role} worker that was cut off gets partitions again",
            )


async def _cut_off(cut: _Cut, traffic: Traffic, view: ViewPositions, seconds: float) -> float:
    """Cut workers off until others do their work; return the longest silence of a partition."""
    begin = time.monotonic()
    cut.begin()
    await traffic.until_deciding()
    silence = traffic.longest_silence(begin)
    await view.catch_up()
    while time.monotonic() - begin < seconds:
        await traffic.until_deciding()
    await cut.end()
    await traffic.until_deciding()
    return silence


def _fenced(deployed: Deployment) -> int:
    return sum(worker.log_text.count("fenced; rejoining") for worker in deployed.workers)


F16 = Scenario("F16", "workers cut off from the broker, one way and both", cut_workers_off)
