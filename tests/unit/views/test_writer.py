"""What a checkpoint says after a chunk; documents and requests are tested elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from agents.user_views import USER_VIEWS, UserProjection
from models.errors import Poison
from models.events import UserDeactivated, UserEvent, UserReactivated
from models.messages import EventRecord, Source
from streams import metrics
from streams.elasticsearch.bulk_writer import WRITTEN, WriteResult, WriteStatus, is_possible_id
from streams.elasticsearch.index import CHECKPOINT, Document
from streams.kafka.records import Record
from streams.views.checkpoint import Checkpoint, IndexCheckpoints, read_checkpoint
from streams.views.projection import View
from streams.views.projector import Projector
from streams.views.situation import EventLog
from streams.views.tally import DocumentTallies
from streams.views.writer import PartitionWriter
from tests.unit.samples import ANNA, record


class Store:
    """Keeps documents and the checkpoint as Elasticsearch does."""

    name = "view-v1"

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {"found": False}
        self.documents: dict[str, Document] = {}

    async def bulk_index(self, documents: Sequence[Document]) -> list[WriteResult]:
        return [self._write(document) for document in documents]

    def _write(self, document: Document) -> WriteResult:
        if not is_possible_id(document["id"]):
            return WriteResult(WriteStatus.REFUSED, "cannot be encoded")
        self.documents[document["id"]] = document
        return WRITTEN

    async def refuses(self, _documents: Sequence[Document]) -> str | None:
        return None

    async def fetch_since(
        self, ids: Iterable[str], _partition: int, _since: Checkpoint
    ) -> dict[str, Document]:
        return {key: self.documents[key] for key in ids if key in self.documents}

    async def checkpoints(self, partitions: Iterable[int]) -> IndexCheckpoints:
        found = read_checkpoint(self.name, self.kept)
        return IndexCheckpoints(self.name, dict.fromkeys(partitions, found))

    async def save_checkpoint(self, _partition: int, checkpoint: Checkpoint) -> Checkpoint:
        source, revision = checkpoint.to_source(), {"_seq_no": 1, "_primary_term": 1}
        self.kept = {"_id": " progress 0", "found": True, "_source": source, **revision}
        return checkpoint


class DeadLetters:
    """Keeps which records are dead letters, and why."""

    def __init__(self) -> None:
        self.written: list[tuple[int, str, str]] = []

    async def write(self, poisoned: Sequence[tuple[Record, Poison]]) -> None:
        self.written += [(record.offset, one.code, one.reason) for record, one in poisoned]


def writer(
    store: Store, letters: DeadLetters | None = None, view: View[UserEvent] = USER_VIEWS
) -> PartitionWriter[UserEvent]:
    projector = Projector(cast(Any, store), view)
    log = EventLog("cluster", "topic", 1)
    written = cast(Any, letters or DeadLetters())
    return PartitionWriter(cast(Any, store), projector, view.projection, written, 0, log)


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


class FarLonger(UserProjection):
    """Its ids are 300 times as long as those of the aggregates."""

    def key(self, record: EventRecord[UserEvent]) -> str:
        return 300 * record.aggregate_id

    def fold(self, document: Document | None, record: EventRecord[UserEvent]) -> Document:
        return {**super().fold(document, record), "id": self.key(record)}


@pytest.mark.parametrize(
    ("impossible", "view"),
    [
        ("x" * 513, USER_VIEWS),
        ("é" * 257, USER_VIEWS),
        ("", USER_VIEWS),
        (" progress 0", USER_VIEWS),
        ("é", replace(USER_VIEWS, projection=FarLonger())),
    ],
)
async def test_an_event_whose_document_cannot_exist_is_a_dead_letter_and_nothing_else(
    impossible: str, view: View[UserEvent]
) -> None:
    store, letters, position = Store(), DeadLetters(), 0
    labels = {"index": store.name, "result": "refused"}
    before = metrics.WORKER.get_sample_value("cqrs_view_events_total", labels) or 0
    history: tuple[UserEvent, ...] = (ANNA, UserDeactivated(), UserReactivated())
    for number, event in enumerate(history, 1):
        for user in ("a", impossible):
            writing = writer(store, letters, view)  # a new one: nothing is in memory
            assert await writing.start() == position
            one = record(event, number, aggregate_id=user, offset=position)
            position += 1
            await write(writing, one, end=position)
            tallies = DocumentTallies(view.projection, 1)
            tallies.add_all(store.documents.values())
            assert [writing.checkpoint.tally] == tallies.by_partition
            assert writing.checkpoint.event_offset == one.offset
    assert [one["version"] for one in store.documents.values()] == [3]
    assert [offset for offset, _, _ in letters.written] == [1, 3, 5]
    for _, code, reason in letters.written:
        assert code == "refused-document"
        assert "1 to 512 bytes" in reason
    after = metrics.WORKER.get_sample_value("cqrs_view_events_total", labels)
    assert after == before + 3


async def test_the_others_of_a_chunk_are_projected() -> None:
    store, letters = Store(), DeadLetters()
    users = ["anna", "", "bert", " progress 7", "carl"]
    events = [record(ANNA, aggregate_id=user, offset=n) for n, user in enumerate(users)]
    sources = [Record("users.events.v1", 0, one.offset, 0, b"", b"") for one in events]
    writing = writer(store, letters)
    await writing.write(events, sources, 5)
    assert list(store.documents) == ["anna", "bert", "carl"]
    assert [offset for offset, _, _ in letters.written] == [1, 3]
    assert writing.checkpoint.tally.events == 3
