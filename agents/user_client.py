"""The command bus of clients that send commands for users."""

from __future__ import annotations

from email_validator import EmailNotValidError, validate_email

from agents.users import USERS
from models.commands import RegisterUser, UpdateUserProfile
from models.errors import InvalidCommand
from models.messages import Command
from streams.commands.client import KafkaCommandBus
from streams.settings import Settings


def check_typed(command: Command) -> None:
    """Check what people type more strictly than the worker has time for: the email address.

    Raises:
        InvalidCommand: with the rule that the address breaks.
    """
    if isinstance(command, RegisterUser | UpdateUserProfile) and command.email is not None:
        try:
            validate_email(command.email, check_deliverability=False)
        except EmailNotValidError as error:
            raise InvalidCommand([f"email: {error}"]) from None


def open_commands(settings: Settings) -> KafkaCommandBus:
    """A command bus for users, an async context manager.

    ``async with open_commands(settings) as commands: outcome = await commands.dispatch(...)``
    """
    return KafkaCommandBus(settings, USERS, check=check_typed)
