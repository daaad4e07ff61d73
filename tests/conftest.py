from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack
from typing import Any, Protocol

import pytest
from hypothesis import settings

from deploy.embedded.stack import EmbeddedStack
from deploy.ephemeral import Deployment, worker_logs
from deploy.supervisor import Role
from tests.harness.deployments import delete_all_data, deployment, run_apart

# For `--hypothesis-profile=full`: the fuzz at full size.
settings.register_profile("full", max_examples=100_000, deadline=None)


# Tests that are not part of every run: the marker, and the option that adds them.
_ON_DEMAND = {"all_faults": "--faults", "shipping": "--shipping"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", action="store_true", help="every fault scenario, small")
    parser.addoption("--shipping", action="store_true", help="package, image and manifests")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that are not part of every run, unless their option is there."""
    unwanted = [marker for marker, option in _ON_DEMAND.items() if not config.getoption(option)]
    left_out = [item for item in items if any(map(item.get_closest_marker, unwanted))]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def servers() -> Iterator[EmbeddedStack]:
    """A real Kafka and a real Elasticsearch for all tests."""
    with EmbeddedStack.temporary() as running:
        yield running


@pytest.fixture(scope="session")
def secured_servers() -> Iterator[EmbeddedStack]:
    """A Kafka and an Elasticsearch with TLS, authentication and ACLs."""
    with EmbeddedStack.temporary(secure=True) as running:
        yield running


@pytest.fixture(scope="module")
def stack(servers: EmbeddedStack) -> Iterator[EmbeddedStack]:
    """The servers, for the tests of a module; each test takes names of its own.

    They are emptied after it: with what all tests leave behind, a server that is killed takes half
    a minute to come back.
    """
    yield servers
    run_apart(delete_all_data(servers))


class Deploy(Protocol):
    """Makes deployments: `deploy("commands", "views", partitions=1)`."""

    def __call__(self, *roles: Role, **changes: Any) -> Deployment: ...


@pytest.fixture
def deploy(stack: EmbeddedStack) -> Iterator[Deploy]:
    """Deployments for one test, with the workers named; gone after it, workers and all."""
    with ExitStack() as deployments:

        def new(*roles: Role, **changes: Any) -> Deployment:
            return deployments.enter_context(deployment(stack, *roles, **changes))

        yield new


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the workers' logs to the report of a failed test."""
    report = yield
    if report.failed:
        report.sections.extend(worker_logs())
    return report
