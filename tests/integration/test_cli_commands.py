"""The command line as people use it, each command a process of its own."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil  # type: ignore[import-untyped]
import pytest

from agents.user_views import USER_VIEWS
from deploy.embedded.stack import EmbeddedStack
from deploy.environment import child_environment
from deploy.ephemeral import Deployment, new_settings
from deploy.waiting import wait_until
from streams.kafka.clients import new_producer, started
from streams.settings import Settings
from streams.views.reader import open_view
from tests.conftest import Deploy
from tests.harness.command_line import ROOT, cqrs, cqrs_command
from tests.harness.deployments import deployment, run_apart
from tests.unit.samples import wire_register


@pytest.fixture(scope="module")
def deployed(stack: EmbeddedStack) -> Iterator[Deployment]:
    with deployment(stack, "commands", "views") as running:
        yield running


@pytest.fixture(scope="module")
def settings(deployed: Deployment) -> Settings:
    return deployed.settings


def new_user(settings: Settings) -> str:
    user = f"user-{uuid4()}"
    done = cqrs(settings, *register(user))
    assert done.returncode == 0, done.stderr
    return user


def register(user: str) -> list[str]:
    who = ["--email", "anna@example.org", "--first-name", "Anna", "--last-name", "Müller"]
    return ["send", "register", "--id", user, *who]


@contextmanager
def running(
    settings: Settings, *arguments: str, given: int | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A command that goes on until it is stopped."""
    process = subprocess.Popen(
        cqrs_command(*arguments),
        cwd=ROOT,
        env={**child_environment(settings), "PYTHONUNBUFFERED": "1"},
        stdin=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


class TestTopics:
    def test_create_reports_created_then_exists(self, stack: EmbeddedStack) -> None:
        fresh = new_settings(stack)
        for state in ("created", "exists"):
            done = cqrs(fresh, "topics", "create")
            assert done.returncode == 0, done.stderr
            assert done.stdout.count(state) == 7
            assert f"{fresh.namespace}users.state-changelog.v1" in done.stdout

    def test_another_number_of_partitions_is_an_error_of_one_line(self, settings: Settings) -> None:
        done = cqrs(settings.model_copy(update={"partitions": 5}), "topics", "create")
        assert done.returncode == 75
        assert "has 2 partitions, CQRS_PARTITIONS says 5" in done.stderr
        assert done.stderr.count("\n") == 1

    def test_nothing_expired(self, settings: Settings) -> None:
        done = cqrs(settings, "topics", "skip-expired", "0")
        assert done.returncode == 0
        assert "nothing expired undecided" in done.stdout
        assert cqrs(settings, "topics", "skip-expired", "2").returncode == 2
        assert cqrs(settings, "topics", "adopt").returncode == 2
        assert cqrs(settings, "topics", "adopt", "0", "--all").returncode == 2
        assert "nothing to adopt" in cqrs(settings, "topics", "adopt", "--all").stdout


class TestSend:
    def test_register_twice(self, settings: Settings) -> None:
        user = f"user-{uuid4()}"
        done = cqrs(settings, *register(user))
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"accepted: user {user} is at version 1\n"
        done = cqrs(settings, *register(user))
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "cqrs: rejected: User already exists\n"

    def test_update_deactivate_and_reactivate(self, settings: Settings) -> None:
        user = new_user(settings)
        for version, arguments in (
            (2, ["update", "--first-name", "Anne", "--email", "anne@example.org"]),
            (3, ["deactivate", "--expected-version", "2"]),
            (4, ["reactivate"]),
        ):
            done = cqrs(settings, "send", *arguments, "--id", user)
            assert done.stdout == f"accepted: user {user} is at version {version}\n", done.stderr
        done = cqrs(settings, "send", "deactivate", "--id", user, "--expected-version", "2")
        assert done.returncode == 1
        assert done.stderr == "cqrs: rejected: Expected version 2, but the version is 4\n"

    def test_the_same_command_id_again(self, settings: Settings) -> None:
        user, id_ = new_user(settings), str(uuid4())
        send = ["send", "deactivate", "--id", user, "--command-id", id_]
        assert cqrs(settings, *send).returncode == 0
        done = cqrs(settings, *send)
        assert done.returncode == 0
        assert done.stdout == f"duplicate: was accepted before, with version 2 of user {user}\n"

    def test_a_repeated_rejection_is_no_success(self, settings: Settings) -> None:
        user, id_ = new_user(settings), str(uuid4())
        send = [*register(user), "--command-id", id_]
        assert cqrs(settings, *send).returncode == 1
        done = cqrs(settings, *send)
        assert done.returncode == 1
        assert done.stderr == "cqrs: duplicate: was rejected before: User already exists\n"

    def test_json(self, settings: Settings) -> None:
        user = f"user-{uuid4()}"
        done = cqrs(settings, *register(user), "--json")
        outcome = json.loads(done.stdout)
        assert (outcome["status"], outcome["aggregateId"], outcome["sequence"]) == (
            *("accepted", user),
            1,
        )
        done = cqrs(settings, *register(user), "--json")
        assert (done.returncode, done.stderr) == (1, "")
        assert json.loads(done.stdout)["code"] == "user-exists"

    def test_an_invalid_command_is_not_sent(self, settings: Settings) -> None:
        for option, value, reason in (
            (
                "--email",
                "anna@localhost.test",
                "--email: The part after the @-sign is a special-use",
            ),
            ("--email", "anna", "--email: must be an email address"),
            ("--first-name", " ", "--first-name: must not be empty"),
        ):
            done = cqrs(settings, "send", "update", "--id", "anna", option, value)
            assert done.returncode == 2
            assert done.stderr.startswith(f"cqrs: {reason}")
            assert done.stderr.count("\n") == 1

    def test_an_empty_id_is_no_new_user(self, settings: Settings) -> None:
        """As a script passes it whose variable is not set."""
        done = cqrs(settings, *register(""))
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == "cqrs: --id: must not be empty\n"

    def test_no_outcome_in_time(self, deploy: Deploy) -> None:
        nobody_works = deploy().settings
        id_ = str(uuid4())
        send = ["send", "deactivate", "--id", "anna", "--command-id", id_, "--timeout", "0.3"]
        done = cqrs(nobody_works, *send)
        assert done.returncode == 75
        assert f"No outcome of command {id_} came in 0.3 s. It may still be decided" in done.stderr
        assert done.stderr.count("\n") == 1

    @pytest.mark.parametrize("arguments", [[], ["--from", "-", "deactivate", "--id", "a"]])
    def test_either_a_command_or_a_file(self, settings: Settings, arguments: list[str]) -> None:
        assert cqrs(settings, "send", *arguments).returncode == 2


class TestSendFrom:
    def test_invalid_lines_are_reported_and_the_rest_is_sent(
        self, settings: Settings, tmp_path: Path
    ) -> None:
        users = [f"user-{uuid4()}" for _ in range(2)]
        good = [json.dumps(wire_register(id=str(uuid4()), aggregateId=user)) for user in users]
        bad = ["{", '{"type":"Fly"}', json.dumps(wire_register(email="anna"))]
        large = json.dumps(wire_register(firstName="x" * 1_100_000))
        path = tmp_path / "commands.ndjson"
        path.write_text("\n".join([good[0], *bad, "", large, good[1]]))

        done = cqrs(settings, "send", "--from", str(path))
        assert done.returncode == 1
        assert done.stdout.startswith("sent 2 commands in ")
        assert done.stdout.endswith(", 4 lines refused\n")
        lines = done.stderr.splitlines()
        assert len(lines) == 4
        assert lines[0].startswith("line 2: not JSON: ")
        assert lines[1] == "line 3: No handler registered for command: Fly"
        assert lines[2].startswith("line 4: email: must be an email address")
        assert lines[3] == "line 6: a command may take 1048576 bytes"
        for user in users:  # they came before: in order of the partition
            assert cqrs(settings, *register(user)).stderr.endswith("User already exists\n")

    def test_an_idle_pipe_does_not_hold_up_ctrl_c(self, settings: Settings) -> None:
        line = json.dumps(wire_register(id=str(uuid4()), aggregateId=f"user-{uuid4()}")).encode()
        with running(settings, "send", "--from", "-", given=subprocess.PIPE) as sending:
            assert sending.stdin is not None
            sending.stdin.write(line.decode() + "\n")
            sending.stdin.flush()
            with running(settings, "tail", "outcomes", "--from-beginning", "--json") as tail:
                find(tail, "commandId", json.loads(line)["id"])  # it is at work
            sending.send_signal(signal.SIGINT)
            assert sending.wait(20) == 130

    def test_the_summary_as_json(self, settings: Settings) -> None:
        line = json.dumps(wire_register(id=str(uuid4()), aggregateId=f"user-{uuid4()}")).encode()
        done = cqrs(settings, "send", "--json", "--from", "-", given=line + b"\n" + line)
        assert (done.returncode, done.stderr) == (0, "")
        summary = json.loads(done.stdout)
        assert (summary["lines"], summary["sent"], summary["refused"]) == (2, 2, 0)


class TestServersThatAreNotThere:
    @pytest.mark.parametrize(
        "arguments",
        [
            ["send", "deactivate", "--id", "anna"],
            ["send", "--from", "-"],
            ["topics", "create"],
            ["topics", "skip-expired", "0"],
            ["topics", "adopt", "--all"],
            ["worker", "commands"],
            ["tail", "events"],
            ["history", "anna"],
            ["erase", "anna", "--yes"],
            ["state", "verify"],
            ["verify"],
        ],
        ids=" ".join,
    )
    def test_without_kafka_it_fails_soon_with_one_line(
        self, stack: EmbeddedStack, arguments: list[str]
    ) -> None:
        begun = time.monotonic()
        done = cqrs(new_settings(stack, bootstrap_servers="127.0.0.1:1"), *arguments)
        assert time.monotonic() - begun < 15
        assert done.returncode == 75
        assert done.stderr.startswith("cqrs: Kafka does not answer at 127.0.0.1:1: ")
        assert done.stderr.count("\n") == 1

    @pytest.mark.parametrize(
        "arguments",
        [
            ["send", "deactivate", "--id", "anna"],
            ["send", "--from", "-"],
            ["worker", "views"],
            ["tail", "dead"],
            ["history", "anna"],
            ["erase", "anna", "--yes"],
            ["state", "verify"],
            ["verify"],
        ],
        ids=" ".join,
    )
    def test_without_topics_it_fails_with_one_line(
        self, stack: EmbeddedStack, arguments: list[str]
    ) -> None:
        done = cqrs(new_settings(stack), *arguments)
        assert done.returncode == 75
        assert done.stderr.startswith("cqrs: missing topics: ")
        assert done.stderr.endswith("create them with `cqrs topics create`\n")
        assert done.stderr.count("\n") == 1


class TestWorker:
    async def test_a_worker_decides_commands_and_stops_cleanly(self, deploy: Deploy) -> None:
        settings = deploy().settings
        with running(settings, "worker", "commands", "--processes", "2") as supervisor:
            new_user(settings)
            children = psutil.Process(supervisor.pid).children()
            assert len(children) == 2
            children[0].kill()
            assert supervisor.stderr is not None
            said = ""
            while "starting it again" not in said:
                said = await asyncio.to_thread(supervisor.stderr.readline)
            assert "cqrs worker commands: worker" in said
            new_user(settings)
            supervisor.terminate()
            supervisor.communicate(timeout=30)
            assert supervisor.returncode == 0
            assert not psutil.wait_procs(children, 1)[1]


class TestGenerateAndVerify:
    def test_the_same_seed_generates_the_same_commands(self, settings: Settings) -> None:
        first, again = (cqrs(settings, "generate", "50", "--seed", "3").stdout for _ in range(2))
        assert first == again
        assert len(first.splitlines()) == 50
        assert cqrs(settings, "generate", "50").stdout != first

    def test_a_closed_pipe_is_no_error(self, settings: Settings) -> None:
        with running(settings, "generate", "1000000") as generating:
            assert generating.stdout is not None
            json.loads(generating.stdout.readline())
            generating.stdout.close()
            assert generating.stderr is not None
            assert generating.stderr.read() == ""
            generating.wait(30)

    def test_generated_sent_and_verified_then_broken(self, deploy: Deploy) -> None:
        settings = deploy("commands", "views").settings
        commands = cqrs(settings, "generate", "2000").stdout.encode()
        assert cqrs(settings, "send", "--from", "-", given=commands).returncode == 0
        done = cqrs(settings, "verify")
        assert done.returncode == 0, done.stderr
        assert "2,000 commands: " in done.stdout
        report = json.loads(cqrs(settings, "verify", "--json").stdout)
        assert report["ok"]
        assert report["commands"] == 2000
        assert report["findings"]["I7"]["checked"] == 2000

        run_apart(lose_a_document(settings))
        done = cqrs(settings, "verify")
        assert done.returncode == 1
        assert done.stderr.startswith("cqrs: I4 is broken (")
        assert done.stderr.endswith("events and no document\n")
        assert "NO (1)" in done.stdout
        assert not json.loads(cqrs(settings, "verify", "--json").stdout)["ok"]

    def test_verify_without_workers_times_out(self, deploy: Deploy) -> None:
        settings = deploy().settings
        commands = cqrs(settings, "generate", "10").stdout.encode()
        cqrs(settings, "send", "--from", "-", given=commands)
        done = cqrs(settings, "verify", "--timeout", "0.1")
        assert done.returncode == 75
        assert "is a command worker running (`cqrs worker commands`)?" in done.stderr
        assert done.stderr.count("\n") == 1


async def lose_a_document(settings: Settings) -> None:
    from streams.elasticsearch.connection import connect

    async with open_view(settings, USER_VIEWS, timeout=10) as store:
        some = await anext(store.scan())
    client = connect(settings, timeout=10)
    await client.delete(index=settings.namespace + USER_VIEWS.name, id=some["id"], refresh=True)
    await client.close()


class TestTail:
    @pytest.mark.parametrize(
        ("kind", "field", "value"),
        [("events", "type", "UserRegistered"), ("outcomes", "status", "accepted")],
    )
    def test_it_shows_all_records(
        self, settings: Settings, kind: str, field: str, value: str
    ) -> None:
        user = new_user(settings)
        done = cqrs(settings, "tail", kind, "--from-beginning", "--limit", "1")
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("\n") == 1
        done = cqrs(settings, "tail", kind, "--from-beginning", "--limit", "1", "--json")
        assert field in json.loads(done.stdout)
        with running(settings, "tail", kind, "--from-beginning", "--json") as tail:
            assert find(tail, "aggregateId", user)[field] == value

    async def test_it_follows_new_records_until_ctrl_c(self, settings: Settings) -> None:
        line = b'{"type":"DeactivateUser","aggregateId":"anna","expectedVersion":"x"}'
        with running(settings, "tail", "dead") as tail:
            assert tail.stdout is not None
            said = asyncio.create_task(asyncio.to_thread(tail.stdout.readline))

            async def shown() -> bool:
                await produce(settings, line)  # again, until it stands at the end
                return said.done()

            await wait_until(shown)
            assert "invalid-field: expectedVersion: must be a whole number from 0" in await said
            tail.send_signal(signal.SIGINT)
            _, errors = tail.communicate(timeout=20)
            assert (tail.returncode, errors) == (130, "\ncqrs: interrupted\n")

    def test_a_dead_letter_as_json(self, settings: Settings) -> None:
        run_apart(produce(settings, b"\xff{"))
        with running(settings, "tail", "dead", "--from-beginning", "--json") as tail:
            letter = find(tail, "value", {"base64": "/3s="})
        assert letter["code"] == "malformed-json"
        assert letter["key"] == "anna"
        assert letter["source"]["topic"] == f"{settings.namespace}users.commands.v1"


class TestHistory:
    def test_it_shows_what_happened_to_a_user(self, settings: Settings) -> None:
        user = new_user(settings)
        for change in (
            ["update", "--id", user, "--first-name", "Anja", "--expected-version", "7"],
            ["update", "--id", user, "--first-name", "Anja"],
        ):
            cqrs(settings, "send", *change)
        run_apart(produce(settings, b"{", user))
        cqrs(settings, "send", "deactivate", "--id", user)  # it has come after that

        shown = cqrs(settings, "history", user)
        assert shown.returncode == 0, shown.stderr
        lines = shown.stdout.splitlines()
        told = [line.split("  ", 1)[1] for line in lines if line[0].isdigit()]
        assert told[0] == "RegisterUser  accepted"
        assert told[1].startswith("UpdateUserProfile  rejected, version-mismatch: ")
        assert told[2] == "UpdateUserProfile  accepted"
        assert told[3].startswith("(unreadable)  dead-lettered, malformed-json: ")
        assert told[4] == "DeactivateUser  accepted"
        assert '    #2 UserProfileUpdated  firstName="Anja"' in lines
        assert "The state at version 3:" in lines
        assert "    isActive: false" in lines

        as_json = cqrs(settings, "history", user, "--version", "1", "--json")
        data = json.loads(as_json.stdout)
        statuses = ["accepted", "rejected", "accepted", "dead-lettered", "accepted"]
        assert [one["outcome"]["status"] for one in data["entries"]] == statuses
        assert [len(one["events"]) for one in data["entries"]] == [1, 0, 1, 0, 1]
        assert data["entries"][0]["command"]["type"] == "RegisterUser"
        assert (data["version"], data["state"]["firstName"]) == (1, "Anna")
        before = cqrs(settings, "history", user, "--at", "2001-01-01T00:00:00Z", "--json")
        assert json.loads(before.stdout)["state"] is None

    def test_nobody(self, settings: Settings) -> None:
        done = cqrs(settings, "history", "nobody")
        assert (done.returncode, done.stdout) == (1, "")
        assert "there is nothing about a user with the id nobody" in done.stderr
        wrong = cqrs(settings, "history", "nobody", "--at", "noon")
        assert wrong.returncode == 2
        assert "write it like 2026-11-29T12:00:00Z" in wrong.stderr


def find(tail: subprocess.Popen[str], field: str, value: Any) -> dict[str, Any]:
    """The first line with this value; a test's time limit ends a search in vain."""
    assert tail.stdout is not None
    for line in tail.stdout:
        data: dict[str, Any] = json.loads(line)
        if data.get(field) == value:
            return data
    raise AssertionError(f"it ended: {tail.stderr and tail.stderr.read()}")


async def produce(settings: Settings, value: bytes, user: str = "anna") -> None:
    topic = f"{settings.namespace}users.commands.v1"
    async with started(new_producer(settings), settings) as producer:
        await producer.send_and_wait(topic, value, user.encode())
