"""What SASL needs: aiokafka's options for each mechanism."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import async_timeout
from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaConnectionError

from models.errors import Fatal
from streams.settings import Settings

# How long a token may take. aiokafka waits for it without a limit of its own, and meanwhile the
# client connects to no broker at all.
_TOKEN_TIMEOUT_S = 10.0


class NoTokenError(KafkaConnectionError):  # type: ignore[misc]
    """The function of `CQRS_KAFKA_TOKEN_PROVIDER` has returned no token."""


def sasl_options(settings: Settings) -> dict[str, Any]:
    """Return the options of a client that authenticates with SASL.

    Raises:
        Fatal: a file of the settings cannot be used, or a package or function is not there.
    """
    mechanism = settings.kafka_sasl_mechanism
    if mechanism == "OAUTHBEARER":
        provider = TokenProvider(str(settings.kafka_token_provider))
        return {"sasl_mechanism": mechanism, "sasl_oauth_token_provider": provider}
    if mechanism == "GSSAPI":
        if find_spec("gssapi") is None:
            raise Fatal("CQRS_KAFKA_SASL_MECHANISM=GSSAPI needs the package gssapi: install it")
        return {"sasl_mechanism": mechanism, "sasl_kerberos_service_name": "kafka"}
    return {
        "sasl_mechanism": mechanism,
        "sasl_plain_username": settings.kafka_username,
        "sasl_plain_password": settings.secret("kafka_password"),
    }


class TokenProvider(AbstractTokenProvider):  # type: ignore[misc]
    """Asks a function for a token, for each connection."""

    def __init__(self, name: str) -> None:
        """Find the function: `module:function`.

        Raises:
            Fatal: it is not there.
        """
        self._name = f"CQRS_KAFKA_TOKEN_PROVIDER={name}"
        module, _, function = name.partition(":")
        try:
            self._function: Callable[[], Awaitable[str]] = getattr(import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise Fatal(f"{self._name} cannot be used: {error}") from None

    async def token(self) -> str:
        """Return a token.

        Raises:
            NoTokenError: the function has failed, or has returned nothing for 10 s; what it raised
                may contain a secret.
        """
        try:
            async with async_timeout.timeout(_TOKEN_TIMEOUT_S):
                return await self._function()
        except Exception as error:
            raise NoTokenError(f"{self._name} raised {type(error).__name__}") from error
