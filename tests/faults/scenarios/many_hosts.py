"""F27: three brokers, two nodes of Elasticsearch and four hosts of workers, each with its network.

Workers spread from one host to four and back under load. Meanwhile a host of workers is drained,
another one is cut off, and so are that of a broker and that of a node; each comes back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiokafka.errors import KafkaError

from deploy.embedded.cluster import ElasticsearchCluster, EmbeddedCluster
from deploy.embedded.stack import StackAddress
from deploy.ephemeral import Deployment, WorkerProcess
from deploy.samples.commands import generate
from deploy.waiting import wait_until
from models.errors import Transient
from streams.elasticsearch.connection import connect, translating
from tests.faults.scenario import Run, Scenario
from tests.faults.scenarios import cut_brokers
from tests.faults.scenarios.brokers import is_in_sync
from tests.faults.search_nodes import SOON
from tests.harness.hosts import Host, open_hosts
from tests.harness.traffic import Traffic, open_traffic, records_of
from tests.harness.view_position import ViewPositions, open_view_positions

_BROKERS = [f"broker-{number}" for number in range(1, 4)]
_NODES = [f"node-{number}" for number in range(1, 3)]
_WORKERS = [f"worker-{number}" for number in range(1, 5)]
_CLIENTS = "clients"
_PARTITIONS = 8
_RATE = 100.0  # commands per second
_TIMEOUT_S = 300.0  # by default a cluster misses a host that is cut off after 30 to 90 s


async def spread_over_hosts(run: Run) -> None:
    """Spread the workers over four hosts and back; take hosts away and bring them back."""
    hosts = run.resources.enter_context(open_hosts(*_BROKERS, *_NODES, *_WORKERS, _CLIENTS))
    run.resources.enter_context(hosts[_CLIENTS].entered())
    kafka = run.resources.enter_context(
        EmbeddedCluster.temporary(
            nodes=len(_BROKERS),
            places=[hosts[name].place for name in _BROKERS],
            changes=run.pick(cut_brokers.SOON, {}),
        )
    )
    search = run.resources.enter_context(
        ElasticsearchCluster.temporary(
            nodes=len(_NODES),
            places=[hosts[name].place for name in _NODES],
            changes=run.pick(SOON, {}),
        )
    )
    servers = StackAddress(kafka.bootstrap_servers, search.elasticsearch_url)
    deployed = await run.deploy(
        servers=servers,
        partitions=_PARTITIONS,
        replication_factor=len(_BROKERS),
        session_timeout=run.pick(6.0, 10.0),
        transaction_timeout=run.pick(6.0, 15.0),
    )
    stream = generate(1_000_000, run.seed, rejected=0.05, duplicates=0.1)
    site = _Site(run, hosts, deployed)
    await site.start(_WORKERS[0])
    async with (
        open_traffic(deployed, records_of(stream), rate=_RATE) as traffic,
        open_view_positions(deployed, servers) as view,
    ):
        await traffic.until_deciding()
        for _ in range(run.pick(1, 2)):
            await _there_and_back(site, traffic, view)
        await traffic.finish(timeout=_TIMEOUT_S)
    await run.verify(deployed, sent=traffic.sent, timeout=_TIMEOUT_S)


async def _there_and_back(site: _Site, traffic: Traffic, view: ViewPositions) -> None:
    measured = _Pauses(site.run, traffic, view)
    others = _WORKERS[1:]
    for name in others:
        await measured.of("one more host", site.start(name))
    drained, cut = site.run.rng.sample(_WORKERS, 2)
    await measured.of("drained", site.stop(drained))
    await measured.of("drained, and back", site.start(drained))
    await measured.of("workers cut off", site.unplug(cut))
    await measured.of("workers cut off, and back", site.plug_workers_in(cut))
    broker, node = site.run.rng.choice(_BROKERS), site.run.rng.choice(_NODES)
    await measured.of("a broker cut off", site.unplug(broker))
    await measured.of("a broker cut off, and back", site.plug_broker_in(broker))
    await measured.of("a node cut off", site.unplug(node), view_waits=True)
    await measured.of("a node cut off, and back", site.plug_node_in(node))
    for name in others:
        await measured.of("one host less", site.stop(name))


@dataclass
class _Site:
    """The hosts, and the workers on each."""

    run: Run
    hosts: Mapping[str, Host]
    deployed: Deployment
    workers: dict[str, list[WorkerProcess]] = field(default_factory=dict)
    logged: dict[str, list[int]] = field(default_factory=dict)
    """Length of the logs of workers when their host was cut off."""

    async def start(self, name: str) -> None:
        """Start a worker of each role on a host, and wait until they have partitions."""
        launch = self.hosts[name].launch
        new = [self.deployed.start(role, launch) for role in ("commands", "views")]
        self.workers[name] = new
        await self._until(lambda: all(one.has_begun for one in new), "new workers get partitions")

    async def stop(self, name: str) -> None:
        """Stop the workers of a host in good order."""
        await asyncio.gather(*map(self.deployed.retire, self.workers.pop(name)))

    async def unplug(self, name: str) -> None:
        """Cut a host off."""
        if name in self.workers:
            self.logged[name] = [len(worker.log_text) for worker in self.workers[name]]
        self.hosts[name].unplug()

    async def plug_workers_in(self, name: str) -> None:
        """Connect a host again, and wait until its workers have partitions again."""
        self.hosts[name].plug_in()
        logs = list(zip(self.workers[name], self.logged.pop(name), strict=True))

        def have_partitions() -> bool:
            return all("continuing at position" in one.log_text[length:] for one, length in logs)

        await self._until(have_partitions, "workers that were cut off get partitions again")

    async def plug_broker_in(self, name: str) -> None:
        """Connect a broker again, and wait until it has what it missed."""
        self.hosts[name].plug_in()
        await self._until(lambda: is_in_sync(self.deployed.settings), "all replicas are in sync")

    async def plug_node_in(self, name: str) -> None:
        """Connect a node of Elasticsearch again, and wait until it has what it missed."""
        self.hosts[name].plug_in()
        async with connect(self.deployed.settings, timeout=60) as client:

            async def is_green() -> bool:
                try:
                    with translating(client):
                        health = await client.cluster.health()
                except Transient:
                    return False
                return (health["status"], health["number_of_nodes"]) == ("green", len(_NODES))

            await self._until(is_green, "all copies of the index are there again")

    async def _until(self, condition: Callable[[], Any], what: str) -> None:
        await wait_until(condition, timeout=_TIMEOUT_S, what=what)


class _Pauses:
    """Measures for each change how long commands waited, and how long the view needed after it."""

    def __init__(self, run: Run, traffic: Traffic, view: ViewPositions) -> None:
        self._run = run
        self._traffic = traffic
        self._view = view

    async def of(self, what: str, change: Awaitable[None], *, view_waits: bool = False) -> None:
        """Make a change, and wait until everything is decided and projected again.

        With `view_waits` nothing is projected until the next change.
        """
        begin = time.monotonic()
        await change
        for _ in range(2):  # the first wait may end with what was decided before the change
            await self._traffic.until_deciding(_TIMEOUT_S)
        self._note(f"{what}: longest wait of a command s", self._traffic.longest_wait(begin))
        if view_waits:
            seconds = self._run.pick(10, 60)
            await self._traffic.wait_for_decided(self._traffic.decided + int(seconds * _RATE))
        else:
            await wait_until(self._view_has_all, timeout=_TIMEOUT_S, what="the view has all events")
            self._note(f"{what}: the view has all after s", time.monotonic() - begin)
        self._run.result.faults += 1
        self._run.say(self._run.result.faults, 0, what)

    async def _view_has_all(self) -> bool:
        try:
            await self._view.catch_up()
        except (KafkaError, Transient):  # who asks is cut off from a server as well
            return False
        return True

    def _note(self, figure: str, seconds: float) -> None:
        """Keep the largest of all rounds."""
        figures = self._run.result.figures
        figures[figure] = max(round(seconds, 1), float(figures.get(figure, 0)))


F27 = Scenario("F27", "ten hosts: workers spread, hosts drained and cut off", spread_over_hosts)
