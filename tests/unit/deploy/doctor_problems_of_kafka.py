"""The problems of settings, Kafka and workers that `cqrs doctor` knows: facts, and what it says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from deploy.doctor.facts import Backlog, NotKnown, OpenTransaction, WorkerPartition
from streams.kafka.topics import topic_specs
from streams.settings import Settings
from tests.unit.deploy.doctor_facts import (
    BROKERS,
    COMMANDS,
    NAMES,
    NOW,
    VIEWS,
    logs,
    topics,
    without,
    worker,
)

KAFKA_PROBLEMS: list[tuple[str, dict[str, Any], str, str]] = [
    # settings
    (
        "a stall that is shorter than a rebalance",
        {"settings": Settings(partitions=2, stall_timeout=30)},
        "Settings",
        "CQRS_STALL_TIMEOUT=30 is not longer than a rebalance may take (30 s)",
    ),
    (
        "a stall that is shorter than a transaction",
        {"settings": Settings(partitions=2, stall_timeout=40, transaction_timeout=45)},
        "Settings",
        "CQRS_STALL_TIMEOUT=40 is not longer than CQRS_TRANSACTION_TIMEOUT=45, so a worker may end",
    ),
    (
        "clients that give up too early",
        {"settings": Settings(partitions=2, outcome_timeout=10)},
        "Settings",
        "CQRS_OUTCOME_TIMEOUT=10 is not longer than CQRS_SESSION_TIMEOUT=10: clients give up",
    ),
    (
        "more replicas than brokers",
        {"settings": Settings(partitions=2, replication_factor=3)},
        "Settings",
        "CQRS_REPLICATION_FACTOR=3 needs more brokers than the 1 that there are",
    ),
    (
        "a session that the brokers find too short",
        {"brokers": replace(BROKERS, configs={"group.min.session.timeout.ms": "12000"})},
        "Settings",
        "CQRS_SESSION_TIMEOUT=10 is beyond group.min.session.timeout.ms=12000 of the brokers",
    ),
    (
        "a session that the brokers find too long",
        {"brokers": replace(BROKERS, configs={"group.max.session.timeout.ms": "8000"})},
        "Settings",
        "CQRS_SESSION_TIMEOUT=10 is beyond group.max.session.timeout.ms=8000 of the brokers",
    ),
    (
        "a transaction that the brokers find too long",
        {"brokers": replace(BROKERS, configs={"transaction.max.timeout.ms": "9000"})},
        "Settings",
        "CQRS_TRANSACTION_TIMEOUT=15 is beyond transaction.max.timeout.ms=9000 of the brokers",
    ),
    (
        "more replicas than nodes",
        {"settings": Settings(partitions=2, view_replicas=1)},
        "Settings",
        "CQRS_VIEW_REPLICAS=1 needs more nodes than the 1 of Elasticsearch",
    ),
    (
        "another master key",
        {"master_key": NotKnown("CQRS_MASTER_KEY is not the one", "refused")},
        "Settings",
        "CQRS_MASTER_KEY is not the one",
    ),
    # Kafka
    (
        "a wrong password",
        {"brokers": NotKnown("Kafka at k:9092 refuses user anna", "refused")},
        "Kafka",
        "Kafka at k:9092 refuses user anna",
    ),
    (
        "old brokers",
        {"brokers": replace(BROKERS, versions={1: (0, 11), 3: (0, 9)})},
        "Kafka",
        "older than Kafka 2.8, which this program needs: upgrade the brokers",
    ),
    # topics
    (
        "a topic that is missing",
        {"topics": without(NAMES.keys)},
        "Topics",
        "missing topics: users.keys.v1; create them with `cqrs topics create`",
    ),
    (
        "partitions that were added",
        {"topics": topics(NAMES.commands, partitions=3)},
        "Topics",
        "topic users.commands.v1 has 3 partitions, CQRS_PARTITIONS says 2",
    ),
    (
        "another number of partitions",
        {
            "settings": Settings(partitions=3),
            "specs": topic_specs(Settings(partitions=3), NAMES),
            "views": {},
            "groups": (),
        },
        "Topics",
        "topic users.commands.v1 (and 6 others) has 2 partitions, CQRS_PARTITIONS says 3",
    ),
    (
        "events that expire",
        {"topics": topics(NAMES.events, {"retention.ms": "86400000"})},
        "Topics",
        "topic users.events.v1 has retention.ms=86400000, it must be -1; change it",
    ),
    (
        "a changelog that is not compacted",
        {"topics": topics(NAMES.changelog, {"cleanup.policy": "delete"})},
        "Topics",
        "topic users.state-changelog.v1 has cleanup.policy=delete, it must be compact",
    ),
    (
        "the times of writers",
        {"topics": topics(NAMES.commands, {"message.timestamp.type": "CreateTime"})},
        "Topics",
        "the times of the writers' clocks: users.commands.v1; if one is wrong",
    ),
    (
        "one replica on three brokers",
        {"brokers": replace(BROKERS, count=3)},
        "Topics",
        "one replica: users.commands.v1, users.events.v1,",
    ),
    (
        "an acknowledgement of one broker",
        {"topics": topics(NAMES.commands, replicas=3)},
        "Topics",
        "min.insync.replicas=1: users.commands.v1; what Kafka has acknowledged",
    ),
    (
        "no leader",
        {"topics": topics(NAMES.commands, leaderless=2)},
        "Topics",
        "2 partitions have no leader: start the brokers that have them",
    ),
    (
        "a replica that is behind",
        {"topics": topics(NAMES.commands, out_of_sync=1)},
        "Topics",
        "1 partitions have a replica that is down or behind: look at the brokers",
    ),
    (
        "a right that is missing",
        {"rights": ["User:anna lacks Read on topic users.events.v1: allow it"]},
        "Rights",
        "User:anna lacks Read on topic users.events.v1: allow it",
    ),
    # workers
    (
        "no worker",
        {"groups": (replace(COMMANDS, members=0, owned=frozenset()), VIEWS)},
        "Workers",
        "no worker: start one with `cqrs worker commands`",
    ),
    (
        "a partition that no worker has",
        {"groups": (COMMANDS, replace(VIEWS, owned=frozenset({0})))},
        "Workers",
        "partitions [1] belong to no worker: the log of each says whether",
    ),
    (
        "a parked partition",
        {"workers": {"host:9100": worker(WorkerPartition("t[0]", "parked", "expired: skip them"))}},
        "Workers",
        "t[0] is parked: expired: skip them",
    ),
    (
        "a waiting partition",
        {"workers": {"host:9100": worker(WorkerPartition("t[0]", "waiting", None))}},
        "Workers",
        "t[0] waits for a server: the worker's log says for which, and why",
    ),
    (
        "a worker that does not answer",
        {"workers": {"host:9100": NotKnown("nobody answers: is its process there?")}},
        "Workers",
        "nobody answers: is its process there?",
    ),
    # progress
    (
        "a transaction that stays open",
        {"logs": logs(open_transactions=[OpenTransaction(NAMES.events, 1, 7, NOW - 60)])},
        "Progress",
        "a transaction is open at offset 7 since 60 s, and hides what follows",
    ),
    (
        "commands that wait",
        {"logs": logs(backlogs={COMMANDS.name: {1: Backlog(9, NOW - 40)}})},
        "Progress",
        "9 records to process, the oldest 40 s old, in partitions [1]: start workers",
    ),
    (
        "dead letters",
        {"logs": logs(dead_letters={NAMES.dead_commands: NOW - 180})},
        "Progress",
        "new dead letters, the first of this hour 3 min ago: `cqrs dead list` shows them",
    ),
    (
        "dead letters of a view",
        {"logs": logs(dead_letters={NAMES.dead_views: NOW - 60})},
        "Progress",
        "new dead letters, the first of this hour 1 min ago: `cqrs tail dead-views --from-",
    ),
    (
        "records of the future",
        {"logs": logs(ahead=90.0)},
        "Clocks",
        "records are 90 s ahead of this host's clock",
    ),
]
