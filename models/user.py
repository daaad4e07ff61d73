"""The user aggregate: its state, which commands are allowed, and how an event changes the state.

The profile of an inactive user may be changed: the specification does not forbid it, and a person
who is away can still have a wrong name or a new address.

An erased user stays, without personal data, so that the id cannot be used again.
"""

from datetime import datetime

import msgspec
from msgspec.structs import replace

from models.commands import (
    DeactivateUser,
    EraseUser,
    ReactivateUser,
    RegisterUser,
    UpdateUserProfile,
)
from models.errors import NoCommandHandler, PartitionFatal, Rejected
from models.events import (
    UserDeactivated,
    UserErased,
    UserEvent,
    UserProfileUpdated,
    UserReactivated,
    UserRegistered,
)
from models.messages import Command


class User(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """State of a user: the fold of the user's events.

    An erased user has the empty string for email and names, and is inactive. This state is the same
    whether the personal data of earlier events could still be read or not.
    """

    email: str
    first_name: str
    last_name: str
    registration_source: str
    is_active: bool
    registered_at: datetime
    last_updated: datetime
    erased: bool = False


def decide(user: User | None, command: Command) -> tuple[UserEvent, ...]:
    """Return the events that follow from the command, at least one.

    Raises:
        Rejected: a rule forbids it. Nothing changes.
        NoCommandHandler: it is no command for users.
    """
    if user is not None and user.erased:
        raise Rejected("user-erased", "User was erased")
    match command:
        case RegisterUser():
            return _register(user, command)
        case UpdateUserProfile():
            return _update(_existing(user), command)
        case DeactivateUser():
            if not _existing(user).is_active:
                raise Rejected("user-inactive", "User is already inactive")
            return (UserDeactivated(),)
        case ReactivateUser():
            if _existing(user).is_active:
                raise Rejected("user-active", "User is already active")
            return (UserReactivated(),)
        case EraseUser():
            _existing(user)
            return (UserErased(),)
        case _:
            raise NoCommandHandler(type(command).__name__)


def _existing(user: User | None) -> User:
    if user is None:
        raise Rejected("user-not-found", "User not found")
    return user


def _register(user: User | None, command: RegisterUser) -> tuple[UserEvent, ...]:
    if user is not None:
        raise Rejected("user-exists", "User already exists")
    return (
        UserRegistered(
            email=command.email,
            first_name=command.first_name,
            last_name=command.last_name,
            registration_source=command.registration_source,
        ),
    )


def _update(user: User, command: UpdateUserProfile) -> tuple[UserEvent, ...]:
    email, first, last = command.email, command.first_name, command.last_name
    if email is None and first is None and last is None:
        raise Rejected(
            "nothing-to-change", "Nothing to change: give an email, a first name or a last name"
        )
    changes = UserProfileUpdated(
        email=None if email == user.email else email,
        first_name=None if first == user.first_name else first,
        last_name=None if last == user.last_name else last,
    )
    if changes == UserProfileUpdated():
        raise Rejected("nothing-to-change", "Nothing to change: the user has these values already")
    return (changes,)


def evolve(user: User | None, event: UserEvent, at: datetime) -> User:
    """Return the user after the event, which happened at `at`.

    Raises:
        PartitionFatal: the event does not fit: no `decide` produced this history.
    """
    if user is not None and user.erased:
        raise _broken(event, "follows UserErased")
    match event:
        case UserRegistered() if user is None:
            return User(
                email=event.email,
                first_name=event.first_name,
                last_name=event.last_name,
                registration_source=event.registration_source,
                is_active=True,
                registered_at=at,
                last_updated=at,
            )
        case UserProfileUpdated() if user is not None:
            return replace(
                user,
                email=user.email if event.email is None else event.email,
                first_name=user.first_name if event.first_name is None else event.first_name,
                last_name=user.last_name if event.last_name is None else event.last_name,
                last_updated=at,
            )
        case UserDeactivated() if user is not None:
            return replace(user, is_active=False, last_updated=at)
        case UserReactivated() if user is not None:
            return replace(user, is_active=True, last_updated=at)
        case UserErased() if user is not None:
            return replace(
                user,
                email="",
                first_name="",
                last_name="",
                is_active=False,
                last_updated=at,
                erased=True,
            )
    fault = "follows other events" if user is not None else "comes before UserRegistered"
    raise _broken(event, fault)


def _broken(event: UserEvent, fault: str) -> PartitionFatal:
    return PartitionFatal(
        f"A user's history is broken: {type(event).__name__} {fault}. Restore the events."
    )
