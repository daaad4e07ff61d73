"""What anybody may write to a topic that we read is one record: its neighbours never notice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import psutil  # type: ignore[import-untyped]
import pytest
from aiokafka import AIOKafkaProducer
from pydantic import SecretStr

from agents.client import open_commands, open_queries
from agents.user_audit import check_user_erasure, verify_users
from deploy.ephemeral import Deployment
from deploy.waiting import wait_until
from models.errors import NoSuchView
from models.outcomes import Accepted, DeadLettered, Rejection
from models.queries import GetUserById
from streams.encryption.keys import new_master_key
from streams.kafka.clients import new_producer, started
from streams.kafka.dead_letters import CODE
from streams.kafka.log_reader import open_logs
from streams.kafka.records import Record
from streams.kafka.topics import partitions_of
from tests.conftest import Deploy
from tests.harness.hostile_records import hostile_batches, send_batch
from tests.harness.users import register

MEMORY_BYTES = 600 << 20  # a bomb alone unpacks to 200 MiB, and is copied twice
BATCHES = hostile_batches()


@pytest.fixture
async def deployed(deploy: Deploy) -> AsyncIterator[Deployment]:
    """Workers that go on by themselves, in bounded memory."""
    deployed = deploy("commands", "views", partitions=1)
    await wait_until(lambda: all(worker.has_begun for worker in deployed.workers))
    pids = {worker.pid for worker in deployed.workers}
    yield deployed
    assert {worker.pid for worker in deployed.workers} == pids
    for worker in deployed.workers:
        assert worker.is_running, worker.log_text[-2000:]
        assert psutil.Process(worker.pid).memory_info().rss < MEMORY_BYTES


async def everything(deployed: Deployment, topic: str) -> list[Record]:
    """All records of a topic."""
    (partition,) = partitions_of(deployed.settings, topic)
    async with open_logs(deployed.settings, [partition]) as logs:
        end = (await logs.end_offsets([partition]))[partition]
        return [one async for records in logs.read(partition, 0, end) for one in records]


async def test_on_the_command_topic(deployed: Deployment) -> None:
    """Each has its outcome and its dead letter, if it is no command."""
    settings, names = deployed.settings, deployed.names
    async with open_commands(settings) as commands, started(new_producer(settings), settings) as by:
        first = await commands.dispatch(register("before"))
        offsets = [await send_batch(by, names.commands, 0, raw) for raw in BATCHES.values()]
        last = await commands.dispatch(register("after"))
        assert isinstance(first, Accepted)
        assert isinstance(last, Accepted)
    report = await verify_users(settings, timeout=60)
    assert report.ok, report.first_violation
    assert (report.accepted, report.dead) == (2, len(BATCHES))
    letters = await everything(deployed, names.dead_commands)
    assert [dict(one.headers)[CODE] for one in letters] == [
        b"oversized",
        b"missing-field",
        b"missing-field",
        b"oversized",
    ]
    assert [(one.key, one.value) for one in letters] == [
        (None, None),
        (b"hostile", b"{}"),
        (b"hostile", b"{}"),
        (None, None),
    ]
    assert offsets == sorted(offsets)


async def test_on_every_other_topic_that_is_read(deployed: Deployment) -> None:
    """Clients, workers, verify and the search for an erased user go on."""
    settings, names = deployed.settings, deployed.names
    topics = (names.events, names.outcomes, names.dead_commands, names.dead_views)
    async with (
        open_commands(settings) as commands,
        open_queries(settings) as queries,
        started(new_producer(settings), settings) as by,
    ):
        assert isinstance(await commands.dispatch(register("before")), Accepted)

        async def is_shown() -> bool:
            try:
                return await queries.execute(GetUserById("before")) is not None
            except NoSuchView:
                return False

        await wait_until(is_shown, timeout=60)
        await _send_all(by, topics)
        after = await commands.dispatch(register("after"))
        assert isinstance(after, Accepted)
        user = await queries.execute(GetUserById("after"), at_least=after.token, timeout=60)
        assert user is not None
    await wait_until(lambda: "dead letters to" in deployed.of("views")[0].log_text)
    report = await verify_users(settings, timeout=60)
    # They are no events and no outcomes: `verify` says so, and of nothing else.
    broken = {name for name, finding in report.findings.items() if not finding.ok}
    assert broken == {"I2", "I7"}
    assert report.accepted == 2
    erasure = await check_user_erasure(settings, "after")
    assert not erasure.ok


async def test_on_the_topics_of_the_state(deploy: Deploy) -> None:
    """Whose state or key a record may have replaced is not known, if it cannot be read."""
    deployed = deploy(
        *("commands", "views"),
        partitions=1,
        encrypt_personal_data=True,
        master_key=SecretStr(new_master_key()),
    )
    settings, names = deployed.settings, deployed.names
    worker, _ = deployed.workers
    async with (
        open_commands(settings) as commands,
        started(new_producer(settings), settings) as by,
    ):
        assert isinstance(await commands.dispatch(register("before")), Accepted)
        await _send_all(by, (names.changelog, names.keys))
        for starts in (1, 2):
            for each in deployed.workers:
                each.kill()
                each.start()
            again = await commands.dispatch(register("before"))
            assert isinstance(again, Rejection)
            assert again.code == "user-exists"
            assert isinstance(await commands.dispatch(register(f"after-{starts}")), Accepted)
            # Once: the position says that the states are complete.
            assert worker.log_text.count("rebuilt the state of") == 1
        hostile = await commands.dispatch(register("hostile"))
        assert isinstance(hostile, DeadLettered)
    assert "the record at offset" in worker.log_text
    report = await verify_users(settings, timeout=60)
    assert {name for name, finding in report.findings.items() if not finding.ok} == {"I3"}
    assert "hostile: its state cannot be read" in (report.first_violation or "")


async def _send_all(producer: AIOKafkaProducer, topics: tuple[str, ...]) -> None:
    await asyncio.gather(
        *(send_batch(producer, topic, 0, raw) for topic in topics for raw in BATCHES.values())
    )
