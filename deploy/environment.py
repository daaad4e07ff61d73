"""Where the servers are: settings for every `cqrs` command and for the processes it starts."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from models.errors import Fatal, InvalidSettings
from streams.connection_settings import ConnectionSettings, variable
from streams.settings import Settings, read_settings

if TYPE_CHECKING:
    from deploy.embedded.stack import EmbeddedStack

_ADDRESSES = frozenset({"bootstrap_servers", "elasticsearch_url"})
_ENCRYPTION = frozenset(
    {
        "encrypt_personal_data",
        *(f"{which}master_key{kind}" for which in ("", "second_") for kind in ("", "_file")),
    }
)


def load_settings() -> Settings:
    """Return the settings of the environment (`CQRS_*`).

    Without addresses there, both are those of the running embedded stack, and so is its master key,
    if it has one and none is set. If none runs, the addresses are the defaults: the usual ports on
    this machine. Kafka and Elasticsearch are never of two deployments.

    Raises:
        InvalidSettings: as `read_settings` does; or one address is set, and a stack runs.
        Fatal: the running stack is secured, and who connects has to say as whom.
    """
    from_environment = read_settings()
    named_addresses = _ADDRESSES & from_environment.model_fields_set
    if named_addresses == _ADDRESSES:
        return from_environment

    from deploy.embedded.stack import running_address

    stack = running_address()
    if stack is None:
        return from_environment
    if named_addresses:
        [given], [other] = named_addresses, _ADDRESSES - named_addresses
        raise InvalidSettings(
            [
                f"{variable(given)} is set and {variable(other)} is not, and a stack of `cqrs up` "
                "runs here: set both, or neither to use that stack"
            ]
        )
    if stack.is_secure:
        raise Fatal(
            'the running stack is secured: run eval "$(cqrs env --role operator)" first, or with '
            "another role"
        )
    named = from_environment.model_dump(include=from_environment.model_fields_set)
    return Settings.without_environment({**_without(stack.settings, named), **named})


def workers_of_dev(settings: Settings) -> list[Path]:
    """Return the lists of the workers that `cqrs dev` runs, if these settings are of its stack."""
    from deploy.embedded.stack import EmbeddedStack

    stack = EmbeddedStack()
    if not stack.runs_in_part or settings.bootstrap_servers != stack.bootstrap_servers:
        return []
    return stack.worker_lists


def settings_on(stack: EmbeddedStack, principal: str) -> Settings:
    """Return the settings of the environment, but with this stack's connections of a principal.

    Raises:
        Fatal: as `read_settings` does.
    """
    from_environment = read_settings()
    own = from_environment.model_fields_set - set(ConnectionSettings.model_fields)
    named = from_environment.model_dump(include=own)
    return Settings.without_environment({**_without(stack.settings(principal), named), **named})


def _without(of_stack: Mapping[str, object], named: Mapping[str, object]) -> Mapping[str, object]:
    """Return the settings of a stack without its encryption, if the environment says that."""
    if _ENCRYPTION.isdisjoint(named):
        return of_stack
    return {name: value for name, value in of_stack.items() if name not in _ENCRYPTION}


# What libraries read when they are imported, before a worker could prevent it.
_READ_AT_IMPORT = re.compile(
    r"F(AUST)?_.*|AIOKAFKA_NO_EXTENSIONS|DEVLOG|DJANGO_SETTINGS_MODULE|NO_CYTHON|TYPEXPR_DEBUG"
    r"|prometheus_multiproc_dir|PROMETHEUS_.*"
)


def child_environment(settings: Settings) -> dict[str, str]:
    """Return this process's environment plus `settings`, for a child process that uses them.

    Only what was set is passed on, no defaults: the child may be of another version, which refuses
    variables that it does not know. What `settings` do not contain is not set, and variables that
    could configure a worker's libraries beside the settings are left out. Of a secret from a file,
    the file's name is passed.
    """
    variables = {
        variable(name): value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        for name, value in settings.model_dump(exclude_none=True, exclude_unset=True).items()
    }
    known = set(map(variable, Settings.model_fields))
    others = {
        name: value
        for name, value in os.environ.items()
        if not _READ_AT_IMPORT.fullmatch(name) and name.upper() not in known
    }
    return {**others, **variables}
