"""How far a view is, read from Kafka and Elasticsearch directly, not through a proxy."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager

from aiokafka.structs import TopicPartition
from elasticsearch import AsyncElasticsearch

from agents.user_views import USER_VIEWS
from deploy.ephemeral import Deployment, Servers
from deploy.waiting import wait_until
from models.errors import NoSuchView
from streams.elasticsearch.connection import connect, translating
from streams.kafka.log_reader import LogReader, open_logs
from streams.kafka.topics import partitions_of
from streams.views.reader import ViewReader

Positions = Mapping[TopicPartition, int]

_CATCH_UP_TIMEOUT_S = 600.0
_REQUEST_TIMEOUT_S = 60.0


class ViewPositions:
    """Reads the positions and versions of a deployment's view. Call one method at a time."""

    def __init__(
        self,
        deployed: Deployment,
        logs: LogReader,
        client: AsyncElasticsearch,
    ) -> None:
        self.logs = logs
        self._alias = deployed.settings.namespace + USER_VIEWS.name
        self._store = ViewReader(client, self._alias)
        self._partitions = _partitions(deployed)
        self._client = client

    async def positions(self) -> Positions:
        """Return the checkpoint of the serving index for each partition of the event topic."""
        try:
            found = await self._store.checkpoints(tp.partition for tp in self._partitions)
        except NoSuchView:  # it is still being loaded
            return dict.fromkeys(self._partitions, 0)
        return {tp: found.checkpoints[tp.partition].position for tp in self._partitions}

    async def ends(self) -> Positions:
        """Return the positions that the view reaches with all events that exist now."""
        return await self.logs.readable_ends(self._partitions)

    async def catch_up(self) -> None:
        """Wait until the view has all events that exist now."""
        ends = await self.ends()

        async def reached() -> bool:
            positions = await self.positions()
            return all(positions[tp] >= end for tp, end in ends.items())

        await wait_until(reached, timeout=_CATCH_UP_TIMEOUT_S, what="the view has all events")

    async def versions(self, ids: Collection[str]) -> Mapping[str, int]:
        """Return the versions of those documents that exist, refreshed or not."""
        if not ids:
            return {}
        with translating(self._client):
            found = await self._client.mget(index=self._alias, ids=list(ids), source=["version"])
        return {
            item["_id"]: item["_source"]["version"] for item in found["docs"] if item.get("found")
        }

    async def written(self) -> int:
        """Return the number of documents that Elasticsearch has written since it started."""
        with translating(self._client):
            found = await self._client.indices.stats(index=self._alias, metric="indexing")
        return int(found["_all"]["primaries"]["indexing"]["index_total"])


@asynccontextmanager
async def open_view_positions(
    deployed: Deployment, servers: Servers
) -> AsyncIterator[ViewPositions]:
    """Open a reader of a deployment's view; `servers` have the addresses behind any proxy."""
    settings = deployed.settings.model_copy(update={"elasticsearch_url": servers.elasticsearch_url})
    async with (
        open_logs(settings, _partitions(deployed)) as logs,
        connect(settings, timeout=_REQUEST_TIMEOUT_S) as client,
    ):
        yield ViewPositions(deployed, logs, client)


def _partitions(deployed: Deployment) -> list[TopicPartition]:
    return partitions_of(deployed.settings, deployed.names.events)
