"""One test for each row of the specification that the models alone can show, named after it."""

import subprocess
import sys
from datetime import datetime, timezone
from uuid import UUID

import pytest

from models.commands import USER_COMMANDS, RegisterUser, UpdateUserProfile
from models.errors import Rejected
from models.events import UserProfileUpdated, UserRegistered
from models.messages import Command, parse_command
from models.user import decide, evolve
from models.user_view import UserReadModel
from tests.unit.samples import ACTIVE, ANNA, NOON, register, wire_register


def test_command() -> None:
    for command in USER_COMMANDS.values():
        assert issubclass(command, Command)
        assert {"id", "aggregate_id", "timestamp"} <= set(command.model_fields)


def test_register_user_command() -> None:
    before = datetime.now(timezone.utc)
    first, second = register(), register()
    assert isinstance(first.id, UUID)
    assert first.id != second.id
    assert before <= first.timestamp <= second.timestamp <= datetime.now(timezone.utc)
    assert (first.aggregate_id, first.email) == ("user-1", "Anna@example.org")
    assert (first.first_name, first.last_name) == ("Anna", "Müller")
    assert first.registration_source == "web"
    named = parse_command(wire_register(type="RegisterUserCommand"), USER_COMMANDS)
    assert isinstance(named, RegisterUser)


def test_update_user_profile_command() -> None:
    only_email = UpdateUserProfile(aggregate_id="user-1", email="new@example.org")
    (event,) = decide(ACTIVE, only_email)
    assert event == UserProfileUpdated(email="new@example.org")
    user = evolve(ACTIVE, event, NOON)
    assert (user.email, user.first_name, user.last_name) == ("new@example.org", "Anna", "Müller")
    with pytest.raises(Rejected, match="Nothing to change"):
        decide(ACTIVE, UpdateUserProfile(aggregate_id="user-1"))


def test_user_read_model() -> None:
    names = {info.alias for info in UserReadModel.model_fields.values()}
    assert names == {
        *("id", "email", "firstName", "lastName", "isActive", "registeredAt", "lastUpdated"),
        "version",
    }


def test_user_aggregate() -> None:
    # register, updateProfile and getUncommittedEvents: decide returns the events, evolve folds them
    (registered,) = decide(None, register())
    assert registered == UserRegistered("Anna@example.org", "Anna", "Müller", "web") == ANNA
    user = evolve(None, registered, NOON)
    (updated,) = decide(user, UpdateUserProfile(aggregate_id="user-1", last_name="Meier"))
    assert evolve(user, updated, NOON).last_name == "Meier"


@pytest.mark.parametrize(
    ("one", "other"), [("models.user", "models.user_view"), ("models.user_view", "models.user")]
)
def test_separate_models(one: str, other: str) -> None:
    """Neither imports the other, nor anything that does."""
    code = f"import sys, {one}; sys.exit({other!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
