"""F18: partitions are added, to the command topic and then to all topics, amid work."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.admin import NewPartitions
from aiokafka.structs import TopicPartition

from agents.user_audit import verify_users
from deploy.ephemeral import Deployment
from deploy.samples.commands import generate
from models.errors import Fatal
from streams.kafka.clients import admin_client, new_producer, started
from streams.kafka.log_reader import open_logs
from streams.kafka.partitioner import partition_of
from streams.kafka.topics import topic_specs
from tests.faults.scenario import Run, Scenario
from tests.harness.checks import require
from tests.harness.command_line import cqrs
from tests.harness.deployments import create_again
from tests.harness.traffic import open_traffic, records_of

_PARTITIONS = 2
_MORE = 3  # not a multiple: half of the keys that stay on an old partition move to the other one

# They hear of new partitions within half a second, and not after five minutes.
_APP = "tests.integration.attentive_worker"

_REFUSAL = "the number is fixed for a deployment's life"


async def add_partitions(run: Run) -> None:
    """Add partitions, and send commands as a producer does that knows of them.

    Workers end with one line and refuse to start. No command may be decided where the state of its
    user is not: it is a dead letter, or stays undecided.
    """
    await _to_the_command_topic(run)
    await _to_all_topics(run)


async def _to_the_command_topic(run: Run) -> None:
    """Adopt a new topic, which is the way out, and send again what was not accepted."""
    deployed = await run.deploy("views", partitions=_PARTITIONS)
    sent = await _work_until_refused(run, deployed, [deployed.names.commands])
    accepted = await _check_outcomes(deployed, sent)
    await create_again(deployed.settings, deployed.names.commands)
    adopted = await asyncio.to_thread(cqrs, deployed.settings, "topics", "adopt", "--all", "--yes")
    require(adopted.returncode == 0, f"`cqrs topics adopt` failed: {adopted.stderr}")
    again = [command for command in sent if command["id"] not in accepted]
    async with open_traffic(deployed, records_of(again)) as traffic:
        for worker in deployed.of("commands"):
            worker.start()
        traffic.burst(len(again))
        await traffic.finish()
    await run.verify(deployed, sent=len(again))


async def _to_all_topics(run: Run) -> None:
    """Send all commands to another namespace, which is the way out."""
    deployed = await run.deploy(partitions=_PARTITIONS)
    specs = topic_specs(deployed.settings, deployed.names)
    sent = await _work_until_refused(run, deployed, [spec.name for spec in specs])
    await _check_outcomes(deployed, sent)
    deployed.settings = deployed.settings.model_copy(update={"partitions": _MORE})
    worker = deployed.start("commands")
    require(await asyncio.to_thread(worker.wait) == 1, "a worker accepts the new number")
    require(
        f"its state was made with {_PARTITIONS} partitions, now there are {_MORE}"
        in worker.log_text,
        "a worker with the new number does not say that the state has another one",
    )
    require(not worker.has_begun, "a worker with the new number has begun to decide")
    other = await run.deploy("commands", "views", partitions=_MORE)
    async with open_traffic(other, records_of(sent)) as traffic:
        traffic.burst(len(sent))
        await traffic.finish()
    await run.verify(other, sent=len(sent))


async def _work_until_refused(
    run: Run, deployed: Deployment, topics: Iterable[str]
) -> list[Mapping[str, Any]]:
    """Add partitions to topics amid work, wait until all workers have ended, return the commands.

    They are sent on as if there had always been as many partitions as there are.
    """
    for _ in range(2):
        deployed.start("commands", app=_APP)
    commands = generate(run.pick(2_000, 50_000), run.rng.randrange(1 << 30), duplicates=0.1)
    half = run.pick(1_000, 25_000)
    sent: list[Mapping[str, Any]] = [*islice(commands, half)]
    async with open_traffic(deployed, records_of(sent)) as traffic:
        traffic.burst(half)
        await traffic.wait_for_decided(run.rng.randrange(1, half))
        async with admin_client(deployed.settings) as admin:
            for topic in topics:
                await admin.create_partitions({topic: NewPartitions(total_count=_MORE)})
        run.result.faults += 1
        async with started(new_producer(deployed.settings), deployed.settings) as producer:
            more = list(commands)
            await asyncio.gather(*(_send(producer, deployed, command) for command in more))
            sent += more
        for worker in deployed.of("commands"):
            code = await asyncio.to_thread(worker.wait, 60)
            line = worker.log_text.splitlines()[-1]
            require(code == 1 and _REFUSAL in line, f"a worker ended with {code}: {line}")
    await _check_refused(deployed)
    return sent


async def _send(
    producer: AIOKafkaProducer, deployed: Deployment, command: Mapping[str, Any]
) -> None:
    key = command["aggregateId"].encode()
    await producer.send_and_wait(
        deployed.names.commands,
        json.dumps(command).encode(),
        key,
        partition=partition_of(key, _MORE),
    )


async def _check_refused(deployed: Deployment) -> None:
    """Check that a worker, `cqrs topics create` and `cqrs verify` refuse the topics."""
    worker = deployed.of("commands")[0]
    worker.start()
    code = await asyncio.to_thread(worker.wait)
    line = worker.log_text.splitlines()[-1]
    require(code == 1 and _REFUSAL in line, f"a worker that starts again: {code}, {line}")
    done = await asyncio.to_thread(cqrs, deployed.settings, "topics", "create")
    require(_REFUSAL in done.stderr, f"`cqrs topics create` says: {done.stderr}")
    try:
        await verify_users(deployed.settings, timeout=1)
    except Fatal as error:
        require(_REFUSAL in str(error), f"verify says of more partitions: {error}")
    else:
        require(False, "verify accepts more partitions")


async def _check_outcomes(deployed: Deployment, sent: list[Mapping[str, Any]]) -> set[str]:
    """Check that nothing was decided on a wrong partition, or twice; return what was accepted."""
    partitions = [TopicPartition(deployed.names.outcomes, number) for number in range(_PARTITIONS)]
    outcomes: list[tuple[int, Mapping[str, Any]]] = []
    async with open_logs(deployed.settings, partitions) as logs:
        for tp, end in (await logs.end_offsets(partitions)).items():
            async for records in logs.read(tp, 0, end):
                outcomes += [(tp.partition, json.loads(record.value)) for record in records]
    accepted = Counter(one["commandId"] for _, one in outcomes if one["status"] == "accepted")
    require(max(accepted.values()) == 1, "a command was accepted twice")
    for number, outcome in outcomes:
        belongs = partition_of(outcome["aggregateId"].encode(), _PARTITIONS) == number
        dead = outcome["status"] == "dead-lettered"
        require(belongs or dead, f"decided where it does not belong: {outcome}")
        require(not dead or outcome["code"] == "wrong-partition", f"dead-lettered: {outcome}")
    return set(accepted)


F18 = Scenario("F18", "partitions added to topics amid work", add_partitions)
