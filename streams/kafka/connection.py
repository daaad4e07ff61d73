"""aiokafka's connection, with what its SASL lacks: refused tokens, and sessions that end.

A broker that does not accept a token answers with the reason first, and with an error when that is
acknowledged (RFC 7628, section 3.2.3). aiokafka 0.14 takes the answer for success; later the broker
closes the connection, and no client finds out why.

A broker ends sessions: that of a token when it expires, and every one where it has
`connections.max.reauth.ms`. It then closes the connection at the next request, which may be the end
of a transaction. aiokafka does not authenticate again (KIP-368). So a connection is replaced before
its session ends, at a moment when no answer is awaited on it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable
from typing import Any

from aiokafka.conn import AIOKafkaConnection, OAuthAuthenticator
from aiokafka.protocol.admin import SaslAuthenticateRequest

# Share of a session after which its connection is replaced.
_USED_SHARE = 0.75

_ACKNOWLEDGED = b"\x01"


class Connection(AIOKafkaConnection):  # type: ignore[misc]
    """A connection to one broker."""

    _replace_at = math.inf

    def connected(self) -> bool:
        """Whether it can be used. Clients ask before each request, so here it ends if it is due."""
        if time.monotonic() >= self._replace_at and not self._requests:
            self.close()
        return bool(super().connected())

    def send(self, request: Any, expect_response: bool = True) -> Awaitable[Any]:
        """Send a request, and return what awaits its response."""
        response: Awaitable[Any] = super().send(request, expect_response)
        if isinstance(request, SaslAuthenticateRequest):
            return self._note_session(response)
        return response

    async def _note_session(self, response: Awaitable[Any]) -> Any:
        """Note when the session ends, if the broker says it."""
        found = await response
        lifetime_ms = getattr(found, "session_lifetime_ms", 0)  # brokers before 2.2 do not have it
        if lifetime_ms > 0:
            self._replace_at = time.monotonic() + _USED_SHARE * lifetime_ms / 1000
        return found

    def authenticator_oauth(self) -> OAuthAuthenticator:
        """Return what authenticates with a token."""
        return _TokenAuthenticator(sasl_oauth_token_provider=self._sasl_oauth_token_provider)


class _TokenAuthenticator(OAuthAuthenticator):  # type: ignore[misc]
    async def step(self, payload: bytes | None) -> tuple[str | bytes, bool] | None:
        if payload:
            return _ACKNOWLEDGED, True  # the answer is an error, which aiokafka raises
        step: tuple[str | bytes, bool] | None = await super().step(payload)
        return step


async def connect(host: str, port: int, **options: Any) -> Connection:
    """Open a connection, as `aiokafka.conn.create_conn` does, with the same options."""
    connection = Connection(host, port, **options)
    await connection.connect()
    return connection
