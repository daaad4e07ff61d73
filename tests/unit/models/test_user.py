"""Given a user's events, when a command comes, then these events, or this rejection."""

from datetime import timedelta

import msgspec
import pytest
from hypothesis import given as given_any
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from models.commands import (
    USER_COMMANDS,
    DeactivateUser,
    EraseUser,
    ReactivateUser,
    UpdateUserProfile,
)
from models.errors import Fatal, NoCommandHandler, Rejected
from models.events import (
    UserDeactivated,
    UserErased,
    UserEvent,
    UserProfileUpdated,
    UserReactivated,
    UserRegistered,
)
from models.messages import Command, check_expected_version, parse_command, to_wire
from models.user import User, decide, evolve
from models.user_view import UserReadModel, project
from tests.unit.samples import (
    ACTIVE,
    ANNA,
    ERASED,
    INACTIVE,
    NOON,
    commands,
    given,
    record,
    register,
)

ID = "user-1"


def rejection(user: User | None, command: Command) -> tuple[str, str]:
    with pytest.raises(Rejected) as caught:
        decide(user, command)
    return caught.value.code, caught.value.reason


def test_registers_a_new_user() -> None:
    assert decide(None, register()) == (ANNA,)


@pytest.mark.parametrize("user", [ACTIVE, INACTIVE])
def test_rejects_a_second_registration(user: User) -> None:
    assert rejection(user, register()) == ("user-exists", "User already exists")


def test_updates_what_is_given() -> None:
    command = UpdateUserProfile(aggregate_id=ID, last_name="Meier")
    assert decide(ACTIVE, command) == (UserProfileUpdated(last_name="Meier"),)


def test_records_only_what_really_changes() -> None:
    command = UpdateUserProfile(
        aggregate_id=ID, email="anna@example.org", first_name="Anna", last_name="Müller"
    )
    # Only the case of the email is new: it is kept as it was typed, and so that is a change.
    assert decide(ACTIVE, command) == (UserProfileUpdated(email="anna@example.org"),)


def test_rejects_an_update_without_fields() -> None:
    assert rejection(ACTIVE, UpdateUserProfile(aggregate_id=ID)) == (
        "nothing-to-change",
        "Nothing to change: give an email, a first name or a last name",
    )


def test_rejects_an_update_to_the_same_values() -> None:
    command = UpdateUserProfile(aggregate_id=ID, email=ANNA.email, first_name="Anna")
    assert rejection(ACTIVE, command) == (
        "nothing-to-change",
        "Nothing to change: the user has these values already",
    )


def test_updates_an_inactive_user_too() -> None:
    command = UpdateUserProfile(aggregate_id=ID, first_name="Berta")
    assert decide(INACTIVE, command) == (UserProfileUpdated(first_name="Berta"),)


def test_deactivates_and_reactivates() -> None:
    assert decide(ACTIVE, DeactivateUser(aggregate_id=ID)) == (UserDeactivated(),)
    assert decide(INACTIVE, ReactivateUser(aggregate_id=ID)) == (UserReactivated(),)


def test_rejects_deactivating_or_reactivating_twice() -> None:
    assert rejection(INACTIVE, DeactivateUser(aggregate_id=ID)) == (
        "user-inactive",
        "User is already inactive",
    )
    assert rejection(ACTIVE, ReactivateUser(aggregate_id=ID)) == (
        "user-active",
        "User is already active",
    )


@pytest.mark.parametrize("command", [UpdateUserProfile, DeactivateUser, ReactivateUser, EraseUser])
def test_knows_no_user_before_registration(command: type[Command]) -> None:
    assert rejection(None, command(aggregate_id=ID)) == ("user-not-found", "User not found")


@pytest.mark.parametrize("user", [ACTIVE, INACTIVE])
def test_erases_a_user_active_or_not(user: User) -> None:
    assert decide(user, EraseUser(aggregate_id=ID)) == (UserErased(),)


@pytest.mark.parametrize(
    "command",
    [
        register(),
        UpdateUserProfile(aggregate_id=ID, email="new@example.org"),
        UpdateUserProfile(aggregate_id=ID),
        DeactivateUser(aggregate_id=ID),
        ReactivateUser(aggregate_id=ID),
        EraseUser(aggregate_id=ID),
    ],
    ids=lambda command: type(command).__name__,
)
def test_rejects_every_command_for_an_erased_user(command: Command) -> None:
    assert rejection(ERASED, command) == ("user-erased", "User was erased")


def test_decides_no_command_of_another_aggregate() -> None:
    class PromoteUser(Command):
        pass

    with pytest.raises(NoCommandHandler, match="No handler registered for command: PromoteUser"):
        decide(None, PromoteUser(aggregate_id=ID))


