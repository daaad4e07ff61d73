"""The example in Python, on real servers; those in other languages are in `tests/shipping/`."""

from __future__ import annotations

import sys

from tests.conftest import Deploy
from tests.harness.example_programs import (
    EXAMPLES,
    ExampleProgram,
    check_outcomes,
    check_sends_again,
)

PROGRAM = ExampleProgram([sys.executable, "register.py"], EXAMPLES / "python")


async def test_the_program_finds_the_user_that_it_registers(deploy: Deploy) -> None:
    await check_outcomes(PROGRAM, deploy("commands", "views"))


async def test_the_program_sends_a_command_again(deploy: Deploy) -> None:
    await check_sends_again(PROGRAM, deploy("views"))
