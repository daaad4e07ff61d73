"""Where the servers are: the environment, else the running stack, else the usual ports."""

from __future__ import annotations

import os
from collections.abc import Iterator
from unittest.mock import patch

import pytest

from deploy.connect import connect, environment
from deploy.embedded import stack
from deploy.embedded.stack import StackAddress
from models.errors import Fatal
from streams.settings import Settings

RUNNING = StackAddress("127.0.0.1:1111", "http://127.0.0.1:2222")


@pytest.fixture(autouse=True)
def no_settings() -> Iterator[None]:
    others = {name: value for name, value in os.environ.items() if not name.startswith("CQRS_")}
    with patch.dict(os.environ, others, clear=True):
        yield


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "running_address", lambda: RUNNING)


def test_the_running_stack(running: None) -> None:
    found = connect()
    assert found.bootstrap_servers == RUNNING.bootstrap_servers
    assert found.elasticsearch_url == RUNNING.elasticsearch_url


def test_the_environment_wins(running: None) -> None:
    os.environ["CQRS_BOOTSTRAP_SERVERS"] = "kafka:9092"
    os.environ["CQRS_NAMESPACE"] = "mine-"
    found = connect()
    assert found.bootstrap_servers == "kafka:9092"
    assert found.elasticsearch_url == RUNNING.elasticsearch_url
    assert found.namespace == "mine-"


def test_no_stack_is_the_usual_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "running_address", lambda: None)
    assert connect() == Settings()


def test_all_that_is_needed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nothing asks whether a stack runs."""
    monkeypatch.delattr(stack, "running_address")
    os.environ["CQRS_BOOTSTRAP_SERVERS"] = "kafka:9092"
    os.environ["CQRS_ELASTICSEARCH_URL"] = "http://search:9200"
    assert connect().elasticsearch_url == "http://search:9200"


def test_a_setting_that_is_none_is_one_line(running: None) -> None:
    os.environ["CQRS_PARTITIONS"] = "many"
    with pytest.raises(Fatal, match=r"^CQRS_PARTITIONS is not valid: [^\n]*$"):
        connect()


def test_children_get_the_same_settings(running: None) -> None:
    os.environ["CQRS_PARTITIONS"] = "7"
    found = connect()
    with patch.dict(os.environ, environment(found), clear=True):
        assert Settings() == found