def test_events_make_the_user() -> None:
    user = given(ANNA, UserProfileUpdated(last_name="Meier"), UserDeactivated())
    assert user == User(
        email="Anna@example.org",
        first_name="Anna",
        last_name="Meier",
        registration_source="web",
        is_active=False,
        registered_at=NOON,
        last_updated=NOON + timedelta(seconds=2),
    )


def shredded(event: UserEvent) -> UserEvent:
    """The event as it is read without its key."""
    match event:
        case UserRegistered():
            return UserRegistered("", "", "", event.registration_source)
        case UserProfileUpdated():
            return UserProfileUpdated("", "", "")
        case _:
            return event


@given_any(known=st.integers(0, 4))
def test_the_fold_of_an_erased_user_needs_no_key(known: int) -> None:
    """However many of the events can still be read."""
    events: list[UserEvent] = [
        ANNA,
        UserProfileUpdated(email="a@example.org"),
        UserDeactivated(),
        UserProfileUpdated(last_name="Meier"),
    ]
    assert [event.is_shredded for event in map(shredded, events)] == [True, True, False, True]
    user = given(*events[:known], *map(shredded, events[known:]), UserErased())
    at = NOON + timedelta(seconds=4)
    assert user == User("", "", "", "web", False, NOON, at, erased=True)


@pytest.mark.parametrize(
    ("user", "event"),
    [
        (None, UserProfileUpdated(first_name="Berta")),
        (None, UserDeactivated()),
        (None, UserReactivated()),
        (None, UserErased()),
        (ACTIVE, ANNA),
        (ERASED, ANNA),
        (ERASED, UserReactivated()),
        (ERASED, UserErased()),
    ],
)
def test_an_impossible_history_is_fatal(user: User | None, event: UserEvent) -> None:
    with pytest.raises(Fatal, match="history is broken"):
        evolve(user, event, NOON)


class OneUser(RuleBasedStateMachine):
    """Any commands in any order: what the state, the view and the wire have to agree on."""

    def __init__(self) -> None:
        super().__init__()
        self.user: User | None = None
        self.document: dict[str, object] | None = None
        self.version = 0

    @rule(command=commands)
    def send(self, command: Command) -> None:
        assert parse_command(to_wire(command), USER_COMMANDS) == command
        before, code = self.user, None
        events: tuple[UserEvent, ...] = ()
        try:
            check_expected_version(command, self.version)
            events = decide(before, command)
        except Rejected as no:
            code = no.code
        wrong_version = command.expected_version not in (None, self.version)
        assert (code == "version-mismatch") == wrong_version
        assert (code is not None) == (wrong_version or self.has_to_be_rejected(command))
        if code is not None:
            return
        assert len(events) == 1
        for event in events:
            self.version += 1
            self.user = evolve(self.user, event, command.timestamp)
            self.document = project(
                self.document, record(event, self.version, timestamp=command.timestamp)
            )
        assert self.user != before
        # The same command again finds its work done, whatever it is.
        with pytest.raises(Rejected):
            decide(self.user, command)

    def has_to_be_rejected(self, command: Command) -> bool:
        if self.user is not None and self.user.erased:
            return True
        match command, self.user:
            case UpdateUserProfile(), User() as user:
                return (
                    command.email in (None, user.email)
                    and command.first_name in (None, user.first_name)
                    and command.last_name in (None, user.last_name)
                )
            case DeactivateUser(), User(is_active=active):
                return not active
            case ReactivateUser(), User(is_active=active):
                return active
            case EraseUser(), User():
                return False
            case UpdateUserProfile() | DeactivateUser() | ReactivateUser() | EraseUser(), None:
                return True
            case _:
                return self.user is not None

    @invariant()
    def the_view_shows_the_state(self) -> None:
        if self.user is None:
            assert self.document is None
            return
        if self.user.erased:
            assert self.document == {"id": ID, "version": self.version}
            return
        view = UserReadModel.model_validate(self.document)
        user = self.user
        assert (view.id, view.version) == (ID, self.version)
        assert (view.email, view.first_name) == (user.email, user.first_name)
        assert (view.last_name, view.is_active) == (user.last_name, user.is_active)
        shown, known = view.registered_at, user.registered_at
        assert shown == known.replace(microsecond=known.microsecond // 1000 * 1000)
        shown, known = view.last_updated, user.last_updated
        assert shown == known.replace(microsecond=known.microsecond // 1000 * 1000)

    @invariant()
    def the_state_survives_the_wire(self) -> None:
        if self.user is not None:
            assert msgspec.msgpack.decode(msgspec.msgpack.encode(self.user), type=User) == self.user


OneUser.TestCase.settings = settings(deadline=None, max_examples=60, stateful_step_count=20)
TestOneUser = OneUser.TestCase


def test_a_registration_keeps_every_field() -> None:
    event = UserRegistered("a@example.org", "B", "C", "d")
    user = evolve(None, event, NOON)
    assert user == User("a@example.org", "B", "C", "d", True, NOON, NOON)
