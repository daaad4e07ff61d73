"""What the projector hands to `on_refused` and repeats; the rest is tested on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
from typing import cast

import pytest

from agents.user_views import USER_VIEWS
from deploy.waiting import wait_until
from models.errors import PartitionFatal, Transient
from models.events import UserDeactivated, UserEvent, UserReactivated
from models.messages import EventRecord
from streams.elasticsearch.bulk_writer import WRITTEN, WriteResult, WriteStatus
from streams.elasticsearch.index import REFUSED, Document
from streams.views import projector as projector_module
from streams.views.checkpoint import Checkpoint
from streams.views.projector import Projected, Projector, RefusedEvents, _PendingWrites
from streams.views.store import ViewStore
from tests.unit.samples import ANNA, record

STALE = WriteResult(WriteStatus.STALE)


class Store:
    """Stores documents, but of some ids only stand-ins."""

    name = "view-v1"

    def __init__(self, refuses: Collection[str] = ()) -> None:
        self._refuses = refuses
        self.documents: dict[str, Document] = {}
        self.acknowledged: dict[str, int] = {}
        """Versions that all copies of the index are known to have."""

    async def fetch(self, ids: Iterable[str]) -> dict[str, Document]:
        return {key: self.documents[key] for key in ids if key in self.documents}

    async def fetch_since(
        self, ids: Iterable[str], partition: int, checkpoint: Checkpoint
    ) -> dict[str, Document]:
        return {key: self.documents[key] for key in ids if key in self.documents}

    async def bulk_index(self, documents: Sequence[Document]) -> list[WriteResult]:
        return [self._write(document) for document in documents]

    async def refuses(self, _documents: Sequence[Document]) -> str | None:
        return None

    def _write(self, document: Document) -> WriteResult:
        key = document["id"]
        if key in self._refuses and REFUSED not in document:
            return WriteResult(WriteStatus.REFUSED, f"refused {key}")
        if key in self.documents and self.documents[key]["version"] > document["version"]:
            return STALE
        self.documents[key] = document
        self.acknowledged[key] = document["version"]
        return WRITTEN


def history(user: str) -> list[EventRecord[UserEvent]]:
    events: tuple[UserEvent, ...] = (ANNA, UserDeactivated(), UserReactivated())
    return [record(event, number, aggregate_id=user) for number, event in enumerate(events, 1)]


def projector(store: Store) -> Projector[UserEvent]:
    return Projector(cast(ViewStore, store), USER_VIEWS)


async def test_the_new_events_of_a_refused_document_are_handed_over_in_order() -> None:
    store = Store(refuses=("anna",))
    anna, ben = history("anna"), history("ben")
    handed_over: list[RefusedEvents] = []
    stored_before: dict[str, Document] = {}

    async def on_refused(refused: Sequence[RefusedEvents]) -> None:
        handed_over.extend(refused)
        stored_before.update(store.documents)

    projecting = projector(store)
    first = await projecting.project(0, anna[:1], on_refused)
    assert first == Projected(written=0, skipped=0, refused=1)
    assert handed_over == [RefusedEvents((anna[0],), "refused anna")]

    handed_over.clear()
    chunk = [anna[0], ben[0], anna[1], ben[1], anna[2]]  # the first one was projected before
    again = await projecting.project(0, chunk, on_refused)
    assert again == Projected(written=2, skipped=1, refused=2)
    assert handed_over == [RefusedEvents((anna[1], anna[2]), "refused anna")]
    assert stored_before["anna"]["version"] == 1  # the stand-in is written afterwards
    assert store.documents["anna"]["version"] == 3
    assert store.documents["anna"][REFUSED]["isActive"] is True
    assert store.documents["ben"]["version"] == 2


async def test_events_of_a_document_that_is_stored_already_count_as_skipped() -> None:
    store = Store()

    async def none_refused(refused: Sequence[RefusedEvents]) -> None:
        raise AssertionError(refused)

    await projector(store).project(0, history("anna"), none_refused)
    # Another projector has an empty cache, and the first event reads nothing.
    projected = await projector(store).project(0, history("anna")[:2], none_refused)
    assert projected == Projected(written=0, skipped=2, refused=0)
    assert store.documents["anna"]["version"] == 3


class BehindAtFirst(Store):
    """Its first answer is that of a copy which does not have the documents."""

    behind = True

    async def fetch(self, ids: Iterable[str]) -> dict[str, Document]:
        if self.behind:
            self.behind = False
            return {}
        return await super().fetch(ids)


@pytest.mark.parametrize("store", [Store(), BehindAtFirst()])
async def test_a_later_document_of_somebody_else_is_written_again(store: Store) -> None:
    """Its writer may have got no answer: then perhaps one copy has it, and dies with it."""
    await projector(store).project(0, history("anna"), never_buried)
    store.acknowledged.clear()
    projected = await projector(store).project(0, history("anna")[:2], never_buried)
    assert projected == Projected(written=0, skipped=2, refused=0)
    assert store.acknowledged == {"anna": 3}


class Refusing(Store):
    """Refuses each document for the same reason, and stand-ins too if `all_of_it`."""

    def __init__(self, *, all_of_it: bool = False, examples: str | None = None) -> None:
        super().__init__()
        self._all_of_it = all_of_it
        self._examples = examples

    async def refuses(self, documents: Sequence[Document]) -> str | None:
        assert documents == USER_VIEWS.example_documents
        return self._examples

    def _write(self, document: Document) -> WriteResult:
        if REFUSED in document and not self._all_of_it:
            return super()._write(document)
        return WriteResult(WriteStatus.REFUSED, "400 document_parsing_exception: no")


async def never_buried(refused: Sequence[RefusedEvents]) -> None:
    raise AssertionError(refused)


@pytest.mark.parametrize("users", [1, 12])
async def test_nothing_is_buried_if_the_index_refuses_what_it_is_for(users: int) -> None:
    events = [one for number in range(users) for one in history(f"user-{number}")]
    with pytest.raises(PartitionFatal, match="view-v1 refuses even the examples .*: strict; mend"):
        await projector(Refusing(examples="strict")).project(0, events, never_buried)


async def test_many_documents_may_all_be_refused_for_one_reason() -> None:
    buried: list[RefusedEvents] = []

    async def bury(refused: Sequence[RefusedEvents]) -> None:
        buried.extend(refused)

    events = [one for number in range(12) for one in history(f"user-{number}")]
    projected = await projector(Refusing()).project(0, events, bury)
    assert (projected.refused, len(buried)) == (36, 12)


async def test_it_waits_also_for_an_answer_that_does_not_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A request may take longer than the watchdog: as long on each node that is asked."""
    monkeypatch.setattr(projector_module, "_PATIENCE_S", 0.0)
    projector = Projector(cast(ViewStore, Store()), USER_VIEWS)
    answer = asyncio.get_running_loop().create_future()
    asking = asyncio.create_task(projector.retry_until_answered(lambda: answer))
    await wait_until(lambda: projector.is_waiting)
    answer.set_result("an answer")
    assert await asking == "an answer"
    assert not projector.is_waiting


