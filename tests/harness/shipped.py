"""What `deploy/` ships, as data: the image, the compose file and the manifests."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from streams.encryption.keys import new_master_key
from streams.settings import Settings
from tests.harness.command_line import ROOT

DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
SETTINGS = frozenset(f"CQRS_{name.upper()}" for name in Settings.model_fields)


def documents(path: Path) -> list[dict[str, Any]]:
    """Return the documents of a YAML file."""
    return [one for one in yaml.safe_load_all(path.read_text()) if one is not None]


def resources(folder: Path = KUBERNETES) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield all resources below a folder of manifests, each with its file."""
    for path in sorted(folder.rglob("*.yaml")):
        for document in documents(path):
            yield path, document


def image_environment() -> Mapping[str, str]:
    """Return the variables of the image."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    found = re.findall(r"^ENV (.*)$", text.rpartition("\nFROM ")[2], re.MULTILINE)
    return dict(word.split("=", 1) for line in found for word in line.split())


def settings_of(variables: Mapping[str, str]) -> Settings:
    """Return the settings that these variables make, whatever this process has.

    The files of secrets are not on this machine: each secret is something else that is valid.

    Raises:
        ValidationError: they are not valid.
    """
    named = {
        name.removeprefix("CQRS_").lower(): value
        for name, value in variables.items()
        if name.startswith("CQRS_")
    }
    assert {f"CQRS_{name.upper()}" for name in named} <= SETTINGS
    for secret in Settings.secrets():
        if named.pop(f"{secret}_file", None) is not None:
            named[secret] = new_master_key()
    return Settings.model_validate(named)
