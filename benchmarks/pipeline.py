"""How fast commands are decided and documents become searchable, on a stack of its own.

    python -m benchmarks.pipeline --commands 100000 --rounds 3
    python -m benchmarks.pipeline --commands 20000 --encryption

Each round is a new deployment. First the commands are put on the topic and one command worker
decides them; the rate is taken from the times of the outcomes' records. Then one view worker
projects their events; the rate is taken until a search sees every document. At last both work at
once on registrations, from the first one sent to the last document found. With `--encryption` each
round is followed by the same one with personal data encrypted. Prints JSON.

The first round finds servers that have just started, their code not compiled yet: it is told apart.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError
from aiokafka.structs import TopicPartition
from pydantic import SecretStr

from agents.user_views import USER_VIEWS
from agents.users import COMMAND_WORKER, USERS
from deploy.connect import environment
from deploy.embedded.stack import EmbeddedStack
from deploy.generate import generate, plan, tally
from deploy.workers import Role, running_worker
from models.errors import Fatal, Transient
from streams.aggregate import Names
from streams.bulk import BulkSender
from streams.kafka import admin_client, new_consumer, new_producer
from streams.keys import new_master_key
from streams.settings import Settings
from streams.topics import create_topics, topic_specs
from streams.view_store import ViewStore, open_view_store

SEED = 42


@contextmanager
def worker(role: Role, settings: Settings) -> Iterator[None]:
    """One worker process, as a user would start it."""
    with running_worker(role, environment(settings), Path(os.devnull)):
        yield


async def new_deployment(stack: EmbeddedStack, encrypted: bool) -> tuple[Settings, Names]:
    """A namespace with topics of its own."""
    settings = Settings(
        bootstrap_servers=stack.bootstrap_servers,
        elasticsearch_url=stack.elasticsearch_url,
        namespace=f"bench{uuid4().hex[:8]}-",
        encrypt_personal_data=encrypted,
        master_key=SecretStr(new_master_key()) if encrypted else None,
    )
    names = Names(settings.namespace, USERS.name)
    await create_topics(settings, topic_specs(settings, names))
    return settings, names


async def send(settings: Settings, names: Names, commands: Iterable[dict[str, Any]]) -> None:
    """Put commands on the topic."""
    async with new_producer(settings) as producer:
        sender = BulkSender(producer, names.commands, settings.partitions)
        for command in commands:
            await sender.add(command["aggregateId"].encode(), orjson.dumps(command))
        await sender.flush()


async def decide(settings: Settings, names: Names) -> float:
    """Seconds in which one worker decides what is on the topic.

    While it works only its position is asked for, twice a second; the times are read afterwards.
    """
    commands = [TopicPartition(names.commands, n) for n in range(settings.partitions)]
    outcomes = [TopicPartition(names.outcomes, n) for n in range(settings.partitions)]
    async with new_consumer(settings) as consumer:
        consumer.assign(outcomes)
        consumer.pause(*outcomes)
        ends = await consumer.end_offsets(commands)
        with worker("commands", settings):
            async with admin_client(settings) as admin:
                decided = 0
                while decided < sum(ends.values()):
                    await asyncio.sleep(0.5)
                    with suppress(GroupCoordinatorNotAvailableError):  # the group is new
                        decided = await _positions(admin, settings)
        consumer.resume(*outcomes)
        first, last = math.inf, 0.0
        for tp, end in (await consumer.end_offsets(outcomes)).items():
            while await consumer.position(tp) < end:
                for record in (await consumer.getmany(tp, timeout_ms=50)).get(tp, ()):
                    first, last = min(first, record.timestamp), max(last, record.timestamp)
    return (last - first) / 1000


async def _positions(admin: AIOKafkaAdminClient, settings: Settings) -> int:
    """The sum of the command workers' committed positions."""
    offsets = await admin.list_consumer_group_offsets(f"{settings.namespace}{COMMAND_WORKER}")
    return sum(max(0, found.offset) for found in offsets.values())


async def found(store: ViewStore, documents: int) -> float:
    """Wait until so many documents can be found; returns since when the first one could."""
    first = None
    while True:
        with suppress(Fatal, Transient):  # the worker has not made the index yet
            count = await store.count()  # of what the index's own refreshes have made searchable
            if first is None and (count or not documents):
                first = time.monotonic()
            if first is not None and count >= documents:
                return first
        await asyncio.sleep(0.1)


async def run_round(stack: EmbeddedStack, count: int, encrypted: bool = False) -> dict[str, float]:
    """All three figures, per second."""
    documents = tally(plan(count, SEED)).documents
    settings, names = await new_deployment(stack, encrypted)
    await send(settings, names, generate(count, SEED))
    deciding = await decide(settings, names)
    async with open_view_store(settings, USER_VIEWS, timeout=30) as store:
        with worker("views", settings):
            projecting = -await found(store, documents) + time.monotonic()

    settings, names = await new_deployment(stack, encrypted)
    async with open_view_store(settings, USER_VIEWS, timeout=30) as store:
        with worker("commands", settings), worker("views", settings):
            registrations = [
                command
                for command, status in plan(count, SEED)
                if status == "accepted" and command["type"] == "RegisterUser"
            ]
            await found(store, 0)  # both are up
            begin = time.monotonic()
            await send(settings, names, registrations)
            await found(store, documents)
            end_to_end = time.monotonic() - begin
    return {
        "decided_commands": count / deciding,
        "projected_documents": documents / projecting,
        "end_to_end_documents": documents / end_to_end,
    }


async def run_both(stack: EmbeddedStack, count: int, encryption: bool) -> dict[str, float]:
    """The figures of a round and, if that is wanted, of the same one with encryption."""
    figures = await run_round(stack, count)
    if encryption:
        encrypted = await run_round(stack, count, encrypted=True)
        figures |= {f"encrypted_{name}": value for name, value in encrypted.items()}
    return figures


def main() -> None:
    """Run the rounds and print medians and spread."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--commands", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--encryption", action="store_true", help="without and with it, by turns")
    arguments = parser.parse_args()
    with EmbeddedStack.temporary() as stack:
        cold, *rounds = [
            asyncio.run(run_both(stack, arguments.commands, arguments.encryption))
            for _ in range(1 + arguments.rounds)
        ]
    figures = {
        f"{name}_per_second": {
            "median": round(statistics.median(one[name] for one in rounds)),
            "rounds": [round(one[name]) for one in rounds],
            "cold": round(cold[name]),
        }
        for name in rounds[0]
    }
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "seed": SEED}
    json.dump({**figures, "commands": arguments.commands, **machine}, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
