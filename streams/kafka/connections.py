"""Connections to brokers, as all clients make them here: aiokafka's, with two differences.

- Asking about a topic creates none. aiokafka allows it in every metadata request: where
  `auto.create.topics.enable` is set, as it is by default, asking about a topic that is missing
  would create it with the broker's partitions and retention.
- Sending on a connection that the broker has just reset fails as any other outage does. On uvloop
  it is a RuntimeError, which aiokafka does not expect anywhere: whatever task sends at that moment
  ended for good, such as the fetcher, and with it the worker.
"""

from __future__ import annotations

from types import FunctionType, MethodType
from typing import Any, cast

from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest


class _Connection(AIOKafkaConnection):  # type: ignore[misc]
    def send(self, request: Any, expect_response: bool = True) -> Any:
        if isinstance(request, MetadataRequest):
            request._allow_auto_topic_creation = False
        try:
            return super().send(request, expect_response)
        except RuntimeError as error:
            raise self._broken(error) from error

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


async def create_connection(host: str, port: int, **options: Any) -> AIOKafkaConnection:
    """Connect to a broker; `options` are those of aiokafka's connections.

    Raises:
        KafkaError: The broker refuses it, or closes the connection.
        OSError: There is none.
    """
    connection = _Connection(host, port, **options)
    await connection.connect()
    return connection


def use_own_connections(client: AIOKafkaClient) -> None:
    """Let this client connect by `create_connection`.

    Its methods stay aiokafka's: they only find another function under the name `create_conn`.
    """
    for name in ("_get_conn", "bootstrap"):
        method = cast("MethodType", getattr(client, name))
        function = cast("FunctionType", method.__func__)
        names = {**function.__globals__, "create_conn": create_connection}
        other = FunctionType(function.__code__, names, function.__name__)
        other.__kwdefaults__ = function.__kwdefaults__
        setattr(client, name, MethodType(other, client))
