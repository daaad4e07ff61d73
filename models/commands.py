"""What can be asked for a user. Email and names as they are typed, but for spaces around names."""

from collections.abc import Mapping

from models.email import Email
from models.messages import Command
from models.validation import Line


class RegisterUser(Command):
    """Makes a user. Rejected if there is one already, active or not."""

    email: Email
    first_name: Line
    last_name: Line
    registration_source: Line


class UpdateUserProfile(Command):
    """Changes what is given and leaves the rest. Rejected if that changes nothing."""

    email: Email | None = None
    first_name: Line | None = None
    last_name: Line | None = None


class DeactivateUser(Command):
    """Makes an active user inactive: still found by id and email, but not among the active."""


class ReactivateUser(Command):
    """Makes an inactive user active again."""


class EraseUser(Command):
    """Ends a user: personal data goes, and no command for this id is accepted any more."""


USER_COMMANDS: Mapping[str, type[Command]] = {
    command.__name__: command
    for command in (RegisterUser, UpdateUserProfile, DeactivateUser, ReactivateUser, EraseUser)
}
