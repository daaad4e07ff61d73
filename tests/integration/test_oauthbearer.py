"""Tokens in place of a password: refused ones have their line, and sessions end unnoticed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from agents.client import open_commands
from deploy.embedded.cluster import EmbeddedCluster
from deploy.embedded.grants import allow
from deploy.embedded.secrets import ADMIN, Secrets
from deploy.ephemeral import WorkerProcess, create_user_topics
from deploy.rights import kafka_rights
from models.errors import Fatal
from streams.kafka.clients import admin_client, new_producer, started
from streams.settings import Settings
from tests.harness import unsecured_tokens
from tests.harness.users import register

_LIFETIME_S = 10
_SESSIONS = 4  # that end while work goes on
_MODULE = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule"
_TOKENS = {
    "sasl.enabled.mechanisms": "SCRAM-SHA-512,OAUTHBEARER",
    "listener.name.sasl_ssl.oauthbearer.sasl.jaas.config": (
        f'{_MODULE} required unsecuredLoginStringClaim_sub="nobody";'
    ),
    # Without it a broker never ends the session of a token.
    "listener.name.sasl_ssl.oauthbearer.connections.max.reauth.ms": 3_600_000,
}


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """The administrator's settings of a Kafka that takes tokens, with all topics of users."""
    secrets = Secrets(tmp_path_factory.mktemp("secrets"))
    secrets.ensure()
    with EmbeddedCluster.temporary(nodes=1, secrets=secrets, changes=_TOKENS) as cluster:
        yield Settings(
            bootstrap_servers=cluster.bootstrap_servers,
            kafka_security="sasl_ssl",
            kafka_ca_file=secrets.ca_file,
            kafka_username=ADMIN,
            kafka_password_file=secrets.folder / f"{ADMIN}.password",
            partitions=1,
            session_timeout=6.0,
            transaction_timeout=6.0,
        )


@pytest.fixture
def with_tokens(admin: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of anna, who shows tokens."""
    monkeypatch.setenv(unsecured_tokens.USER, "anna")
    monkeypatch.setenv(unsecured_tokens.LIFETIME_S, str(_LIFETIME_S))
    monkeypatch.setenv(unsecured_tokens.MADE, str(tmp_path / "made"))
    return Settings(
        bootstrap_servers=admin.bootstrap_servers,
        kafka_security="sasl_ssl",
        kafka_ca_file=admin.kafka_ca_file,
        kafka_sasl_mechanism="OAUTHBEARER",
        kafka_token_provider="tests.harness.unsecured_tokens:token",
        partitions=1,
        session_timeout=6.0,
        transaction_timeout=6.0,
        log_level="DEBUG",
    )


async def test_work_goes_on_when_sessions_end(
    admin: Settings, with_tokens: Settings, tmp_path: Path
) -> None:
    await create_user_topics(admin)
    for role in ("command-worker", "client"):
        await allow(admin, "anna", kafka_rights(role, admin))
    made = tmp_path / "made"
    with WorkerProcess("commands", with_tokens, tmp_path) as worker:
        async with open_commands(with_tokens) as commands:
            assert (await commands.dispatch(register("first"))).status == "accepted"
            settled, first = len(worker.log_text), len(made.read_bytes())
            while len(made.read_bytes()) < first + _SESSIONS:
                assert (await commands.dispatch(register(uuid4().hex))).status == "accepted"
        assert worker.terminate() == 0
    assert "trying again" not in worker.log_text[settled:]


async def test_a_token_that_is_refused(
    with_tokens: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(unsecured_tokens.LIFETIME_S, "-3600")
    refused = f"Kafka at {with_tokens.bootstrap_servers} refuses what OAUTHBEARER shows it: "
    with pytest.raises(Fatal) as of_admin:
        async with admin_client(with_tokens):
            pass
    with pytest.raises(Fatal) as of_producer:
        async with started(new_producer(with_tokens), with_tokens):
            pass
    for line in (str(of_admin.value), str(of_producer.value)):
        assert line.startswith(refused)
        assert line.endswith("check CQRS_KAFKA_TOKEN_PROVIDER")
        assert "invalid_token" in line
    with WorkerProcess("commands", with_tokens, tmp_path) as worker:
        assert worker.wait(timeout=60) == 1
    assert worker.log_text.splitlines()[-1].startswith(f"error: {refused}")


async def test_no_token(with_tokens: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(unsecured_tokens.MADE)
    with pytest.raises(Fatal) as failed:
        async with admin_client(with_tokens):
            pass
    assert str(failed.value).startswith(
        f"no token for Kafka at {with_tokens.bootstrap_servers}: CQRS_KAFKA_TOKEN_PROVIDER="
        "tests.harness.unsecured_tokens:token raised KeyError"
    )
