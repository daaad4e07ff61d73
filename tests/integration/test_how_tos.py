"""The how-tos, followed block by block."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from deploy.environment import child_environment
from deploy.ephemeral import Deployment
from deploy.waiting import wait_until
from streams.encryption.keys import new_master_key
from tests.conftest import Deploy
from tests.harness.command_line import ROOT, cqrs
from tests.harness.followed_pages import apply_changes, blocks, copy_checkout, run_commands

pytestmark = pytest.mark.timeout(600)  # a score of commands, each a process: slow when it is busy

HOW_TO = ROOT / "docs" / "howto"


def environment_of(deployed: Deployment) -> Mapping[str, str]:
    return {
        name: value
        for name, value in child_environment(deployed.settings).items()
        if name != "PYTHONPATH"
    } | {"COLUMNS": "200"}


async def test_erasing_a_user_and_a_view_of_ones_own(deploy: Deploy) -> None:
    deployed = deploy(
        "commands",
        "views",
        "registrations",
        partitions=1,
        encrypt_personal_data=True,
        master_key=new_master_key(),
    )
    await wait_until(lambda: cqrs(deployed.settings, "registrations").returncode == 0, timeout=120)
    for page in ("erase-a-user.md", "own-view.md"):
        followed = blocks(HOW_TO / page)
        environment = environment_of(deployed)
        await asyncio.to_thread(run_commands, followed, ROOT, environment, 240)


async def test_an_aggregate_of_ones_own(deploy: Deploy, tmp_path: Path) -> None:
    deployed = deploy(partitions=1)
    steps = blocks(HOW_TO / "own-aggregate.md")
    checkout = copy_checkout(tmp_path)
    apply_changes(steps, checkout)
    await asyncio.to_thread(run_commands, steps, checkout, environment_of(deployed), 240)
