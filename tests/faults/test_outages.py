"""Servers that go away under load: workers wait, nothing is lost, and they go on by themselves."""

from __future__ import annotations

from itertools import islice

from deploy.embedded.stack import EmbeddedStack
from deploy.faults.waiting import wait_until
from deploy.generate import generate
from streams.kafka import new_producer
from tests.conftest import Deploy
from tests.faults.load import check, counting, send


async def test_elasticsearch_is_killed_amid_work(stack: EmbeddedStack, deploy: Deploy) -> None:
    """Deciding goes on without it; projecting waits, says so, and goes on when it is back."""
    deployed = deploy("commands", "views", partitions=2)
    views = deployed.workers[1]
    commands = generate(6000, seed=21)
    async with counting(deployed) as outcomes, new_producer(deployed.settings) as producer:
        sent = await send(producer, deployed, islice(commands, 2000))
        await outcomes.reach(sent)
        stack.elasticsearch.kill()
        try:
            sent += await send(producer, deployed, commands)
            await outcomes.reach(sent)
            await wait_until(lambda: "cannot be reached" in views.log_text)
        finally:
            stack.elasticsearch.start()
    report = await check(deployed)
    assert report.commands == 6000
    assert views.is_running
