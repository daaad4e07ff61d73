"""The how-tos, followed block by block."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from deploy.environment import child_environment
from deploy.ephemeral import Deployment
from streams.encryption.keys import new_master_key
from tests.conftest import Deploy
from tests.harness.command_line import ROOT
from tests.harness.followed_pages import apply_changes, blocks, copy_checkout, run_commands

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
    for page in ("erase-a-user.md", "own-view.md"):
        followed = blocks(HOW_TO / page)
        environment = environment_of(deployed)
        await asyncio.to_thread(run_commands, followed, ROOT, environment, 120)


async def test_an_aggregate_of_ones_own(deploy: Deploy, tmp_path: Path) -> None:
    deployed = deploy(partitions=1)
    steps = blocks(HOW_TO / "own-aggregate.md")
    checkout = copy_checkout(tmp_path)
    apply_changes(steps, checkout)
    await asyncio.to_thread(run_commands, steps, checkout, environment_of(deployed), 120)
