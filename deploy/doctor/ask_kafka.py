"""Asks Kafka for facts. It only reads, and joins no consumer group."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupAuthorizationFailedError
from aiokafka.structs import TopicPartition

from agents.users import COMMAND_WORKER, USERS
from agents.views import VIEWS
from deploy.doctor.facts import Backlog, Logs, OpenTransaction, WorkerGroup
from streams.aggregate import TopicNames
from streams.kafka.clients import admin_client, new_consumer, started
from streams.kafka.groups import committed_positions, describe_group
from streams.kafka.log_reader import read_to
from streams.kafka.permissions import NotAllowed, missing_rights
from streams.kafka.rights import Right
from streams.settings import Settings

# A record whose time is so far ahead of this host's clock says that one of the clocks is wrong.
_AHEAD_S = 1.0
_HOUR_S = 3600.0

# Enough for the record that is looked at; a larger one comes alone.
_FETCH_BYTES = 64 * 1024
_FETCH_WAIT_MS = 20

Group = tuple[str, str, str]
"""Role, name and topic of a consumer group."""


def groups_of(settings: Settings) -> list[Group]:
    """Return the consumer groups of the workers of this program, by role."""
    names, namespace = TopicNames.of(settings, USERS.name), settings.namespace
    commands = "commands", f"{namespace}{COMMAND_WORKER}", names.commands
    views = [(view.role, f"{namespace}{view.group}", names.events) for view in VIEWS.values()]
    return [commands, *views]


async def ask_rights(
    settings: Settings,
    rights: Sequence[Right],
    topics: Sequence[str],
    groups: Sequence[str],
) -> Sequence[str]:
    """Return a line for each missing right; one with a prefix is asked for on what has that prefix.

    Raises:
        Fatal: no broker answers.
    """
    names = {"topic": topics, "group": groups, "transactional-id": ()}
    concrete = [
        Right(right.resource, name, right.operations)
        for right in rights
        for name in (names[right.resource] if right.prefixed else [right.name])
        if name.startswith(right.name)
    ]
    return [str(missing) for missing in await missing_rights(settings, concrete)]


async def ask_groups(settings: Settings, groups: Sequence[Group]) -> Sequence[WorkerGroup]:
    """Return who is in these consumer groups.

    Raises:
        NotAllowed: these credentials may not see one.
        Fatal, KafkaError: no broker answers.
    """
    found = []
    async with admin_client(settings) as admin:
        for role, name, topic in groups:
            try:
                group = await describe_group(admin, name)
            except GroupAuthorizationFailedError:
                raise NotAllowed(settings, ["Describe"], f"group {name}") from None
            owned = frozenset(tp.partition for tp in group.owned if tp.topic == topic)
            found.append(WorkerGroup(role, name, topic, group.members, owned, group.is_rebalancing))
    return found


async def ask_logs(
    settings: Settings,
    partitions: Sequence[TopicPartition],
    dead_letters: Collection[str],
    groups: Sequence[Group],
    now: float,
) -> Logs:
    """Return open transactions, what each group has not processed, new dead letters, and times.

    Args:
        settings: where Kafka is.
        partitions: all that exist of the topics.
        dead_letters: topics with dead letters.
        groups: the consumer groups.
        now: this host's time.

    Raises:
        Fatal, KafkaError: no broker answers.
        Transient: a partition cannot be read.
    """
    small = {"max_partition_fetch_bytes": _FETCH_BYTES, "fetch_max_wait_ms": _FETCH_WAIT_MS}
    uncommitted = new_consumer(settings, isolation_level="read_uncommitted", **small)
    async with (
        admin_client(settings) as admin,
        started(new_consumer(settings, **small), settings) as committed,
        started(uncommitted, settings) as everything,
    ):
        for consumer in (committed, everything):
            consumer.assign(partitions)
            consumer.pause(*partitions)
        stable = await committed.end_offsets(partitions)
        ends = await everything.end_offsets(partitions)
        begins = await everything.beginning_offsets(partitions)
        return Logs(
            await _open_transactions(everything, stable, ends),
            {
                name: await _backlogs(admin, committed, name, topic, begins, stable)
                for _, name, topic in groups
            },
            await _dead_letters(
                committed, [tp for tp in partitions if tp.topic in dead_letters], stable, now
            ),
            await _ahead(committed, partitions, now),
        )


async def _open_transactions(
    consumer: AIOKafkaConsumer,
    stable: Mapping[TopicPartition, int],
    ends: Mapping[TopicPartition, int],
) -> Sequence[OpenTransaction]:
    found = []
    for tp, position in stable.items():
        since = await _time_of_next(consumer, tp, position, ends[tp])
        if since is not None:
            found.append(OpenTransaction(tp.topic, tp.partition, position, since))
    return found


async def _backlogs(
    admin: AIOKafkaAdminClient,
    consumer: AIOKafkaConsumer,
    group: str,
    topic: str,
    begins: Mapping[TopicPartition, int],
    stable: Mapping[TopicPartition, int],
) -> Mapping[int, Backlog]:
    partitions = [tp for tp in stable if tp.topic == topic]
    try:
        committed = await committed_positions(admin, group, partitions)
    except GroupAuthorizationFailedError:
        return {}  # who is in the group says so
    found = {}
    for tp in partitions:
        position = max(begins[tp], committed.get(tp, 0))
        if position < stable[tp]:
            since = await _time_of_next(consumer, tp, position, stable[tp])
            found[tp.partition] = Backlog(stable[tp] - position, since)
    return found


async def _dead_letters(
    consumer: AIOKafkaConsumer,
    partitions: Sequence[TopicPartition],
    stable: Mapping[TopicPartition, int],
    now: float,
) -> Mapping[str, float]:
    """Return for each topic the time of the first record of the last hour, if there is one."""
    hour = dict.fromkeys(partitions, int((now - _HOUR_S) * 1000))
    found: dict[str, float] = {}
    for tp, place in (await consumer.offsets_for_times(hour)).items():
        if place is not None:
            since = await _time_of_next(consumer, tp, place.offset, stable[tp])
            if since is not None:
                found[tp.topic] = min(since, found.get(tp.topic, since))
    return found


async def _time_of_next(
    consumer: AIOKafkaConsumer, tp: TopicPartition, position: int, end: int
) -> float | None:
    """Return the time of the first record that this consumer sees from a position up to `end`."""
    if position >= end:
        return None
    consumer.resume(tp)
    try:
        consumer.seek(tp, position)
        async for records in read_to(consumer, tp, end):
            return float(records[0].timestamp) / 1000
        return None
    finally:
        consumer.pause(tp)


async def _ahead(
    consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition], now: float
) -> float:
    from_now_on = dict.fromkeys(partitions, int((now + _AHEAD_S) * 1000))
    later = [found for found in (await consumer.offsets_for_times(from_now_on)).values() if found]
    times = [float(found.timestamp) / 1000 for found in later]
    return max([time - now for time in times], default=0.0)
