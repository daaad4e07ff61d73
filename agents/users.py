"""The user aggregate, as the machinery needs it."""

from models.commands import USER_COMMANDS
from models.events import USER_EVENTS
from models.user import User, evolve
from streams.aggregate import Aggregate

# App ids of the workers, which name their consumer groups and transactional ids. They never change
# while a deployment exists.
COMMAND_WORKER = "users-commands"
VIEW_WORKER = "users-views"
REGISTRATIONS_WORKER = "users-daily-registrations"

USERS = Aggregate[User](
    name="users",
    commands=USER_COMMANDS,
    events=USER_EVENTS,
    state=User,
    evolve=evolve,
    state_version=1,
)
