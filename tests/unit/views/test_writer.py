"""What a checkpoint says after a chunk; documents and requests are tested elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

from agents.user_views import USER_VIEWS
from models.events import UserDeactivated, UserEvent
from models.messages import EventRecord, Source
from streams.elasticsearch.bulk_writer import WRITTEN, WriteResult
from streams.elasticsearch.index import CHECKPOINT, Document
from streams.kafka.records import Record
from streams.views.checkpoint import Checkpoint, IndexCheckpoints, read_checkpoint
from streams.views.projector import Projector
from streams.views.situation import EventLog
from streams.views.writer import PartitionWriter
from tests.unit.samples import ANNA, record


class Store:
    """Accepts every document, and keeps the checkpoint as Elasticsearch does."""

    name = "view-v1"

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {"found": False}

    async def bulk_index(self, documents: Sequence[Document]) -> list[WriteResult]:
        return [WRITTEN for _ in documents]

    async def checkpoints(self, partitions: Iterable[int]) -> IndexCheckpoints:
        found = read_checkpoint(self.name, self.kept)
        return IndexCheckpoints(self.name, dict.fromkeys(partitions, found))

    async def save_checkpoint(self, _partition: int, checkpoint: Checkpoint) -> Checkpoint:
        source, revision = checkpoint.to_source(), {"_seq_no": 1, "_primary_term": 1}
        self.kept = {"_id": " progress 0", "found": True, "_source": source, **revision}
        return checkpoint


def writer(store: Store) -> PartitionWriter[UserEvent]:
    projector = Projector(cast(Any, store), USER_VIEWS)
    projection, log = USER_VIEWS.projection, EventLog("cluster", "topic", 1)
    return PartitionWriter(cast(Any, store), projector, projection, cast(Any, None), 0, log)


async def write(
    writing: PartitionWriter[UserEvent], event: EventRecord[UserEvent], *, end: int
) -> Checkpoint:
    source = Record("users.events.v1", 0, event.offset, 0, event.aggregate_id.encode(), b"")
    await writing.write([event], [source], end)
    return writing.checkpoint


async def test_a_checkpoint_has_the_offset_of_the_last_event() -> None:
    """It goes on where the command's goes back: that topic was created again."""
    store = Store()
    writing = writer(store)
    assert await writing.start() == 0
    command = Source("users.commands.v1", 0, 1000)
    registered = record(ANNA, 1, source=command, offset=10)
    found = await write(writing, registered, end=12)  # a marker follows each transaction
    assert (found.command_offset, found.event_offset) == (1000, 10)
    await writing.write([], [], 14)
    assert (writing.checkpoint.position, writing.checkpoint.event_offset) == (14, 10)
    first = Source("users.commands.v1", 0, 0)
    left = record(UserDeactivated(), 2, source=first, offset=15)
    found = await write(writing, left, end=17)
    assert (found.command_offset, found.event_offset) == (0, 15)
    again = writer(store)
    assert await again.start() == 17
    assert again.checkpoint.event_offset == 15


async def test_a_checkpoint_of_an_older_version_has_no_offset_of_an_event() -> None:
    store = Store()
    await store.save_checkpoint(0, Checkpoint(17, 1000, 2, event_offset=15))
    del store.kept["_source"][CHECKPOINT]["event"]
    writing = writer(store)
    assert await writing.start() == 17
    assert (writing.checkpoint.command_offset, writing.checkpoint.event_offset) == (1000, -1)
