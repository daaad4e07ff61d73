"""The handler of the query about new users: the event topic has the order, the view the users."""

from __future__ import annotations

from agents.user_queries import decode_cursor, encode_cursor, no_cursor
from agents.users import USERS
from models.errors import QueryError, Transient
from models.queries import GetNewUsers, Page
from models.user_view import UserReadModel, is_tombstone
from streams.aggregate import TopicNames
from streams.buses import QueryBus
from streams.elasticsearch.index import REFUSED
from streams.kafka.topic_ids import topic_id
from streams.settings import Settings
from streams.views.arrivals import read_arrivals
from streams.views.read_your_writes import ReadYourWrites
from streams.views.store import ViewStore, noting_nodes


class NewUserHandler:
    """The handler of `GetNewUsers`.

    It reads the event topic up to where the view is, and the users from the view by their ids, so
    it needs no refresh. With a token it waits for its write.
    """

    def __init__(self, settings: Settings, store: ViewStore) -> None:
        self._settings = settings
        self._store = store
        self._topic = TopicNames.of(settings, USERS.name).events

    def register_at(self, queries: QueryBus, waiting: ReadYourWrites) -> None:
        """Register this handler at the bus."""
        queries.register(GetNewUsers, self.get_new, after=waiting.once_projected)

    async def get_new(self, query: GetNewUsers) -> Page[UserReadModel]:
        """Return the users whose registrations follow the cursor, as they are now.

        Raises:
            QueryError: The cursor is none, or of another event topic.
            Transient: A server failed, or the view moved to another index: ask again.
        """
        numbers = range(self._settings.partitions)
        topic = await topic_id(self._settings, self._topic)
        begins = _positions(query.cursor, topic, len(numbers))
        with noting_nodes() as nodes:
            serving = await self._store.checkpoints(numbers)
            ends = {number: one.position for number, one in serving.checkpoints.items()}
            ids, positions = await read_arrivals(
                self._settings, self._topic, begins, ends, limit=query.limit
            )
            documents = await self._store.fetch(ids)
            after = await self._store.checkpoints(numbers)
        if after.name != serving.name or len(nodes) > 1:
            raise Transient("The view moved to another index or node meanwhile: ask again")
        users = (documents[id_] for id_ in ids if id_ in documents)
        items = tuple(
            UserReadModel.model_validate(user)
            for user in users
            if REFUSED not in user and not is_tombstone(user)
        )
        return Page(items, encode_cursor([topic, positions]))


def _positions(cursor: str | None, topic: str, partitions: int) -> list[int]:
    """Return the first offset to read of each partition.

    Raises:
        QueryError: The cursor is none of this topic.
    """
    if cursor is None:
        return [0] * partitions
    match decode_cursor(cursor):
        case [str(of), [*positions]] if len(positions) == partitions and all(
            type(one) is int and 0 <= one < 2**63 for one in positions
        ):
            if of != topic:
                raise QueryError(
                    "the cursor is of an event topic that was deleted: begin without a cursor"
                )
            return positions
    raise no_cursor()
