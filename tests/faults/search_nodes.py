"""A deployment on several Elasticsearch nodes, under traffic and searches, while nodes fail.

Every query in the background must find the users who existed before, and every client what it has
written. A query may fail as `Transient` while a node is away, and is then repeated; how long that
took is measured. In the end all invariants hold, and the copies of the index are equal.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from elasticsearch import AsyncElasticsearch

from agents.client import open_commands, open_queries
from agents.user_views import USER_VIEWS
from deploy.embedded.cluster import ElasticsearchCluster
from deploy.embedded.processes import ServerProcess
from deploy.embedded.stack import StackAddress
from deploy.ephemeral import Deployment
from deploy.waiting import wait_until
from models.errors import NoSuchView, Transient
from streams.buses import QueryBus
from streams.concurrency import gather_or_cancel
from streams.elasticsearch.connection import connect, translating
from streams.progress import no_progress
from streams.views.status import status_of
from tests.faults.background_queries import BackgroundQueries, commands_around
from tests.faults.outages import Outages
from tests.faults.reading import Reading
from tests.faults.scenario import Run
from tests.harness.checks import require
from tests.harness.network import Network, Party
from tests.harness.traffic import Traffic, open_traffic, records_of
from tests.harness.view_position import ViewPositions, open_view_positions

_PARTITIONS = 4
_RATE = 50.0  # commands per second
_WATCHED_USERS = 300  # that every query must find
_CLIENTS = 2  # that write and read
_QUERY_TIMEOUT_S = 300.0  # longer than anything fails
_REQUEST_TIMEOUT_S = 60.0
_PAGE = 5000  # documents per request

# How soon a node that does not answer is taken for dead, and is no longer waited for; by default
# after 30 s each.
SOON: Mapping[str, object] = {
    "cluster.publish.timeout": "3s",
    **{
        f"cluster.fault_detection.{who}_check.{name}": value
        for who in ("follower", "leader")
        for name, value in (("interval", "500ms"), ("timeout", "1s"), ("retry_count", 2))
    },
}


@dataclass
class SearchNodes:
    """What fails, what runs meanwhile, and what it may ask."""

    run: Run
    cluster: ElasticsearchCluster
    network: Network
    deployed: Deployment
    traffic: Traffic
    view: ViewPositions
    client: AsyncElasticsearch
    watched: Mapping[str, str]
    """Users who do not change: email addresses by id."""
    queries: QueryBus
    outages: Outages
    reading: Reading
    """Clients that write and read; they begin with the first fault."""

    @property
    def index(self) -> str:
        """Name of the serving index."""
        return f"{self.deployed.settings.namespace}{USER_VIEWS.name}-v1"

    async def primary(self, *, not_on: ServerProcess | None = None) -> ServerProcess:
        """Wait until a node, but not this one, holds an active primary, and return it.

        The one that it must not be on is not asked, for it may be cut off or dead.
        """
        witness = next(node for node in self.cluster.nodes if node is not not_on)

        async def found() -> ServerProcess | None:
            node = await self._primary(witness)
            return None if node is not_on else node

        holder: ServerProcess = await wait_until(found, timeout=180, what="the index has a primary")
        return holder

    async def master(self) -> ServerProcess:
        """Return the node that is elected."""
        with translating(self.client):
            found = await self.client.cluster.state(metric="master_node,nodes")
        return self.cluster.node_named(found["nodes"][found["master_node"]]["name"])

    async def copies(self) -> Mapping[str, ServerProcess]:
        """Return the nodes with an active copy of the index by their id."""
        with translating(self.client):
            found = await self.client.search_shards(index=self.index)
        (copies,) = found["shards"]
        return {
            one["node"]: self.cluster.node_named(found["nodes"][one["node"]]["name"])
            for one in copies
        }

    @asynccontextmanager
    async def client_of(self, node: ServerProcess) -> AsyncIterator[AsyncElasticsearch]:
        """Open a client that asks this node only."""
        url = self.deployed.settings.elasticsearch_urls[self.cluster.nodes.index(node)]
        settings = self.deployed.settings.model_copy(update={"elasticsearch_url": url})
        async with connect(settings, timeout=_REQUEST_TIMEOUT_S) as client:
            with translating(client):
                yield client

    async def unreplicated(self, primary: ServerProcess) -> int:
        """Return how many writes this node has done of which it does not know that all have them.

        It asks no other node for that.
        """
        async with self.client_of(primary) as client:
            found = await client.nodes.stats(node_id="_local", metric="indices", level="shards")
        (node,) = found["nodes"].values()
        numbers = [
            shard["seq_no"]
            for one in node["indices"]["shards"].get(self.index, [])
            for shard in one.values()
        ]
        return sum(one["max_seq_no"] - one["global_checkpoint"] for one in numbers)

    async def sees_all(self, node: ServerProcess) -> bool:
        """Return whether this node knows of all nodes, and which of them is elected.

        It does not for long if it is cut off.
        """
        async with self.client_of(node) as client:
            found = await client.cluster.state(metric="master_node,nodes", local=True)
        is_complete = len(found["nodes"]) == len(self.cluster.nodes)
        return is_complete and found.get("master_node") is not None

    async def until_green(self) -> None:
        """Wait until all nodes and all copies are there."""

        async def is_green() -> bool:
            try:
                with translating(self.client):
                    health = await self.client.cluster.health()
            except Transient:
                return False
            nodes: int = health["number_of_nodes"]
            return health["status"] == "green" and nodes == len(self.cluster.nodes)

        await wait_until(is_green, timeout=180, what="all copies of the index are there again")

    async def until_all_work(self) -> None:
        """Wait until every partition decides, and the view has what was decided."""
        await self.traffic.until_deciding()
        await self.view.catch_up()

    def party(self, node: ServerProcess) -> Party:
        """Return a node as a party of the network."""
        assert node.pid is not None
        ports = self.cluster.advertised[self.cluster.nodes.index(node)]
        return Party(node.pid, frozenset(ports))

    def others(self, than: ServerProcess) -> list[Party]:
        """Return all nodes but this one, as parties of the network."""
        return [self.party(node) for node in self.cluster.nodes if node is not than]

    async def _primary(self, witness: ServerProcess) -> ServerProcess | None:
        try:
            async with self.client_of(witness) as client:
                found = await client.search_shards(index=self.index)
        except (Transient, NoSuchView):
            return None
        for one in found["shards"][0]:
            if one["primary"] and one["state"] == "STARTED":
                return self.cluster.node_named(found["nodes"][one["node"]]["name"])
        return None

    async def _contents(self, node: str) -> dict[str, Any]:
        """Return all documents of the copy on a node, by id; refreshed before."""
        found: dict[str, Any] = {}
        while True:
            with translating(self.client):
                page = await self.client.search(
                    index=self.index,
                    preference=f"_only_nodes:{node}",
                    query={"exists": {"field": "id"}},
                    size=_PAGE,
                    sort=["id"],
                    search_after=[max(found)] if found else None,
                    allow_partial_search_results=False,
                )
            hits = page["hits"]["hits"]
            found |= {hit["_id"]: hit["_source"] for hit in hits}
            if len(hits) < _PAGE:
                return found

    async def check_copies(self) -> None:
        """Check that the documents of all copies are equal, and are what the checkpoints say.

        Raises:
            Failed: they are not.
        """
        await self.until_green()
        with translating(self.client):
            await self.client.indices.refresh(index=self.index)
        copies = [await self._contents(node) for node in await self.copies()]
        require(len(copies) > 1, "there is one copy only")
        for other in copies[1:]:
            differ = [key for key in copies[0] | other if copies[0].get(key) != other.get(key)]
            require(not differ, f"copies of the index differ in {len(differ)} documents: {differ}")
        (status,) = await status_of(
            self.deployed.settings, USER_VIEWS, check=True, progress=no_progress
        )
        require(status.complete is True, f"the documents do not add up: {status}")


Fail = Callable[[SearchNodes], Awaitable[None]]


async def fail_nodes(
    run: Run, fail: Fail, *, nodes: int = 3, changes: Mapping[str, object] = MappingProxyType({})
) -> None:
    """Let `fail` break things under traffic and searches; then everything must be right again.

    The index has a replica on every other node. No worker is started again.
    """
    async with _open(run, nodes, changes) as found:
        done, outages, reading = asyncio.Event(), found.outages, found.reading
        querying = BackgroundQueries(found.queries, found.watched, 100, done, outages)

        async def fail_and_end() -> None:
            await fail(found)
            await found.until_all_work()
            done.set()

        await gather_or_cancel(fail_and_end(), querying.run(), reading.until(done))
        await found.traffic.finish()
        await found.view.catch_up()
        await found.check_copies()
        await run.verify(found.deployed, sent=found.traffic.sent + reading.users)
    run.result.figures |= {
        f"{nodes} nodes: queries answered": querying.executed,
        f"{nodes} nodes: queries that failed": outages.failures,
        f"{nodes} nodes: a query failed for at most s": round(outages.longest, 1),
        f"{nodes} nodes: writes that were read": reading.pairs,
        f"{nodes} nodes: a write was read after at most s": round(reading.longest, 1),
    }


@asynccontextmanager
async def _open(run: Run, nodes: int, changes: Mapping[str, object]) -> AsyncIterator[SearchNodes]:
    network = run.resources.enter_context(Network.running())
    cluster = run.resources.enter_context(
        ElasticsearchCluster.temporary(
            nodes=nodes, changes={**run.pick(SOON, {}), **changes}, proxy_of=network.proxy_to
        )
    )
    servers = StackAddress(run.stack.bootstrap_servers, cluster.elasticsearch_url)
    deployed = await run.deploy(
        *("commands", "views", "views"),
        servers=servers,
        partitions=_PARTITIONS,
        view_replicas=nodes - 1,
    )
    watched: dict[str, str] = {}
    commands = commands_around(watched, run.seed, users=_WATCHED_USERS, out_of=_WATCHED_USERS)
    async with (
        open_traffic(deployed, records_of(commands), rate=_RATE) as traffic,
        open_view_positions(deployed, servers) as view,
        connect(deployed.settings, timeout=_REQUEST_TIMEOUT_S) as client,
        open_commands(deployed.settings) as bus,
        open_queries(deployed.settings) as queries,
    ):
        traffic.burst(_WATCHED_USERS)
        await traffic.wait_for_decided(_WATCHED_USERS)
        outages = Outages()
        reading = Reading(bus, queries, clients=_CLIENTS, timeout=_QUERY_TIMEOUT_S, outages=outages)
        opened = SearchNodes(
            *(run, cluster, network, deployed, traffic, view, client, watched),
            *(queries, outages, reading),
        )
        await opened.until_all_work()
        await opened.until_green()
        yield opened
