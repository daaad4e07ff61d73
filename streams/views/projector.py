"""Folds the events of a partition onto the documents of an index, and writes the documents.

Events carry only what changed, so the documents of a partition are kept in memory, as many as fit,
and read back from Elasticsearch when they are not there. Of a chunk, each document goes
out once, whole, in its last state.

Nothing is lost and nothing goes back, however often a chunk is projected and wherever it was
cancelled before: what is kept in memory is replaced only after Elasticsearch has answered for the
whole chunk, an event at or below a document's version is passed over, and an old document cannot
replace a newer one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Any, Generic, NamedTuple, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception
from tenacity.wait import wait_random_exponential

from models.errors import Fatal, Transient
from models.messages import Event, EventRecord
from streams.elasticsearch.bulk_writer import WRITTEN, WriteStatus
from streams.elasticsearch.connection import clear_traceback
from streams.elasticsearch.index import REFUSED, Document
from streams.views.checkpoint import IndexChanged
from streams.views.projection import Projection
from streams.views.store import ViewStore

logger = logging.getLogger(__name__)

E = TypeVar("E", bound=Event)
T = TypeVar("T")

_BACKOFF = wait_random_exponential(multiplier=0.1, max=5)  # seconds, with full jitter
_SAY_AGAIN = 60.0  # seconds
_NOTHING: Document = {}


class SequenceGap(Fatal):
    """Events between a document and the next event are missing. The partition has to stop."""


class Refused(NamedTuple):
    """The new events of one document that Elasticsearch refuses for good."""

    records: tuple[EventRecord[Any], ...]
    reason: str


OnRefused = Callable[[Sequence[Refused]], Awaitable[None]]


class Projected(NamedTuple):
    """What became of the events of a chunk; each of them is counted once."""

    written: int
    skipped: int
    """Seen before, as the version of the document says, or without a document."""
    refused: int
    """Buried."""


class Projector(Generic[E]):
    """Projects chunks; those of different partitions may run at the same time.

    The events of a document that Elasticsearch refuses for good are buried, and then a stand-in
    takes its place (see `view_store`). Later events of the aggregate apply to it like to any other
    document, and if Elasticsearch takes the document that comes of them, it is complete again.
    """

    def __init__(
        self,
        store: ViewStore,
        projection: Projection[E],
        *,
        cached_documents: int = 200_000,
    ) -> None:
        self._store = store
        self._projection = projection
        self._most = cached_documents
        # partition -> id -> document, the one used last at the end
        self._caches: dict[int, dict[str, Document]] = {}
        self._down_since: float | None = None
        self._say_again_at = 0.0
        self._waiting: set[object] = set()  # requests that have failed and are repeated

    @property
    def is_waiting(self) -> bool:
        """Whether Elasticsearch has not answered what it was last asked."""
        return self._down_since is not None

    async def project(
        self, partition: int, records: Sequence[EventRecord[E]], bury: OnRefused
    ) -> Projected:
        """Bring the documents of these events up to date; returns when Elasticsearch has them.

        Waits for Elasticsearch as long as it takes. The records are in the order of the partition.
        `bury` is called when some are refused, and has to have made that known for good when it
        returns: whoever projects them again later may see a stand-in and pass them over.

        Raises:
            SequenceGap: An event is missing in between; nothing of the chunk was written.
            Fatal: The index is gone, the credentials are wrong, or the events contradict.
            Exception: What `bury` raises; there is no stand-in then.
        """
        cache = self._caches.setdefault(partition, {})
        keys = list(map(self._projection.key, records))
        documents = await self._load(cache, keys, records)
        due = self._fold(documents, keys, records)
        writing = _Writing(self._store, {key: documents[key] for key in due})
        await self.retry_until_answered(writing.send)
        if writing.refused:
            await bury(
                [
                    Refused(_last(due[key], key, keys, records), reason)
                    for key, reason in writing.refused.items()
                ]
            )
            stand_ins = _Writing(
                self._store, {key: _stand_in(documents[key]) for key in writing.refused}
            )
            await self.retry_until_answered(stand_ins.send)
        self._keep(cache, documents)
        refused = sum(due[key] for key in writing.refused)
        written = sum(due.values()) - refused - sum(due[key] for key in writing.stale)
        return Projected(written, len(records) - written - refused, refused)

    def forget(self, partition: int) -> None:
        """Drop what is kept of a partition that others may write to from now on."""
        self._caches.pop(partition, None)

    async def _load(
        self,
        cache: dict[str, Document],
        keys: Sequence[str | None],
        records: Sequence[EventRecord[E]],
    ) -> dict[str, Document]:
        """The documents that the events apply to; one that does not exist yet is left out."""
        documents: dict[str, Document] = {}
        missing: dict[str, None] = {}
        for key, record in zip(keys, records, strict=True):
            if key is None or key in documents or key in missing:
                continue
            if key in cache:
                documents[key] = cache[key]
            elif self._projection.creates(record):
                # Begun from nothing it comes out right in any case: if there is a document, it is
                # of this version or a later one. So a rebuild reads nothing.
                documents[key] = _NOTHING
            else:
                missing[key] = None
        if missing:
            found = await self.retry_until_answered(self._store.fetch, missing)
            documents.update((key, item.get(REFUSED, item)) for key, item in found.items())
        return documents

    def _fold(
        self,
        documents: dict[str, Document],
        keys: Sequence[str | None],
        records: Sequence[EventRecord[E]],
    ) -> dict[str, int]:
        """Applies the events that are due to `documents`; returns how many, by document."""
        due: dict[str, int] = {}
        projection = self._projection
        for key, record in zip(keys, records, strict=True):
            if key is None:
                continue
            document = documents.get(key) or None
            before = document["version"] if document else 0
            version = projection.version(record)
            if version <= before:
                continue
            if version > before + 1 and projection.gapless:
                raise SequenceGap(
                    f"The view has {key} at version {before} and the next event is number "
                    f"{version}: events are missing in between. Rebuild the view "
                    "(cqrs views rebuild)"
                )
            documents[key] = projection.fold(document, record)
            due[key] = due.get(key, 0) + 1
        return due

    def _keep(self, cache: dict[str, Document], documents: dict[str, Document]) -> None:
        for key, document in documents.items():
            cache.pop(key, None)
            cache[key] = document
        excess = sum(map(len, self._caches.values())) - self._most
        while excess > 0:
            largest = max(self._caches.values(), key=len)
            for key in list(islice(largest, excess)):
                del largest[key]
            excess = sum(map(len, self._caches.values())) - self._most

    async def retry_until_answered(self, request: Callable[..., Awaitable[T]], *args: object) -> T:
        """Repeats a request until Elasticsearch answers it.

        Says when projecting waits, once a minute that it still does, and that it goes on when no
        request waits any more: that of another partition may get through all the while.
        """
        ticket = object()

        def wait(attempt: RetryCallState) -> None:
            failure = attempt.outcome.exception() if attempt.outcome else None
            clear_traceback(failure)
            self._waiting.add(ticket)
            self._say_that_it_waits(failure)

        retrying = AsyncRetrying(
            retry=retry_if_exception(_passes), wait=_BACKOFF, before_sleep=wait
        )
        try:
            async for attempt in retrying:
                with attempt:
                    answer = await request(*args)
        finally:
            self._waiting.discard(ticket)
        if self._down_since is not None and not self._waiting:
            logger.info("Projecting goes on after %.1f s", time.monotonic() - self._down_since)
            self._down_since = None
        return answer

    def _say_that_it_waits(self, failure: BaseException | None) -> None:
        now = time.monotonic()
        if self._down_since is None:
            self._down_since = now
        elif now < self._say_again_at:
            return
        logger.warning("Projecting waits: %s (for %.0f s by now)", failure, now - self._down_since)
        self._say_again_at = now + _SAY_AGAIN


def _last(
    count: int, key: str, keys: Sequence[str | None], records: Sequence[EventRecord[E]]
) -> tuple[EventRecord[E], ...]:
    """The last records of one document."""
    return tuple(record for its, record in zip(keys, records, strict=True) if its == key)[-count:]


def _stand_in(document: Document) -> Document:
    return {"id": document["id"], "version": document["version"], REFUSED: document}


def _passes(error: BaseException) -> bool:
    """Whether the same request may work later."""
    return isinstance(error, Transient) and not isinstance(error, IndexChanged)


class _Writing:
    """The documents of a chunk on their way; `send` may be repeated until it returns."""

    def __init__(self, store: ViewStore, documents: dict[str, Document]) -> None:
        self._store = store
        self._pending = documents
        self.stale: set[str] = set()
        self.refused: dict[str, str] = {}

    async def send(self) -> None:
        """Raises Transient when some have to be sent again."""
        answers = await self._store.bulk_index(list(self._pending.values()))
        sent, self._pending = self._pending, {}
        not_now = ""
        for (key, document), answer in zip(sent.items(), answers, strict=True):
            if answer is WRITTEN:
                continue
            if answer.fate is WriteStatus.RETRY:
                self._pending[key] = document
                not_now = answer.reason
            elif answer.fate is WriteStatus.STALE:
                self.stale.add(key)
            elif answer.fate is WriteStatus.REFUSED:
                self.refused[key] = answer.reason
        if not_now:
            raise Transient(f"Elasticsearch does not take all documents: {not_now}")
