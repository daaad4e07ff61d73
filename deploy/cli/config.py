"""`cqrs config`: the settings in effect."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import click
from pydantic import SecretStr

from deploy.cli.output import Form, Output, print_table
from deploy.cli.terminal import examples
from deploy.environment import load_settings
from streams.connection_settings import variable
from streams.settings import CommandVariables, Settings, read_settings

_MASK = "********"


@dataclass(frozen=True)
class SettingInEffect:
    """One setting."""

    setting: str
    """Its variable."""
    value: str | int | float | bool | None
    """Of a secret only whether there is one: eight asterisks, or None."""
    source: str
    """`environment`, `file` (of a secret), `running stack` or `default`."""


_OUTPUT = Output(list[SettingInEffect], columns=("setting", "value", "source"))


@click.command(epilog=examples("cqrs config", "CQRS_PARTITIONS=12 cqrs config --json"))
@_OUTPUT.option
def config(form: Form) -> None:
    """Show each setting that is in effect here, and where it comes from. Secrets are not shown.

    It comes from the environment, from a file that a variable names, from the running stack of
    `cqrs up`, or it is the default. Wrong settings are listed, all at once, with exit code 2.
    """
    named = read_settings().model_fields_set
    found = list(in_effect(load_settings(), named))
    _OUTPUT.write(form, found, lambda: _print(found))


def in_effect(settings: Settings, named: set[str]) -> Iterator[SettingInEffect]:
    """Yield each setting of these; those that are `named` are set in the environment."""
    for name in Settings.model_fields:
        value = getattr(settings, name)
        source = "default"
        if name in named:
            source = "environment"
        elif name in settings.model_fields_set:
            source = "running stack"
        elif name in Settings.secrets() and getattr(settings, f"{name}_file") is not None:
            value, source = _MASK, "file"
        yield SettingInEffect(variable(name), _shown(value), source)
    for name in CommandVariables.model_fields:
        text = os.environ.get(variable(name)) or None
        yield SettingInEffect(variable(name), text, "environment" if text else "default")


def _shown(value: Any) -> str | int | float | bool | None:
    if isinstance(value, SecretStr):
        return _MASK
    return value if isinstance(value, int | float | None) else str(value)


def text_of(value: Any) -> str:
    """Return the value of a setting as people write it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _print(found: list[SettingInEffect]) -> None:
    rows = [
        (one.setting, "" if one.value is None else text_of(one.value), one.source) for one in found
    ]
    print_table(("setting", "value", "from"), rows, droppable=("from",))
