"""Folds the events of a partition into the documents of an index, and writes the documents.

Events contain only what changed, so the projector needs the documents before them. It caches as
many as fit in memory and reads the others from Elasticsearch. A document that several events of a
chunk change is written once, whole, in its last state.

A chunk may be projected any number of times and cancelled at any point: no event is lost and no
document goes back to an older state. The cache changes only after Elasticsearch has answered for
the whole chunk, an event at or below its document's version is skipped, and Elasticsearch does not
replace a document with an older version.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Any, Generic, NamedTuple, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception
from tenacity.wait import wait_random_exponential

from models.errors import PartitionFatal, Transient
from models.messages import Event, EventRecord
from streams import metrics
from streams.elasticsearch.bulk_writer import WRITTEN, WriteStatus
from streams.elasticsearch.connection import clear_traceback
from streams.elasticsearch.index import REFUSED, Document
from streams.logs import about
from streams.views.checkpoint import NOTHING, Checkpoint, IndexChanged
from streams.views.projection import View
from streams.views.store import ViewStore

logger = logging.getLogger(__name__)

E = TypeVar("E", bound=Event)
T = TypeVar("T")

_BACKOFF = wait_random_exponential(multiplier=0.1, max=5)  # in seconds, with full jitter
_LOG_INTERVAL_S = 60.0

# An answer that takes longer is waited for. A request that gets none takes its timeout on each node
# that is asked, which together may be longer than a worker may make no progress.
_PATIENCE_S = 5.0
_NEW: Document = {}


class SequenceGap(PartitionFatal):
    """Events between a document's version and the next event are missing; the partition stops."""


class RefusedEvents(NamedTuple):
    """The new events of one document that Elasticsearch refuses for good."""

    records: tuple[EventRecord[Any], ...]
    reason: str


OnRefused = Callable[[Sequence[RefusedEvents]], Awaitable[None]]


class Projected(NamedTuple):
    """Numbers of a chunk's events by what happened to them; each event is counted once."""

    written: int
    skipped: int
    """In the document already, by its version, or of no document."""
    refused: int
    """Dead-lettered."""


