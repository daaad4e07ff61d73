"""The offsets of the workers' group: for tools that show its lag, and for nothing else."""

from __future__ import annotations

from agents.users import COMMAND_WORKER
from deploy.ephemeral import Deployment
from deploy.samples.commands import generate
from deploy.waiting import wait_until
from streams.kafka.clients import admin_client, new_producer
from streams.kafka.groups import committed_positions
from streams.kafka.topics import partitions_of
from tests.conftest import Deploy
from tests.harness.traffic import counting, send


async def test_the_groups_offsets_follow_a_worker(deploy: Deploy) -> None:
    """They come after what is decided; nothing more has to be sent for it."""
    deployed = deploy("commands", partitions=2)
    await decide(deployed, 10)

    async def no_lag() -> bool:
        return await committed(deployed) == 10

    await wait_until(no_lag)


async def test_a_worker_that_stops_leaves_no_lag_behind(deploy: Deploy) -> None:
    deployed = deploy("commands", partitions=2)
    await decide(deployed, 10)
    deployed.workers[0].terminate()
    assert await committed(deployed) == 10


async def decide(deployed: Deployment, commands: int) -> None:
    async with counting(deployed) as outcomes, new_producer(deployed.settings) as producer:
        await send(producer, deployed, generate(commands))
        await outcomes.reach(commands)


async def committed(deployed: Deployment) -> int:
    """How many commands the group has behind it, by its offsets."""
    settings, names = deployed.settings, deployed.names
    partitions = partitions_of(settings, names.commands)
    async with admin_client(settings) as admin:
        found = await committed_positions(admin, settings.namespace + COMMAND_WORKER, partitions)
    return sum(found.values())
