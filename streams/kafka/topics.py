"""The topics of an aggregate: their configuration; create them, and check those that exist."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    LeaderNotAvailableError,
    NoError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.structs import TopicPartition
from tenacity import AsyncRetrying, retry_if_exception_type
from tenacity.stop import stop_after_delay
from tenacity.wait import wait_fixed

from models.errors import Fatal, Transient
from streams.aggregate import TopicNames
from streams.kafka.clients import admin_client
from streams.kafka.permissions import NotAllowed, check_rights
from streams.kafka.rights import Operation, Right
from streams.settings import Settings

MIB = 1024 * 1024
_MINUTE_MS = 60 * 1000
_HOUR_MS = 60 * _MINUTE_MS
DAY_MS = 24 * _HOUR_MS

# Largest command, and largest record of its outputs: a dead letter contains the command and more.
COMMAND_BYTES = MIB
OUTPUT_BYTES = 4 * MIB

# All topics have the times of the brokers: retention and compaction count from the records' times,
# and a broker refuses a record whose writer is an hour ahead of it.
_TIMESTAMP_TYPE = "message.timestamp.type"
_ARRIVAL = "LogAppendTime"

# Least number of brokers that have a record when it is acknowledged, so that one may be lost.
_COPIES = 2

# Codes of a topic that does not exist, or whose creation is under way.
_NOT_THERE = (NoError.errno, UnknownTopicOrPartitionError.errno, LeaderNotAvailableError.errno)


@dataclass(frozen=True)
class TopicSpec:
    """Partitions and configuration of a topic, as required or as found."""

    name: str
    partitions: int
    configs: Mapping[str, str]
    replicas: int = 1
    """Replicas of each partition; of the one with the fewest, as found."""
    out_of_sync: int = 0
    """Number of partitions with a replica that is down or behind, as found."""
    leaderless: int = 0
    """Number of partitions without a leader, as found: nobody can use them."""


def partitions_of(settings: Settings, topic: str) -> list[TopicPartition]:
    """Return all partitions of a topic of this deployment."""
    return [TopicPartition(topic, number) for number in range(settings.partitions)]


def topic_specs(settings: Settings, names: TopicNames) -> tuple[TopicSpec, ...]:
    """Return the required configuration of all topics of one aggregate."""
    # Writing works while one replica is down, if there are several.
    in_sync = max(1, settings.replication_factor - 1)

    def spec(name: str, max_bytes: int, **configs: object) -> TopicSpec:
        return TopicSpec(
            name,
            settings.partitions,
            {
                "max.message.bytes": str(max_bytes),
                "min.insync.replicas": str(in_sync),
                _TIMESTAMP_TYPE: _ARRIVAL,
                **{key.replace("_", "."): str(value) for key, value in configs.items()},
            },
            settings.replication_factor,
        )

    compacted = {
        "cleanup_policy": "compact",
        # The active segment is never compacted: close it every hour, so that old states go.
        "segment_ms": _HOUR_MS,
        "max_compaction_lag_ms": 6 * _HOUR_MS,
        "min_cleanable_dirty_ratio": 0.2,
    }
    return (
        spec(names.commands, COMMAND_BYTES, **_kept_for(7 * DAY_MS)),
        spec(names.events, OUTPUT_BYTES, cleanup_policy="delete", retention_ms=-1),
        spec(names.outcomes, OUTPUT_BYTES, cleanup_policy="delete", retention_ms=7 * DAY_MS),
        spec(names.dead_commands, OUTPUT_BYTES, **_kept_for(28 * DAY_MS)),
        spec(names.dead_views, OUTPUT_BYTES, **_kept_for(28 * DAY_MS)),
        spec(names.changelog, OUTPUT_BYTES, **compacted),
        # A destroyed key is gone within the hour, and so is its tombstone.
        spec(
            names.keys,
            MIB,
            cleanup_policy="compact",
            segment_ms=10 * _MINUTE_MS,
            max_compaction_lag_ms=15 * _MINUTE_MS,
            delete_retention_ms=20 * _MINUTE_MS,
            min_cleanable_dirty_ratio=0.01,
        ),
    )


def _kept_for(retention_ms: int) -> dict[str, object]:
    """Return the configuration of a topic that may contain personal data.

    Only whole segments expire, so each one is for a day at most.
    """
    return {"cleanup_policy": "delete", "retention_ms": retention_ms, "segment_ms": DAY_MS}


async def create_topics(settings: Settings, specs: Sequence[TopicSpec]) -> list[str]:
    """Create the missing topics, check all of them, and return the names of the new ones.

    Raises:
        Fatal: an existing topic differs, or the cluster refuses to create one.
    """
    async with admin_client(settings) as admin:
        existing = await _describe(settings, admin, specs)
        missing = [spec for spec in specs if spec.name not in existing]
        if missing:
            response = await admin.create_topics(
                [
                    NewTopic(
                        spec.name,
                        spec.partitions,
                        spec.replicas,
                        topic_configs=dict(spec.configs),
                    )
                    for spec in missing
                ]
            )
            for name, code, message in response.topic_errors:
                if code == TopicAuthorizationFailedError.errno:
                    raise NotAllowed(settings, ["Create"], f"topic {name}")
                if code not in (0, TopicAlreadyExistsError.errno):
                    raise Fatal(f"cannot create topic {name}: {message or for_code(code).__name__}")
            existing = await _wait_until_described(settings, admin, specs)
        _raise_first(topic_faults(settings, specs, existing))
        return [spec.name for spec in missing]


async def check_topics(
    settings: Settings, specs: Sequence[TopicSpec], rights: Sequence[Right] = ()
) -> Sequence[str]:
    """Check that all topics exist and have the settings that matter (`topic_faults`).

    Before that, check these `rights`: without them, readers would hang.

    Returns:
        The lines of `weaknesses`.

    Raises:
        Fatal: a right or a topic is missing, or a topic differs; the message says what to do.
    """
    await check_rights(settings, rights)
    async with admin_client(settings) as admin:
        existing = await _describe(settings, admin, specs)
        # It lists all topics of the cluster, so it is asked for only where the number matters.
        single = any(topic.replicas < _COPIES for topic in existing.values())
        brokers = len((await admin.describe_cluster())["brokers"]) if single else _COPIES
    _raise_first(topic_faults(settings, specs, existing))
    return weaknesses(specs, existing, brokers)


async def describe_topics(
    settings: Settings, specs: Sequence[TopicSpec]
) -> Mapping[str, TopicSpec]:
    """Return the configuration of those that exist, defaults included, by name. Raises Fatal."""
    async with admin_client(settings) as admin:
        return await _describe(settings, admin, specs)


async def delete_retention_s(settings: Settings, names: TopicNames, topic: str) -> float:
    """Return for how many seconds compaction leaves the tombstones of a topic of an aggregate.

    Raises:
        Fatal: the topic is missing, or the cluster refuses to describe it.
    """
    specs = [spec for spec in topic_specs(settings, names) if spec.name == topic]
    found = await describe_topics(settings, specs)
    if topic not in found:
        raise _missing([topic])
    return int(found[topic].configs["delete.retention.ms"]) / 1000


def _missing(topics: Sequence[str]) -> Fatal:
    return Fatal(f"missing topics: {', '.join(topics)}; create them with `cqrs topics create`")


def wrong_partitions(topic: str, found: str, settings: Settings) -> Fatal:
    """Build the error for a topic with another number of partitions than the settings.

    It names no number to set: if partitions were added to the topic, that would be a wrong one.
    """
    return Fatal(
        f"topic {topic} has {found} partitions, CQRS_PARTITIONS says {settings.partitions}; the "
        "number is fixed for a deployment's life: set CQRS_PARTITIONS to what it was created with; "
        "if partitions were added to the topic, they cannot be removed again: create a deployment "
        "in another CQRS_NAMESPACE"
    )


def topic_faults(
    settings: Settings, specs: Sequence[TopicSpec], existing: Mapping[str, TopicSpec]
) -> Iterator[Fatal]:
    """Yield what no worker starts with, in order; the message says what to do.

    That is a missing topic, and another number of partitions, cleanup policy or record size; and
    whatever makes expire what must not.
    """
    missing = [spec.name for spec in specs if spec.name not in existing]
    if missing:
        yield _missing(missing)
    wrong: dict[int, list[str]] = {}
    for spec in specs:
        if spec.name in existing and existing[spec.name].partitions != spec.partitions:
            wrong.setdefault(existing[spec.name].partitions, []).append(spec.name)
    for number, (first, *others) in wrong.items():
        which = f"{first} (and {len(others)} others)" if others else first
        yield wrong_partitions(which, str(number), settings)
    for spec in specs:
        if spec.name not in existing:
            continue
        found = existing[spec.name]
        wanted = {key: spec.configs[key] for key in ("cleanup.policy", "max.message.bytes")}
        if spec.configs.get("retention.ms") == "-1":
            wanted |= {"retention.ms": "-1", "retention.bytes": "-1"}
        for key, value in wanted.items():
            if found.configs[key] != value:
                yield Fatal(
                    f"topic {spec.name} has {key}={found.configs[key]}, it must be {value}; "
                    "change it with your cluster's kafka-configs tool"
                )


def _raise_first(faults: Iterable[Fatal]) -> None:
    for fault in faults:
        raise fault


def weaknesses(
    specs: Sequence[TopicSpec], existing: Mapping[str, TopicSpec], brokers: int
) -> Sequence[str]:
    """Return a line for each thing that the guarantees rest on and these topics do not have.

    They are no errors: older versions created topics with the times of whoever writes. Of a cluster
    with a single broker, which has no room for replicas, nobody has to be told.
    """
    lines = []
    found = [existing[spec.name] for spec in specs if spec.name in existing]
    single = [topic.name for topic in found if topic.replicas < _COPIES]
    if single and brokers > 1:
        lines.append(
            f"one replica: {', '.join(single)}; what Kafka has acknowledged there is lost with one "
            "broker's disk; create topics with CQRS_REPLICATION_FACTOR=3"
        )
    unsafe = [
        topic.name
        for topic in found
        if topic.replicas >= _COPIES and int(topic.configs["min.insync.replicas"]) < _COPIES
    ]
    if unsafe:
        lines.append(
            f"min.insync.replicas=1: {', '.join(unsafe)}; what Kafka has acknowledged there may "
            f"be on one broker alone; set it to {_COPIES} with your cluster's kafka-configs tool"
        )
    foreign = [topic.name for topic in found if topic.configs[_TIMESTAMP_TYPE] != _ARRIVAL]
    if foreign:
        lines.append(
            f"the times of the writers' clocks: {', '.join(foreign)}; if one is wrong, records "
            "expire too early (commands undecided) or never, and what is an hour ahead is refused; "
            f"set {_TIMESTAMP_TYPE}={_ARRIVAL} with your cluster's kafka-configs tool"
        )
    return lines


async def _describe(
    settings: Settings, admin: AIOKafkaAdminClient, specs: Sequence[TopicSpec]
) -> dict[str, TopicSpec]:
    """Return the configuration of those topics that exist, by name.

    Raises:
        Fatal: the cluster refuses to describe one.
    """
    described = {}
    for topic in await admin.describe_topics([spec.name for spec in specs]):
        _refuse(settings, topic["error_code"], topic["topic"], "Describe")
        if topic["error_code"] == NoError.errno and topic["partitions"]:
            described[topic["topic"]] = topic["partitions"]
    if not described:
        return {}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in described]
    found: dict[str, TopicSpec] = {}
    for response in await admin.describe_configs(resources):
        for code, _message, _type, name, entries in response.resources:
            _refuse(settings, code, name, "DescribeConfigs")
            if code == NoError.errno:
                configs: dict[str, str] = {entry[0]: entry[1] for entry in entries}
                partitions = described[name]
                found[name] = TopicSpec(
                    name,
                    len(partitions),
                    configs,
                    replicas=min(len(one["replicas"]) for one in partitions),
                    out_of_sync=sum(len(one["isr"]) < len(one["replicas"]) for one in partitions),
                    leaderless=sum(one["leader"] < 0 for one in partitions),
                )
    return found


def _refuse(settings: Settings, code: int, topic: str, operation: Operation) -> None:
    """Raise Fatal for an error code, unless the topic may just not exist yet."""
    if code == TopicAuthorizationFailedError.errno:
        raise NotAllowed(settings, [operation], f"topic {topic}")
    if code not in _NOT_THERE:
        raise Fatal(f"cannot look up topic {topic}: {for_code(code).__name__}")


async def _wait_until_described(
    settings: Settings, admin: AIOKafkaAdminClient, specs: Sequence[TopicSpec]
) -> dict[str, TopicSpec]:
    """Wait until all topics are described: a new one is not known to every broker at once."""
    try:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(Transient),
            wait=wait_fixed(0.1),
            stop=stop_after_delay(30),
            reraise=True,
        ):
            with attempt:
                found = await _describe(settings, admin, specs)
                if len(found) < len(specs):
                    raise Transient("new topics are not known everywhere yet")
    except Transient:
        raise Fatal("new topics did not appear within 30 s: check the brokers' logs") from None
    return found
