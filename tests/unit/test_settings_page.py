"""What the page of settings says is so."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "settings.md").read_text()


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_there_with_its_default(name: str) -> None:
    default = Settings.model_fields[name].default
    value = (
        f"{default:g}" if isinstance(default, float) else str("" if default is None else default)
    )
    shown = f"`{value}`" if value else ""
    row = f"| `CQRS_{name.upper()}` | {shown} |".replace("|  |", "| |")
    assert row in PAGE


def test_no_unknown_setting_is_there() -> None:
    shown = {
        line.split("`")[1]
        for line in PAGE.splitlines()
        if line.startswith("| `CQRS_") and not line.startswith("| `CQRS_STACK")
    }
    assert shown == {f"CQRS_{name.upper()}" for name in Settings.model_fields}
