"""A part of F8: states are deleted from the changelog while another worker has the partition."""

from __future__ import annotations

import asyncio
import random
from datetime import datetime, timezone

from faust.types import TP
from tenacity import AsyncRetrying, retry_if_exception_type

from agents.client import open_commands
from agents.users import COMMAND_WORKER
from deploy.ephemeral import Deployment, WorkerProcess
from deploy.waiting import wait_until
from models.commands import DeactivateUser
from models.errors import Transient
from models.outcomes import Rejection
from models.user import User
from streams.commands.client import KafkaCommandBus
from streams.kafka.partitioner import partition_of
from streams.kafka.transactions import Fenced, OutputRecord, TransactionalProducer
from streams.state.snapshot import Snapshot, encode_snapshot
from tests.faults.scenario import Run
from tests.harness.checks import require

_VERSION = 3
_NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
_USER = User("ghost@example.org", "Ghost", "Writer", "web", True, _NOW, _NOW)


async def erase_states(run: Run, rng: random.Random) -> None:
    """Delete a state while its partition is elsewhere: its old owner must not use it again.

    Only the changelog has the user's state, there are no events: `verify` finds changelog and
    events consistent again once the state is deleted. The owner of the partition names the version
    that it has in memory when it rejects a command that expects another one; such a command has no
    other effect.
    """
    rounds = run.pick(1, 5)
    deployed = await run.deploy("commands", "views", session_timeout=3.0, outcome_timeout=120.0)
    partitions = deployed.settings.partitions
    async with open_commands(deployed.settings) as commands:
        for _ in range(rounds):
            users = [_id_in(rng, partition, partitions) for partition in range(partitions)]
            state = encode_snapshot(Snapshot(_USER, _VERSION, ()))
            await _write(deployed, users, state)
            await _check_versions(commands, users, _VERSION)
            # One partition moves to another worker, and back.
            other = deployed.start("commands")
            await _until_at_work(other)
            await _write(deployed, users, None)
            run.result.faults += len(users)
            deployed.workers.remove(other)
            code = await asyncio.to_thread(other.terminate)
            require(code == 0, f"the other worker ended with code {code}")
            await _check_versions(commands, users, 0)
    await run.verify(deployed)


async def _until_at_work(worker: WorkerProcess) -> None:
    await wait_until(
        lambda: worker.has_begun,
        timeout=60,
        what="the other worker gets a partition",
    )


def _id_in(rng: random.Random, partition: int, partitions: int) -> str:
    """Return a random id of this partition."""
    while True:
        user = f"user-{rng.getrandbits(64):016x}"
        if partition_of(user.encode(), partitions) == partition:
            return user


async def _write(deployed: Deployment, users: list[str], state: bytes | None) -> None:
    """Write a state of each user, one per partition, as the owner of the partition would."""
    settings, names = deployed.settings, deployed.names
    for partition, user in enumerate(users):
        tp = TP(names.commands, partition)
        producer = TransactionalProducer(settings, settings.namespace + COMMAND_WORKER, tp)
        # A worker that takes the partition over meanwhile is the owner then.
        async for attempt in AsyncRetrying(retry=retry_if_exception_type((Fenced, Transient))):
            with attempt:
                await producer.start()
                try:
                    record = OutputRecord(user.encode(), state)
                    await producer.commit({names.changelog: producer.batches([record])})
                finally:
                    await producer.close()


async def _check_versions(commands: KafkaCommandBus, users: list[str], version: int) -> None:
    for user in users:
        probe = DeactivateUser(aggregate_id=user, expected_version=_VERSION + 1)
        outcome = await commands.dispatch(probe)
        require(isinstance(outcome, Rejection), f"the outcome of a probe is {outcome}")
        assert isinstance(outcome, Rejection)
        require(
            outcome.reason.endswith(f"but the version is {version}"),
            f"the changelog has version {version} of {user}, the worker: {outcome.reason}",
        )
