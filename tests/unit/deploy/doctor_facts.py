"""Facts of which `cqrs doctor` says that all is well, and ways to change them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from deploy.doctor.diagnosis import diagnose
from deploy.doctor.facts import (
    Certificate,
    Disk,
    Facts,
    Logs,
    Node,
    Nodes,
    NotKnown,
    ViewFacts,
    WorkerGroup,
    WorkerPartition,
    WorkerState,
)
from deploy.doctor.findings import Finding
from deploy.top.overview import ParkedCommands
from streams.aggregate import TopicNames
from streams.kafka.brokers import Brokers
from streams.kafka.topics import TopicSpec, topic_specs
from streams.settings import Settings
from streams.views.checkpoint import Checkpoint
from streams.views.situation import EventLog, IndexState, Situation

NOW = 1_800_000_000.0
DAY = 24 * 3600.0
GIB = 1 << 30
SETTINGS = Settings(partitions=2)
NAMES = TopicNames("", "users")
SPECS = topic_specs(SETTINGS, NAMES)
TOPICS = {
    spec.name: replace(spec, configs={"retention.bytes": "-1", **spec.configs}) for spec in SPECS
}
BROKERS = Brokers("kafka-1", 1, {1: (4, 17), 3: (0, 13)}, {})
COMMANDS = WorkerGroup("commands", "users-commands", NAMES.commands, 1, frozenset({0, 1}))
VIEWS = WorkerGroup("views", "users-views-1", NAMES.events, 2, frozenset({0, 1}))
LOG = EventLog("kafka-1", "topic-1", 2)
INDEX = IndexState(
    name="user-views-v1",
    number=1,
    uuid="u1",
    definition="d1",
    partitions=2,
    topic="topic-1",
    followed=True,
    serving=True,
    served=True,
    checkpoints={0: Checkpoint(), 1: Checkpoint()},
)
SITUATION = Situation("user-views", "views", "user-views", "d1", LOG, (INDEX,))
VIEW = ViewFacts("user-views", "views", SITUATION, {}, {})
NODE = Node("node-1", "9.5.1", 0.01, 100 * GIB, 50 * GIB)
WATERMARKS = {"low": "85%", "high": "90%", "flood_stage": "95%"}
SILENT = NotKnown("nobody answered")

WELL = Facts(
    settings=SETTINGS,
    now=NOW,
    specs=SPECS,
    brokers=BROKERS,
    topics=TOPICS,
    rights=(),
    groups=(COMMANDS, VIEWS),
    logs=Logs((), {COMMANDS.name: {}, VIEWS.name: {}}, {}, 0.0),
    master_key=False,
    nodes=Nodes((NODE,), WATERMARKS, {"user-views-v1": "green"}),
    privileges=(),
    views={"user-views": VIEW},
    certificates={"kafka:9092": Certificate("kafka:9092", NOW + 90 * DAY)},
    state=Disk(Path("/state"), 100 * GIB, 50 * GIB, True),
    workers={
        "host:9100": WorkerState(
            [WorkerPartition("users.commands.v1[0]", "running", None)], ParkedCommands(0, 0, None)
        )
    },
)


def worker(partition: WorkerPartition, *parked: ParkedCommands) -> WorkerState:
    return WorkerState([partition], *parked or (ParkedCommands(0, 0, None),))


def findings(facts: Facts) -> list[Finding]:
    return diagnose(facts, "operator")


def topics(name: str, configs: Mapping[str, str] | None = None, **changes: Any) -> Any:
    """The topics, one of them with changes."""
    topic = TOPICS[name]
    return TOPICS | {name: replace(topic, configs={**topic.configs, **(configs or {})}, **changes)}


def without(name: str) -> Mapping[str, TopicSpec]:
    return {topic: found for topic, found in TOPICS.items() if topic != name}


def view(**changes: Any) -> Mapping[str, ViewFacts]:
    return {"user-views": replace(VIEW, **changes)}


def situation(**changes: Any) -> Mapping[str, ViewFacts]:
    return view(situation=replace(SITUATION, **changes))


def index(**changes: Any) -> Mapping[str, ViewFacts]:
    return situation(indices=(replace(INDEX, **changes),))


def logs(**changes: Any) -> Logs:
    assert isinstance(WELL.logs, Logs)
    return replace(WELL.logs, **changes)


def nodes(**changes: Any) -> Nodes:
    return Nodes((replace(NODE, **changes),), WATERMARKS, {})
