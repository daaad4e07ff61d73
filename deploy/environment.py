"""Where the servers are: settings for every `cqrs` command and for the processes it starts."""

from __future__ import annotations

import os
import re
from dataclasses import asdict

from pydantic import SecretStr

from models.errors import Fatal, InvalidSettings
from streams.connection_settings import variable
from streams.settings import Settings, read_settings

_ADDRESSES = frozenset({"bootstrap_servers", "elasticsearch_url"})


def load_settings() -> Settings:
    """Return the settings of the environment (`CQRS_*`).

    Without addresses there, both are those of the running embedded stack. If none runs, they are
    the defaults: the usual ports on this machine. Kafka and Elasticsearch are never of two
    deployments.

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
        [named], [other] = named_addresses, _ADDRESSES - named_addresses
        raise InvalidSettings(
            [
                f"{variable(named)} is set and {variable(other)} is not, and a stack of `cqrs up` "
                "runs here: set both, or neither to use that stack"
            ]
        )
    if stack.is_secure:
        raise Fatal(
            "the running stack is secured: source the file of a role first, as `cqrs up` shows it"
        )
    return Settings(**asdict(stack))


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
        variable(name): value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        for name, value in settings.model_dump(exclude_none=True).items()
    }
    known = set(map(variable, Settings.model_fields))
    others = {
        name: value
        for name, value in os.environ.items()
        if not _READ_AT_IMPORT.fullmatch(name) and name.upper() not in known
    }
    return {**others, **variables}
