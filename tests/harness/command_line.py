"""Programs that are run from a folder that is not the checkout."""

from __future__ import annotations

from pathlib import Path

PACKAGES = ("agents", "benchmarks", "deploy", "faust", "models", "streams", "tests")


def add_foreign_packages(folder: Path) -> None:
    """Write packages into a folder that have the names of ours, and fail when imported."""
    for name in PACKAGES:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("raise ImportError('of somebody else')\n")
