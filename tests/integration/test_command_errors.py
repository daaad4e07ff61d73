"""Every command of `cqrs`, where there is nothing that could answer it: one line, and a code.

The commands are found by walking the tree, so a new one has to be added to `ARGUMENTS`.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from uuid import uuid4

import pytest

from deploy.cli.exit_codes import ExitCode
from deploy.embedded.stack import EmbeddedStack
from deploy.ephemeral import create_user_topics, new_settings
from tests.harness.command_tree import Done, Job, leaves, run_all
from tests.harness.deployments import run_apart

ARGUMENTS: Mapping[str, str] = {
    "active": "",
    "dead drop": "anna --first --yes",
    "dead export": "",
    "dead list": "",
    "dead replay": "anna --yes",
    "dead show": "anna",
    "erase": "anna --yes --prove",
    "follow": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6 --timeout 40",
    "get": "anna",
    "history": "anna",
    "keys rotate": "",
    "keys status": "",
    "new": "",
    "registrations": "",
    "search email": "anna",
    "send": "--from /dev/null",
    "send deactivate": "--id anna",
    "send reactivate": "--id anna",
    "send register": "--email anna@example.org --first-name Anna --last-name Muster",
    "send update": "--id anna --first-name Anja",
    "state rebuild": "--all",
    "state verify": "",
    "tail": "events",
    "topics adopt": "--all",
    "topics create": "",
    "topics skip-expired": "0",
    "verify": "",
    "views prune": "--yes",
    "views rebuild": "",
    "views rollback": "",
    "views status": "",
    "worker": "commands",
}
"""Those that need a server, with arguments that are all right."""

# Those that need none, or start their own.
WITHOUT_SERVERS = {
    *("completion", "config", "down", "env", "generate", "keys new", "logs", "schema", "status"),
    *("top", "topics acls", "topics manifest"),
}
# What does not answer is what they report: tests/unit/deploy/test_doctor_unknown.py.
REPORTS = {"doctor"}
OWN_SERVERS = {"bench", "demo", "dev", "faults", "up"}

# No command may be silent for as long; the slowest one waits 13 s for two silent servers.
_TIMEOUT_S = 60.0

# What a person is to do.
_ADVICE = re.compile(r"`cqrs |set CQRS_|ask again")


def environment(home: Path, **settings: str) -> dict[str, str]:
    others = {name: value for name, value in os.environ.items() if not name.startswith("CQRS_")}
    return {**others, "CQRS_STACK_HOME": str(home), "CQRS_OUTCOME_TIMEOUT": "1", **settings}


def jobs(environment_: Mapping[str, str]) -> list[Job]:
    """Each command once, and a second time with --json if it has that; in namespaces apart."""
    found = []
    for path, command in leaves():
        name = " ".join(path)
        if name in WITHOUT_SERVERS | REPORTS or path[0] in OWN_SERVERS:
            continue
        arguments = [*path, *ARGUMENTS[name].split()]
        has_json = any("--json" in one.opts for one in command.params)
        for form in ([], ["--json"]) if has_json else ([],):
            namespace = {"CQRS_NAMESPACE": f"t{uuid4().hex[:10]}-"}
            found.append(Job([*arguments, *form], {**environment_, **namespace}, _TIMEOUT_S))
    return found


def check(done: Done, says: str) -> None:
    """That it ended with one line on standard error that says so, and what to do."""
    told = f"{' '.join(done.arguments)} ended with {done.code}: {done.out}{done.err}"
    assert done.code == ExitCode.UNKNOWN, told
    assert done.out == "", told
    *waiting, line = done.err.splitlines()
    assert all(re.fullmatch(r"[A-Z][\w ,]+ \(\d+ s\)", one) for one in waiting), told
    if "--json" in done.arguments:
        line = json.loads(line)["error"]
    else:
        assert line.startswith("cqrs: "), told
    assert re.search(says, line), told
    assert _ADVICE.search(line), told


def test_every_command_has_arguments_here() -> None:
    names = {" ".join(path) for path, _ in leaves() if path[0] not in OWN_SERVERS}
    assert names == ARGUMENTS.keys() | WITHOUT_SERVERS | REPORTS


@pytest.fixture
def silent_ports() -> Iterator[tuple[int, int]]:
    """Two ports that take connections and never answer."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=500) as kafka,
        socket.create_server(("127.0.0.1", 0), backlog=500) as elasticsearch,
    ):
        yield kafka.getsockname()[1], elasticsearch.getsockname()[1]


def test_where_nothing_runs(tmp_path: Path) -> None:
    addresses = {
        "CQRS_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "CQRS_ELASTICSEARCH_URL": "http://127.0.0.1:2",
    }
    for done in run_all(jobs(environment(tmp_path, **addresses))):
        check(done, r"Kafka does not answer at 127.0.0.1:1: |Elasticsearch at .*:2 cannot be reach")


def test_where_servers_take_connections_and_never_answer(
    tmp_path: Path, silent_ports: tuple[int, int]
) -> None:
    kafka, elasticsearch = silent_ports
    addresses = {
        "CQRS_BOOTSTRAP_SERVERS": f"127.0.0.1:{kafka}",
        "CQRS_ELASTICSEARCH_URL": f"http://127.0.0.1:{elasticsearch}",
    }
    for done in run_all(jobs(environment(tmp_path, **addresses))):
        check(done, rf":{kafka}: it takes connections|:{elasticsearch} did not answer in time")


def test_in_a_namespace_without_topics(stack: EmbeddedStack, tmp_path: Path) -> None:
    run_apart(create_user_topics(new_settings(stack)))  # there are others
    addresses = {
        "CQRS_BOOTSTRAP_SERVERS": stack.bootstrap_servers,
        "CQRS_ELASTICSEARCH_URL": stack.elasticsearch_url,
        "CQRS_PARTITIONS": "1",
    }
    for done in run_all(jobs(environment(tmp_path, **addresses))):
        if done.arguments[:2] in (["topics", "create"], ["views", "prune"]):
            assert done.code == ExitCode.OK, done.err  # there is something to do, or nothing
        else:
            check(done, r"missing topics: .*create them with|there is no view .*|no index")
