"""Why no broker takes a client, as far as a socket without Kafka behind it can show."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import trustme

from models.errors import Fatal
from streams.kafka.clients import connection_options
from streams.kafka.refusal import Refused, Unreachable, refusal
from streams.settings import Settings

YESTERDAY = datetime.now(timezone.utc) - timedelta(days=1)
TLS_ALERT = b"\x15\x03\x03\x00\x02\x02\x46"
HTTP = b"HTTP/1.1 400 Bad Request\r\n\r\n"


@asynccontextmanager
async def serving(
    answer: bytes = b"", certificate: trustme.LeafCert | None = None
) -> AsyncIterator[str]:
    """A server that answers whatever it gets with this and closes; yields its address."""
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(respond, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def reason(settings: Settings) -> Fatal | None:
    return await refusal(settings, connection_options(settings))


@pytest.mark.parametrize(
    ("host", "expires", "trusted", "line"),
    [
        ("127.0.0.1", None, False, "unable to get local issuer certificate"),
        ("127.0.0.1", YESTERDAY, True, "certificate has expired"),
        ("kafka.example.org", None, True, "IP address mismatch"),
    ],
)
async def test_certificates(
    tmp_path: Path, host: str, expires: datetime | None, trusted: bool, line: str
) -> None:
    ca = trustme.CA()
    (ca if trusted else trustme.CA()).cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate = ca.issue_cert(host, not_after=expires)
    async with serving(certificate=certificate) as server:
        found = await reason(
            Settings(
                bootstrap_servers=server, kafka_security="ssl", kafka_ca_file=tmp_path / "ca.pem"
            )
        )
    assert isinstance(found, Refused)
    assert str(found).startswith(f"the certificate of Kafka at {server} is not accepted: {line}")
    assert "CQRS_KAFKA_CA_FILE" in str(found)


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (TLS_ALERT, "the listener of Kafka at {} wants TLS: check CQRS_KAFKA_SECURITY=plaintext"),
        (HTTP, "{} is a web server, not Kafka: check CQRS_BOOTSTRAP_SERVERS"),
    ],
)
async def test_servers_that_answer_otherwise(answer: bytes, line: str) -> None:
    async with serving(answer) as server:
        found = await reason(Settings(bootstrap_servers=server))
    assert isinstance(found, Refused)
    assert str(found) == line.format(server)


async def test_a_closed_connection_may_be_an_outage() -> None:
    async with serving() as server:
        found = await reason(Settings(bootstrap_servers=server))
        with_tls = await reason(Settings(bootstrap_servers=server, kafka_security="ssl"))
    for one in (found, with_tls):
        assert type(one) is Unreachable
        assert str(one).startswith(f"Kafka at {server} closes the connection: ")


async def test_the_clearest_reason_of_several_brokers() -> None:
    async with serving() as closing, serving(TLS_ALERT) as tls:
        found = await reason(Settings(bootstrap_servers=f"{closing},{tls},{closing},127.0.0.1:1"))
    assert isinstance(found, Refused)
    assert "wants TLS" in str(found)


async def test_brokers_that_are_away_refuse_nobody() -> None:
    assert await reason(Settings(bootstrap_servers="127.0.0.1:1,host.invalid:9092")) is None
