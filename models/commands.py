"""Commands for a user. Email and names stay as typed, except for spaces around names."""

from collections.abc import Mapping
from typing import ClassVar

from models.email import Email
from models.messages import Command
from models.validation import Line


class RegisterUser(Command):
    """Create a user. Rejected if it exists already, active or not."""

    email: Email
    first_name: Line
    last_name: Line
    registration_source: Line


class UpdateUserProfile(Command):
    """Change the given fields and keep the others. Rejected if nothing would change."""

    email: Email | None = None
    first_name: Line | None = None
    last_name: Line | None = None


class DeactivateUser(Command):
    """Make an active user inactive: still found by id and email, but not among active users."""


class ReactivateUser(Command):
    """Make an inactive user active again."""


class EraseUser(Command):
    """Erase a user: personal data goes, and no command for this id is accepted any more."""

    overtakes_parked: ClassVar[bool] = True


USER_COMMANDS: Mapping[str, type[Command]] = {
    command.__name__: command
    for command in (
        RegisterUser,
        UpdateUserProfile,
        DeactivateUser,
        ReactivateUser,
        EraseUser,
    )
}
