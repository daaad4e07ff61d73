"""What a view worker does while Elasticsearch is not itself: it waits, says so, and goes on."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from agents.user_audit import verify_users
from agents.user_views import USER_VIEWS
from deploy.embedded.ports import choose_ports
from deploy.ephemeral import Deployment
from deploy.samples.commands import generate
from deploy.waiting import wait_until
from streams.elasticsearch.connection import connect
from tests.conftest import Deploy
from tests.harness.elasticsearch_proxy import Cut, Fault, FaultProxy, Refuse
from tests.harness.exposition import get, scrape
from tests.harness.traffic import open_traffic, records_of


async def health(deployed: Deployment) -> dict[str, Any]:
    url = f"http://127.0.0.1:{deployed.settings.health_port}/health"
    async with aiohttp.ClientSession() as client:
        try:
            async with client.get(url) as answer:
                return {"status": answer.status, **await answer.json()}
        except aiohttp.ClientConnectionError:
            return {"status": 0}


async def is_well(deployed: Deployment) -> bool:
    found = await health(deployed)
    return bool(found["status"] == 200 and len(found["partitions"]) == 2)


async def waits(deployed: Deployment) -> bool:
    return bool((await health(deployed))["status"] == 503)


@asynccontextmanager
async def view_worker(deploy: Deploy, **changes: Any) -> AsyncIterator[Deployment]:
    """A command worker, and a view worker whose health can be asked; it is well to begin with."""
    port = int(choose_ports(None, None, None).bootstrap_servers.rpartition(":")[2])
    deployed = deploy("commands", **changes)
    deployed.settings = deployed.settings.model_copy(update={"health_port": port})
    worker = deployed.start("views")
    await wait_until(lambda: is_well(deployed) if "searches see" in worker.log_text else False)
    yield deployed
    assert worker.is_running


async def send(deployed: Deployment, commands: int) -> None:
    stream = generate(commands, seed=commands)
    async with open_traffic(deployed, records_of(stream)) as traffic:
        traffic.burst(commands)
        await traffic.finish()


@pytest.mark.parametrize("fault", [Refuse(429), Refuse(503), Cut("before")])
async def test_elasticsearch_is_down(stack: Any, deploy: Deploy, fault: Fault) -> None:
    proxy = FaultProxy(stack.elasticsearch_url, random.Random(1))
    async with proxy.serving(), view_worker(deploy, elasticsearch_url=proxy.url) as deployed:
        proxy.switch(fault)
        await wait_until(lambda: waits(deployed), timeout=60)  # also without any event
        await send(deployed, 300)
        assert await waits(deployed)
        proxy.switch(None)
        await wait_until(lambda: is_well(deployed), timeout=60)
        assert (await verify_users(deployed.settings)).first_violation is None


async def test_the_index_is_read_only(deploy: Deploy) -> None:
    """As Elasticsearch does by itself when a disk is nearly full."""
    async with view_worker(deploy) as deployed, connect(deployed.settings, timeout=30) as client:
        index = f"{deployed.settings.namespace}{USER_VIEWS.name}"
        block = "index.blocks.read_only_allow_delete"
        await client.indices.put_settings(index=index, settings={block: True})
        await send(deployed, 300)
        await wait_until(lambda: waits(deployed))
        (worker,) = deployed.of("views")
        await wait_until(lambda: "Projecting waits: " in worker.log_text)
        assert worker.log_text.count("Projecting waits: ") == 1  # in a minute
        assert (await get(worker, "/live"))[0] == 200
        status, body = await get(worker, "/ready")
        assert (status, "waiting" in body) == (503, True)
        found = await scrape(worker)
        assert found.sum("cqrs_partition_state", state="waiting") == 2
        assert found.value("cqrs_view_retries_total", index=f"{index}-v1") > 0
        await client.indices.put_settings(index=index, settings={block: None})
        await wait_until(lambda: is_well(deployed))
        assert (await verify_users(deployed.settings)).first_violation is None


async def test_the_index_has_no_active_shard(deploy: Deploy) -> None:
    """Red: it is there, and nobody can read or write it until it is open again."""
    async with view_worker(deploy) as deployed, connect(deployed.settings, timeout=30) as client:
        index = f"{deployed.settings.namespace}{USER_VIEWS.name}-v1"
        await client.indices.close(index=index)
        await wait_until(lambda: waits(deployed))
        await send(deployed, 300)
        await client.indices.open(index=index)
        await wait_until(lambda: is_well(deployed))
        assert (await verify_users(deployed.settings)).first_violation is None
