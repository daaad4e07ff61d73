"""Deployments for tests: topics and workers in a namespace of their own, on shared servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

from deploy.embedded.processes import ServerProcess
from deploy.ephemeral import (
    Deployment,
    Servers,
    WorkerProcess,
    create_user_topics,
    new_settings,
    open_deployment,
)
from deploy.supervisor import Role
from deploy.waiting import wait_until
from models.errors import Fatal
from streams.elasticsearch.connection import connect
from streams.kafka.clients import admin_client
from streams.settings import Settings

T = TypeVar("T")


def run_apart(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in another thread, even while an event loop runs in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


@contextmanager
def deployment(servers: Servers, *roles: Role, **changes: Any) -> Iterator[Deployment]:
    """Create a namespace with all topics of users, and start a worker of each role."""
    settings = new_settings(servers, **changes)
    run_apart(create_user_topics(settings))
    with open_deployment(settings, roles) as deployed:
        yield deployed


async def create_again(settings: Settings, topic: str) -> None:
    """Delete a topic of users and create it again, empty."""
    async with admin_client(settings) as admin:
        await admin.delete_topics([topic])

        async def is_gone() -> bool:
            return topic not in await admin.list_topics()

        await wait_until(is_gone, what=f"{topic} is deleted")
    await create_user_topics(settings)


async def delete_all_data(servers: Servers) -> None:
    """Delete all topics and indices."""
    settings = new_settings(servers)
    async with admin_client(settings) as admin:
        topics = await admin.list_topics()
        await admin.delete_topics([topic for topic in topics if not topic.startswith("__")])
    async with connect(settings, timeout=30) as client:
        for index in await client.indices.get(index="*", expand_wildcards=["open", "closed"]):
            await client.indices.delete(index=index)


async def until_processing(worker: WorkerProcess) -> None:
    """Wait until a worker has begun to process a partition."""
    await wait_until(lambda: worker.has_begun)


@asynccontextmanager
async def suspended(server: ServerProcess, settings: Settings) -> AsyncIterator[None]:
    """Suspend a server for the block: it accepts connections and does not reply.

    Afterwards wait until Kafka replies.
    """

    async def kafka_replies() -> bool:
        try:
            async with admin_client(settings) as admin:
                return bool(await admin.list_topics())
        except Fatal:
            return False

    process = server.process
    assert process is not None, "it does not run"
    process.suspend()
    try:
        yield
    finally:
        process.resume()
        await wait_until(kafka_replies)
