"""`cqrs dead` on topics without servers."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result
from typing_extensions import Self

from deploy.cli import dead as command_line
from models.errors import Fatal
from models.outcomes import Outcome, parse_outcome
from streams.commands.control import Control, encode_control
from tests.harness.outputs import misfits
from tests.unit.commands.deciding import NAMES, Deciding
from tests.unit.commands.parked_commands import in_order, register, send, update
from tests.unit.commands.test_send_again import Connect, connect

__all__ = ["connect"]  # a fixture


class Bus:
    """Decides a control record at once."""

    deciding: Deciding

    def __init__(self, *_: object) -> None:
        self._deciding_alone = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing to close."""

    async def dispatch_control(self, control: Control, key: bytes) -> Outcome:
        record = encode_control(control, NAMES.commands, key)
        async with self._deciding_alone:
            self.deciding.send(record.key or b"", record.value or b"", *record.headers)
            await asyncio.to_thread(self.deciding.decide)
            return parse_outcome(self.deciding.topics[NAMES.outcomes][-1].value or b"")


@pytest.fixture
def deciding(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> Deciding:
    """Two users with parked commands, and one with a dead letter that was not parked."""
    deciding = in_order()
    for user in ("anna", "ben"):
        register(deciding, user)
        update(deciding, "Bea", user)
        send(deciding, "DeactivateUser", user)
    deciding.send(b"cid", b"\xff no JSON")
    deciding.send(b"dan", {"type": "RenameUser", "aggregateId": "dan", "id": str(uuid4())})
    deciding.decide()
    use(deciding, connect, monkeypatch)
    return deciding


def use(deciding: Deciding, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    async def checked(*_: object) -> None:
        """There are no topics to check."""

    connect(deciding)
    monkeypatch.setattr(command_line, "load_settings", lambda: deciding.settings)
    monkeypatch.setattr(command_line, "check_topics", checked)
    monkeypatch.setattr(command_line, "KafkaCommandBus", Bus)
    monkeypatch.setattr(Bus, "deciding", deciding, raising=False)


def run(*words: str, code: int = 0, answer: str | None = None) -> Result:
    done = CliRunner().invoke(command_line.dead, words, input=answer)
    assert done.exit_code == code, done.output
    return done


def said(*words: str, code: int = 0) -> Any:
    printed = run(*words, "--json", code=code).stdout
    assert misfits(f"dead {words[0]}", "json", printed) == []
    return json.loads(printed)


def test_list_shows_who_waits_and_why(deciding: Deciding) -> None:
    _, first, *lines = run("list").output.splitlines()
    assert re.match(r" *parked +anna +2 +2026-\S+Z +decide-failed +deciding it raised Zero", first)
    assert first.rstrip().endswith("ZeroDivisionError (tried 1 times)")
    assert lines[2].split()[:3] == ["dead", "cid", "1"]
    assert lines[-1] == "5 commands of 3 users are parked, 1 dead letters"
    as_tsv = run("list", "-o", "tsv").stdout
    assert misfits("dead list", "tsv", as_tsv) == []
    rows = [line.split("\t") for line in as_tsv.splitlines()]
    assert [row[1] for row in rows] == ["anna", "ben", "dan", "cid"]
    assert rows[0][3] == "decide-failed"
    assert [one["user"] for one in said("list", "--code", "unknown-type")] == ["dan"]
    assert [one["user"] for one in said("list", "ben", "cid")] == ["ben", "cid"]
    assert said("list", "--since", "2099-01-01T00:00:00") == []
    run("list", "--since", "yesterday", code=2)


def test_show_and_export_have_the_contents(deciding: Deciding) -> None:
    assert '"firstName":"Bea"' in run("show", "anna").output
    (shown,) = said("show", "cid")
    assert "base64" in shown["commands"][0]["value"]
    run("show", code=2)
    assert run("show", "nobody", code=1).stderr == (
        "cqrs: none of these users has a parked command or a dead letter\n"
    )
    exported = run("export").output
    assert misfits("dead export", "ndjson", exported) == []
    lines = [json.loads(line) for line in exported.splitlines()]
    assert [line["kind"] for line in lines] == ["parked", "parked", "parked", "dead"]
    assert said("export") == lines


HIDES_LINES = "\x1b[2K\x1b[1A\x9b8m\u202e"


@pytest.mark.parametrize(
    "words",
    ["list", "list -o json", "list -o tsv", f"show eve{HIDES_LINES}", "export", "export -o json"],
)
def test_no_terminal_obeys_what_a_producer_wrote(deciding: Deciding, words: str) -> None:
    user = f"eve{HIDES_LINES}"
    unknown = {"type": f"No{HIDES_LINES}", "aggregateId": user, "id": str(uuid4())}
    deciding.send(user.encode(), json.dumps(unknown, ensure_ascii=False).encode())
    deciding.send(user.encode(), f"no JSON {HIDES_LINES}".encode())
    deciding.decide()
    shown = run(*words.split(" ")).output
    assert "eve" in shown
    assert not [one for one in shown if (one < " " and one not in "\n\t") or "\x7f" <= one < "\xa0"]


def test_a_replay_says_what_is_left(deciding: Deciding) -> None:
    run("replay", code=2)
    run("replay", "anna", "--all", code=2)
    run("replay", "anna", answer="n\n", code=1)
    run("drop", "anna", "--json", answer="n\n", code=1)  # a program is asked, too
    assert said("replay", "--yes", "anna", code=1) == {
        "users": 1,
        "ended": 0,
        "left": 2,
        "sentAgain": 0,
    }
    assert "anna: 2 still wait" in run("replay", "anna", "--yes", code=1).output
    deciding.breaks = lambda _: False
    done = said("replay", "--yes", "--all", "--code", "decide-failed", "--rate", "1000")
    assert done == {"users": 2, "ended": 4, "left": 0, "sentAgain": 0}
    assert [one["user"] for one in said("list")] == ["dan", "cid"]
    assert deciding.audit().first_violation is None


def test_what_is_dropped_can_be_sent_again(deciding: Deciding) -> None:
    assert "the others still wait" in run("drop", "anna", "--first", "--yes").output
    run("drop", "ben", answer="y\n")
    deciding.breaks = lambda _: False
    assert said("replay", "--yes", "--all", code=1)["left"] == 1
    assert said("replay", "--yes", "--all", "--code", "dropped")["sentAgain"] == 3
    assert said("replay", "--yes", "--all", "--code", "dropped")["sentAgain"] == 0
    deciding.decide()
    assert deciding.audit().first_violation is None
    assert [one["user"] for one in said("list")] == ["dan", "cid"]


def test_nothing_is_sent_without_the_control_key(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    deciding = in_order(control_key=None)
    register(deciding)
    update(deciding, "Bea")
    use(deciding, connect, monkeypatch)
    deciding.decide()
    done = CliRunner().invoke(command_line.dead, ["replay", "--all", "--yes"])
    assert isinstance(done.exception, Fatal)
    assert "CQRS_CONTROL_KEY is not set" in str(done.exception)
