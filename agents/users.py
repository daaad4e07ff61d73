"""The user aggregate, as the machinery needs it."""

from operator import attrgetter

from models.commands import USER_COMMANDS
from models.events import USER_EVENTS
from models.user import User, evolve
from streams.aggregate import Aggregate

# App id of the command workers, which names their consumer group and transactional ids. It never
# changes while a deployment exists.
COMMAND_WORKER = "users-commands"

USERS = Aggregate[User](
    name="users",
    commands=USER_COMMANDS,
    events=USER_EVENTS,
    state=User,
    evolve=evolve,
    is_erased=attrgetter("erased"),
    state_version=1,
)
