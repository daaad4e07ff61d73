"""What the README says is so."""

from __future__ import annotations

from pathlib import Path

from deploy.cli.config import markdown_table

README = Path(__file__).parents[2] / "README.md"


def test_the_table_of_settings_is_that_of_the_code() -> None:
    """If not, put what `cqrs config --markdown` prints in its place."""
    shown = [line for line in README.read_text().splitlines() if line.startswith("| `CQRS_")]
    _, _, *rows = markdown_table().splitlines()
    assert shown == rows
