"""What a deployment is told of its topics: what is refused, what is weak, what may not be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.errors import TopicAuthorizationFailedError

from models.errors import Fatal
from streams.aggregate import TopicNames
from streams.kafka.topics import TopicSpec, _describe, topic_specs, weaknesses
from streams.settings import Settings

NAMES = TopicNames("", "users")
DENIED = TopicAuthorizationFailedError.errno


def weak(settings: Settings, brokers: int = 3, **changes: str) -> Sequence[str]:
    """Return what is said of topics as they are created, with other settings for commands."""
    specs = topic_specs(settings, NAMES)
    existing = {spec.name: spec for spec in specs}
    commands = existing[NAMES.commands]
    existing[commands.name] = replace(commands, configs={**commands.configs, **changes})
    return weaknesses(specs, existing, brokers)


def test_topics_as_they_have_to_be() -> None:
    assert weak(Settings(replication_factor=3)) == []


def test_one_replica() -> None:
    [line] = weak(Settings(replication_factor=1))
    assert line.startswith(f"one replica: {NAMES.commands}, {NAMES.events}, ")
    assert "CQRS_REPLICATION_FACTOR=3" in line


def test_one_replica_on_the_only_broker_is_no_news() -> None:
    assert weak(Settings(replication_factor=1), brokers=1) == []


def test_an_acknowledgement_of_one_broker() -> None:
    [line] = weak(Settings(replication_factor=3), 3, **{"min.insync.replicas": "1"})
    assert line.startswith(f"min.insync.replicas=1: {NAMES.commands}; ")
    assert "set it to 2" in line


def test_every_topic_has_the_times_of_the_brokers() -> None:
    """A worker that is an hour ahead could not write, and what one behind writes expires early."""
    types = {spec.configs["message.timestamp.type"] for spec in topic_specs(Settings(), NAMES)}
    assert types == {"LogAppendTime"}


def test_records_that_expire_by_the_clocks_of_their_writers() -> None:
    [line] = weak(Settings(replication_factor=3), 3, **{"message.timestamp.type": "CreateTime"})
    assert line.startswith(f"the times of the writers' clocks: {NAMES.commands}; ")
    assert "set message.timestamp.type=LogAppendTime" in line


class Admin:
    """A cluster that has the command topic, and may refuse to describe it."""

    def __init__(self, topic_error: int = 0, configs_error: int = 0) -> None:
        self._topic_error = topic_error
        self._configs_error = configs_error

    async def describe_topics(self, names: Sequence[str]) -> list[dict[str, Any]]:
        partitions = [
            {"replicas": [1, 2, 3], "isr": [1, 2, 3], "leader": 1},
            {"replicas": [2, 3], "isr": [3], "leader": -1},
        ]
        if self._topic_error:
            partitions = []
        topic = {"error_code": self._topic_error, "partitions": partitions}
        return [{"topic": name, **topic} for name in names]

    async def describe_configs(self, resources: Sequence[Any]) -> list[Any]:
        entries = [] if self._configs_error else [("cleanup.policy", "delete", False)]
        return [
            SimpleNamespace(
                resources=[(self._configs_error, None, 2, one.name, entries) for one in resources]
            )
        ]


async def describe(admin: Admin) -> dict[str, TopicSpec]:
    return await _describe(Settings(), cast(Any, admin), topic_specs(Settings(), NAMES)[:1])


async def test_what_is_found() -> None:
    found = TopicSpec(
        NAMES.commands,
        2,
        {"cleanup.policy": "delete"},
        replicas=2,
        out_of_sync=1,
        leaderless=1,
    )
    assert await describe(Admin()) == {NAMES.commands: found}
    for not_there in (3, 5):
        assert await describe(Admin(topic_error=not_there)) == {}
        assert await describe(Admin(configs_error=not_there)) == {}


@pytest.mark.parametrize(
    ("admin", "line"),
    [
        (Admin(configs_error=DENIED), "User:ANONYMOUS lacks DescribeConfigs on topic users"),
        (Admin(topic_error=DENIED), "User:ANONYMOUS lacks Describe on topic users"),
        (Admin(configs_error=42), "cannot look up topic users.*: InvalidRequestError"),
    ],
)
async def test_what_the_cluster_refuses_to_describe(admin: Admin, line: str) -> None:
    with pytest.raises(Fatal, match=line):
        await describe(admin)