class Projector(Generic[E]):
    """Projects chunks; chunks of different partitions may be projected at the same time.

    If Elasticsearch refuses a document for good, its new events go to `on_refused`, and then a
    stand-in is written in its place (see `views/store.py`). Later events are folded into the
    refused document. If Elasticsearch accepts the result, the document is complete again.
    """

    def __init__(
        self,
        store: ViewStore,
        view: View[E],
        *,
        cached_documents: int = 200_000,
    ) -> None:
        """Project into the index of `store`, with the projection of `view`."""
        self._store = store
        self._projection = view.projection
        self._examples = view.example_documents
        self._cached_documents = cached_documents
        # partition -> id -> document, the most recently used one last
        self._caches: dict[int, dict[str, Document]] = {}
        self._down_since: float | None = None
        self._next_log_at = 0.0
        self._waiting: set[object] = set()  # requests that have failed, or have no answer yet

    @property
    def is_waiting(self) -> bool:
        """Whether a request to Elasticsearch has failed and is repeated, or is not answered."""
        return bool(self._waiting)

    async def project(
        self,
        partition: int,
        records: Sequence[EventRecord[E]],
        on_refused: OnRefused,
        since: Checkpoint = NOTHING,
    ) -> Projected:
        """Bring the documents of these events up to date, and wait until Elasticsearch has them.

        Repeats requests until Elasticsearch answers them.

        Args:
            partition: Partition of the event topic.
            records: Its next events, in order; some may have been projected before. Their documents
                can exist (`can_be_document`).
            on_refused: Called with the refused documents before their stand-ins are written. It has
                to store that durably: once a stand-in exists, its events are skipped.
            since: Checkpoint of the partition: documents that are read are not older.

        Raises:
            IndexChanged: Elasticsearch has answered of a copy of the index that is older than that.
            SequenceGap: An event is missing before one of these; nothing of the chunk was written.
            PartitionFatal: The events contradict each other, or the index refuses what it is for.
            Fatal: The index is gone, or the credentials are wrong.
            Exception: What `on_refused` raises; no stand-in was written then.
        """
        cache = self._caches.setdefault(partition, {})
        keys = list(map(self._projection.key, records))
        documents = await self._load(partition, since, keys, records)
        due_events = self._fold(documents, keys, records)
        writes = _PendingWrites(self._store, {key: documents[key] for key in due_events})
        await self.retry_until_answered(writes.send)
        if writes.refused:
            await self._check_index()
            await on_refused(
                [
                    RefusedEvents(tuple(due_events[key]), reason)
                    for key, reason in writes.refused.items()
                ]
            )
            stand_ins = _PendingWrites(
                self._store, {key: _stand_in(documents[key]) for key in writes.refused}
            )
            await self.retry_until_answered(stand_ins.send)
            for key, reason in stand_ins.refused.items():
                raise PartitionFatal(
                    f"{self._store.name} refuses {key} and also what stands for it: {reason}; mend "
                    "the index, or rebuild the view (cqrs views rebuild)"
                )
        self._keep(cache, documents)
        due = {key: len(events) for key, events in due_events.items()}
        refused = sum(due[key] for key in writes.refused)
        written = sum(due.values()) - refused - sum(due[key] for key in writes.stale)
        return Projected(written, len(records) - written - refused, refused)

    async def _check_index(self) -> None:
        """Check, before anything is a dead letter, that documents were refused for what they are.

        Raises:
            PartitionFatal: The index refuses also what it has to accept.
        """
        reason = await self.retry_until_answered(self._store.refuses, self._examples)
        if reason is not None:
            raise PartitionFatal(
                f"{self._store.name} refuses even the examples of its documents, so the events are "
                f"not the reason: {reason}; mend the index, or rebuild the view (cqrs views "
                "rebuild)"
            )

    def forget(self, partition: int) -> None:
        """Drop the cache of a partition that another process may write to from now on."""
        self._caches.pop(partition, None)

    async def _load(
        self,
        partition: int,
        since: Checkpoint,
        keys: Sequence[str | None],
        records: Sequence[EventRecord[E]],
    ) -> dict[str, Document]:
        """Return the documents that the events change; one that does not exist yet is left out."""
        cache = self._caches[partition]
        documents: dict[str, Document] = {}
        missing: dict[str, None] = {}
        for key, record in zip(keys, records, strict=True):
            if key is None or key in documents or key in missing:
                continue
            if key in cache:
                documents[key] = cache[key]
            elif self._projection.creates(record):
                # Starting from nothing is right in any case: a document that exists already
                # contains this event. So a rebuild reads nothing.
                documents[key] = _NEW
            else:
                missing[key] = None
        if missing:
            found = await self.retry_until_answered(
                self._store.fetch_since, missing, partition, since
            )
            documents.update((key, item.get(REFUSED, item)) for key, item in found.items())
        return documents

    def _fold(
        self,
        documents: dict[str, Document],
        keys: Sequence[str | None],
        records: Sequence[EventRecord[E]],
    ) -> dict[str, list[EventRecord[E]]]:
        """Fold the events that `documents` do not have yet into them.

        Returns:
            Those events, by document.

        Raises:
            SequenceGap: An event is missing before one of them.
        """
        due_events: dict[str, list[EventRecord[E]]] = {}
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
                    f"{version}: events are missing in between. If the view's dead letters have "
                    "them, mend what they say first; then rebuild the view (cqrs views rebuild)"
                )
            documents[key] = projection.fold(document, record)
            due_events.setdefault(key, []).append(record)
        return due_events

    def _keep(self, cache: dict[str, Document], documents: dict[str, Document]) -> None:
        for key, document in documents.items():
            cache.pop(key, None)
            cache[key] = document
        excess = sum(map(len, self._caches.values())) - self._cached_documents
        while excess > 0:
            largest = max(self._caches.values(), key=len)
            for key in list(islice(largest, excess)):
                del largest[key]
            excess = sum(map(len, self._caches.values())) - self._cached_documents

    async def retry_until_answered(self, request: Callable[..., Awaitable[T]], *args: object) -> T:
        """Repeat a request until Elasticsearch answers it, and return its result.

        Logs that projecting waits, when a request fails or has no answer for 5 s, once a minute
        that it still does, and that it continues when no request waits any more: meanwhile requests
        of other partitions may succeed.
        """
        ticket = object()
        waited_since = None

        def wait(why: object) -> None:
            self._waiting.add(ticket)
            self._log_waiting(why)

        def repeat(attempt: RetryCallState) -> None:
            failure = attempt.outcome.exception() if attempt.outcome else None
            clear_traceback(failure)
            metrics.VIEW_RETRIES.labels(self._store.name).inc()
            wait(failure)

        retrying = AsyncRetrying(
            retry=retry_if_exception(_may_pass), wait=_BACKOFF, before_sleep=repeat
        )
        unanswered = asyncio.get_running_loop().call_later(
            _PATIENCE_S, wait, f"Elasticsearch has not answered for {_PATIENCE_S:g} s"
        )
        try:
            async for attempt in retrying:
                with attempt:
                    result = await request(*args)
        finally:  # also if it is given up, as when the partition moves
            unanswered.cancel()
            self._waiting.discard(ticket)
            if not self._waiting:
                waited_since, self._down_since = self._down_since, None
        if waited_since is not None:
            logger.info(
                "Projecting continues after %.1f s",
                time.monotonic() - waited_since,
                extra=about("view-continues", index=self._store.name),
            )
        return result

    def _log_waiting(self, why: object) -> None:
        now = time.monotonic()
        if self._down_since is None:
            self._down_since = now
        elif now < self._next_log_at:
            return
        logger.warning(
            "Projecting waits: %s (for %.0f s)",
            why,
            now - self._down_since,
            extra=about("view-waits", index=self._store.name),
        )
        self._next_log_at = now + _LOG_INTERVAL_S


