"""Nothing but our settings configures a worker: the variables of Faust have no effect."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from unittest.mock import patch

import pytest
from faust.types import _env
from faust.types.settings import Settings as FaustSettings

from deploy.environment import child_environment
from streams.settings import Settings
from streams.worker.app import StreamApp
from streams.worker.process import StreamWorker

# Variables that Faust reads whenever an app is created, and those that it reads when imported.
NAMES = sorted({field.env_name for field in FaustSettings.SETTINGS.values() if field.env_name})
PREFIX_NAME = FaustSettings.SETTINGS["env_prefix"].env_name
IMPORT_NAMES = [*re.findall(r'_getenv\("(\w+)"', Path(_env.__file__).read_text()), "LOOP"]

# Other values that a worker can start with.
AT_IMPORT = {
    "CONSOLE_PORT": "50102",
    "BLOCKING_TIMEOUT": "1",
    "WEB_PORT": "80",
    "WEB_TRANSPORT": "unix:///tmp/web",
    "LOOP": "aio",
}

_VARIES = re.compile(r" at 0x[0-9a-f]+|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_PRINT_CONFIGURATION = """
import json
from agents.user_commands import app
from tests.unit.worker.test_app import configuration
print(json.dumps(configuration(app)))
"""


def configuration(app: StreamApp) -> dict[str, str]:
    """All that Faust does by: each of its settings, and what a worker process is started with."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # reading an obsolete setting warns
        values = {name: getattr(app.conf, name) for name in FaustSettings.SETTINGS}
    values["id"] = app.conf.id
    values["fixups"] = app.fixups
    values["worker.debug"] = StreamWorker(app, debug=_env.DEBUG).debug
    return {name: _VARIES.sub("", repr(value)) for name, value in values.items()}


def new_app() -> StreamApp:
    return StreamApp("users-commands", Settings())


def of_a_process(environment: Mapping[str, str]) -> dict[str, str]:
    """The configuration of a process of its own that creates the app of command workers."""
    command = [sys.executable, "-c", _PRINT_CONFIGURATION]
    ran = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    found: dict[str, str] = json.loads(ran.stdout)
    return found


@pytest.mark.parametrize(
    "value",
    ["?!", "", "1", "2.5", "true", "kafka://10.0.0.1:9092", "at_least_once", "tcp://10.0.0.1:80"],
)
@pytest.mark.parametrize("prefix", ["", "OTHER_"])
def test_no_variable_of_faust_overrules_what_the_app_passes(prefix: str, value: str) -> None:
    assert "BROKER_URL" in NAMES
    clean = configuration(new_app())
    variables = {f"{prefix}{name}": value for name in NAMES} | {PREFIX_NAME: prefix}
    with patch.dict(os.environ, variables):
        assert configuration(new_app()) == clean


@pytest.fixture(scope="module")
def clean() -> dict[str, str]:
    return of_a_process(os.environ)


@pytest.mark.parametrize("prefix", ["F_", "FAUST_"])
def test_what_faust_reads_when_it_is_imported_has_no_effect(
    clean: dict[str, str], prefix: str
) -> None:
    variables = {f"{prefix}{name}": AT_IMPORT.get(name, "/tmp") for name in IMPORT_NAMES}
    variables["DJANGO_SETTINGS_MODULE"] = "settings"
    assert of_a_process({**os.environ, **variables}) == clean


def test_the_workers_of_cqrs_start_without_what_faust_reads_when_it_is_imported(
    clean: dict[str, str],
) -> None:
    """Not even values that end the import of Faust reach them."""
    variables = {f"{prefix}{name}": "?!" for prefix in ("F_", "FAUST_") for name in IMPORT_NAMES}
    with patch.dict(os.environ, variables | dict.fromkeys(NAMES, "?!")):
        environment = child_environment(Settings())
    assert not variables.keys() & environment.keys()
    assert of_a_process(environment) == clean


def test_no_library_of_the_workers_reads_a_variable_that_is_not_known() -> None:
    """An upgrade that adds one fails here: keep it out, or check that it does no harm."""
    packages = Path(_env.__file__).parents[2]
    read = re.compile(r"os\.(?:environ\.get\(|environ\[|getenv\()[\"'](\w+)")
    names = {
        name
        for library in ("faust", "mode", "aiokafka")
        for file in (packages / library).rglob("*.py")
        for name in read.findall(file.read_text())
    }
    with patch.dict(os.environ, dict.fromkeys(names, "x")):
        left = names & child_environment(Settings()).keys()
    harmless = {
        "SHELL",  # for the completion of command lines
        "GEVENT_LOOP",  # set, not read
        "BROKER_USERNAME",  # in an example
        "BROKER_PASSWORD",
    }
    assert left == harmless
