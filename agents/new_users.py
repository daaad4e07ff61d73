"""The handler of the query about new users: the event topic has the order, the view the users."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import async_timeout
from aiokafka.errors import KafkaError

from agents.user_queries import decode_cursor, encode_cursor, no_cursor
from agents.users import USERS
from models.errors import QueryError, Transient
from models.queries import GetNewUsers, Page
from models.user_view import UserReadModel, is_tombstone
from streams.aggregate import TopicNames
from streams.buses import QueryBus
from streams.elasticsearch.index import REFUSED
from streams.kafka.topic_ids import look_up_topic
from streams.kafka.topics import check_topics, topic_specs, wrong_partitions
from streams.settings import Settings
from streams.views.arrivals import read_arrivals
from streams.views.asked_nodes import noting_nodes
from streams.views.read_your_writes import ReadYourWrites
from streams.views.reader import ViewReader

_ANSWER_TIMEOUT_S = 5.0  # of Kafka, when it is asked which topic that is


class NewUserHandler:
    """The handler of `GetNewUsers`.

    It reads the event topic up to where the view is, and the users from the view by their ids, so
    it needs no refresh. With a token it waits for its write.
    """

    def __init__(self, settings: Settings, view: ViewReader) -> None:
        self._settings = settings
        self._view = view
        self._topic = TopicNames.of(settings, USERS.name).events

    def register_at(self, queries: QueryBus, waiting: ReadYourWrites) -> None:
        """Register this handler at the bus."""
        queries.register(GetNewUsers, self.get_new, after=waiting.once_projected)

    async def get_new(self, query: GetNewUsers) -> Page[UserReadModel]:
        """Return the users whose registrations follow the cursor, as they are now.

        Fewer than the limit are all that the view has.

        Raises:
            QueryError: The cursor is none, or of another event topic.
            Fatal: Kafka does not answer, or the event topic is missing or has another number of
                partitions than the settings say.
            Transient: A server failed, or the view moved to another index: ask again.
        """
        numbers = range(self._settings.partitions)
        topic = await self._topic_id()
        begins = _positions(query.cursor, topic, len(numbers))
        with noting_nodes() as nodes:
            serving = await self._view.checkpoints(numbers)
            if any(one.topic not in ("", topic) for one in serving.checkpoints.values()):
                raise Transient(
                    "The view has the events of a topic that was deleted: ask again when it is "
                    "rebuilt (cqrs views rebuild)"
                )
            ends = {number: one.position for number, one in serving.checkpoints.items()}
            users, positions = await read_arrivals(
                self._settings, self._topic, begins, ends, self._shown, limit=query.limit
            )
            after = await self._view.checkpoints(numbers)
        if after.name != serving.name or len(nodes) > 1:
            raise Transient("The view moved to another index or node meanwhile: ask again")
        return Page(tuple(users), encode_cursor([topic, positions]))

    async def _shown(self, ids: Sequence[str]) -> Mapping[str, UserReadModel]:
        """Return the users with these ids that can be shown now."""
        return {
            id_: UserReadModel.model_validate(document)
            for id_, document in (await self._view.fetch(ids)).items()
            if REFUSED not in document and not is_tombstone(document)
        }

    async def _topic_id(self) -> str:
        """Return the id of the event topic, which must have as many partitions as are read.

        Raises:
            Fatal: Kafka does not answer, or the topic is missing, or has another number.
            Transient: Kafka failed.
        """
        try:
            async with async_timeout.timeout(_ANSWER_TIMEOUT_S):
                found = await look_up_topic(self._settings, self._topic)
        except (KafkaError, asyncio.TimeoutError) as error:
            specs = topic_specs(self._settings, TopicNames.of(self._settings, USERS.name))
            await check_topics(self._settings, [one for one in specs if one.name == self._topic])
            raise Transient(f"Kafka failed: {type(error).__name__}; ask again") from error
        if found.partitions != self._settings.partitions:  # users would be missed
            raise wrong_partitions(self._topic, str(found.partitions), self._settings)
        return found.id


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
