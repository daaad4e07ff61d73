"""The consumer group of the processes that a benchmark lets work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import TopicPartition

from benchmarks.rig.process import RunningContestant
from streams.kafka.groups import committed_positions, describe_group


class ContestantGroup:
    """A consumer group, observed from outside; its processes must not end meanwhile."""

    def __init__(
        self,
        admin: AIOKafkaAdminClient,
        name: str,
        partitions: Sequence[TopicPartition],
        processes: Sequence[RunningContestant],
        *,
        members: int,
    ) -> None:
        """Create it.

        Args:
            admin: connected to Kafka.
            name: name of the group.
            partitions: those that it reads.
            processes: all that are in it.
            members: its number of members when all processes have joined it.
        """
        self._admin = admin
        self._name = name
        self._partitions = partitions
        self._processes = processes
        self._members = members

    async def is_complete(self) -> bool:
        """Check whether all members have joined and the group is stable.

        Raises:
            Fatal: a process has ended.
        """
        self._check()
        group = await describe_group(self._admin, self._name)
        return group.members == self._members and not group.is_rebalancing

    async def positions(self) -> Mapping[TopicPartition, int]:
        """Return what the group has committed; that costs the broker almost nothing.

        Raises:
            Fatal: a process has ended.
        """
        self._check()
        return await committed_positions(self._admin, self._name, self._partitions)

    def cpu_seconds(self) -> list[float]:
        """Return the CPU seconds that each process has used so far."""
        return [process.cpu_seconds() for process in self._processes]

    def _check(self) -> None:
        for process in self._processes:
            process.check()
