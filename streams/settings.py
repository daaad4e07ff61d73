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
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from typing_extensions import Self

from models.errors import InvalidSettings
from streams.connection_settings import (
    PREFIX,
    ConnectionSettings,
    Contradiction,
    ContradictionError,
    variable,
)
from streams.setting_values import Values, allowed

Folder = Literal["stack_home", "cache_home"]


class CommandVariables(BaseModel):
    """Variables of `cqrs` with the prefix: no settings of workers, which inherit them."""

    stack_home: Path | None = Field(
        None,
        description="folder of the servers of `cqrs up`, which nothing else is in; without it, one "
        "per user. Two checkouts on one host need two",
    )
    cache_home: Path | None = Field(
        None,
        description="folder of the servers' jars; without it, one per user",
    )
    debug: str | None = Field(None, description="`cqrs` shows the traceback of a failure")


# Like enough to a setting to be suggested for it, as `difflib` compares.
_NEAR = 0.5

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
        InvalidSettings: the environment contains unknown variables with the prefix.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True
    )

    # Prefix of everything that a deployment owns on shared servers: topics, consumer groups,
    # transactional ids, indices. It never changes while the deployment lives.
    namespace: Annotated[
        str,
        Values(
            "lower-case letters, digits, dots, hyphens and underscores, beginning with a letter, a "
            "digit or a dot"
        ),
    ] = Field(
        "",
        pattern=r"^([a-z0-9.][a-z0-9._-]*)?$",
        description="prefix of topics, groups, transactional ids and indices",
    )

    # Kafka
    partitions: int = Field(
        4,
        ge=1,
        le=1024,
        description="partitions of each topic; fixed for a deployment's life, so set it for every "
        "process",
    )
    replication_factor: int = Field(1, ge=1, description="of new topics; 3 in production")
    session_timeout: float = Field(
        10.0, ge=3.0, le=60.0, description="seconds until a dead worker's partitions move"
    )
    transaction_timeout: float = Field(
        15.0, ge=2.0, description="seconds until the broker aborts a dead worker's transaction"
    )
    stall_timeout: float = Field(
        60.0,
        ge=1.0,
        description="seconds without progress after which a worker with work ends; longer than a "
        "rebalance (30)",
    )
    outcome_timeout: float = Field(
        30.0, gt=0, description="seconds that a client waits for an outcome"
    )
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = Field(
        "zstd",
        description="how this program compresses what it writes to Kafka, to a fifth; kafkajs "
        "reads only gzip without a plugin",
    )
    max_chunk_records: int = Field(
        4000, ge=1, le=100_000, description="most commands in one transaction"
    )

    # Dead letters
    dead_letter_order: Literal["skip", "aggregate"] = Field(
        "skip",
        description="whether later commands of an aggregate are decided after one that a mended "
        "program could decide, or wait behind it",
    )
    dead_letter_limit: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share of a partition's last commands that a defect may fail at before it "
        "stops",
    )
    control_key: SecretStr | None = Field(
        None, description="base64 of the 32 bytes that sign replays and drops of parked commands"
    )
    control_key_file: Path | None = Field(None, description="file with the control key")

    # State
    state_dir: Path | None = Field(
        None,
        description="folder in which command workers keep their state (`docs/state.md`); without "
        "it, in memory",
    )

    # Elasticsearch
    view_cache_documents: int = Field(
        200_000, ge=0, description="documents that a view worker keeps in memory"
    )
    bulk_documents: int = Field(2000, ge=1, description="most documents in one bulk request")
    view_replicas: int | None = Field(
        None,
        ge=0,
        description="replicas of a view's index, set once it is loaded; without it one as soon as "
        "there are two nodes",
    )

    # Health and metrics
    health_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="port of a worker's metrics and health (`docs/operating.md`); the next process "
        "of `--processes` has the next one; 0: any free one",
    )
    health_host: Annotated[
        str, Values("the address of an interface of this host, or a host name")
    ] = Field(
        "127.0.0.1",
        pattern=r"^[A-Za-z0-9.:-]+$",
        description="address that they are served at; `0.0.0.0` for probes and scrapes from "
        "outside, as those of Kubernetes",
    )
    ready_lag: float | None = Field(
        None,
        gt=0,
        description="seconds that a partition may be behind while the worker is ready; without it, "
        "any number",
    )

    # Personal data
    encrypt_personal_data: bool = Field(
        False,
        description="whether personal data is encrypted in events, states and dead letters; see "
        '"Erasing a user"',
    )
    master_key: SecretStr | None = Field(
        None, description="wraps the keys of users; `cqrs keys new` makes one"
    )
    master_key_file: Path | None = Field(None, description="file with it")
    second_master_key: SecretStr | None = Field(
        None, description="opens what it wrapped, and wraps nothing: while keys are rotated"
    )
    second_master_key_file: Path | None = Field(None, description="file with it")

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="lowest level of this project's log lines in workers"
    )
    log_format: Literal["text", "json"] = Field("text", description="form of a worker's log lines")
    tracing: bool = Field(
        False, description="whether commands that came with a trace are traced by OpenTelemetry"
    )

    def contradictions(self) -> Iterator[Contradiction]:
        """Yield those of the connections, and what is wrong with the keys."""
        found = list(super().contradictions())
        yield from found
        keys = {}
        for secret in ("master_key", "second_master_key", "control_key"):
            name = secret if getattr(self, f"{secret}_file") is None else f"{secret}_file"
            if any(name in one.about for one in found):
                return
            keys[secret] = self.secret(secret)
            if not _is_master_key(keys[secret]):
                yield Contradiction(
                    f"{variable(name)} is not valid: it must be base64 of 32 bytes; `cqrs keys "
                    "new` makes one",
                    (name,),
                )
                return
        first, second, _ = keys.values()
        if second is not None and first is None:
            yield Contradiction(
                "CQRS_SECOND_MASTER_KEY needs CQRS_MASTER_KEY", ("master_key", "second_master_key")
            )
        elif second is not None and first == second:
            yield Contradiction(
                "CQRS_MASTER_KEY and CQRS_SECOND_MASTER_KEY are the same",
                ("master_key", "second_master_key"),
            )

    @classmethod
    def without_environment(cls, values: Mapping[str, Any]) -> Self:
        """Create settings of these values alone; `model_validate` reads the environment, too.

        Raises:
            ValidationError: they are not valid.
        """
        created = cls.__new__(cls)
        BaseModel.__init__(created, **values)
        return created

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take what the caller passes, then what the environment contains."""
        found, unknown = _from_environment(os.environ)
        if unknown:
            raise InvalidSettings(unknown)
        return init_settings, InitSettingsSource(settings_cls, _settings_among(found))


def _is_master_key(key: str | None) -> bool:
    try:
        return key is None or len(base64.b64decode(key, validate=True)) == 32
    except (binascii.Error, ValueError):
        return False


def _from_environment(environment: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return the text of each variable that is known and not empty, by its name without the prefix.

    And a line for each variable with the prefix that is none of this project.
    """
    known = (*Settings.model_fields, *CommandVariables.model_fields)
    found: dict[str, str] = {}
    unknown = []
    for name, text in environment.items():
        if not name.upper().startswith(PREFIX) or _is_of_kubernetes(name, text):
            continue
        short = name.lower().removeprefix(PREFIX.lower())
        if short not in known:
            near = get_close_matches(short, known, 1, cutoff=_NEAR)
            hint = f"did you mean {variable(near[0])}?" if near else "`cqrs config` lists them"
            unknown.append(f"{name} is not a setting; {hint}")
        elif text:
            found[short] = text
    return found, unknown


