"""Settings are what the environment says, or one line that says what is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from pydantic import ValidationError

from models.errors import Fatal, InvalidSettings
from streams.settings import Settings, read_folder, read_settings


@pytest.fixture(autouse=True)
def no_settings() -> Iterator[None]:
    others = {name: value for name, value in os.environ.items() if not name.startswith("CQRS_")}
    with patch.dict(os.environ, others, clear=True):
        yield


def line_for(**variables: str) -> str:
    """The line with which these variables are refused."""
    with patch.dict(os.environ, variables), pytest.raises(Fatal) as refused:
        read_settings()
    line = str(refused.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("CQRS_ENCRYPT_PERSONAL_DAT", "CQRS_ENCRYPT_PERSONAL_DATA"),
        ("CQRS_ENCRYPTPERSONALDATA", "CQRS_ENCRYPT_PERSONAL_DATA"),
        ("CQRS_BOOTSTRAP_SERVER", "CQRS_BOOTSTRAP_SERVERS"),
        ("CQRS_KAFKA_BOOTSTRAP_SERVERS", "CQRS_BOOTSTRAP_SERVERS"),
        ("CQRS_PARTITION", "CQRS_PARTITIONS"),
        ("CQRS_HOME", "CQRS_STACK_HOME"),
        ("CQRS_PORT", "CQRS_HEALTH_PORT"),
        ("cqrs_masterkey", "CQRS_MASTER_KEY"),
    ],
)
def test_an_unknown_variable_is_refused_with_the_nearest_name(variable: str, nearest: str) -> None:
    line = f"{variable} is not a setting; did you mean {nearest}?"
    assert line_for(**{variable: "secret"}) == line
    assert line_for(**{variable: ""}) == line
    with patch.dict(os.environ, {variable: "x"}), pytest.raises(Fatal, match="not a setting"):
        read_folder("stack_home")


def test_a_name_that_is_near_to_none_gets_no_suggestion() -> None:
    assert line_for(CQRS_XYZZY="1") == "CQRS_XYZZY is not a setting; `cqrs config` lists them"


def test_all_mistakes_are_in_one_message() -> None:
    variables = {
        "CQRS_BOOTSTRAP_SERVER": "kafka:9092",
        "CQRS_PARTITIONS": "many",
        "CQRS_SESSION_TIMEOUT": "1",
        "CQRS_LOG_LEVEL": "loud",
        "CQRS_NAMESPACE": "A B",
        "CQRS_MASTER_KEY": "hunter2",
        "CQRS_ELASTICSEARCH_USERNAME": "anna",
    }
    with patch.dict(os.environ, variables), pytest.raises(InvalidSettings) as refused:
        read_settings()
    assert refused.value.problems == (
        "CQRS_BOOTSTRAP_SERVER is not a setting; did you mean CQRS_BOOTSTRAP_SERVERS?",
        "CQRS_NAMESPACE is not valid: it must be lower-case letters, digits, dots, hyphens and "
        "underscores, beginning with a letter, a digit or a dot",
        "CQRS_PARTITIONS is not valid: it must be a whole number from 1 to 1024",
        "CQRS_SESSION_TIMEOUT is not valid: it must be a number from 3 to 60",
        "CQRS_LOG_LEVEL is not valid: it must be DEBUG, INFO, WARNING or ERROR",
        "CQRS_ELASTICSEARCH_USERNAME and CQRS_ELASTICSEARCH_PASSWORD_FILE (or "
        "CQRS_ELASTICSEARCH_PASSWORD) need each other",
        "CQRS_MASTER_KEY is not valid: it must be base64 of 32 bytes; `cqrs keys new` makes one",
    )
    first, *lines = str(refused.value).splitlines()
    assert first == "7 settings are wrong:"
    assert lines == [f"  {line}" for line in refused.value.problems]
    assert "hunter2" not in str(refused.value)


def test_no_mistake_is_made_up_of_a_wrong_value() -> None:
    """What contradicts a setting is not known while that setting is not valid."""
    variables = {"CQRS_KAFKA_SECURITY": "sasl", "CQRS_KAFKA_USERNAME": "anna"}
    assert line_for(**variables) == (
        "CQRS_KAFKA_SECURITY is not valid: it must be plaintext, ssl, sasl_plaintext or sasl_ssl"
    )


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("CQRS_PARTITIONS", "0", "a whole number from 1 to 1024"),
        ("CQRS_BULK_DOCUMENTS", "1.5", "a whole number, 1 or more"),
        ("CQRS_OUTCOME_TIMEOUT", "0", "a number above 0"),
        ("CQRS_READY_LAG", "soon", "a number above 0"),
        ("CQRS_VIEW_REPLICAS", "-1", "a whole number, 0 or more"),
        ("CQRS_HEALTH_HOST", "a b", "the address of an interface of this host, or a host name"),
        ("CQRS_ENCRYPT_PERSONAL_DATA", "maybe", "true or false"),
        ("CQRS_BOOTSTRAP_SERVERS", "kafka", "host:port[,host:port]"),
    ],
)
def test_a_wrong_value_is_answered_with_what_is_allowed(
    variable: str, value: str, allowed: str
) -> None:
    assert line_for(**{variable: value}) == f"{variable} is not valid: it must be {allowed}"


def test_a_setting_that_python_misspells_is_refused() -> None:
    misspelt: dict[str, Any] = {"encrypt_personal_dat": True}
    with pytest.raises(ValidationError, match="encrypt_personal_dat"):
        Settings(**misspelt)


@pytest.mark.parametrize("service", ["CQRS", "CQRS_WEB", "CQRS_HEALTH", "CQRS_STATE_DIR"])
@pytest.mark.parametrize("protocol", ["tcp", "udp", "sctp"])
def test_variables_of_kubernetes_services_are_not_ours(service: str, protocol: str) -> None:
    port = f"{service}_PORT_8080_{protocol.upper()}"
    variables = {
        f"{service}_SERVICE_HOST": "10.0.0.5",
        f"{service}_SERVICE_PORT": "8080",
        f"{service}_SERVICE_PORT_HTTP": "8080",
        f"{service}_PORT": f"{protocol}://10.0.0.5:8080",
        port: f"{protocol}://10.0.0.5:8080",
        f"{port}_PROTO": protocol,
        f"{port}_PORT": "8080",
        f"{port}_ADDR": "10.0.0.5",
    }
    with patch.dict(os.environ, variables):
        assert read_settings() == Settings()
        assert read_settings().health_port is None


def test_our_port_counts_beside_a_service_of_the_same_name() -> None:
    variables = {"CQRS_HEALTH_SERVICE_HOST": "10.0.0.5", "CQRS_HEALTH_PORT": "8080"}
    with patch.dict(os.environ, variables):
        assert read_settings().health_port == 8080
    assert line_for(CQRS_HEALTH_PORT="http://10.0.0.5:8080").startswith("CQRS_HEALTH_PORT is not")


@pytest.mark.parametrize("name", Settings.model_fields)
def test_an_empty_variable_is_not_set(name: str) -> None:
    default = Settings()
    with patch.dict(os.environ, {f"CQRS_{name.upper()}": ""}):
        assert read_settings() == default


def test_folders_may_begin_with_the_home_folder(tmp_path: Path) -> None:
    variables = {"HOME": str(tmp_path), "CQRS_STATE_DIR": "~/state", "CQRS_STACK_HOME": "~/stack"}
    with patch.dict(os.environ, variables):
        assert read_settings().state_dir == tmp_path / "state"
        assert read_folder("stack_home") == tmp_path / "stack"
    line = line_for(CQRS_STATE_DIR="~nobody-of-this-name/state")
    assert line.startswith("CQRS_STATE_DIR is not valid: ")
    with patch.dict(os.environ, {"CQRS_CACHE_HOME": ""}):
        assert read_folder("cache_home") is None


def test_a_relative_folder_is_in_the_folder_where_the_process_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with patch.dict(os.environ, {"CQRS_STATE_DIR": "state"}):
        found = read_settings()
    monkeypatch.chdir("/")
    assert found.state_dir == tmp_path / "state"


@pytest.mark.parametrize(
    "servers",
    [
        "127.0.0.1:99999",
        "127.0.0.1:0",
        "127.0.0.1:abc",
        "127.0.0.1",
        ":9092",
        ":abc",
        "PLAINTEXT://kafka:9092",
        "kafka://kafka:9092",
        "a:9092,",
        "a:9092;b:9092",
        "a:9092 b:9092",
        "::1:9092",
    ],
)
def test_bootstrap_servers_that_are_none_are_refused(servers: str) -> None:
    line = "CQRS_BOOTSTRAP_SERVERS is not valid: it must be host:port[,host:port]"
    assert line_for(CQRS_BOOTSTRAP_SERVERS=servers) == line


@pytest.mark.parametrize(
    "servers", ["kafka:9092", "a.example.org:1,10.0.0.1:65535", "[::1]:9092", "kafka_1:9092"]
)
def test_bootstrap_servers(servers: str) -> None:
    assert Settings(bootstrap_servers=servers).bootstrap_servers == servers


def test_spaces_between_bootstrap_servers_are_dropped() -> None:
    assert Settings(bootstrap_servers="a:1, b:2 ").bootstrap_servers == "a:1,b:2"


@pytest.mark.parametrize("namespace", ["_x-", "-x-", "_", "-", "X-", "a/b", "a b", "a\n"])
def test_namespaces_that_elasticsearch_refuses(namespace: str) -> None:
    assert line_for(CQRS_NAMESPACE=namespace).startswith("CQRS_NAMESPACE is not valid: ")


@pytest.mark.parametrize("namespace", ["", "a", "9-", "team.users_", "a-b."])
def test_namespaces(namespace: str) -> None:
    with patch.dict(os.environ, {"CQRS_NAMESPACE": namespace}):
        assert read_settings().namespace == namespace


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "1e999"])
@pytest.mark.parametrize(
    "name", [name for name, field in Settings.model_fields.items() if field.annotation is float]
)
def test_times_are_finite(name: str, value: str) -> None:
    variable = f"CQRS_{name.upper()}"
    assert line_for(**{variable: value}).startswith(f"{variable} is not valid: ")


def test_no_line_contains_a_value() -> None:
    for name in Settings.model_fields:
        wrong = {f"CQRS_{name.upper()}": "~~/hunter2\n"}
        with patch.dict(os.environ, wrong), pytest.raises(InvalidSettings) as refused:
            read_settings()
        assert "hunter2" not in str(refused.value)


def test_settings_without_the_environment() -> None:
    with patch.dict(os.environ, {"CQRS_PARTITIONS": "7", "CQRS_NAMESPACE": "x-", "CQRS_TYPO": "1"}):
        found = Settings.without_environment({"partitions": 3})
    assert (found.partitions, found.namespace) == (3, "")
