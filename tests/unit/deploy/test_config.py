"""`cqrs config`: what is in effect, from where, and no secret."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from deploy.cli.main import main
from deploy.embedded import stack
from deploy.embedded.stack import StackAddress
from streams.encryption.keys import new_master_key
from streams.settings import CommandVariables, Settings


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    running = StackAddress("127.0.0.1:1111", "http://127.0.0.1:2222")
    monkeypatch.setattr(stack, "running_address", lambda: running)
    others = {name: value for name, value in os.environ.items() if not name.startswith("CQRS_")}
    with patch.dict(os.environ, others, clear=True):
        yield


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["config", *arguments])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_every_setting_with_its_value_and_where_it_comes_from(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text("hunter2")
    key = new_master_key()
    variables = {
        "CQRS_PARTITIONS": "7",
        "CQRS_NAMESPACE": "",
        "CQRS_KAFKA_SECURITY": "sasl_plaintext",
        "CQRS_KAFKA_USERNAME": "anna",
        "CQRS_KAFKA_PASSWORD_FILE": str(file),
        "CQRS_MASTER_KEY": key,
    }
    with patch.dict(os.environ, variables):
        text = shown(capsys, "--json")
    found = {one["setting"]: (one["value"], one["source"]) for one in json.loads(text)}
    known = Settings.model_fields | CommandVariables.model_fields
    assert set(found) == {f"CQRS_{name.upper()}" for name in known}
    assert found["CQRS_PARTITIONS"] == (7, "environment")
    assert found["CQRS_NAMESPACE"] == ("", "default")
    assert found["CQRS_BOOTSTRAP_SERVERS"] == ("127.0.0.1:1111", "running stack")
    assert found["CQRS_KAFKA_PASSWORD"] == ("********", "file")
    assert found["CQRS_KAFKA_PASSWORD_FILE"] == (str(file), "environment")
    assert found["CQRS_MASTER_KEY"] == ("********", "environment")
    assert found["CQRS_ELASTICSEARCH_PASSWORD"] == (None, "default")
    assert found["CQRS_SESSION_TIMEOUT"] == (10.0, "default")
    with patch.dict(os.environ, variables):
        text += shown(capsys)
    assert "hunter2" not in text
    assert key not in text


def test_the_table_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys).splitlines()
    assert max(map(len, lines)) <= 80
    assert any("CQRS_SESSION_TIMEOUT" in line and " 10 " in line for line in lines)


def test_wrong_settings_are_listed_with_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = {"CQRS_PARTITIONS": "many", "CQRS_PARTITION": "4"}
    with patch.dict(os.environ, wrong), pytest.raises(SystemExit) as ended:
        main(["config"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines() == [
        "cqrs: 2 settings are wrong:",
        "  CQRS_PARTITION is not a setting; did you mean CQRS_PARTITIONS?",
        "  CQRS_PARTITIONS is not valid: it must be a whole number from 1 to 1024",
    ]


def test_the_demo_uses_the_running_stack_whatever_the_environment_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from deploy.cli import demo

    class Running:
        is_running = True
        address = StackAddress("127.0.0.1:1111", "http://127.0.0.1:2222")

    monkeypatch.setattr(demo, "EmbeddedStack", Running)
    others = {"CQRS_BOOTSTRAP_SERVERS": "kafka:9092", "CQRS_ELASTICSEARCH_URL": "http://es:9200"}
    with patch.dict(os.environ, others), demo._servers(False) as settings_of:
        settings = settings_of("operator")
    assert settings.bootstrap_servers == Running.address.bootstrap_servers
    assert settings.elasticsearch_url == Running.address.elasticsearch_url
