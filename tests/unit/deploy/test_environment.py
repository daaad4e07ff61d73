"""Where the servers are: the environment, else the running stack, else the usual ports."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from pydantic import ValidationError

from deploy.embedded import stack
from deploy.embedded.ports import Ports
from deploy.embedded.stack import EmbeddedStack, StackAddress
from deploy.environment import child_environment, load_settings, settings_on, workers_of_dev
from models.errors import Fatal, InvalidSettings
from streams.encryption.keys import master_keys, new_master_key
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
    found = load_settings()
    assert found.bootstrap_servers == RUNNING.bootstrap_servers
    assert found.elasticsearch_url == RUNNING.elasticsearch_url


def test_other_settings_are_those_of_the_environment(running: None) -> None:
    os.environ["CQRS_NAMESPACE"] = "mine-"
    found = load_settings()
    assert found.elasticsearch_url == RUNNING.elasticsearch_url
    assert found.namespace == "mine-"


@pytest.mark.parametrize(
    ("named", "missing"),
    [
        ("CQRS_BOOTSTRAP_SERVERS", "CQRS_ELASTICSEARCH_URL"),
        ("CQRS_ELASTICSEARCH_URL", "CQRS_BOOTSTRAP_SERVERS"),
    ],
)
def test_kafka_and_elasticsearch_are_never_of_two_deployments(
    running: None, named: str, missing: str
) -> None:
    os.environ[named] = {"CQRS_BOOTSTRAP_SERVERS": "kafka:9092"}.get(named, "http://search:9200")
    with pytest.raises(InvalidSettings) as refused:
        load_settings()
    assert str(refused.value) == (
        f"{named} is set and {missing} is not, and a stack of `cqrs up` runs here: set both, or "
        "neither to use that stack"
    )


def test_without_a_stack_one_address_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a command worker, which needs no Elasticsearch."""
    monkeypatch.setattr(stack, "running_address", lambda: None)
    os.environ["CQRS_BOOTSTRAP_SERVERS"] = "kafka:9092"
    assert load_settings().bootstrap_servers == "kafka:9092"


def test_without_a_stack_it_is_the_default_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "running_address", lambda: None)
    assert load_settings() == Settings()


def test_a_complete_environment_needs_no_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nothing asks whether a stack runs."""
    monkeypatch.delattr(stack, "running_address")
    os.environ["CQRS_BOOTSTRAP_SERVERS"] = "kafka:9092"
    os.environ["CQRS_ELASTICSEARCH_URL"] = "http://search:9200"
    assert load_settings().elasticsearch_url == "http://search:9200"


def test_the_workers_of_cqrs_dev_are_those_of_its_stack(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    os.environ["CQRS_STACK_HOME"] = str(tmp_path)
    dev = EmbeddedStack()
    dev.down()
    assert workers_of_dev(Settings()) == []
    Ports(kafka=1111, controller=1, elasticsearch=2222).write(tmp_path / "stack.json")
    paths = [dev.worker_list("commands"), dev.worker_list("views")]
    for path in paths:
        path.write_text("[]")
    ours = Settings(bootstrap_servers="127.0.0.1:1111")
    assert workers_of_dev(ours) == []  # it does not run
    monkeypatch.setattr(EmbeddedStack, "runs_in_part", True)
    assert workers_of_dev(ours) == paths
    assert workers_of_dev(Settings()) == []  # of other servers
    dev.down(purge=True)
    assert dev.worker_lists == []


def test_a_secured_stack_has_to_be_chosen_by_role(monkeypatch: pytest.MonkeyPatch) -> None:
    secured = StackAddress("127.0.0.1:1111", "https://127.0.0.1:2222")
    monkeypatch.setattr(stack, "running_address", lambda: secured)
    with pytest.raises(Fatal, match="the running stack is secured: .* --role operator"):
        load_settings()


def test_an_invalid_setting_is_an_error_of_one_line(running: None) -> None:
    os.environ["CQRS_PARTITIONS"] = "many"
    with pytest.raises(Fatal, match=r"^CQRS_PARTITIONS is not valid: [^\n]*$"):
        load_settings()


def test_an_invalid_master_key_is_an_error_that_does_not_show_it(running: None) -> None:
    os.environ["CQRS_MASTER_KEY"] = "c2VjcmV0"
    with pytest.raises(Fatal) as caught:
        load_settings()
    assert re.fullmatch(r"CQRS_MASTER_KEY is not valid: [^\n]*`cqrs keys new`.*", str(caught.value))
    with pytest.raises(ValidationError) as shown:
        Settings()
    assert "c2VjcmV0" not in f"{caught.value} {shown.value}"


def test_the_master_key_reaches_children_and_is_not_shown(running: None) -> None:
    key = os.environ["CQRS_MASTER_KEY"] = new_master_key()
    found = load_settings()
    assert key not in repr(found)
    assert child_environment(found)["CQRS_MASTER_KEY"] == key
    with patch.dict(os.environ, child_environment(found), clear=True):
        assert Settings() == found


def test_encryption_without_a_master_key_says_what_to_do() -> None:
    assert master_keys(Settings()) is None
    with pytest.raises(Fatal, match="CQRS_MASTER_KEY is not set.*`cqrs keys new` makes one"):
        master_keys(Settings(encrypt_personal_data=True))


def test_children_get_the_same_settings(running: None) -> None:
    os.environ["CQRS_PARTITIONS"] = "7"
    found = load_settings()
    with patch.dict(os.environ, child_environment(found), clear=True):
        assert Settings() == found


def test_a_stack_that_encrypts_names_its_master_key_unless_the_environment_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "master-key"
    file.write_text(new_master_key())
    encrypted = StackAddress(RUNNING.bootstrap_servers, RUNNING.elasticsearch_url, file)
    monkeypatch.setattr(stack, "running_address", lambda: encrypted)
    found = load_settings()
    assert (found.encrypt_personal_data, found.master_key_file) == (True, file)
    os.environ["CQRS_MASTER_KEY"] = new_master_key()
    found = load_settings()
    assert (found.encrypt_personal_data, found.master_key_file) == (False, None)


def test_a_stack_is_used_whatever_the_environment_says_of_other_servers(tmp_path: Path) -> None:
    home = EmbeddedStack(tmp_path)
    home.encrypt()
    Ports(1111, 1112, 2222).write(tmp_path / "stack.json")
    os.environ["CQRS_BOOTSTRAP_SERVERS"] = "kafka:9092"
    os.environ["CQRS_KAFKA_SECURITY"] = "ssl"
    os.environ["CQRS_ELASTICSEARCH_URL"] = "https://search:9200"
    os.environ["CQRS_PARTITIONS"] = "3"
    found = settings_on(home, "operator")
    assert (found.bootstrap_servers, found.kafka_security) == ("127.0.0.1:1111", "plaintext")
    assert found.elasticsearch_url == "http://127.0.0.1:2222"
    assert found.partitions == 3
    assert found.secret("master_key") is not None
    home.encrypt()
    assert settings_on(home, "operator").secret("master_key") == found.secret("master_key")
