"""The tutorial, followed in a copy of the checkout, on servers and workers of `cqrs dev`."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from deploy.supervisor import running
from deploy.waiting import wait_until
from tests.harness.command_line import ROOT, cqrs_command
from tests.harness.followed_pages import apply_changes, blocks, copy_checkout, run_commands

pytestmark = pytest.mark.timeout(600)  # a score of commands, each a process: slow when it is busy

PAGE = ROOT / "docs" / "tutorial.md"
DEV = "./run cqrs dev\n"


async def test_a_command_an_event_and_a_view_of_ones_own(tmp_path: Path) -> None:
    steps = blocks(PAGE)
    checkout = copy_checkout(tmp_path / "checkout")
    apply_changes(steps, checkout)
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("CQRS_") and name != "PYTHONPATH"
    } | {
        "CQRS_STACK_HOME": str(tmp_path / "stack"),
        "CQRS_SESSION_TIMEOUT": "6",
        "CQRS_PARTITIONS": "1",
        "COLUMNS": "200",
    }
    log = tmp_path / "dev.log"
    with running(cqrs_command("dev"), environment, log, cwd=checkout) as dev:
        await wait_until(
            lambda: "Everything is ready" in log.read_text() or dev.poll() is not None,
            timeout=180,
            what="everything is ready",
        )
        assert dev.poll() is None, log.read_text()
        followed = [step for step in steps if step.text != DEV]
        assert len(followed) == len(steps) - 1
        await asyncio.to_thread(run_commands, followed, checkout, environment, 400)
        dev.send_signal(signal.SIGINT)
        assert dev.wait(60) == 0, log.read_text()
