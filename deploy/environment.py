"""Where the servers are, for every command of the command line and for the workers it starts."""

from __future__ import annotations

import os
import re
from dataclasses import asdict

from pydantic import SecretStr

from streams.settings import Settings, read_settings


def load_settings() -> Settings:
    """The settings: what the environment says (`CQRS_*`), else the running embedded stack.

    Without either it is the defaults, which are the usual ports of this machine.

    Raises:
        Fatal: as `read_settings` does.
    """
    given = read_settings()
    if {"bootstrap_servers", "elasticsearch_url"} <= given.model_fields_set:
        return given

    from deploy.embedded.stack import running_address

    stack = running_address()
    if stack is None:
        return given
    return Settings(**{**asdict(stack), **given.model_dump(include=given.model_fields_set)})


# What Faust, Mode and aiokafka read when they are imported, before a worker could prevent it.
_READ_AT_IMPORT = re.compile(
    r"F(AUST)?_.*|AIOKAFKA_NO_EXTENSIONS|DEVLOG|DJANGO_SETTINGS_MODULE|NO_CYTHON|TYPEXPR_DEBUG"
)


def child_environment(settings: Settings) -> dict[str, str]:
    """Return the environment of a child process that has to work with the same settings.

    It contains nothing that could configure the libraries of a worker beside them.
    """
    said = {
        f"CQRS_{name.upper()}": value.get_secret_value()
        if isinstance(value, SecretStr)
        else str(value)
        for name, value in settings.model_dump(exclude_none=True).items()
    }
    others = {
        name: value
        for name, value in os.environ.items()
        if not _READ_AT_IMPORT.fullmatch(name) and name.upper() not in said
    }
    return {**others, **said}
