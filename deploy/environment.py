"""Where the servers are: settings for every `cqrs` command and for the processes it starts."""

from __future__ import annotations

import os
from dataclasses import asdict

from pydantic import SecretStr, ValidationError

from models.errors import Fatal
from streams.settings import Settings


def load_settings() -> Settings:
    """Return the settings of the environment (`CQRS_*`).

    If an address is not set there, take it from the running embedded stack. If none runs, it is the
    default: the usual port on this machine.

    Raises:
        Fatal: a setting in the environment is not valid.
    """
    try:
        from_environment = Settings()
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        name = f"CQRS_{problem['loc'][0]}".upper()
        raise Fatal(f"{name} is not valid: {problem['msg']}") from None
    if {"bootstrap_servers", "elasticsearch_url"} <= from_environment.model_fields_set:
        return from_environment

    from deploy.embedded.stack import running_address

    stack = running_address()
    if stack is None:
        return from_environment
    named = from_environment.model_dump(include=from_environment.model_fields_set)
    return Settings(**{**asdict(stack), **named})


def child_environment(settings: Settings) -> dict[str, str]:
    """Return this process's environment plus `settings`, for a child process that uses them."""
    variables = {
        f"CQRS_{name.upper()}": value.get_secret_value()
        if isinstance(value, SecretStr)
        else str(value)
        for name, value in settings.model_dump(exclude_none=True).items()
    }
    return {**os.environ, **variables}
