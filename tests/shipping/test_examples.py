"""The examples in other languages, set up and run as their READMEs say, on real servers.

They need npm and Node, a JDK and Maven, Go, and the registries of their packages.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess

import pytest

from tests.conftest import Deploy
from tests.harness.example_programs import (
    EXAMPLES,
    ExampleProgram,
    check_outcomes,
    check_sends_again,
)

pytestmark = [pytest.mark.shipping, pytest.mark.timeout(900)]


@pytest.fixture(scope="module", params=["node", "java", "go"])
def program(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> ExampleProgram:
    """The example of a language in a folder of its own, set up by the first line of its README."""
    folder = tmp_path_factory.mktemp("examples") / request.param
    shutil.copytree(
        EXAMPLES / request.param, folder, ignore=shutil.ignore_patterns("node_modules", "target")
    )
    lines = re.findall(r"^    (.+)$", (folder / "README.md").read_text(), re.MULTILINE)
    set_up, environment, start = lines
    assert environment == 'eval "$(cqrs env)"'
    subprocess.run(shlex.split(set_up), cwd=folder, check=True)
    *command, _user, _email = shlex.split(start)
    return ExampleProgram(command, folder)


async def test_it_finds_the_user_that_it_registers(program: ExampleProgram, deploy: Deploy) -> None:
    await check_outcomes(program, deploy("commands", "views"))


async def test_it_sends_a_command_again(program: ExampleProgram, deploy: Deploy) -> None:
    await check_sends_again(program, deploy("views"))