async def test_a_request_that_is_given_up_is_not_waited_for() -> None:
    """Its partition moves to another worker during an outage."""
    projector = Projector(cast(ViewStore, Store()), USER_VIEWS)

    async def fail() -> None:
        raise Transient("Elasticsearch is away")

    asking = asyncio.create_task(projector.retry_until_answered(fail))
    await wait_until(lambda: projector.is_waiting)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert not projector.is_waiting


async def test_a_refused_stand_in_is_never_passed_over() -> None:
    async def bury(refused: Sequence[RefusedEvents]) -> None:
        assert refused

    with pytest.raises(PartitionFatal, match="refuses anna and also what stands for it"):
        await projector(Refusing(all_of_it=True)).project(0, history("anna"), bury)


async def test_only_documents_without_a_final_result_are_sent_again() -> None:
    results = {
        "written": [WRITTEN],
        "stale": [STALE, WRITTEN],
        "refused": [WriteResult(WriteStatus.REFUSED, "never")],
        "late": [WriteResult(WriteStatus.RETRY, "too busy"), WRITTEN],
    }
    sent: list[list[str]] = []

    class Overloaded:
        async def bulk_index(self, documents: Sequence[Document]) -> list[WriteResult]:
            sent.append([document["id"] for document in documents])
            return [results[document["id"]].pop(0) for document in documents]

        async def fetch(self, ids: Iterable[str]) -> dict[str, Document]:
            return {key: {"id": key, "version": 2} for key in ids}

    documents: dict[str, Document] = {key: {"id": key, "version": 1} for key in results}
    writes = _PendingWrites(cast(ViewStore, Overloaded()), documents)
    with pytest.raises(Transient, match="too busy"):
        await writes.send()
    await writes.send()
    assert sent == [["written", "stale", "refused", "late"], ["stale", "late"]]
    assert writes.stale == {"stale"}
    assert writes.refused == {"refused": "never"}
