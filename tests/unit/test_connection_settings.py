"""Credentials are complete, come from a variable or a file, and are never shown."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from pydantic import SecretStr

from deploy.environment import child_environment
from models.errors import Fatal, InvalidSettings
from streams.elasticsearch.connection import connect
from streams.encryption.keys import master_keys, new_master_key
from streams.kafka.clients import connection_options
from streams.settings import Settings, read_settings

SECRET = "hunter2"
SASL = {"CQRS_KAFKA_SECURITY": "sasl_plaintext", "CQRS_KAFKA_USERNAME": "anna"}


@pytest.fixture(autouse=True)
def no_settings() -> Iterator[None]:
    others = {name: value for name, value in os.environ.items() if not name.startswith("CQRS_")}
    with patch.dict(os.environ, others, clear=True):
        yield


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(f"{SECRET}\n")
    return path


def read(**variables: str) -> Settings:
    with patch.dict(os.environ, variables):
        return read_settings()


def line_for(**variables: str) -> str:
    with pytest.raises(Fatal) as refused:
        read(**variables)
    line = str(refused.value)
    assert "\n" not in line
    assert SECRET not in line
    return line


def test_every_secret_may_come_from_a_file() -> None:
    secrets = {name for name, field in Settings.model_fields.items() if "SecretStr" in str(field)}
    assert secrets == set(Settings.secrets())
    assert "master_key" in secrets


@pytest.mark.parametrize("variable", ["CQRS_KAFKA_PASSWORD", "CQRS_KAFKA_PASSWORD_FILE"])
def test_the_password_reaches_the_client_and_children_and_is_not_shown(
    variable: str, secret_file: Path
) -> None:
    value = str(secret_file) if variable.endswith("_FILE") else SECRET
    found = read(**SASL, **{variable: value})
    assert connection_options(found) == {
        "bootstrap_servers": ["127.0.0.1:9092"],
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "anna",
        "sasl_plain_password": SECRET,
    }
    assert SECRET not in f"{found!r} {found} {found.model_dump_json()}"
    with patch.dict(os.environ, {variable: "of the parent"}):
        child = child_environment(found)
    assert child[variable] == value
    with patch.dict(os.environ, child, clear=True):
        assert Settings() == found


def test_a_child_gets_no_credentials_of_its_parent() -> None:
    with patch.dict(os.environ, {"CQRS_KAFKA_PASSWORD": SECRET}):
        assert "CQRS_KAFKA_PASSWORD" not in child_environment(Settings.model_construct())


def test_a_file_is_read_when_a_client_is_created(secret_file: Path) -> None:
    found = read(**SASL, CQRS_KAFKA_PASSWORD_FILE=str(secret_file))
    secret_file.write_text("another one")
    assert connection_options(found)["sasl_plain_password"] == "another one"
    secret_file.unlink()
    with pytest.raises(Fatal, match="CQRS_KAFKA_PASSWORD_FILE cannot be read: No such file"):
        connection_options(found)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"\xff", "it is not text"),
        (b"hunter2\nhunter3\n", "it is more than one line"),
    ],
)
def test_files_without_a_secret(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    assert line_for(**SASL, CQRS_KAFKA_PASSWORD_FILE=str(path)).endswith(reason)


def test_the_master_key_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(f"{new_master_key()}\n")
    assert master_keys(read(CQRS_MASTER_KEY_FILE=str(path))) is not None
    path.write_text(SECRET)
    line = line_for(CQRS_MASTER_KEY_FILE=str(path))
    assert line.startswith("CQRS_MASTER_KEY_FILE is not valid: it must be base64 of 32 bytes")
    line = line_for(CQRS_MASTER_KEY=new_master_key(), CQRS_SECOND_MASTER_KEY=SECRET)
    assert line.startswith("CQRS_SECOND_MASTER_KEY is not valid: it must be base64 of 32 bytes")


def test_a_second_master_key_is_another_one_beside_the_first(tmp_path: Path) -> None:
    key = new_master_key()
    path = tmp_path / "key"
    path.write_text(f"{new_master_key()}\n")
    both = master_keys(read(CQRS_MASTER_KEY=key, CQRS_SECOND_MASTER_KEY_FILE=str(path)))
    assert both is not None
    assert both.second is not None
    line = line_for(CQRS_SECOND_MASTER_KEY=key)
    assert line == "CQRS_SECOND_MASTER_KEY needs CQRS_MASTER_KEY"
    line = line_for(CQRS_MASTER_KEY=key, CQRS_SECOND_MASTER_KEY=key)
    assert line == "CQRS_MASTER_KEY and CQRS_SECOND_MASTER_KEY are the same"


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        (
            {"CQRS_KAFKA_SECURITY": "sasl_ssl", "CQRS_KAFKA_USERNAME": "anna"},
            "CQRS_KAFKA_SECURITY=sasl_ssl needs CQRS_KAFKA_USERNAME and CQRS_KAFKA_PASSWORD_FILE "
            "(or CQRS_KAFKA_PASSWORD)",
        ),
        (
            {"CQRS_KAFKA_SECURITY": "ssl", "CQRS_KAFKA_PASSWORD": SECRET},
            "CQRS_KAFKA_PASSWORD is set and CQRS_KAFKA_SECURITY=ssl does not use it: one of the "
            "two is wrong",
        ),
        (
            {"CQRS_KAFKA_USERNAME": "anna"},
            "CQRS_KAFKA_USERNAME is set and CQRS_KAFKA_SECURITY=plaintext does not use it: one of "
            "the two is wrong",
        ),
        (
            {**SASL, "CQRS_KAFKA_PASSWORD": SECRET, "CQRS_KAFKA_CA_FILE": "ca.pem"},
            "CQRS_KAFKA_CA_FILE is set and CQRS_KAFKA_SECURITY=sasl_plaintext does not use it: "
            "one of the two is wrong",
        ),
        (
            {"CQRS_KAFKA_SASL_MECHANISM": "PLAIN"},
            "CQRS_KAFKA_SASL_MECHANISM is set and CQRS_KAFKA_SECURITY=plaintext does not use it: "
            "one of the two is wrong",
        ),
        (
            {"CQRS_KAFKA_SECURITY": "sasl_ssl", "CQRS_KAFKA_SASL_MECHANISM": "OAUTHBEARER"},
            "CQRS_KAFKA_SASL_MECHANISM=OAUTHBEARER needs CQRS_KAFKA_TOKEN_PROVIDER",
        ),
        (
            {**SASL, "CQRS_KAFKA_SASL_MECHANISM": "GSSAPI"},
            "CQRS_KAFKA_USERNAME is set and CQRS_KAFKA_SASL_MECHANISM=GSSAPI does not use it: one "
            "of the two is wrong",
        ),
        (
            {**SASL, "CQRS_KAFKA_PASSWORD": SECRET, "CQRS_KAFKA_TOKEN_PROVIDER": "acme:token"},
            "CQRS_KAFKA_TOKEN_PROVIDER is set and CQRS_KAFKA_SASL_MECHANISM=SCRAM-SHA-512 does not "
            "use it: one of the two is wrong",
        ),
        (
            {"CQRS_KAFKA_TOKEN_PROVIDER": "acme.token"},
            "CQRS_KAFKA_TOKEN_PROVIDER is not valid: it must be module:function",
        ),
        (
            {"CQRS_KAFKA_SECURITY": "ssl", "CQRS_KAFKA_KEY_FILE": "key.pem"},
            "CQRS_KAFKA_KEY_FILE needs CQRS_KAFKA_CERT_FILE",
        ),
        (
            {"CQRS_MASTER_KEY": SECRET, "CQRS_MASTER_KEY_FILE": "key"},
            "CQRS_MASTER_KEY and CQRS_MASTER_KEY_FILE are both set",
        ),
        (
            {"CQRS_ELASTICSEARCH_USERNAME": "anna"},
            "CQRS_ELASTICSEARCH_USERNAME and CQRS_ELASTICSEARCH_PASSWORD_FILE (or "
            "CQRS_ELASTICSEARCH_PASSWORD) need each other",
        ),
        (
            {
                "CQRS_ELASTICSEARCH_USERNAME": "anna",
                "CQRS_ELASTICSEARCH_PASSWORD": SECRET,
                "CQRS_ELASTICSEARCH_API_KEY": SECRET,
            },
            "CQRS_ELASTICSEARCH_USERNAME and CQRS_ELASTICSEARCH_API_KEY are both set: take one",
        ),
        (
            {
                "CQRS_ELASTICSEARCH_URL": "https://es:9200",
                "CQRS_ELASTICSEARCH_KEY_FILE": "key.pem",
            },
            "CQRS_ELASTICSEARCH_KEY_FILE needs CQRS_ELASTICSEARCH_CERT_FILE",
        ),
        (
            {"CQRS_ELASTICSEARCH_CA_FILE": "ca.pem"},
            "CQRS_ELASTICSEARCH_CA_FILE is set and CQRS_ELASTICSEARCH_URL is not https",
        ),
        (
            {"CQRS_ELASTICSEARCH_URL": f"http://anna:{SECRET}@es:9200"},
            "CQRS_ELASTICSEARCH_URL is not valid: it contains a user or a password, which would "
            "be shown: use CQRS_ELASTICSEARCH_USERNAME and CQRS_ELASTICSEARCH_PASSWORD_FILE",
        ),
        (
            {"CQRS_ELASTICSEARCH_URL": "http://a:9200,https://b:9200"},
            "CQRS_ELASTICSEARCH_URL is not valid: either all URLs are https, or none",
        ),
    ],
)
def test_contradictions(variables: dict[str, str], line: str) -> None:
    assert line_for(**variables) == line


def test_all_contradictions_are_in_one_message() -> None:
    with pytest.raises(InvalidSettings) as refused:
        read(CQRS_KAFKA_USERNAME="anna", CQRS_ELASTICSEARCH_CA_FILE="ca.pem")
    assert [line.split()[0] for line in refused.value.problems] == [
        "CQRS_KAFKA_USERNAME",
        "CQRS_ELASTICSEARCH_CA_FILE",
    ]


@pytest.mark.parametrize(
    "url",
    [
        "localhost",
        "localhost:9200",
        "http://localhost",
        "ftp://x:1",
        "http://x:99999",
        "http://a:1,",
    ],
)
def test_urls_that_are_none(url: str) -> None:
    assert "a scheme, a host and a port for each node" in line_for(CQRS_ELASTICSEARCH_URL=url)


async def test_every_node_of_elasticsearch_is_used() -> None:
    settings = Settings(elasticsearch_url="http://a:1, http://b:2")
    async with connect(settings, timeout=1) as client:
        nodes = {node.base_url for node in client.transport.node_pool.all()}
    assert nodes == {"http://a:1", "http://b:2"}


@pytest.mark.parametrize(
    ("credentials", "header"),
    [
        ({}, None),
        ({"elasticsearch_api_key": SecretStr("abc")}, "ApiKey abc"),
        (
            {"elasticsearch_username": "anna", "elasticsearch_password": SecretStr("abc")},
            "Basic YW5uYTphYmM=",
        ),
    ],
)
async def test_credentials_for_elasticsearch(
    credentials: dict[str, str], header: str | None
) -> None:
    async with connect(Settings(**credentials), timeout=1) as client:  # type: ignore[arg-type]
        assert client._headers.get("authorization") == header
