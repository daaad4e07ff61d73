"""What a worker finds when it takes a partition over, and what it makes of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, cast

import pytest
from aiokafka.admin import NewTopic
from aiokafka.client import ConnectionGroup, CoordinationType
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError, KafkaError
from aiokafka.protocol.transaction import EndTxnRequest
from aiokafka.structs import TopicPartition
from faust.types import TP

from agents.users import USERS
from deploy.embedded.stack import EmbeddedStack
from deploy.ephemeral import Deployment, WorkerProcess, create_user_topics, new_settings
from deploy.samples.commands import generate
from deploy.waiting import wait_until
from models.errors import Fatal
from streams.aggregate import TopicNames
from streams.audit.verify import verify
from streams.kafka.clients import admin_client, new_producer
from streams.kafka.log_reader import last_positions, open_logs
from streams.kafka.topic_ids import topic_id
from streams.kafka.topics import MIB, topic_specs
from streams.kafka.transactions import OutputRecord, TransactionalProducer
from tests.conftest import Deploy
from tests.harness.deployments import create_again
from tests.harness.traffic import counting, send


async def test_partitions_stay_where_their_state_is(deploy: Deploy) -> None:
    """A worker that comes or goes moves its share of the partitions and no other."""
    deployed = deploy(partitions=12)
    first = deployed.start("commands")
    await wait_until(lambda: len(taken_over(first)) == 12)
    second = deployed.start("commands")
    await wait_until(lambda: len(taken_over(second)) == 6)
    third = deployed.start("commands")
    await wait_until(lambda: len(taken_over(third)) == 4)
    third.terminate()
    await wait_until(lambda: len(taken_over(first) + taken_over(second)) >= 12 + 6 + 4)
    shared = {*taken_over(first)[12:], *taken_over(second)[6:]}
    assert shared == set(taken_over(third))
    assert (len(taken_over(first)), len(taken_over(second))) == (12 + 2, 6 + 2)


def taken_over(worker: WorkerProcess) -> list[int]:
    """The partitions that a worker has started, in this order; one that it keeps starts once."""
    return [
        int(number) for number in re.findall(r"\[(\d+)\]: continuing at position", worker.log_text)
    ]


async def decide_ten(deployed: Deployment) -> None:
    """Send ten commands, and wait for the first ten outcomes of the topic."""
    async with counting(deployed) as outcomes, new_producer(deployed.settings) as producer:
        await send(producer, deployed, generate(10))
        await outcomes.reach(10)


async def test_a_first_transaction_that_was_aborted(deploy: Deploy) -> None:
    """It leaves records and a marker on the event topic, and yet no event."""
    deployed = deploy(partitions=1)
    settings, names = deployed.settings, deployed.names
    group = f"{settings.namespace}users-commands"
    async with new_producer(settings, transactional_id=f"{group}-{names.commands}-0") as dead_owner:
        await dead_owner.begin_transaction()
        await dead_owner.send_and_wait(names.events, b"{}", b"user-1", partition=0)
        await dead_owner.abort_transaction()
    deployed.start("commands")
    await decide_ten(deployed)


async def test_a_commit_that_arrives_late_ends_no_later_transaction(
    stack: EmbeddedStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection breaks while it is under way, and it arrives amid the next transaction."""
    settings = new_settings(stack, partitions=1)
    await create_user_topics(settings)
    names = TopicNames.of(settings, "users")
    owner = TransactionalProducer(settings, f"{settings.namespace}app", TP(names.commands, 0))
    under_way: list[EndTxnRequest] = []
    send = AIOKafkaConnection.send

    def lose_the_first_end(self: Any, request: Any, *options: Any) -> Any:
        if isinstance(request, EndTxnRequest) and not under_way:
            under_way.append(request)
            raise KafkaConnectionError("the connection breaks")
        return send(self, request, *options)

    monkeypatch.setattr(AIOKafkaConnection, "send", lose_the_first_end)
    await owner.start()
    first = OutputRecord(b"anna", b"first")
    try:
        await owner.commit({names.outcomes: owner.batches([first])})
    except KafkaError:
        await owner.start()  # as the driver of the partition does
    producer = cast(Any, owner)._producer
    await producer.begin_transaction()
    await producer.send_and_wait(names.events, b"second", b"anna", partition=0)
    transactional_id = producer._txn_manager.transactional_id
    kind, group = CoordinationType.TRANSACTION, ConnectionGroup.COORDINATION
    coordinator = await producer.client.coordinator_lookup(kind, transactional_id)
    await producer.client.send(coordinator, under_way[0], group=group)
    await owner.close()
    assert (await last_positions(settings, names.events))[0] == 0  # nothing was committed


async def test_a_changelog_that_was_lost(deploy: Deploy) -> None:
    """Events without any state: deciding again would repeat them, so the worker stops."""
    deployed = deploy("commands", partitions=1)
    settings, names = deployed.settings, deployed.names
    worker = deployed.workers[0]
    await decide_ten(deployed)
    worker.terminate()
    await create_again(settings, names.changelog)
    worker.start()
    assert worker.wait() == 1
    assert "the state was lost" in worker.log_text.splitlines()[-1]