def _settings_among(found: Mapping[str, str]) -> dict[str, Any]:
    return {name: text for name, text in found.items() if name in Settings.model_fields}


def _is_of_kubernetes(name: str, value: str) -> bool:
    """Whether Kubernetes makes this variable for a service."""
    return bool(_SERVICE_NAME.fullmatch(name) or _SERVICE_URL.match(f"{name}={value}"))


def read_folder(name: Folder) -> Path | None:
    """Return the folder that this variable names, with ``~`` expanded; None if it is not set.

    Raises:
        InvalidSettings: variables with the prefix are unknown, or there is no such home folder.
    """
    found, unknown = _from_environment(os.environ)
    if unknown:
        raise InvalidSettings(unknown)
    try:
        return Path(found[name]).expanduser() if name in found else None
    except RuntimeError as error:
        raise InvalidSettings([f"{variable(name)} is not valid: {error}"]) from None


def read_settings() -> Settings:
    """Return the settings that the environment contains.

    Raises:
        InvalidSettings: variables are unknown, values not valid, or settings contradict each other;
            a line for each. The lines name the variables, and contain no value.
    """
    found, problems = _from_environment(os.environ)
    try:
        settings = Settings.without_environment(_settings_among(found))
    except ValidationError as error:
        problems += _problems(error, _settings_among(found))
    if problems:
        raise InvalidSettings(problems)
    return settings


def _problems(error: ValidationError, given: Mapping[str, Any]) -> Sequence[str]:
    """Return a line for each mistake in what was given."""
    lines: list[str] = []
    wrong: set[str] = set()
    for problem in error.errors(include_url=False, include_input=False):
        if not problem["loc"]:  # all values are valid, and some contradict each other
            return [one.line for one in _contradictions(problem)]
        name = str(problem["loc"][0])
        wrong.add(name)
        reason = f"it must be {allowed(Settings, name)}"
        if problem["type"] == "value_error":  # of a check of our own
            reason = str(problem["ctx"]["error"])
        lines.append(f"{variable(name)} is not valid: {reason}")
    # What follows from a setting that is not valid is not known yet.
    valid = {name: text for name, text in given.items() if name not in wrong}
    try:
        Settings.without_environment(valid)
    except ValidationError as others:
        [problem] = others.errors(include_url=False, include_input=False)
        found = _contradictions(problem)
        lines += [one.line for one in found if not wrong.intersection(one.about)]
    return lines


def _contradictions(problem: Any) -> Sequence[Contradiction]:
    error = problem["ctx"]["error"]
    assert isinstance(error, ContradictionError), "nothing else is about several settings"
    return error.found


@lru_cache(maxsize=1)
def settings() -> Settings:
    """Return the settings of this process, which are read once.

    Raises:
        InvalidSettings: as `read_settings` does.
    """
    return read_settings()
