"""Given these facts, `cqrs doctor` says that. Every problem that it knows is here once."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from deploy.cli.doctor import conclusion, exit_code
from deploy.cli.exit_codes import ExitCode
from deploy.cli.main import main
from deploy.doctor import ask_host
from deploy.doctor.ask_host import ask_worker, certificates_in_files, disk_of, tls_servers
from deploy.doctor.diagnosis import GROUPS, diagnose
from deploy.doctor.elasticsearch_findings import free_bytes_needed
from deploy.doctor.facts import (
    Backlog,
    Certificate,
    Disk,
    Facts,
    Logs,
    Node,
    Nodes,
    NotKnown,
    OpenTransaction,
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
from tests.harness.outputs import misfits

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


def test_all_is_well() -> None:
    found = findings(WELL)
    assert [one for one in found if one.status != "ok"] == []
    assert exit_code(found) == ExitCode.OK
    assert {one.group for one in found} == set(GROUPS)


PROBLEMS: list[tuple[str, dict[str, Any], str, str]] = [
    # settings
    (
        "a stall that is shorter than a rebalance",
        {"settings": Settings(partitions=2, stall_timeout=30)},
        "Settings",
        "CQRS_STALL_TIMEOUT=30 is not longer than a rebalance may take (30 s)",
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
        "new dead letters, the first of this hour 3 min ago: `cqrs tail dead` shows them",
    ),
    (
        "records of the future",
        {"logs": logs(ahead=90.0)},
        "Clocks",
        "records are 90 s ahead of this host's clock",
    ),
    # Elasticsearch
    (
        "another version",
        {"nodes": nodes(version="8.19.0")},
        "Elasticsearch",
        "version 8.19.0: this program is for 9.x",
    ),
    (
        "a clock that is ahead",
        {"nodes": nodes(clock_ahead=70.0)},
        "Clocks",
        "70 s ahead of this host's clock: set both by NTP",
    ),
    (
        "a clock that is behind",
        {"nodes": nodes(clock_ahead=-70.0)},
        "Clocks",
        "70 s behind this host's clock: set both by NTP",
    ),
    (
        "a full disk",
        {"nodes": nodes(free_bytes=4 * GIB)},
        "Disks",
        "4.0 GiB free, below the flood_stage watermark (5.0 GiB): indices become read-only",
    ),
    (
        "a nearly full disk",
        {"nodes": nodes(free_bytes=12 * GIB)},
        "Disks",
        "12.0 GiB free, below the low watermark (15.0 GiB): it takes no new shards",
    ),
    (
        "a privilege that is missing",
        {"privileges": ["manage on user-views*"]},
        "Rights",
        "lacks manage on user-views*: `cqrs topics acls --format json` prints",
    ),
    # views
    (
        "no index",
        {"views": situation(indices=())},
        "Views",
        "there is no index: a view worker creates it (`cqrs worker views`)",
    ),
    (
        "an alias that is gone",
        {"views": index(serving=False)},
        "Views",
        "the alias user-views is on no index, so no query is answered",
    ),
    (
        "an index that is called like the alias",
        {"views": situation(is_index=True)},
        "Views",
        "an index is called user-views, which is the alias that queries read: delete it",
    ),
    (
        "an index of another program",
        {"views": index(definition="d0")},
        "Views",
        "The view user-views is in user-views-v1, but another program created it",
    ),
    (
        "a closed index",
        {"views": index(closed=True, checkpoints=None)},
        "Views",
        "user-views-v1: closed: open it",
    ),
    (
        "an index that cannot be read",
        {"views": index(checkpoints=None)},
        "Views",
        "user-views-v1: cannot be read",
    ),
    (
        "an alias on a foreign index",
        {"views": situation(strangers={"restored": frozenset({"user-views-followed"})})},
        "Views",
        "restored has user-views-followed: a view worker takes them away, or delete it",
    ),
    (
        "an index that is read-only",
        {"views": view(blocks={"user-views-v1": ["read_only_allow_delete"]})},
        "Views",
        "user-views-v1 is read-only, since a disk was full: make room",
    ),
    (
        "an index that somebody has blocked",
        {"views": view(blocks={"user-views-v1": ["write"]})},
        "Views",
        "user-views-v1 is blocked by its setting index.blocks.write: remove it",
    ),
    (
        "another mapping",
        {"views": view(wrong_fields={"user-views-v1": ["email"]})},
        "Views",
        "user-views-v1 has another mapping of email than this program: `cqrs views rebuild",
    ),
    (
        "a red index",
        {"nodes": Nodes((NODE,), WATERMARKS, {"user-views-v1": "red"})},
        "Views",
        "user-views-v1 is red: a shard is lost or not started",
    ),
    (
        "a yellow index",
        {"nodes": Nodes((NODE,), WATERMARKS, {"user-views-v1": "yellow"})},
        "Views",
        "user-views-v1 is yellow: a replica is nowhere",
    ),
    # certificates, this host
    (
        "a certificate that has expired",
        {"certificates": {"k": Certificate("k", NOW - 3 * DAY)}},
        "Certificates",
        "expired 3 days ago: replace it",
    ),
    (
        "a certificate that expires soon",
        {"certificates": {"k": Certificate("k", NOW + 3 * DAY)}},
        "Certificates",
        "expires in 3 days: replace it",
    ),
    (
        "a certificate that is none",
        {"certificates": {"k": NotKnown("contains no certificate in PEM", "refused")}},
        "Certificates",
        "contains no certificate in PEM",
    ),
    (
        "no room for the state",
        {"state": Disk(Path("/state"), 100 * GIB, 2 * GIB, True)},
        "Disks",
        "2.0 GiB free in /state: make room, or workers cannot keep their state there",
    ),
    (
        "a state folder of somebody else",
        {"state": Disk(Path("/state"), 100 * GIB, 50 * GIB, False)},
        "Disks",
        "/state cannot be written by this user: workers need it",
    ),
]


@pytest.mark.parametrize(
    ("given", "group", "line"), [one[1:] for one in PROBLEMS], ids=[one[0] for one in PROBLEMS]
)
def test_a_problem(given: dict[str, Any], group: str, line: str) -> None:
    found = findings(replace(WELL, **given))
    [problem] = [one for one in found if one.status == "problem"]
    assert problem.group == group
    assert problem.line.startswith(line)
    assert "\n" not in problem.line
    assert exit_code(found) == ExitCode.NO


NO_PROBLEMS: list[tuple[str, dict[str, Any], str, str]] = [
    (
        "a retention that an operator has changed",
        {"topics": topics(NAMES.outcomes, {"retention.ms": "172800000"})},
        "Topics",
        "kept for 2 days, LogAppendTime; retention.ms=172800000 (created with 604800000)",
    ),
    (
        "a group that shares out its partitions",
        {"groups": (COMMANDS, replace(VIEWS, owned=frozenset(), is_rebalancing=True))},
        "Workers",
        "2 workers, the group shares its partitions out",
    ),
    (
        "a transaction at work",
        {"logs": logs(open_transactions=[OpenTransaction(NAMES.events, 1, 7, NOW - 3)])},
        "Progress",
        "none holds readers back",
    ),
    (
        "a backlog that is new",
        {"logs": logs(backlogs={COMMANDS.name: {1: Backlog(9, NOW - 4)}})},
        "Progress",
        "9 records to process, the oldest 4 s old",
    ),
    (
        "a backlog of transaction markers",
        {"logs": logs(backlogs={COMMANDS.name: {1: Backlog(1, None)}})},
        "Progress",
        "everything is processed",
    ),
    (
        "the right master key",
        {"master_key": True},
        "Settings",
        "it is that of the existing keys",
    ),
    (
        "brokers of Kafka 3",
        {"brokers": replace(BROKERS, versions={1: (0, 13), 3: (0, 12)})},
        "Kafka",
        "2.8 or newer",
    ),
]


@pytest.mark.parametrize(
    ("given", "group", "line"),
    [one[1:] for one in NO_PROBLEMS],
    ids=[one[0] for one in NO_PROBLEMS],
)
def test_no_problem(given: dict[str, Any], group: str, line: str) -> None:
    found = findings(replace(WELL, **given))
    assert [one for one in found if one.status != "ok"] == []
    assert any(one.group == group and line in one.line for one in found)


def test_what_nobody_answers_is_unknown() -> None:
    facts = replace(
        WELL,
        brokers=SILENT,
        topics=SILENT,
        rights=SILENT,
        groups=SILENT,
        logs=SILENT,
        master_key=SILENT,
        nodes=SILENT,
        privileges=SILENT,
        views={"user-views": SILENT},
        certificates={"kafka:9092": SILENT},
    )
    found = findings(facts)
    unknown = [(one.group, one.subject) for one in found if one.status == "unknown"]
    assert len(unknown) == 10
    assert not [one for one in found if one.status == "problem"]
    assert exit_code(found) == ExitCode.UNKNOWN


def test_the_conclusion_says_which_server_has_to_be_started() -> None:
    unasked = NotKnown("not asked", "unasked")
    gone = replace(WELL, brokers=SILENT, topics=unasked, rights=unasked, groups=unasked)
    found = findings(gone)
    assert exit_code(found) == ExitCode.UNKNOWN
    assert conclusion(found) == "1 unknown, 3 not asked: Kafka did not answer"
    wrong = findings(replace(WELL, rights=["one", "two"]))
    assert conclusion(wrong) == "2 problems"
    assert conclusion([one for one in wrong if one.status == "ok"]) == "nothing is wrong"


def test_groups_that_may_not_be_seen_leave_the_rest() -> None:
    found = findings(replace(WELL, groups=NotKnown("lacks Describe", "refused")))
    assert [one.line for one in found if one.status != "ok"] == ["lacks Describe"]
    assert any(one.subject == "transactions" for one in found)


def test_a_problem_counts_more_than_what_is_not_known() -> None:
    assert exit_code(findings(replace(WELL, nodes=SILENT, rights=["one"]))) == ExitCode.NO


def test_what_may_not_be_seen_is_no_problem() -> None:
    found = findings(replace(WELL, nodes=NotKnown("needs monitor", "hidden"), workers={}))
    assert [one.subject for one in found if one.status != "ok"] == ["nodes", "health"]
    assert exit_code(found) == ExitCode.OK


def test_parked_commands_of_all_workers_are_one_line() -> None:
    """Also if a worker does not answer; of none that answers, nothing is said."""
    runs = WorkerPartition("users.commands.v1[0]", "running", None)
    workers: Mapping[str, WorkerState | NotKnown] = {
        "a:9100": worker(runs, ParkedCommands(1, 1, 60.0)),
        "a:9101": worker(runs, ParkedCommands(1, 3, 720.0)),
        "a:9102": NotKnown("nobody answers"),
    }
    (found,) = (
        one for one in findings(replace(WELL, workers=workers)) if one.subject == "parked commands"
    )
    assert (found.group, found.status) == ("Progress", "problem")
    assert found.line.startswith("4 commands of 2 users, a failed one and those behind it, the old")
    assert "for 12 min: `cqrs dead list` shows why; start a mended program" in found.line
    silent = replace(WELL, workers={"a:9102": NotKnown("nobody answers")})
    assert not any(one.subject == "parked commands" for one in findings(silent))


def test_of_partitions_that_are_not_there_no_worker_is_missed() -> None:
    """The setting is wrong, and its line says so; starting workers would not help."""
    settings = SETTINGS.model_copy(update={"partitions": 3})
    specs = topic_specs(settings, NAMES)
    found = findings(replace(WELL, settings=settings, specs=specs))
    assert [one.group for one in found if one.status == "problem"] == ["Topics"]


@pytest.mark.parametrize(
    "topics", [SILENT, {name: topic for name, topic in TOPICS.items() if name != NAMES.commands}]
)
def test_of_a_topic_that_is_not_known_the_setting_says_how_many_partitions_there_are(
    topics: Any,
) -> None:
    idle = replace(COMMANDS, owned=frozenset({0}))
    found = findings(replace(WELL, topics=topics, groups=(idle, VIEWS)))
    assert [one.subject for one in found if one.group == "Workers" and one.status != "ok"] == [
        "commands"
    ]


def test_without_kafka_an_index_that_is_served_is_no_problem() -> None:
    """How far it is cannot be known then, and it is no fault of the index."""
    unread = replace(INDEX, checkpoints=None)
    seen = replace(SITUATION, log=None, indices=(unread,))
    found = findings(replace(WELL, brokers=SILENT, views=view(situation=seen)))
    assert [one.status for one in found if one.group == "Views"] == ["ok"]


def test_a_view_without_index_and_worker_is_not_in_use_beside_another_one() -> None:
    group = WorkerGroup("registrations", "users-daily", NAMES.events, 0, frozenset())
    empty = replace(SITUATION, view="daily", role="registrations", alias="daily", indices=())
    second = ViewFacts("daily", "registrations", empty, {}, {})
    facts = replace(
        WELL,
        groups=(COMMANDS, VIEWS, group),
        views={**WELL.views, "daily": second},
        logs=logs(backlogs={group.name: {0: Backlog(9, NOW - 40)}}),
    )
    skipped = [one for one in findings(facts) if one.status != "ok"]
    assert [one.status for one in skipped] == ["skipped", "skipped"]
    assert {one.line for one in skipped} == {"this view is not in use"}
    fresh = replace(facts, groups=(COMMANDS, group), views={"daily": second}, logs=WELL.logs)
    assert [one.line for one in findings(fresh) if one.status == "problem"] == [
        "there is no index: a view worker creates it (`cqrs worker registrations`)",
        "no worker: start one with `cqrs worker registrations`",
    ]


@pytest.mark.parametrize(
    ("watermarks", "needed"),
    [
        ({"low": "85%"}, 150.0),
        ({"low": "0.9"}, 100.0),
        ({"low": "85%", "low.max_headroom": "100b"}, 100.0),
        ({"low": "85%", "low.max_headroom": "-1"}, 150.0),
        ({"low": "2kb"}, 2048.0),
        ({}, 0.0),
    ],
)
def test_watermarks(watermarks: Mapping[str, str], needed: float) -> None:
    assert free_bytes_needed(watermarks, "low", 1000) == pytest.approx(needed)


def test_the_state_folder_of_another_host(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"state_dir": tmp_path / "away"})
    assert disk_of(settings.state_dir) is None
    assert disk_of(None) is None
    found = findings(replace(WELL, settings=settings, state=None))
    assert [one.line for one in found if one.status == "skipped"] == [
        f"{tmp_path / 'away'} is not on this host"
    ]
    disk = disk_of(tmp_path)
    assert disk is not None
    assert disk.size_bytes >= disk.free_bytes > 0
    assert disk.is_writable


@pytest.mark.parametrize(
    ("settings", "servers"),
    [
        ({}, []),
        (
            {"kafka_security": "ssl", "bootstrap_servers": "a:1,[::1]:2"},
            ["a:1", "[::1]:2"],
        ),
        ({"elasticsearch_url": "https://es:9200"}, ["es:9200"]),
    ],
)
def test_the_servers_with_certificates(settings: dict[str, Any], servers: list[str]) -> None:
    assert list(tls_servers(Settings(**settings))) == servers


def test_certificates_in_files(tmp_path: Path, certificate: Callable[[Path], None]) -> None:
    good, none = tmp_path / "good.pem", tmp_path / "none.pem"
    certificate(good)
    none.write_text("nothing")
    settings = Settings(
        kafka_security="ssl",
        kafka_ca_file=good,
        kafka_cert_file=none,
        elasticsearch_url="https://es:9200",
        elasticsearch_ca_file=tmp_path / "missing.pem",
    )
    found = dict(certificates_in_files(settings))
    assert isinstance(found[str(good)], Certificate)
    assert found[str(none)] == NotKnown("contains no certificate in PEM", "refused")
    assert found[str(tmp_path / "missing.pem")] == NotKnown(
        "cannot be read: No such file or directory", "refused"
    )


@pytest.fixture
def certificate() -> Callable[[Path], None]:
    import trustme

    return lambda path: trustme.CA().cert_pem.write_to_path(str(path))


@asynccontextmanager
async def serving(body: str, metrics: str = "") -> AsyncIterator[str]:
    """A web server with this answer of `/ready`, and these metrics; its address."""

    async def ready(_: web.Request) -> web.Response:
        return web.Response(text=body, content_type="application/json", status=503)

    async def expose(_: web.Request) -> web.Response:
        return web.Response(text=metrics)

    app = web.Application()
    app.router.add_get("/ready", ready)
    app.router.add_get("/metrics", expose)
    server = TestServer(app)
    async with server:
        yield f"{server.host}:{server.port}"


async def test_what_a_worker_says() -> None:
    parked = {"topic": "t", "partition": 1, "state": "parked", "parked": "expired"}
    metrics = """
