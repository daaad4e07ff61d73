"""What each role may do, and how `cqrs topics acls` prints it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agents.views import VIEWS
from deploy.cli.acls import acls
from deploy.embedded.secrets import PRINCIPALS
from deploy.rights import elasticsearch_rights, kafka_rights
from deploy.roles import ROLES, SecuredRole
from streams.aggregate import TopicNames
from streams.settings import Settings

SETTINGS = Settings(namespace="team-", bootstrap_servers="kafka:9093")
WRITERS = {
    "commands": {"client"},
    "events": {"command-worker"},
    "outcomes": {"command-worker"},
    "dead_commands": {"command-worker"},
    "changelog": {"command-worker"},
    "keys": {"command-worker"},
    "dead_views": {"view-worker"},
}


@pytest.mark.parametrize("topic", WRITERS)
def test_who_may_write_where(topic: str) -> None:
    name = getattr(TopicNames.of(SETTINGS, "users"), topic)
    found = {
        role
        for role in ROLES
        for right in kafka_rights(role, SETTINGS)
        if right.name == name and "Write" in right.operations
    }
    assert found == WRITERS[topic]


@pytest.mark.parametrize("role", ROLES)
def test_everything_is_in_the_namespace(role: SecuredRole) -> None:
    assert all(right.name.startswith("team-users") for right in kafka_rights(role, SETTINGS))
    rights = elasticsearch_rights(role, SETTINGS)
    if rights is not None:
        assert rights["indices"][0]["names"] == [f"team-{view}*" for view in VIEWS]
    assert role in PRINCIPALS


def test_commands_of_kafka() -> None:
    lines = acls("client", "User:anna muster", "kafka-acls", SETTINGS).splitlines()
    assert lines == [
        "kafka-acls.sh --bootstrap-server kafka:9093 --command-config admin.properties --add "
        f"--allow-principal 'User:anna muster' --operation {operation} "
        f"--operation DescribeConfigs --topic team-users.{topic}.v1 "
        "--resource-pattern-type literal"
        for operation, topic in (("Write", "commands"), ("Read", "outcomes"))
    ]


def test_a_user_of_strimzi() -> None:
    user: Any = json.loads(acls("command-worker", "User:anna", "strimzi", SETTINGS))
    assert user["metadata"]["name"] == "anna"
    rules = user["spec"]["authorization"]["acls"]
    assert rules[-1] == {
        "resource": {
            "type": "transactionalId",
            "name": "team-users-commands-",
            "patternType": "prefix",
        },
        "operations": ["Write"],
    }


def test_json_for_tools() -> None:
    found = json.loads(acls("view-worker", "User:anna", "json", SETTINGS))
    assert found["principal"] == "User:anna"
    assert found["elasticsearch"]["indices"][0]["privileges"] == ["read", "write", "manage"]
    assert {
        "resource": "group",
        "name": "team-users-views-",
        "pattern": "prefixed",
        "operations": ["Read"],
    } in found["kafka"]
