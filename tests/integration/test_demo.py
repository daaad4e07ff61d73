"""The demo, smaller: its account adds up, and it says so when it does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deploy import demo
from deploy.cli.demo import _figures
from deploy.cli.output import json_line
from models.errors import Fatal
from tests.conftest import Deploy
from tests.harness.outputs import misfits


async def test_the_demo_adds_up(deploy: Deploy, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, number in {"COMMANDS": 1000, "MALFORMED": 20, "STEADY": 20, "SEARCHES": 20}.items():
        monkeypatch.setattr(demo, name, number)
    steps: set[str] = set()

    def progress(what: str, done: int, total: int) -> None:
        assert done <= total or total == 0
        steps.add(what)

    deployed = deploy("commands", "views", partitions=2)
    result = await demo.run_demo(deployed.settings, progress)
    result.check()
    assert result.report.commands == 1000
    assert result.report.dead == 20
    assert len(result.outcomes) == len(result.searchable) == 20
    assert result.by_id is not None
    assert result.by_email
    assert result.active
    assert {"Deciding commands", "Projecting events", "Searching"} <= steps

    assert misfits("demo", "json", json_line(_figures(result))) == []

    result.expected = replace(result.expected, accepted=result.expected.accepted + 1)
    with pytest.raises(Fatal, match="^it does not add up: "):
        result.check()
