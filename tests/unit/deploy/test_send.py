"""What `cqrs send` makes of its words: the command that is sent, and the form of its outcome."""

from __future__ import annotations

import json
from uuid import UUID

import pytest
from click.testing import CliRunner, Result

from deploy.cli.send import send
from models.messages import Command
from models.outcomes import Accepted, Outcome
from tests.unit.samples import COMMAND_ID, EVENT_ID, NOON, SOURCE

REGISTER = "register --email anna@example.org --first-name Anna --last-name Li"


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Command]:
    """The commands that are sent; each is accepted."""
    commands: list[Command] = []

    async def accept(command: Command, _timeout: float | None) -> Outcome:
        commands.append(command)
        return Accepted(
            command_id=command.id,
            aggregate_id=command.aggregate_id,
            timestamp=NOON,
            source=SOURCE,
            sequence=1,
            event_ids=(EVENT_ID,),
            token="t",
        )

    monkeypatch.setattr("deploy.cli.send._dispatch", accept)
    return commands


def run(words: str) -> Result:
    done = CliRunner().invoke(send, words)
    assert done.exit_code == 0, done.output
    return done


def test_a_repeated_registration_is_of_the_same_user(sent: list[Command]) -> None:
    """Repeats are found among the last commands of one user."""
    for _ in range(2):
        run(f"{REGISTER} --command-id {COMMAND_ID}")
    assert {(one.id, one.aggregate_id) for one in sent} == {(COMMAND_ID, str(COMMAND_ID))}


def test_without_ids_each_registration_is_of_a_new_user(sent: list[Command]) -> None:
    for _ in range(2):
        run(REGISTER)
    first, second = sent
    assert first.aggregate_id != second.aggregate_id
    assert [UUID(one.aggregate_id) for one in sent] == [one.id for one in sent]


def test_the_id_of_a_user_can_be_chosen(sent: list[Command]) -> None:
    run(f"{REGISTER} --id anna --command-id {COMMAND_ID}")
    assert [(one.id, one.aggregate_id) for one in sent] == [(COMMAND_ID, "anna")]


@pytest.mark.usefixtures("sent")
@pytest.mark.parametrize("words", ["-o json {}", "--json {}", "{} --json", "-o tsv {} -o json"])
def test_the_form_may_come_before_the_command(words: str) -> None:
    assert json.loads(run(words.format("deactivate --id anna")).output)["status"] == "accepted"


@pytest.mark.usefixtures("sent")
def test_without_a_form_it_is_that_of_the_command() -> None:
    assert run("deactivate --id anna").output == "accepted: user anna is at version 1\n"
