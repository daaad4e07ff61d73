"""On secured servers each role works with exactly its rights, and with one less it says which."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from agents.client import open_commands, open_queries
from agents.user_views import USER_VIEWS
from deploy.embedded.grants import allow
from deploy.embedded.stack import EmbeddedStack
from deploy.ephemeral import WorkerProcess
from deploy.rights import kafka_rights
from deploy.roles import ROLES, SecuredRole
from deploy.supervisor import Role
from deploy.waiting import wait_until
from models.errors import Fatal, OutcomeTimeout
from models.queries import GetUsersByEmail
from streams.elasticsearch.connection import connect
from streams.kafka.permissions import check_rights
from streams.kafka.rights import Operation, Right
from streams.settings import Settings
from streams.views.indices import ViewIndices
from tests.harness.command_line import ROOT, cqrs
from tests.harness.deployments import until_processing
from tests.harness.disclosure import lines_with, processes_of
from tests.harness.followed_pages import blocks, run_commands
from tests.harness.read_side import serve
from tests.harness.secured import Secured
from tests.harness.users import register


@pytest.fixture
async def secured(secured_servers: EmbeddedStack, tmp_path: Path) -> Secured:
    return await Secured.create(secured_servers, tmp_path)


async def test_each_role_works_with_exactly_its_rights(secured: Secured) -> None:
    roles = await secured.roles()
    with (
        secured.worker("commands", roles["command-worker"]) as commands_worker,
        secured.worker("views", roles["view-worker"]) as view_worker,
        secured.worker("registrations", roles["view-worker"]),
    ):
        await until_processing(commands_worker)
        await until_processing(view_worker)
        seen = processes_of((commands_worker, view_worker))
        async with (
            open_commands(roles["client"]) as commands,
            open_queries(roles["client"]) as queries,
        ):
            outcome = await commands.dispatch(register("anna"))
            assert outcome.status == "accepted"
            page = await queries.execute(GetUsersByEmail("anna@"), at_least=outcome.token)
            assert [user.id for user in page.items] == ["anna"]
        for words in (
            ["topics", "create"],
            ["verify"],
            ["state", "rebuild", "--all"],
            ["views", "rebuild"],
            ["views", "status", "--check"],
            ["tail", "events", "--from-beginning", "--limit", "1"],
            ["erase", "anna", "--yes"],
        ):
            done = cqrs(roles["operator"], *words)
            assert done.returncode == 0, f"{words}: {done.stderr}{done.stdout}"
            if words[0] != "tail":  # which shows events
                seen[" ".join(words)] = done.stdout + done.stderr
        seen |= {one.role: one.log_text for one in (commands_worker, view_worker)}
    secrets = [roles[role].secret(name) for role in ROLES for name in Settings.secrets()]
    person = ["anna@example.org", "Muster"]
    assert lines_with(seen, [*person, *filter(None, secrets)]) == {}


@pytest.mark.timeout(600)  # a score of commands, each a process: slow when it is busy
async def test_the_how_to_for_an_existing_cluster(secured: Secured, tmp_path: Path) -> None:
    """Its commands, as the operator: with what is there in the place of what its examples name."""
    roles = await secured.roles()
    operator = roles["operator"]
    key_file = tmp_path / "elasticsearch-api-key"
    key_file.write_text(operator.secret("elasticsearch_api_key") or "")
    values = {
        "kafka-1.example.org:9093": operator.bootstrap_servers,
        "/etc/kafka/ca.pem": operator.kafka_ca_file,
        "CQRS_KAFKA_USERNAME=operator": f"CQRS_KAFKA_USERNAME={operator.kafka_username}",
        "/run/secrets/kafka-password": operator.kafka_password_file,
        "https://es-1.example.org:9200": operator.elasticsearch_url,
        "/etc/elasticsearch/ca.pem": operator.elasticsearch_ca_file,
        "/run/secrets/elasticsearch-api-key": key_file,
        "CQRS_NAMESPACE=shop-": f"CQRS_NAMESPACE={operator.namespace}",
        "CQRS_PARTITIONS=12": f"CQRS_PARTITIONS={operator.partitions}",
    }
    page = ROOT / "docs" / "howto" / "existing-cluster.md"
    assert all(name in page.read_text() for name in values)
    steps = []
    for step in blocks(page):
        text = step.text
        for name, value in values.items():
            text = text.replace(name, str(value))
        steps.append(replace(step, text=text))
    environment = {name: value for name, value in os.environ.items() if name[:5] != "CQRS_"}
    with (
        secured.worker("commands", roles["command-worker"]) as commands_worker,
        secured.worker("views", roles["view-worker"]) as view_worker,
    ):
        await until_processing(commands_worker)
        await until_processing(view_worker)
        await asyncio.to_thread(
            run_commands, steps, tmp_path, {**environment, "PYTHONPATH": str(ROOT)}, 400
        )


async def line_of_missing(settings: Settings, rights: Sequence[Right]) -> str | None:
    try:
        await check_rights(settings, rights)
    except Fatal as error:
        return str(error)
    return None


async def until_allowed(settings: Settings, rights: Sequence[Right]) -> None:
    """A broker hears of rights that are given from the controller, a moment later."""

    async def are_allowed() -> bool:
        return await line_of_missing(settings, rights) is None

    await wait_until(are_allowed)


@pytest.mark.parametrize("role", ["command-worker", "view-worker", "client"])
async def test_each_right_that_is_missing_is_named(secured: Secured, role: SecuredRole) -> None:
    rights = [right for right in kafka_rights(role, secured.admin) if not right.prefixed]
    settings = await secured.role(role)
    await until_allowed(settings, rights)
    for right in rights:
        for operation in right.operations:
            secured.revoke(role, right, operation)
            what = f"lacks {operation} on {right.resource} {right.name}: allow it"

            async def named(right: Right = right, what: str = what) -> bool:
                line = await line_of_missing(settings, (right,))
                return line is not None and line.startswith(f"User:{role} {what}")

            await wait_until(named, what=what)
            await allow(secured.admin, role, [right])


async def test_rights_may_be_given_by_prefix(secured: Secured) -> None:
    namespace = secured.admin.namespace
    settings = await secured.role(
        "command-worker",
        [
            Right("topic", f"{namespace}users.", ("Read", "Write", "DescribeConfigs"), True),
            Right("group", f"{namespace}users-", ("Read",), True),
        ],
    )
    await until_allowed(settings, kafka_rights("command-worker", secured.admin))


async def test_namespaces_on_one_cluster_are_apart(
    secured: Secured, secured_servers: EmbeddedStack, tmp_path: Path
) -> None:
    other = await Secured.create(secured_servers, tmp_path)
    async with connect(other.admin, timeout=30) as client:
        indices = ViewIndices.from_settings(other.admin, client, USER_VIEWS)
        await indices.create(1, {}, followed=True)
        await serve(indices, 1)
        theirs = f"{indices.alias}-v1"
    for role, settings in (await secured.roles()).items():
        there = settings.model_copy(update={"namespace": other.admin.namespace})
        for right in kafka_rights(role, there):
            if not right.prefixed:
                assert f"lacks {right.operations[0]} " in (
                    await line_of_missing(there, (right,)) or ""
                )
        if settings.elasticsearch_api_key is not None:
            async with connect(there, timeout=30) as client:
                indices = ViewIndices.from_settings(there, client, USER_VIEWS)
                assert await indices.all() == []
                with pytest.raises(Fatal, match=r"\(403\)"):
                    await indices.store(theirs).count()


def last_line(worker: WorkerProcess) -> str:
    """The last line of a worker that has to end with code 1."""
    assert worker.wait(timeout=60) == 1
    return worker.log_text.splitlines()[-1]


@pytest.mark.parametrize(
    ("role", "resource", "name", "operation"),
    [
        ("commands", "transactional-id", "users-commands-", "Write"),
        ("commands", "group", "users-commands", "Read"),
        ("views", "group", "users-views-", "Read"),
        ("views", "topic", "users.events.v1", "Read"),
    ],
)
async def test_a_worker_without_a_right_ends_with_one_line(
    secured: Secured, role: Role, resource: str, name: str, operation: Operation
) -> None:
    who: SecuredRole = "command-worker" if role == "commands" else "view-worker"
    rights = [
        right
        for right in kafka_rights(who, secured.admin)
        if (right.resource, right.name) != (resource, f"{secured.admin.namespace}{name}")
    ]
    settings = await secured.role(who, rights)
    with secured.worker(role, settings) as worker:
        line = last_line(worker)
        assert "Traceback" not in worker.log_text
    start = f"error: User:{who} lacks {operation} on {resource} {secured.admin.namespace}{name}"
    assert line.startswith(start)
    assert "`cqrs topics acls`" in line


@pytest.mark.parametrize(
    ("resource", "operation", "what"),
    [
        ("transactional-id", "Write", "lacks Write on transactional-id {}users-commands-"),
        ("topic", "Write", "lacks Write on topic {}users."),
        ("topic", "Read", "lacks Read on topic {}users."),
    ],
)
async def test_an_operator_without_a_right_is_told_before_anything_is_written(
    secured: Secured, resource: str, operation: Operation, what: str
) -> None:
    rights = [
        replace(right, operations=tuple(one for one in right.operations if one != operation))
        if right.resource == resource
        else right
        for right in kafka_rights("operator", secured.admin)
    ]
    settings = await secured.role("operator", rights)
    done = cqrs(settings, "state", "rebuild", "0")
    assert (done.returncode, done.stderr.count("\n")) == (75, 1)
    assert done.stderr.startswith("cqrs: User:operator " + what.format(secured.admin.namespace))


@pytest.mark.parametrize(
    ("resource", "name", "operation"),
    [
        ("topic", "users.outcomes.v1", "Write"),
        ("topic", "users.commands.v1", "Read"),
        ("transactional-id", "users-commands-", "Write"),
        ("group", "users-commands", "Read"),
    ],
)
async def test_a_right_that_is_taken_from_a_running_worker(
    secured: Secured, resource: str, name: str, operation: Operation
) -> None:
    roles = await secured.roles()
    settings = roles["command-worker"].model_copy(update={"stall_timeout": 12.0})
    name = f"{secured.admin.namespace}{name}"
    (right,) = (
        right
        for right in kafka_rights("command-worker", secured.admin)
        if (right.resource, right.name) == (resource, name)
    )
    with secured.worker("commands", settings) as worker:
        async with open_commands(roles["client"]) as commands:
            assert (await commands.dispatch(register("anna"))).status == "accepted"
            secured.revoke("command-worker", right, operation)

            async def ended() -> bool:
                with suppress(OutcomeTimeout, asyncio.TimeoutError):
                    await asyncio.wait_for(commands.dispatch(register(uuid4().hex)), 1)
                return not worker.is_running

            await wait_until(ended, timeout=60, what=f"the end without {operation} on {name}")
        line = last_line(worker)
    assert line.startswith(f"error: User:command-worker lacks {operation} on {resource} {name}")


@pytest.mark.parametrize(
    ("resource", "name", "operation"),
    [("topic", "users.events.v1", "Read"), ("group", "users-views-", "Read")],
)
async def test_a_right_that_is_taken_from_a_running_view_worker(
    secured: Secured, resource: str, name: str, operation: Operation
) -> None:
    settings = (await secured.roles())["view-worker"]
    name = f"{secured.admin.namespace}{name}"
    (right,) = (
        right
        for right in kafka_rights("view-worker", secured.admin)
        if (right.resource, right.name) == (resource, name)
    )
    with secured.worker("views", settings) as worker:
        await until_processing(worker)
        secured.revoke("view-worker", right, operation)
        line = last_line(worker)
    assert line.startswith(f"error: User:view-worker lacks {operation} on {resource} {name}")


@pytest.mark.all_faults  # it restarts Kafka
async def test_a_password_that_is_changed_while_a_worker_runs(secured: Secured) -> None:
    """Nobody is disconnected by that; the broker's next restart does it."""
    roles = await secured.roles()
    settings = roles["command-worker"].model_copy(update={"stall_timeout": 12.0})
    with secured.worker("commands", settings) as worker:
        async with open_commands(roles["client"]) as commands:
            assert (await commands.dispatch(register("anna"))).status == "accepted"
        secured.change_password("command-worker", "another one")
        try:
            secured.stack.kafka.kill()
            secured.stack.kafka.start()
            line = last_line(worker)
        finally:
            password = secured.stack.secrets.password("command-worker")
            secured.change_password("command-worker", password)
    refused = f"error: Kafka at {settings.bootstrap_servers} refuses user command-worker"
    assert line.startswith(refused)
    with secured.worker("commands", settings) as worker:
        async with open_commands(roles["client"]) as commands:
            assert (await commands.dispatch(register("berta"))).status == "accepted"


@pytest.mark.parametrize("role", ROLES)
def test_env_prints_what_a_role_needs(secured_servers: EmbeddedStack, role: SecuredRole) -> None:
    """In a shell that reads it, `Settings` are those of the role."""
    home = {**os.environ, "CQRS_STACK_HOME": str(secured_servers.home)}
    shell = 'eval "$(python -m deploy.cli env --role "$0")"; python -c "$1"'
    program = "from streams.settings import Settings; print(Settings().model_dump_json())"
    done = subprocess.run(
        ["bash", "-c", shell.replace("python", sys.executable), role, program],
        cwd=ROOT,
        env=home,
        capture_output=True,
        text=True,
        check=True,
    )
    expected = Settings.model_validate(secured_servers.settings(role)).model_dump_json()
    assert json.loads(done.stdout) == json.loads(expected)
    done = subprocess.run(
        [sys.executable, "-m", "deploy.cli", "env"],
        cwd=ROOT,
        env=home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "the running stack is secured: say who connects: --role" in done.stderr
