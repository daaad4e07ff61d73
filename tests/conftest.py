from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack
from typing import Any, Protocol

import pytest
from hypothesis import HealthCheck, settings

from deploy.embedded.lockfile import OLDER_ELASTICSEARCH, OLDER_KAFKA
from deploy.embedded.stack import EmbeddedStack
from deploy.ephemeral import Deployment, worker_logs
from deploy.supervisor import Role
from tests.harness.deployments import delete_all_data, deployment, run_apart

# How long an example takes says nothing on a busy machine.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")
# For `--hypothesis-profile=full`: the fuzz at full size.
settings.register_profile("full", settings.get_profile("busy"), max_examples=100_000)


# Tests that are not part of every run: the marker, and the option that adds them.
_ON_DEMAND = {"all_faults": "--faults", "shipping": "--shipping"}

# The core of the suite, which runs on older servers: what the guarantees rest on. Every scenario of
# the fault suite that has servers of its own runs on the newest ones.
_CORE = {
    *("test_any_producer.py", "test_client.py", "test_erasure.py", "test_group_offsets.py"),
    *("test_index_life.py", "test_new_users.py", "test_read_your_writes.py", "test_rebuild.py"),
    *("test_state_versions.py", "test_takeover.py", "test_user_queries.py", "test_verify.py"),
    *("test_view_failures.py", "test_view_index.py", "test_view_store.py", "test_worker_start.py"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", action="store_true", help="every fault scenario, small")
    parser.addoption("--shipping", action="store_true", help="package, image and manifests")
    parser.addoption("--kafka", choices=sorted(OLDER_KAFKA), help="only the core, on this Kafka")
    parser.addoption(
        "--elasticsearch", choices=sorted(OLDER_ELASTICSEARCH), help="the same for Elasticsearch"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that are not part of every run, unless their option is there."""
    unwanted = [marker for marker, option in _ON_DEMAND.items() if not config.getoption(option)]
    left_out = [item for item in items if any(map(item.get_closest_marker, unwanted))]
    if config.getoption("--kafka") or config.getoption("--elasticsearch"):
        left_out = [item for item in items if item.path.name not in _CORE or item in left_out]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def servers(pytestconfig: pytest.Config) -> Iterator[EmbeddedStack]:
    """A real Kafka and a real Elasticsearch for all tests; older ones, if they are asked for."""
    kafka, elasticsearch = map(pytestconfig.getoption, ("--kafka", "--elasticsearch"))
    with EmbeddedStack.temporary(
        kafka_jars=kafka and f"kafka-{kafka}",
        elasticsearch_jars=elasticsearch and f"elasticsearch-{elasticsearch}",
    ) as running:
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
