"""What integration and fault tests stand on, beside `tests.harness`: deployments and the CLI."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from deploy.embedded.processes import ServerProcess
from deploy.environment import child_environment
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

ROOT = Path(__file__).parent.parent


def run_apart(work: Coroutine[Any, Any, T]) -> T:
    """Run this to its end, whether or not an event loop runs here."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


async def empty(servers: Servers) -> None:
    """Delete all topics and indices."""
    settings = new_settings(servers)
    async with admin_client(settings) as admin:
        topics = await admin.list_topics()
        await admin.delete_topics([topic for topic in topics if not topic.startswith("__")])
    async with connect(settings, timeout=30) as client:
        for index in await client.indices.get(index="*"):
            await client.indices.delete(index=index)


def cqrs(
    settings: Settings, *arguments: str, given: bytes = b"", timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end, with `given` on its standard input."""
    done = subprocess.run(
        cqrs_command(*arguments),
        cwd=ROOT,
        env=child_environment(settings),
        input=given,
        capture_output=True,
        timeout=timeout,
        check=False,
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def cqrs_command(*arguments: str) -> list[str]:
    """What runs the command line."""
    return [sys.executable, "-m", "deploy.cli", *arguments]


@contextmanager
def deployment(servers: Servers, *roles: Role, **changes: Any) -> Iterator[Deployment]:
    """A namespace of its own with all topics of users and a worker of each role."""
    settings = new_settings(servers, **changes)
    run_apart(create_user_topics(settings))
    with open_deployment(settings, roles) as deployed:
        yield deployed


async def going_on(worker: WorkerProcess) -> None:
    """Wait until it has begun to work on a partition."""
    await wait_until(lambda: worker.has_begun)


@asynccontextmanager
async def suspended(server: ServerProcess, settings: Settings) -> AsyncIterator[None]:
    """The time of a server stands still within the block: it takes everything, answers nothing.

    Kafka answers again after it.
    """

    async def kafka_answers() -> bool:
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
        await wait_until(kafka_answers)
