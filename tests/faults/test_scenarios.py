"""Every scenario of the fault suite, small: four with every test run, all with `--faults`."""

from __future__ import annotations

import pytest

from deploy.embedded.stack import EmbeddedStack
from tests.faults.catalogue import SCENARIOS, SECURED, SMOKE
from tests.faults.scenario import play


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in SMOKE else pytest.mark.all_faults)
        for name in SCENARIOS
    ],
)
async def test_a_scenario_passes(stack: EmbeddedStack, name: str) -> None:
    result = await play(SCENARIOS[name], stack, scale="small", seed=1)
    assert result.ok, (result.failure, result.logs)
    assert result.commands > 0


@pytest.mark.all_faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["F1", "F3", "F9"])
async def test_a_scenario_passes_with_the_state_on_disk(stack: EmbeddedStack, name: str) -> None:
    result = await play(SCENARIOS[name], stack, scale="small", seed=1, local_store=True)
    assert result.ok, (result.failure, result.logs)
    assert result.commands > 0


@pytest.mark.all_faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SECURED)
async def test_a_scenario_passes_on_secured_servers(
    secured_servers: EmbeddedStack, name: str
) -> None:
    result = await play(SCENARIOS[name], secured_servers, scale="small", seed=1, secure=True)
    assert result.ok, (result.failure, result.logs)
    assert result.commands > 0
