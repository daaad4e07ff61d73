"""Settings of every process, read from the environment (prefix ``CQRS_``).

Those of the connections are in `streams/connection_settings.py`.

A variable with the prefix that is none of them is an error: misspelt, it would leave a setting at
its default, for instance personal data in the clear. An empty variable counts as not set.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from typing_extensions import Self

from models.errors import Fatal
from streams.connection_settings import PREFIX, ConnectionSettings

# Variables with the prefix that are no settings of workers, which inherit them: the folders of the
# embedded servers, and whether `cqrs` shows tracebacks.
Folder = Literal["stack_home", "cache_home"]
_OTHERS = (*get_args(Folder), "debug")

# What Kubernetes adds to the environment of every pod for each service of its namespace, here for
# services that are called `cqrs` or `cqrs-...`. For `cqrs-health` that is CQRS_HEALTH_PORT, too: it
# is told from our setting by its value, `tcp://10.0.0.5:8080`.
_SERVICE_NAME = re.compile(
    rf"{PREFIX}(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?"
    r"|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_SERVICE_URL = re.compile(rf"{PREFIX}(\w+_)?PORT=(tcp|udp|sctp)://")


class Settings(ConnectionSettings, BaseSettings):
    """Settings of workers, clients and the CLI.

    What is not passed is read from the environment. `read_settings` is for that alone.

    Raises:
        Fatal: the environment contains an unknown variable with the prefix.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True
    )

    # Prefix of everything that a deployment owns on shared servers: topics, consumer groups,
    # transactional ids, indices. It never changes while the deployment lives.
    namespace: str = Field(
        "", pattern=r"^([a-z0-9.][a-z0-9._-]*)?$", description="prefix of all names"
    )

    # Kafka
    partitions: int = Field(4, ge=1, le=1024, description="partitions of each topic, for life")
    replication_factor: int = Field(1, ge=1, description="replicas of new topics; 3 in production")
    session_timeout: float = Field(
        10.0, ge=3.0, le=60.0, description="seconds until a dead worker's partitions move"
    )
    transaction_timeout: float = Field(
        15.0, ge=2.0, description="seconds until the broker aborts a dead worker's transaction"
    )
    outcome_timeout: float = Field(30.0, gt=0, description="seconds a client waits for an outcome")
    stall_timeout: float = Field(
        60.0,
        ge=1.0,
        description="seconds without progress after which a worker with records to process ends",
    )
    health_port: int | None = Field(
        None, ge=0, le=65535, description="port of a worker's /health; 0: any free one"
    )
    health_host: str = Field(
        "127.0.0.1",
        pattern=r"^[A-Za-z0-9.:-]+$",
        description="address that /health listens on; 0.0.0.0: all IPv4 addresses of the host",
    )
    ready_lag: float | None = Field(
        None, gt=0, description="seconds that a partition of a ready worker may be behind"
    )
    max_chunk_records: int = Field(
        4000, ge=1, le=100_000, description="most records decided in one transaction"
    )

    # Dead letters
    dead_letter_order: Literal["skip", "aggregate"] = Field(
        "skip",
        description="what later commands of an aggregate do after one that a mended program could "
        "decide: go on, or wait behind it",
    )
    dead_letter_limit: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share of a partition's last commands that may fail before it stops",
    )
    control_key: SecretStr | None = Field(
        None, description="base64 of the 32 bytes that sign replays and drops of parked commands"
    )
    control_key_file: Path | None = Field(None, description="file with the control key")

    # State
    state_dir: Path | None = Field(
        None, description="folder of the command worker's state; without it, in memory"
    )

    # Elasticsearch
    view_cache_documents: int = Field(
        200_000, ge=0, description="documents a view worker keeps in memory per process"
    )
    bulk_documents: int = Field(2000, ge=1, description="most documents in one bulk request")
    view_replicas: int | None = Field(
        None, ge=0, description="replicas of a view's index; by default one if there are two nodes"
    )

    # Personal data
    encrypt_personal_data: bool = Field(
        False, description="whether personal data in events, states and dead letters is encrypted"
    )
    master_key: SecretStr | None = Field(
        None, description="base64 of the 32 bytes that wrap the data keys of aggregates"
    )
    master_key_file: Path | None = Field(None, description="file with the master key")

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="lowest level of this project's log lines in workers"
    )
    log_format: Literal["text", "json"] = Field("text", description="form of a worker's log lines")

    @model_validator(mode="after")
    def _check_keys(self) -> Self:
        for name in ("master_key", "control_key"):
            key = self.secret(name)
            if key is None:
                continue
            try:
                raw = base64.b64decode(key, validate=True)
            except (binascii.Error, ValueError):
                raw = b""
            if len(raw) != 32:
                variable = name if getattr(self, f"{name}_file") is None else f"{name}_file"
                raise ValueError(
                    f"{PREFIX}{variable.upper()} is not valid: it must be base64 of 32 bytes; "
                    "`cqrs keys new` makes one"
                )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take what the caller passes, then what `_from_environment` returns."""
        found = _from_environment(os.environ)
        own = {name: text for name, text in found.items() if name not in _OTHERS}
        return init_settings, InitSettingsSource(settings_cls, own)


def _from_environment(environment: Mapping[str, str]) -> Mapping[str, str]:
    """Return the text of each variable that is known and not empty, by its name without the prefix.

    Raises:
        Fatal: a variable with the prefix is none that this project knows.
    """
    known = (*Settings.model_fields, *_OTHERS)
    found = {}
    for variable, value in environment.items():
        if not variable.upper().startswith(PREFIX) or _is_of_kubernetes(variable, value):
            continue
        name = variable.lower().removeprefix(PREFIX.lower())
        if name not in known:
            nearest = get_close_matches(name, known, 1, cutoff=0.0)[0]
            raise Fatal(f"{variable} is not a setting; did you mean {PREFIX}{nearest.upper()}?")
        if value:
            found[name] = value
    return found


def _is_of_kubernetes(name: str, value: str) -> bool:
    """Whether Kubernetes makes this variable for a service."""
    return bool(_SERVICE_NAME.fullmatch(name) or _SERVICE_URL.match(f"{name}={value}"))


def read_folder(name: Folder) -> Path | None:
    """Return the folder that this variable names, with ``~`` expanded; None if it is not set.

    Raises:
        Fatal: a variable with the prefix is unknown, or there is no such home folder.
    """
    folder = _from_environment(os.environ).get(name)
    try:
        return None if folder is None else Path(folder).expanduser()
    except RuntimeError as error:
        raise _not_valid(name, str(error)) from None


def read_settings() -> Settings:
    """Return the settings that the environment contains.

    Raises:
        Fatal: a variable is unknown, or its value is not valid. The line names the variable, and
            does not contain its value.
    """
    try:
        return Settings()
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        reason = problem["msg"].removeprefix("Value error, ")
        if not problem["loc"]:  # about several variables, which the reason names
            raise Fatal(reason) from None
        raise _not_valid(str(problem["loc"][0]), reason) from None


def _not_valid(name: str, reason: str) -> Fatal:
    return Fatal(f"{PREFIX}{name.upper()} is not valid: {reason}")


@lru_cache(maxsize=1)
def settings() -> Settings:
    """Return the settings of this process, which are read once.

    Raises:
        Fatal: as `read_settings` does.
    """
    return read_settings()
