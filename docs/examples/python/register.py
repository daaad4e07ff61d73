"""Register a user, wait for the outcome, and find the user by a fragment of the email address.

python register.py USER EMAIL [COMMAND_ID]
"""

from __future__ import annotations

import asyncio
import sys
from uuid import UUID, uuid4

from pydantic import ValidationError

from agents.client import open_commands, open_queries
from deploy.environment import load_settings
from models.commands import RegisterUser
from models.errors import CqrsError, OutcomeTimeout
from models.messages import Command
from models.outcomes import Duplicate, FirstParked, Outcome, Parked
from models.queries import GetUsersByEmail
from streams.buses import CommandBus


async def dispatch(commands: CommandBus[Outcome], command: Command) -> Outcome:
    """Send a command until there is an outcome: its id makes it safe to send it again."""
    while True:
        try:
            return await commands.dispatch(command)
        except OutcomeTimeout:
            print("no outcome yet: sending it again", file=sys.stderr)


async def main(user: str, email: str, command_id: UUID) -> None:
    """Print what was sent, its outcome, and the user as a search finds it."""
    command = RegisterUser(
        id=command_id,
        aggregate_id=user,
        email=email,
        first_name="Anna",
        last_name="Muster",
        registration_source="web",
    )
    # The environment's servers (CQRS_*), or those of `cqrs dev`. A service, which has the former,
    # uses `streams.settings.settings` instead.
    settings = load_settings()
    async with open_commands(settings) as commands, open_queries(settings) as queries:
        print(f"sent: RegisterUser {command_id}")
        outcome = await dispatch(commands, command)
        reply = outcome.of if isinstance(outcome, Duplicate) else outcome
        again = "duplicate, first " if reply is not outcome else ""
        if isinstance(reply, Parked | FirstParked):
            sys.exit(f"{again}parked: it waits for an operator, and has an outcome later")
        if reply.status != "accepted":
            sys.exit(f"{again}{reply.status}: {reply.reason} ({reply.code})")
        print(f"{again}accepted: {user} is at version {reply.sequence}")

        # With the token the search waits until it sees this write.
        page = await queries.execute(GetUsersByEmail(email[1:].upper()), at_least=outcome.token)
        found = next(item for item in page.items if item.id == user)
        print(f"found: {found.id} {found.email} version {found.version}")


try:
    asyncio.run(main(sys.argv[1], sys.argv[2], UUID(sys.argv[3]) if sys.argv[3:] else uuid4()))
except (CqrsError, ValidationError) as problem:  # the latter: a field is not valid
    sys.exit(f"{type(problem).__name__}: {problem}")
