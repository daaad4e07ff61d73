"""A rotation of the master key at each of whose moments a user is erased."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from unittest.mock import patch

from agents.client import open_commands
from agents.users import COMMAND_WORKER
from deploy.ephemeral import Deployment
from models.commands import EraseUser
from models.outcomes import Accepted
from streams.commands import rotate_keys as rotation
from streams.kafka.log_reader import open_logs
from streams.kafka.topics import partitions_of
from streams.kafka.transactions import Fenced, TransactionalProducer
from streams.settings import Settings
from tests.harness.checks import require


async def rotate_and_erase(new: Settings, deployed: Deployment, users: Iterable[str]) -> int:
    """Rotate partition 0 in small transactions, and erase one of these users before each step.

    That is after the keys were read and before their owner is fenced, and before each transaction.
    A worker has to run.

    Args:
        new: settings with both master keys, the new one first.
        deployed: of whose users the keys are wrapped anew.
        users: are erased, while there are some left.

    Returns how many transactions were refused because the worker had taken the partition over.
    """
    left = iter(users)
    fence, commit = TransactionalProducer.start, TransactionalProducer.commit
    refused = 0

    async def erase_one() -> None:
        user = next(left, None)
        if user is not None:
            async with open_commands(deployed.settings) as bus:
                outcome = await bus.dispatch(EraseUser(aggregate_id=user))
            require(isinstance(outcome, Accepted), f"{user} was not erased: {outcome}")

    async def erase_and_fence(self: TransactionalProducer) -> None:
        await erase_one()
        await fence(self)

    async def erase_and_commit(self: TransactionalProducer, *args: Any, **options: Any) -> Any:
        nonlocal refused
        await erase_one()
        try:
            return await commit(self, *args, **options)
        except Fenced:
            refused += 1
            raise

    with (
        patch.object(rotation, "MAX_KEYS", 2),
        patch.object(TransactionalProducer, "start", erase_and_fence),
        patch.object(TransactionalProducer, "commit", erase_and_commit),
    ):
        await rotation.rotate_keys(new, deployed.names, 0, COMMAND_WORKER)
    return refused


async def users_with_a_key(deployed: Deployment) -> set[str]:
    """Return the users whose data key was not destroyed, as the keys topic says."""
    found: set[bytes] = set()
    partitions = partitions_of(deployed.settings, deployed.names.keys)
    async with open_logs(deployed.settings, partitions) as logs:
        for partition, end in (await logs.end_offsets(partitions)).items():
            async for records in logs.read(partition, 0, end):
                for record in records:
                    change = found.discard if record.value is None else found.add
                    change(record.key)
    return {one.decode() for one in found}
