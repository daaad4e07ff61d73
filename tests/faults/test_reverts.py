"""Each protection earns its place: without it, a scenario that passes with it fails."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from deploy.embedded.stack import EmbeddedStack
from deploy.faults.points import Point
from deploy.faults.scenario import Result, Run, Scenario, play
from deploy.faults.scenarios.crash_points import crash_at
from deploy.faults.scenarios.zombies import wake_after_the_takeover, wake_amid_the_takeover
from tests.faults.protections import APPS, PROTECTIONS, VARIABLE

REVERTS: dict[str, Callable[[Run], Awaitable[None]]] = {
    "fencing_before_recovery": wake_amid_the_takeover,
    "gap_check": partial(wake_after_the_takeover, points=[Point("stop", "before", "commit")]),
    "commit_after_bulk": partial(crash_at, points=[Point("kill", "before", "bulk")], total=1),
}


async def played(stack: EmbeddedStack, scenario: Callable[[Run], Awaitable[None]]) -> Result:
    return await play(Scenario("F0", "revert", scenario), stack, scale="small", seed=1, apps=APPS)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("protection", REVERTS)
async def test_without_it_something_breaks(
    stack: EmbeddedStack, protection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checker finds it: nothing that only takes too long counts."""
    monkeypatch.setenv(VARIABLE, protection)
    PROTECTIONS[protection](monkeypatch.setattr)  # for what a scenario does in this process
    result = await played(stack, REVERTS[protection])
    assert not result.ok
    assert result.lost + result.doubled + result.diverged > 0, (result.failure, result.logs)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("protection", REVERTS)
async def test_with_it_nothing_breaks(stack: EmbeddedStack, protection: str) -> None:
    result = await played(stack, REVERTS[protection])
    assert result.ok, (result.failure, result.logs)
