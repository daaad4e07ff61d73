"""When a connection ends its session, and what it does with a token that is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any
from unittest.mock import patch

import pytest
from aiokafka.conn import AIOKafkaConnection
from aiokafka.protocol.admin import (
    ApiVersionRequest,
    SaslAuthenticateRequest,
    SaslAuthenticateResponse_v0,
    SaslAuthenticateResponse_v1,
)

from models.errors import Fatal
from streams.kafka import sasl
from streams.kafka.connections import Connection
from streams.kafka.sasl import NoTokenError, TokenProvider, sasl_options
from streams.settings import Settings
from tests.harness import unsecured_tokens

NAME = "tests.harness.unsecured_tokens:token"


async def authenticated(response: Any) -> Connection:
    """A connection whose broker has given this response."""

    def send(*_: Any) -> Awaitable[Any]:
        answer = asyncio.get_running_loop().create_future()
        answer.set_result(response)
        return answer

    connection = Connection("kafka", 9092)
    with patch.object(AIOKafkaConnection, "send", send):
        assert await connection.send(SaslAuthenticateRequest(b"")) is response
        assert await connection.send(ApiVersionRequest()) is response
    return connection


@pytest.fixture
def closed() -> Any:
    with patch.object(AIOKafkaConnection, "close", autospec=True) as closed:
        yield closed


def closed_ones(closed: Any) -> list[Any]:
    """The connections that were closed; others may be when they are collected."""
    return [one.args[0] for one in closed.call_args_list]


@pytest.mark.parametrize(
    ("response", "after_s", "is_due"),
    [
        (SaslAuthenticateResponse_v1(0, "", b"", 4_000), 2.9, False),
        (SaslAuthenticateResponse_v1(0, "", b"", 4_000), 3.1, True),
        (SaslAuthenticateResponse_v1(0, "", b"", 0), 1e9, False),
        (SaslAuthenticateResponse_v0(0, "", b""), 1e9, False),
    ],
)
async def test_a_connection_is_replaced_before_its_session_ends(
    closed: Any, response: Any, after_s: float, is_due: bool
) -> None:
    with patch("streams.kafka.connections.time") as clock:
        clock.monotonic.return_value = 10.0
        connection = await authenticated(response)
        clock.monotonic.return_value = 10.0 + after_s
        connection._requests.append(("an answer", "is", "awaited"))
        connection.connected()
        assert connection not in closed_ones(closed)
        connection._requests.clear()
        connection.connected()
    assert (connection in closed_ones(closed)) is is_due


async def test_a_refusal_is_acknowledged(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv(unsecured_tokens.USER, "anna")
    monkeypatch.setenv(unsecured_tokens.LIFETIME_S, "60")
    monkeypatch.setenv(unsecured_tokens.MADE, str(tmp_path / "made"))
    provider = TokenProvider(NAME)
    connection = Connection("kafka", 9092, sasl_oauth_token_provider=provider)
    first = await connection.authenticator_oauth().step(None)
    assert first is not None
    assert first[0].startswith(b"n,,\x01auth=Bearer ey")
    for answer, step in ((b"", None), (b'{"status":"invalid_token"}', (b"\x01", True))):
        authenticator = connection.authenticator_oauth()
        await authenticator.step(None)
        assert await authenticator.step(answer) == step


async def test_what_a_token_provider_raises_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(unsecured_tokens.MADE, "/hunter2/none")
    with pytest.raises(NoTokenError) as failed:
        await TokenProvider(NAME).token()
    assert failed.value.args == (f"CQRS_KAFKA_TOKEN_PROVIDER={NAME} raised FileNotFoundError",)


async def test_a_token_provider_that_hangs_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """aiokafka would wait for ever, and nothing that the client is asked for would end."""
    monkeypatch.setattr(sasl, "_TOKEN_TIMEOUT_S", 0.01)
    monkeypatch.setattr(unsecured_tokens, "token", asyncio.Event().wait)
    with pytest.raises(NoTokenError, match=f"{NAME} raised TimeoutError"):
        await TokenProvider(NAME).token()


@pytest.mark.parametrize("name", ["no_such_module:token", f"{NAME}s"])
def test_a_token_provider_that_is_not_there(name: str) -> None:
    settings = Settings(
        kafka_security="sasl_plaintext",
        kafka_sasl_mechanism="OAUTHBEARER",
        kafka_token_provider=name,
    )
    with pytest.raises(Fatal, match=f"^CQRS_KAFKA_TOKEN_PROVIDER={name} cannot be used: "):
        sasl_options(settings)


def test_kerberos_is_passed_on() -> None:
    settings = Settings(kafka_security="sasl_plaintext", kafka_sasl_mechanism="GSSAPI")
    with (
        patch("streams.kafka.sasl.find_spec", return_value=None),
        pytest.raises(Fatal, match="needs the package gssapi: install it"),
    ):
        sasl_options(settings)
    with patch("streams.kafka.sasl.find_spec"):
        found = sasl_options(settings)
    assert found == {"sasl_mechanism": "GSSAPI", "sasl_kerberos_service_name": "kafka"}