async def test_a_changelog_that_is_created_again_while_a_worker_runs(deploy: Deploy) -> None:
    """Nothing is decided after it, so nothing hides from the next owner that the state is lost."""
    deployed = deploy("commands", partitions=1)
    settings, names = deployed.settings, deployed.names
    worker = deployed.workers[0]
    await decide_ten(deployed)
    await create_again(settings, names.changelog)
    async with counting(deployed) as outcomes, new_producer(settings) as producer:
        await send(producer, deployed, generate(10, seed=2))
        await wait_until(lambda: "the state was lost" in worker.log_text)
        await outcomes.reach(10)
        assert await outcomes.count() == 10


async def test_a_local_store_is_not_used_for_topics_that_were_created_again(
    deploy: Deploy, tmp_path: Path
) -> None:
    """What was decided in topics of the same names is forgotten: the same commands are accepted."""
    deployed = deploy("commands", partitions=1, state_dir=tmp_path)
    settings, names = deployed.settings, deployed.names
    worker = deployed.workers[0]
    former = await topic_id(settings, names.changelog)
    await decide_ten(deployed)
    worker.terminate()
    for spec in topic_specs(settings, names):
        await create_again(settings, spec.name)
    new = await topic_id(settings, names.changelog)
    assert len(former) == len(new) == 32
    assert former != new
    worker.start()
    await decide_ten(deployed)
    assert f"its id is {former}[0], not {new}[0]" in worker.log_text
    assert (await verify(settings, USERS)).events == 10


async def test_an_event_topic_with_retention_is_refused(stack: EmbeddedStack) -> None:
    settings = new_settings(stack)
    names = TopicNames.of(settings, "users")
    async with admin_client(settings) as admin:
        configs = {"max.message.bytes": str(4 * 1024 * 1024), "retention.ms": "604800000"}
        await admin.create_topics([NewTopic(names.events, 2, 1, topic_configs=configs)])
    with pytest.raises(Fatal, match=r"has retention.ms=604800000, it must be -1"):
        await create_user_topics(settings)


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_compressed_commands(deploy: Deploy, codec: str) -> None:
    """Whatever a producer compresses with is read, also when it is far larger than it looks."""
    deployed = deploy("commands", partitions=1)
    async with (
        counting(deployed) as outcomes,
        new_producer(
            deployed.settings, compression_type=codec, max_request_size=64 * 1024 * 1024
        ) as producer,
    ):
        sent = await send(producer, deployed, generate(50))
        blanks = b" " * (6 * 1024 * 1024) + json.dumps({"type": "Nothing"}).encode()
        await producer.send_and_wait(deployed.names.commands, blanks, b"user-1", partition=0)
        sent += 1 + await send(producer, deployed, generate(10, seed=2))
        await outcomes.reach(sent)
    assert deployed.workers[0].is_running


@pytest.mark.parametrize(
    "giant",
    [
        {"key": b"k" * (6 * 1024 * 1024)},
        {"value": b" " * (6 * 1024 * 1024)},
        {"headers": [("", b"")] * (3 * 1024 * 1024)},
    ],
    ids=lambda giant: next(iter(giant)),
)
async def test_a_record_too_large_for_its_dead_letter(
    deploy: Deploy, giant: dict[str, Any]
) -> None:
    """Small as it was compressed, it has parts that no topic takes again: it must stop nobody."""
    deployed = deploy("commands", partitions=1)
    async with (
        counting(deployed) as outcomes,
        new_producer(
            deployed.settings, compression_type="gzip", max_request_size=64 * 1024 * 1024
        ) as producer,
    ):
        record = {"key": b"user-1", "value": b"{}", **giant}
        await producer.send_and_wait(deployed.names.commands, partition=0, **record)
        sent = 1 + await send(producer, deployed, generate(10))
        await outcomes.reach(sent)
    report = await verify(deployed.settings, USERS)
    assert (report.first_violation, report.dead) == (None, 1)


async def test_one_transaction_carries_a_bounded_number_of_bytes(deploy: Deploy) -> None:
    """However well they were compressed: one fetch brings all of these."""
    deployed = deploy(partitions=1)
    settings, names = deployed.settings, deployed.names
    changelog = TopicPartition(names.changelog, 0)
    async with (
        counting(deployed) as outcomes,
        new_producer(settings, compression_type="gzip") as producer,
        open_logs(settings, [changelog]) as logs,
    ):
        for _ in range(48):
            await producer.send_and_wait(names.commands, b" " * MIB, b"user-1", partition=0)
        deployed.start("commands")
        await outcomes.reach(48)
        end = (await logs.end_offsets([changelog]))[changelog]
        transactions = [record async for part in logs.read(changelog, 0, end) for record in part]
    assert len(transactions) >= 2  # each writes its position, and there is no state
