"""A command topic that is not the one that the state was made from: no command is lost silently.

It was deleted and created again, or has more partitions.
"""

from __future__ import annotations

import pytest
from aiokafka.admin import NewPartitions

from agents.users import COMMAND_WORKER, USERS
from deploy.ephemeral import Deployment
from deploy.samples.commands import generate
from deploy.waiting import wait_until
from models.errors import Fatal
from streams.audit.verify import verify
from streams.commands.adopt_topic import adopt_topic
from streams.kafka.clients import admin_client, new_producer
from streams.kafka.topics import topic_specs
from tests.conftest import Deploy
from tests.harness.command_line import cqrs
from tests.harness.deployments import create_again
from tests.harness.traffic import counting, send

ATTENTIVE = "tests.integration.attentive_worker"


async def send_users(deployed: Deployment, count: int, seed: int) -> None:
    async with new_producer(deployed.settings) as producer:
        await send(producer, deployed, generate(count, seed=seed))


async def test_a_topic_that_was_created_again_while_no_worker_ran(deploy: Deploy) -> None:
    """The worker stops although the new log is longer than the position; adopting lets it go on."""
    deployed = deploy("commands", partitions=1)
    settings, worker = deployed.settings, deployed.workers[0]
    async with counting(deployed) as outcomes:
        await send_users(deployed, 10, seed=1)
        await outcomes.reach(10)
        worker.terminate()
        await create_again(deployed.settings, deployed.names.commands)
        await send_users(deployed, 15, seed=2)

        worker.start()
        assert worker.wait() == 1
        assert "the topic was deleted and created again" in worker.log_text.splitlines()[-1]
        assert "`cqrs topics adopt 0`" in worker.log_text.splitlines()[-1]
        assert await outcomes.count() == 10
        with pytest.raises(Fatal, match="deleted and created again"):
            await verify(settings, USERS)
        refused = cqrs(settings, "topics", "skip-expired", "0", "--yes")
        assert "`cqrs topics adopt 0`" in refused.stderr

        done = cqrs(settings, "topics", "adopt", "--all", "--yes")
        assert done.returncode == 0, done.stderr
        assert "the position 10 refers to a former topic, the new one begins at 0" in done.stderr
        assert done.stdout.endswith("[0]: it continues at 0\n")
        assert "nothing to adopt" in cqrs(settings, "topics", "adopt", "0").stdout
        worker.start()
        await outcomes.reach(25)
    report = await verify(settings, USERS)
    assert report.first_violation is None
    assert report.commands == 15


async def test_a_topic_that_is_created_again_while_a_worker_runs(deploy: Deploy) -> None:
    deployed = deploy(partitions=1)
    worker = deployed.start("commands", app=ATTENTIVE)
    async with counting(deployed) as outcomes:
        await send_users(deployed, 10, seed=1)
        await outcomes.reach(10)
        await create_again(deployed.settings, deployed.names.commands)
        await send_users(deployed, 15, seed=2)
        assert worker.wait() == 1
        assert "`cqrs topics adopt 0`" in worker.log_text.splitlines()[-1]
        assert await outcomes.count() == 10
    assert await adopt_topic(deployed.settings, deployed.names, 0, COMMAND_WORKER) is not None


async def test_a_topic_that_is_created_again_and_longer_before_the_worker_looks(
    deploy: Deploy,
) -> None:
    """It reads on at its position as if nothing had happened: only the topic's id has changed."""
    deployed = deploy("commands", partitions=1)
    worker = deployed.workers[0]
    async with counting(deployed) as outcomes:
        await send_users(deployed, 10, seed=1)
        await outcomes.reach(10)
        worker.suspend()
        await create_again(deployed.settings, deployed.names.commands)
        await send_users(deployed, 15, seed=2)
        worker.resume()

        async def has_ended_or_decided() -> bool:
            return await outcomes.count() > 10 or worker.exit_code is not None

        await wait_until(has_ended_or_decided)
        assert outcomes.total == 10
        assert "`cqrs topics adopt 0`" in worker.log_text.splitlines()[-1]


async def test_partitions_that_are_added(deploy: Deploy) -> None:
    """First while a worker runs; then the setting follows, as a wrong advice would have it."""
    deployed = deploy(partitions=1)
    settings, names = deployed.settings, deployed.names
    worker = deployed.start("commands", app=ATTENTIVE)
    async with counting(deployed) as outcomes:
        await send_users(deployed, 10, seed=1)
        await outcomes.reach(10)
    async with admin_client(settings) as admin:
        for spec in topic_specs(settings, names):
            await admin.create_partitions({spec.name: NewPartitions(total_count=2)})
    assert worker.wait() == 1
    line = worker.log_text.splitlines()[-1]
    assert f"topic {names.commands} has more than 1 partitions, CQRS_PARTITIONS says 1" in line
    refused = cqrs(settings, "topics", "create")
    assert "has 2 partitions, CQRS_PARTITIONS says 1" in refused.stderr

    deployed.settings = settings.model_copy(update={"partitions": 2})
    two = deployed.start("commands")
    assert two.wait() == 1
    assert "its state was made with 1 partitions, now there are 2" in two.log_text
    assert not two.has_begun
