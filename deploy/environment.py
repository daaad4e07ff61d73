"""Where the servers are: settings for every `cqrs` command and for the processes it starts."""

from __future__ import annotations

import os
import re
from dataclasses import asdict

from pydantic import SecretStr

from models.errors import Fatal
from streams.settings import Settings, read_settings


def load_settings() -> Settings:
    """Return the settings of the environment (`CQRS_*`).

    If an address is not set there, take it from the running embedded stack. If none runs, it is the
    default: the usual port on this machine.

    Raises:
        Fatal: as `read_settings` does; or the running stack is secured, and who connects has to say
            as whom.
    """
    from_environment = read_settings()
    if {"bootstrap_servers", "elasticsearch_url"} <= from_environment.model_fields_set:
        return from_environment

    from deploy.embedded.stack import running_address

    stack = running_address()
    if stack is None:
        return from_environment
    if stack.is_secure:
        raise Fatal(
            "the running stack is secured: source the file of a role first, as `cqrs up` shows it"
        )
    named = from_environment.model_dump(include=from_environment.model_fields_set)
    return Settings(**{**asdict(stack), **named})


# What libraries read when they are imported, before a worker could prevent it.
_READ_AT_IMPORT = re.compile(
    r"F(AUST)?_.*|AIOKAFKA_NO_EXTENSIONS|DEVLOG|DJANGO_SETTINGS_MODULE|NO_CYTHON|TYPEXPR_DEBUG"
    r"|prometheus_multiproc_dir|PROMETHEUS_.*"
)


def child_environment(settings: Settings) -> dict[str, str]:
    """Return this process's environment plus `settings`, for a child process that uses them.

    What `settings` do not contain is not set, and variables that could configure a worker's
    libraries beside the settings are left out. Of a secret from a file, the file's name is passed.
    """
    variables = {
        f"CQRS_{name.upper()}": value.get_secret_value()
        if isinstance(value, SecretStr)
        else str(value)
        for name, value in settings.model_dump(exclude_none=True).items()
    }
    known = {f"CQRS_{name.upper()}" for name in Settings.model_fields}
    others = {
        name: value
        for name, value in os.environ.items()
        if not _READ_AT_IMPORT.fullmatch(name) and name.upper() not in known
    }
    return {**others, **variables}