cqrs_parked_aggregates{topic="t",partition="1"} 2
cqrs_parked_commands{topic="t",partition="1"} 5
"""
    answer = json.dumps({"ok": False, "partitions": [parked]})
    async with serving(answer, metrics) as address:
        assert await ask_worker(address) == WorkerState(
            [WorkerPartition("t[1]", "parked", "expired")], ParkedCommands(2, 5, None)
        )


async def test_what_is_no_worker() -> None:
    async with serving("[]") as address:
        found = await ask_worker(address)
    assert found == NotKnown("a worker of this project does not answer there: something else does")


async def test_a_worker_that_is_not_there_or_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ask_host, "_WORKER_TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        hanging = await ask_worker(address)
    gone = await ask_worker(address)
    assert isinstance(hanging, NotKnown)
    assert "its event loop is blocked; kill it" in hanging.why
    assert isinstance(gone, NotKnown)
    assert gone.why.startswith("nobody answers: is its process there?")


@pytest.mark.parametrize("as_json", [True, False])
def test_servers_that_accept_and_never_answer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    """It ends, and says what could not be found out; the kernel accepts for a socket that waits."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("CQRS_BOOTSTRAP_SERVERS", address)
        monkeypatch.setenv("CQRS_ELASTICSEARCH_URL", f"http://{address}")
        with pytest.raises(SystemExit) as ended:
            main(["doctor", "--timeout", "0.5", *(["--json"] if as_json else [])])
    assert ended.value.code == ExitCode.UNKNOWN
    shown = capsys.readouterr().out
    if as_json:
        assert misfits("doctor", "json", shown) == []
        status_of = {one["group"]: one["status"] for one in json.loads(shown)}
        assert (status_of["Kafka"], status_of["Elasticsearch"]) == ("unknown", "unknown")
        not_asked = ("Topics", "Progress", "Views")
        assert {status_of[group] for group in not_asked} == {"unasked"}
    else:
        assert max(map(len, shown.splitlines())) <= 80
        assert "no answer within 0.5 s" in shown
        assert "connection to" not in shown  # what was not asked is said once, at the end
        last = shown.splitlines()[-1]
        assert last == "2 unknown, 8 not asked: Kafka and Elasticsearch did not answer"
