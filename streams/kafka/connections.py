"""Connections to brokers, as all clients make them here: aiokafka's, with seven differences.

- Asking about a topic creates none. aiokafka allows it in every metadata request: where
  `auto.create.topics.enable` is set, as it is by default, asking about a topic that is missing
  would create it with the broker's partitions and retention.
- Sending on a connection that the broker has just reset fails as any other outage does. On uvloop
  it is a RuntimeError, which aiokafka does not expect anywhere: whatever task sends at that moment
  ended for good, such as the fetcher, and with it the worker.
- A token that is refused is an error. The broker answers with the reason first, and with an error
  when that is acknowledged (RFC 7628, section 3.2.3). aiokafka takes the answer for success; later
  the broker closes the connection, and no client finds out why.
- A host that is gone without a word (power, network) is given up after 10 s: one that is connected,
  and one that does not answer who connects, where systems try for two minutes. aiokafka waits
  as long as a request may take, and a slow broker is given long. Nobody looks meanwhile for the
  next leader of a partition, or the next coordinator of a group.
- A connection is replaced before its session ends, when no answer is awaited on it. A broker ends
  the session of a token when that expires, and all where it has `connections.max.reauth.ms`: it
  closes the connection at the next request, which may be the end of a transaction. aiokafka does
  not authenticate again (KIP-368).
- Who is cancelled while it asks for the brokers closes its first connection. aiokafka forgets it.
- A connection that nobody awaits the end of ends at once. With TLS, aiokafka's wait for the answer
  to their last word, and are never closed if the event loop ends before that.
"""

from __future__ import annotations

import asyncio
import math
import socket
import sys
import time
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection, CloseReason, OAuthAuthenticator
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.admin import SaslAuthenticateRequest
from aiokafka.protocol.metadata import MetadataRequest

from streams.kafka.aiokafka_patches import finding

# Share of a session after which its connection is replaced.
_USED_SHARE = 0.75

_ACKNOWLEDGED = b"\x01"

# After this time a host is given up that acknowledges nothing, not even probes of an idle
# connection. The host does that, not the broker, which may be busy.
_HOST_TIMEOUT_S = 10
_PROBE_AFTER_S = 5
_PROBE_INTERVAL_S = 1


class Connection(AIOKafkaConnection):  # type: ignore[misc]
    """A connection to one broker."""

    _request_timeout: float  # in seconds

    _replace_at = math.inf
    _transport: asyncio.Transport | None = None

    def connected(self) -> bool:
        """Whether it can be used. Clients ask before each request, so here it ends if it is due."""
        if time.monotonic() >= self._replace_at and not self._requests:
            self.close()
        return bool(super().connected())

    def send(self, request: Any, expect_response: bool = True) -> Any:
        """Send a request, and return what awaits its response.

        Raises:
            KafkaConnectionError: The connection is broken.
        """
        if isinstance(request, MetadataRequest):
            request._allow_auto_topic_creation = False
        try:
            response = super().send(request, expect_response)
        except RuntimeError as error:
            raise self._broken(error) from error
        if isinstance(request, SaslAuthenticateRequest):
            return self._note_session(response)
        return response

    async def _note_session(self, response: Awaitable[Any]) -> Any:
        """Note when the session ends, if the broker says it."""
        found = await response
        lifetime_ms = getattr(found, "session_lifetime_ms", 0)  # not of brokers before 2.2
        if lifetime_ms > 0:
            self._replace_at = time.monotonic() + _USED_SHARE * lifetime_ms / 1000
        return found

    def close(self, reason: CloseReason | None = None, exc: Exception | None = None) -> Any:
        """Close it, and return what awaits its end.

        Only a client that is stopped awaits that, for what it has not sent yet.
        """
        if reason is not CloseReason.SHUTDOWN:
            self.abort()
        return super().close(reason, exc)

    def abort(self) -> None:
        """End it now, also if its end is awaited: a broker may not answer."""
        if self._transport is not None:
            with suppress(AttributeError):  # of asyncio, with TLS, if both sides have closed it
                self._transport.abort()

    def authenticator_oauth(self) -> OAuthAuthenticator:
        """Return what authenticates with a token."""
        return _TokenAuthenticator(sasl_oauth_token_provider=self._sasl_oauth_token_provider)

    async def connect(self) -> Any:
        """Connect: the host has 10 s to answer, and from then on each request has its time."""
        self._answer_timeout = self._request_timeout
        self._request_timeout = min(_HOST_TIMEOUT_S, self._answer_timeout)
        return await super().connect()

    def _create_reader_task(self) -> Any:
        """Do so, first of all on a new connection."""
        self._request_timeout = self._answer_timeout
        self._transport = self._writer.transport
        if sys.platform == "linux":
            _give_up_lost_hosts(self._writer.get_extra_info("socket"))
        return super()._create_reader_task()

    def _send_sasl_token(self, payload: Any, expect_response: bool = True) -> Any:
        try:
            return super()._send_sasl_token(payload, expect_response)
        except RuntimeError as error:
            raise self._broken(error) from error

    def _broken(self, error: RuntimeError) -> Exception:
        """Close the connection, and return what aiokafka expects of one that is broken.

        Raises:
            RuntimeError: It is not broken.
        """
        if not self._writer.is_closing():
            raise error
        self.close(reason=CloseReason.CONNECTION_BROKEN)
        broken: Exception = KafkaConnectionError(
            f"Connection at {self.host}:{self.port} broken: {error}"
        )
        return broken


class _TokenAuthenticator(OAuthAuthenticator):  # type: ignore[misc]
    async def step(self, payload: bytes | None) -> tuple[str | bytes, bool] | None:
        if payload:
            return _ACKNOWLEDGED, True  # the answer is an error, which aiokafka raises
        step: tuple[str | bytes, bool] | None = await super().step(payload)
        return step


def _give_up_lost_hosts(end: Any) -> None:
    """Let the system end the connection of this socket when its host is gone."""
    with suppress(OSError):  # it has ended already: whoever reads from it finds that out
        end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            (socket.TCP_USER_TIMEOUT, 1000 * _HOST_TIMEOUT_S),
            (socket.TCP_KEEPIDLE, _PROBE_AFTER_S),
            (socket.TCP_KEEPINTVL, _PROBE_INTERVAL_S),
        ):
            end.setsockopt(socket.IPPROTO_TCP, option, value)


async def create_connection(host: str, port: int, **options: Any) -> AIOKafkaConnection:
    """Connect to a broker; `options` are those of aiokafka's connections.

    Raises:
        KafkaError: The broker refuses it, or closes the connection.
        OSError: There is none.
    """
    connection = Connection(host, port, **options)
    await connection.connect()
    return connection


def use_own_connections(client: AIOKafkaClient) -> None:
    """Let this client connect by `create_connection`.

    Its methods stay aiokafka's: they only find another function under the name `create_conn`.
    """
    bootstrap = client.bootstrap

    async def bootstrap_or_close() -> None:
        made: list[AIOKafkaConnection] = []

        async def create(host: str, port: int, **options: Any) -> AIOKafkaConnection:
            made.append(await create_connection(host, port, **options))
            return made[-1]

        try:
            await finding(bootstrap, {"create_conn": create})()
        except asyncio.CancelledError:
            for connection in made:
                connection.close()
            raise

    client.bootstrap = bootstrap_or_close
    client._get_conn = finding(client._get_conn, {"create_conn": create_connection})