def _stand_in(document: Document) -> Document:
    return {"id": document["id"], "version": document["version"], REFUSED: document}


def _may_pass(error: BaseException) -> bool:
    """Return whether the same request may succeed later."""
    return isinstance(error, Transient) and not isinstance(error, IndexChanged)


class _PendingWrites:
    """Documents of a chunk that are being written; repeat `send` until it returns.

    Then every copy of the index has each of them, in this or a later version, but for those that
    are refused. `stale` contains the ids of those that Elasticsearch had in a later version, and
    `refused` the ids and reasons of those that it refuses for good.
    """

    def __init__(self, store: ViewStore, documents: dict[str, Document]) -> None:
        self._store = store
        self._pending = documents
        self.stale: set[str] = set()
        self.refused: dict[str, str] = {}

    async def send(self) -> None:
        """Send the documents that have no final result yet, until all have one.

        Raises:
            Transient: Some have to be sent again, or a request failed.
            Fatal: The index is gone, or the credentials are wrong.
        """
        while self._pending:
            await self._send_pending()

    async def _send_pending(self) -> None:
        results = await self._store.bulk_index(list(self._pending.values()))
        sent, self._pending = self._pending, {}
        outdated: list[str] = []
        retry_reason = ""
        for (key, document), result in zip(sent.items(), results, strict=True):
            if result is WRITTEN:
                continue
            if result.status is WriteStatus.REFUSED:
                self.refused[key] = result.reason
                continue
            self._pending[key] = document
            if result.status is WriteStatus.RETRY:
                retry_reason = result.reason
            else:
                outdated.append(key)
        if outdated:
            self.stale.update(outdated)
            # Who wrote the later ones may have got no answer. Written again, all copies have them.
            later = await self._store.fetch(outdated)
            for key in outdated:
                if later.get(key, sent[key])["version"] > sent[key]["version"]:
                    self._pending[key] = later[key]
                else:
                    retry_reason = "a copy of the index that was read is out of date"
        if retry_reason:
            raise Transient(f"Elasticsearch does not accept all documents: {retry_reason}")
