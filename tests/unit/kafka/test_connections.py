"""Connections to brokers: what is sent on one that has just broken, and what asks about topics."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import closing
from typing import Any

import pytest
import trustme
import uvloop
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest

from deploy.embedded.ports import HOST
from streams.kafka import connections
from streams.kafka.clients import new_consumer, new_producer
from streams.kafka.connections import Connection, create_connection, use_own_connections
from streams.settings import Settings
from tests.harness.fake_broker import fake_broker


@pytest.mark.parametrize("new_client", [new_consumer, new_producer])
@pytest.mark.parametrize("brokers", [1, 0])
def test_sending_on_a_connection_that_was_just_reset_is_an_outage(
    new_client: Any, brokers: int
) -> None:
    """Also on the first connection, which is kept while there is no other broker."""

    async def scenario() -> None:
        async with fake_broker(brokers) as port:
            owner = new_client(Settings(bootstrap_servers=f"{HOST}:{port}"))
            client: AIOKafkaClient = owner._client if new_client is new_consumer else owner.client
            await client.bootstrap()
            try:
                connection = await client._get_conn(1 if brokers else "bootstrap")
                await reset(connection)
                with pytest.raises(KafkaConnectionError, match="broken"):
                    connection.send(MetadataRequest([]))
                assert not connection.connected()
            finally:
                await owner.stop()

    run_on_uvloop(scenario())


def test_a_token_on_a_connection_that_was_just_reset_is_an_outage() -> None:
    async def scenario() -> None:
        async with fake_broker(0) as port:
            connection = await create_connection(HOST, port)
            await reset(connection)
            with pytest.raises(KafkaConnectionError, match="broken"):
                connection._send_sasl_token(b"token")

    run_on_uvloop(scenario())


@pytest.mark.parametrize("sending", ["send", "_send_sasl_token"])
def test_any_other_error_is_not_taken_for_an_outage(
    sending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a defect")

    async def scenario() -> None:
        async with fake_broker(0) as port:
            connection = await create_connection(HOST, port)
            try:
                monkeypatch.setattr(AIOKafkaConnection, sending, fail)
                with pytest.raises(RuntimeError, match="a defect"):
                    getattr(connection, sending)(b"")
                assert connection.connected()
            finally:
                connection.close()

    run_on_uvloop(scenario())


async def test_no_request_creates_a_topic() -> None:
    async with fake_broker(0) as port:
        connection = await create_connection(HOST, port)
        request = MetadataRequest(["missing"])
        assert request._allow_auto_topic_creation is None
        await connection.send(request)
        assert request._allow_auto_topic_creation is False
        connection.close()


def test_the_system_ends_a_connection_to_a_host_that_is_gone() -> None:
    """On both event loops; `tests/faults/test_hosts.py` takes a host away."""

    async def scenario() -> None:
        async with fake_broker(0) as port:
            connection = await create_connection(HOST, port)
            with closing(connection):
                end = end_of(connection)
                assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 10_000
                assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 5

    asyncio.run(scenario())
    run_on_uvloop(scenario())


async def test_a_host_that_does_not_answer_a_connection_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However long a request may take."""
    monkeypatch.setattr(connections, "_HOST_TIMEOUT_S", 0.1)
    with socket.create_server((HOST, 0), backlog=0) as server:
        address = server.getsockname()
        only = socket.create_connection(address)  # the system answers no other one
        with only, pytest.raises(asyncio.TimeoutError):
            await create_connection(*address, request_timeout_ms=3_600_000)


async def test_a_broker_that_has_been_reached_may_take_as_long_as_a_request_may() -> None:
    async with fake_broker(0) as port:
        with closing(await create_connection(HOST, port, request_timeout_ms=3_600_000)) as opened:
            assert opened._request_timeout == 3600


async def test_who_is_cancelled_while_it_asks_for_the_brokers_closes_its_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
    send = Connection.send

    def send_and_wait(self: Connection, request: Any, expect_response: bool = True) -> Any:
        if isinstance(request, MetadataRequest):
            asked.set_result(self)
            return asyncio.get_running_loop().create_future()  # no answer
        return send(self, request, expect_response)

    monkeypatch.setattr(Connection, "send", send_and_wait)
    async with fake_broker(1) as port:
        client = AIOKafkaClient(bootstrap_servers=f"{HOST}:{port}")
        use_own_connections(client)
        starting = asyncio.ensure_future(client.bootstrap())
        connection = await asked
        assert connection.connected()
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        assert not connection.connected()


async def test_a_connection_with_tls_that_is_closed_ends_at_once() -> None:
    """It does not wait for the answer of the broker, which the event loop may not live to see."""
    ca, trusted = trustme.CA(), ssl.create_default_context()
    ca.configure_trust(trusted)
    shown = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(HOST).configure_cert(shown)
    async with fake_broker(0, tls=shown) as port:
        options = {"security_protocol": "SSL", "ssl_context": trusted}
        connection = await create_connection(HOST, port, **options)
        end = end_of(connection)
        connection.close()
        await asyncio.sleep(0)  # in which closed connections are let go
        assert end.fileno() == -1
        connection.abort()  # again: it does no harm


def end_of(connection: Connection) -> Any:
    """Return the socket of a connection."""
    return connection._writer.get_extra_info("socket")


def run_on_uvloop(scenario: Any) -> None:
    """Run it on the event loop that workers run on."""
    loop = uvloop.new_event_loop()
    try:
        loop.run_until_complete(scenario)
        loop.run_until_complete(asyncio.sleep(0))  # in which closed connections are let go
    finally:
        loop.close()


async def reset(connection: Any) -> None:
    """Let the transport be closed, and return before the task that reads from it knows."""
    connection._writer.transport.abort()
    await asyncio.sleep(0)
