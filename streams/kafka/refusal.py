"""Find out why no broker takes this client.

Of every failure aiokafka says only "Unable to bootstrap"; the reason is in its log. Here one
connection is made as its clients make theirs, and whatever it raises becomes one line.
"""

from __future__ import annotations

import asyncio
import ssl
from asyncio import IncompleteReadError
from collections.abc import Mapping
from typing import Any

import async_timeout
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

from models.errors import Fatal
from streams.kafka.connections import create_connection
from streams.kafka.sasl import NoTokenError
from streams.settings import Settings

_TIMEOUT_S = 5.0

# How what is no response of Kafka begins, where the length of the response should be.
_TLS_ALERT = b"\x15\x03"
_HTTP = b"HTTP"

# What shows a broker who this client is, where there is no user with a password.
_SHOWN_BY = {"OAUTHBEARER": "CQRS_KAFKA_TOKEN_PROVIDER", "GSSAPI": "the Kerberos ticket"}


class Refused(Fatal):
    """A broker answered, and refuses this client: no outage, and it does not pass by itself."""


class Unreachable(Fatal):
    """No broker takes a connection, and none says why: it may be an outage."""


async def refusal(settings: Settings, options: Mapping[str, Any]) -> Fatal | None:
    """Return why the brokers take no connection.

    Args:
        settings: name the brokers, and the user for the line.
        options: of a client (`connection_options`).

    Returns:
        `Refused` if a broker says why. `Unreachable` if one closes the connection, which it also
        does when it is killed. None if one takes the connection, or none answers.
    """
    found: Fatal | None = None
    for server in settings.bootstrap_servers.split(","):
        try:
            async with async_timeout.timeout(_TIMEOUT_S):
                await _connect(server, options)
        except (OSError, KafkaError, ValueError, asyncio.TimeoutError) as error:
            reason = _reason(error, server, settings)
            if reason is not None and not isinstance(found, Refused):
                found = reason
        else:
            return None
    return found


async def _connect(server: str, options: Mapping[str, Any]) -> None:
    host, _, port = server.rpartition(":")
    given = {name: value for name, value in options.items() if name != "bootstrap_servers"}
    connection = await create_connection(host.strip("[]"), int(port), **given)
    try:
        # A listener with SASL answers the first request of a client without it, but no other.
        await connection.send(MetadataRequest([]))
    finally:
        connection.close()


def _reason(error: Exception, server: str, settings: Settings) -> Fatal | None:
    where = f"Kafka at {server}"
    security = f"CQRS_KAFKA_SECURITY={settings.kafka_security}"
    cause = error.__cause__ if isinstance(error, KafkaConnectionError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return Refused(
            f"the certificate of {where} is not accepted: {cause.verify_message}; check "
            "CQRS_KAFKA_CA_FILE and the host names in CQRS_BOOTSTRAP_SERVERS"
        )
    if isinstance(cause, ssl.SSLError):
        kind = (cause.reason or str(cause)).replace("_", " ").lower()
        return Refused(
            f"{where} refuses TLS with this client: {kind}; check CQRS_KAFKA_CERT_FILE and "
            f"{security}"
        )
    if isinstance(error, NoTokenError):
        return Unreachable(f"no token for {where}: {' '.join(error.args)}; its log may say why")
    if isinstance(cause, SaslAuthenticationFailed) and settings.kafka_username is None:
        reason = " ".join(str(cause).split())[:200]
        return Refused(
            f"{where} refuses what {settings.kafka_sasl_mechanism} shows it: {reason}; check "
            f"{_SHOWN_BY[settings.kafka_sasl_mechanism]}"
        )
    if isinstance(cause, SaslAuthenticationFailed | ValueError):  # ValueError: a wrong signature
        return Refused(
            f"{where} refuses user {settings.kafka_username} with {settings.kafka_sasl_mechanism}: "
            "wrong user, password or mechanism; check CQRS_KAFKA_USERNAME, "
            "CQRS_KAFKA_PASSWORD_FILE and CQRS_KAFKA_SASL_MECHANISM"
        )
    if isinstance(cause, UnsupportedSaslMechanismError):
        return Refused(
            f"{where} does not offer {settings.kafka_sasl_mechanism}: check "
            "CQRS_KAFKA_SASL_MECHANISM"
        )
    if isinstance(cause, IllegalSaslStateError):
        return Refused(f"the listener of {where} has no SASL: check {security}")
    if isinstance(cause, IncompleteReadError) and cause.expected is not None:
        begins = cause.expected.to_bytes(4, "big")
        if begins.startswith(_TLS_ALERT):
            return Refused(f"the listener of {where} wants TLS: check {security}")
        if begins == _HTTP:
            return Refused(f"{server} is a web server, not Kafka: check CQRS_BOOTSTRAP_SERVERS")
    if isinstance(error, ConnectionRefusedError):
        return None
    if isinstance(error, ConnectionError | KafkaConnectionError):
        return Unreachable(
            f"{where} closes the connection: its listener may want another protocol or a client "
            f"certificate; check {security} and CQRS_KAFKA_CERT_FILE"
        )
    return None
