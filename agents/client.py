"""The Python interface: a command bus and a query bus for users.

Import both with `from agents.client import open_commands, open_queries`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from email_validator import EmailNotValidError, validate_email

from agents.daily_registrations import DAILY_REGISTRATIONS
from agents.daily_registrations_queries import RegistrationQueryHandler
from agents.new_users import NewUserHandler
from agents.user_queries import UserQueryHandler
from agents.user_views import USER_VIEWS
from agents.users import USERS
from models.commands import RegisterUser, UpdateUserProfile
from models.errors import InvalidCommand
from models.messages import Command
from models.queries import GetUsersByEmail, Page
from models.user_view import UserReadModel
from streams.aggregate import TopicNames
from streams.buses import QueryBus
from streams.commands.client import KafkaCommandBus
from streams.settings import Settings
from streams.views.read_your_writes import ReadYourWrites
from streams.views.reader import open_view

_REQUEST_TIMEOUT_S = 10.0  # of one request to Elasticsearch; a search takes milliseconds


def check_typed(command: Command) -> None:
    """Check the email address that a person typed, more strictly than the worker has time for.

    Raises:
        InvalidCommand: with the rule that the address breaks.
    """
    if isinstance(command, RegisterUser | UpdateUserProfile) and command.email is not None:
        try:
            validate_email(command.email, check_deliverability=False)
        except EmailNotValidError as error:
            raise InvalidCommand([f"email: {error}"]) from None


def open_commands(settings: Settings) -> KafkaCommandBus:
    """Return a command bus for users, an async context manager.

    ``async with open_commands(settings) as commands: outcome = await commands.dispatch(...)``
    """
    return KafkaCommandBus(settings, USERS, check=check_typed)


@asynccontextmanager
async def open_queries(settings: Settings) -> AsyncIterator[QueryBus]:
    """Open a query bus with handlers for all queries, and with connections of its own.

    Nothing is sent before the first query. A query raises Transient if Elasticsearch is down, and
    Fatal if there is no such index. Only `GetNewUsers` needs Kafka.

    Raises:
        Fatal: The settings contain no valid address of Elasticsearch.
    """
    async with (
        open_view(settings, USER_VIEWS, timeout=_REQUEST_TIMEOUT_S) as users,
        open_view(settings, DAILY_REGISTRATIONS, timeout=_REQUEST_TIMEOUT_S) as registrations,
    ):
        queries = QueryBus()
        commands = TopicNames.of(settings, USERS.name).commands
        waiting = ReadYourWrites(users, commands, settings.partitions)
        UserQueryHandler(users).register_at(queries, waiting)
        NewUserHandler(settings, users).register_at(queries, waiting)
        RegistrationQueryHandler(registrations).register_at(
            queries, ReadYourWrites(registrations, commands, settings.partitions)
        )
        yield queries


async def pages_by_email(
    queries: QueryBus, query: GetUsersByEmail, **waiting: Any
) -> AsyncIterator[Page[UserReadModel]]:
    """Yield the page that the query asks for, and all that follow it.

    `waiting` are the `at_least` and the `timeout` of `QueryBus.execute`.
    """
    while True:
        page: Page[UserReadModel] = await queries.execute(query, **waiting)
        yield page
        if page.cursor is None:
            return
        query = replace(query, cursor=page.cursor)


async def all_users_by_email(queries: QueryBus, fragment: str) -> AsyncIterator[UserReadModel]:
    """Yield every user whose email contains the text, in the order of the pages."""
    async for page in pages_by_email(queries, GetUsersByEmail(fragment, limit=1000)):
        for user in page.items:
            yield user
