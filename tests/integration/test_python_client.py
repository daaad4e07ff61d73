"""The Python program of docs/clients.md, run as it is printed there."""

from __future__ import annotations

import re
import subprocess
import sys

from agents.user_views import USER_VIEWS
from deploy.environment import child_environment
from deploy.waiting import wait_until
from streams.elasticsearch.connection import connect
from streams.settings import Settings
from tests.conftest import Deploy
from tests.harness.command_line import ROOT
from tests.harness.deployments import run_apart


def program() -> str:
    found = re.search(
        r"^```python\n(.*?)^```$", (ROOT / "docs" / "clients.md").read_text(), re.M | re.S
    )
    assert found is not None
    return found[1]


def run(settings: Settings) -> list[str]:
    """The lines that the program prints, with these settings in its environment."""
    done = subprocess.run(
        [sys.executable, "-c", program()],
        cwd=ROOT,
        env=child_environment(settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


async def wait_for_view(settings: Settings) -> None:
    async with connect(settings, timeout=10) as client:

        async def is_shown() -> bool:
            alias = settings.namespace + USER_VIEWS.name
            return bool(await client.indices.exists_alias(name=alias))

        await wait_until(is_shown, what="the view's index")


def test_the_program_finds_the_user_that_it_registers(deploy: Deploy) -> None:
    settings = deploy("commands", "views").settings
    run_apart(wait_for_view(settings))
    assert run(settings) == ["accepted", "berta berta@example.org 1"]
    assert run(settings) == ["rejected", "berta berta@example.org 1"]
