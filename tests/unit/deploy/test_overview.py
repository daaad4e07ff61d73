"""What `cqrs status` says is to be done next."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from deploy import overview
from deploy.cli.main import main
from deploy.embedded.status import ServerStatus
from deploy.overview import Overview, WorkersStatus, look
from streams.aggregate import TopicNames
from streams.kafka.topics import TopicSpec, topic_specs
from streams.settings import Settings
from streams.views.status import IndexStatus

NAMES = TopicNames("x.", "users")
RUNNING = [ServerStatus(name, "running", 1, "", 0, 0) for name in ("kafka", "elasticsearch")]
STOPPED = [ServerStatus(name, "stopped", None, None, 0, 0) for name in ("kafka", "elasticsearch")]
SILENT = [replace(one, state="does not answer") for one in STOPPED]
SERVING = IndexStatus("user-views-v1", "serving", None, True, {}, 0, 0.0, 5, None)
LOST = IndexStatus("user-views-v1", "serving", "it is closed: open it", True, {}, 0, 0.0, 5, None)
ALL = [WorkersStatus(role, role, 1, None) for role in ("commands", "views")]
ONE = [WorkersStatus("commands", "c", 0, 7), WorkersStatus("views", "v", 1, None)]


@pytest.mark.parametrize(
    ("found", "steps"),
    [
        (Overview(STOPPED), ["start kafka and elasticsearch (`cqrs dev` or `cqrs up`), or set"]),
        (
            Overview(
                SILENT, troubles=["a is wrong", "b, too"], explained=["kafka", "elasticsearch"]
            ),
            ["a is wrong", "b, too"],
        ),
        (Overview(RUNNING, 0, ["a", "b"]), ["create the topics: `cqrs topics create`"]),
        (Overview(RUNNING, 7, (), ONE), ["start a worker: `cqrs worker commands`"]),
        (Overview(RUNNING, 7, (), ALL, {"x.commands.dead.v1": 0}, {"user-views": [SERVING]}), []),
        (
            Overview(RUNNING, 7, (), ALL, {NAMES.dead_commands: 3, NAMES.dead_views: 1}),
            [
                f"look at the dead letters in {NAMES.dead_commands}: `cqrs dead list`",
                f"look at the dead letters in {NAMES.dead_views}: `cqrs tail dead-views --from-beg",
            ],
        ),
        (
            Overview(RUNNING, 7, (), ALL, {}, {"user-views": [LOST]}),
            ["user-views: it is closed: open it"],
        ),
        (Overview(RUNNING, troubles=["Kafka failed: X"]), ["Kafka failed: X"]),
    ],
)
def test_what_to_do_next(found: Overview, steps: list[str]) -> None:
    assert len(found.next_steps) == len(steps)
    for shown, begins in zip(found.next_steps, steps, strict=True):
        assert shown.startswith(begins)


def test_a_server_that_cannot_be_used_is_not_to_be_started(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ca_file = tmp_path / "ca.pem"
    for name, value in {
        "STACK_HOME": tmp_path,
        "BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "ELASTICSEARCH_URL": "http://127.0.0.1:1",
        "KAFKA_SECURITY": "ssl",
        "KAFKA_CA_FILE": ca_file,
    }.items():
        monkeypatch.setenv(f"CQRS_{name}", str(value))
    with pytest.raises(SystemExit) as ended:
        main(["status", "--json"])
    assert ended.value.code == 3
    found = json.loads(capsys.readouterr().out)
    line = f"CQRS_KAFKA_CA_FILE ({ca_file}) cannot be read: No such file or directory"
    assert [one["state"] for one in found["servers"]] == ["does not answer"] * 2
    assert found["troubles"] == [line]
    trouble, start = found["next"]
    assert trouble == line
    assert start.startswith("start elasticsearch (`cqrs dev` or `cqrs up`), or set")


async def test_topics_that_differ_are_said_once_and_nothing_else_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Asking on would wait for partitions that do not exist."""
    specs = topic_specs(Settings(partitions=4), TopicNames("", "users"))

    async def existing(*_: object) -> Mapping[str, TopicSpec]:
        kept = {"retention.bytes": "-1"}
        return {spec.name: replace(spec, configs={**kept, **spec.configs}) for spec in specs}

    monkeypatch.setattr(overview, "describe_topics", existing)
    found = await look(Settings(partitions=9), RUNNING)
    (step,) = found.next_steps
    assert "has 4 partitions, CQRS_PARTITIONS says 9" in step
    assert (found.topics, found.workers, found.views) == (len(specs), None, None)
