"""Traces with OpenTelemetry: every name, and how a trace goes on from one process to the next.

A command that a producer sends with a sampled `traceparent` (W3C) is traced: by a span for each
chunk that it is part of, with a link to it; if it is the only one there, it is the parent. What the
worker writes of it has the same headers. So the producers' sampling decides what tracing costs, and
a chunk without such a command has no span.

Off (`CQRS_TRACING`), nothing of OpenTelemetry is imported and nothing is done per record. The names
are those of the semantic conventions 1.44, which are still being renamed. Spans contain no ids of
aggregates and no texts of errors: either may be personal data.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import (
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
    suppress,
)
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, Protocol

import async_timeout

from models.errors import Fatal

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext, Tracer, TracerProvider

Headers = Sequence[tuple[str, bytes | None]]

SEND, PROCESS, BULK = "send", "process", "bulk"
Step = Literal["decide", "commit"]

_NAME = "cqrs-streams"
_SYSTEM, _KAFKA = "messaging.system", "kafka"
_OPERATION = "messaging.operation.name"
_OPERATION_TYPE = "messaging.operation.type"
_DESTINATION = "messaging.destination.name"
_PARTITION = "messaging.destination.partition.id"
_COUNT = "messaging.batch.message_count"
_DB_SYSTEM, _ELASTICSEARCH = "db.system.name", "elasticsearch"
_DB_OPERATION = "db.operation.name"
_DB_COLLECTION = "db.collection.name"
_ERROR = "error.type"

HEADER = "traceparent"
# W3C Trace Context: version, trace id, span id, flags; what came with another form is not passed on
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")

_MAX_LINKS = 128

# Time for the last spans when a worker stops; a collector that does not answer must not hold it up.
_FLUSH_TIMEOUT_S = 1.0

LAST_SPANS = "last spans"
"""Name of the thread that sends them. It may be there for longer, and ends with the process."""

_NOTHING: AbstractContextManager[Any] = nullcontext(())

_tracer: Tracer | None = None  # None: tracing is off


class _Record(Protocol):
    @property
    def headers(self) -> Headers: ...


def enable(provider: TracerProvider | None = None) -> None:
    """Switch tracing on in this process, with this provider or the one of the program.

    Raises:
        Fatal: OpenTelemetry is not installed.
    """
    global _tracer
    if _tracer is None:
        try:
            from opentelemetry.trace import get_tracer
        except ImportError:
            raise Fatal(
                "CQRS_TRACING needs OpenTelemetry: pip install 'cqrs-streams[tracing]'"
            ) from None
        _tracer = get_tracer(_NAME, tracer_provider=provider)


def is_enabled() -> bool:
    """Return whether tracing is switched on in this process."""
    return _tracer is not None


@asynccontextmanager
async def exporting(service: str) -> AsyncIterator[None]:
    """Switch tracing on, and export spans by OTLP until the block ends; `OTEL_*` says where.

    Args:
        service: name of the service in the traces.

    Raises:
        Fatal: OpenTelemetry is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        enable()  # raises what to do, unless only the exporter is missing
        raise Fatal("CQRS_TRACING needs opentelemetry-exporter-otlp-proto-http") from None
    resource = Resource.create({SERVICE_NAME: service})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    enable(provider)
    try:
        yield
    finally:
        await _in_time(provider.shutdown)


async def _in_time(work: Callable[[], None]) -> None:
    """Do this in a thread that does not keep the process alive, for a limited time."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def run() -> None:
        work()
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(done.set)

    threading.Thread(target=run, name=LAST_SPANS, daemon=True).start()
    with suppress(asyncio.TimeoutError):
        async with async_timeout.timeout(_FLUSH_TIMEOUT_S):
            await done.wait()


def sending(topic: str) -> AbstractContextManager[Headers]:
    """Trace that a command is sent; the block gets the headers that it is to be sent with."""
    return _NOTHING if _tracer is None else _sending(_tracer, topic)


def processing(
    topic: str, partition: int, records: Sequence[_Record]
) -> AbstractContextManager[object]:
    """Trace that a chunk is processed, if records of it are traced."""
    return _NOTHING if _tracer is None else _processing(_tracer, topic, partition, records)


def step(name: Step) -> AbstractContextManager[object]:
    """Trace a step of a chunk, if that is traced."""
    return _NOTHING if _tracer is None else _child(_tracer, name, {})


def bulk(index: str) -> AbstractContextManager[object]:
    """Trace that documents of a chunk are written, if that is traced."""
    if _tracer is None:
        return _NOTHING
    from opentelemetry.trace import SpanKind

    attributes = {_DB_SYSTEM: _ELASTICSEARCH, _DB_OPERATION: BULK, _DB_COLLECTION: index}
    return _child(_tracer, f"{BULK} {index}", attributes, kind=SpanKind.CLIENT)


def context_headers(record: _Record) -> Headers:
    """Return the header with a record's context, for what is written of it; or none.

    Without `tracestate`: that may be any text.
    """
    for name, value in record.headers:
        if name == HEADER and value is not None and _TRACEPARENT.fullmatch(value):
            return [(name, value)]
    return ()


@contextmanager
def _sending(tracer: Tracer, topic: str) -> Iterator[Headers]:
    from opentelemetry.trace import SpanKind, get_current_span

    attributes = {_SYSTEM: _KAFKA, _OPERATION: SEND, _OPERATION_TYPE: SEND, _DESTINATION: topic}
    with _span(tracer, f"{SEND} {topic}", attributes, kind=SpanKind.PRODUCER):
        context = get_current_span().get_span_context()
        if context.is_valid:
            ids = f"{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
            yield [(HEADER, f"00-{ids}".encode())]
        else:  # the program has no provider
            yield ()


@contextmanager
def _processing(
    tracer: Tracer, topic: str, partition: int, records: Sequence[_Record]
) -> Iterator[None]:
    contexts = list(islice(_sampled(records), _MAX_LINKS))
    if not contexts:
        yield
        return
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, NonRecordingSpan, SpanKind, set_span_in_context

    attributes = {
        _SYSTEM: _KAFKA,
        _OPERATION: PROCESS,
        _OPERATION_TYPE: PROCESS,
        _DESTINATION: topic,
        _PARTITION: str(partition),
        _COUNT: len(records),
    }
    parent = Context()
    if len(contexts) == 1:
        parent = set_span_in_context(NonRecordingSpan(contexts[0]), parent)
    links = [Link(context) for context in contexts]
    name = f"{PROCESS} {topic}"
    with _span(tracer, name, attributes, kind=SpanKind.CONSUMER, context=parent, links=links):
        yield


def _sampled(records: Iterable[_Record]) -> Iterator[SpanContext]:
    """Yield the contexts of the records that are traced."""
    from opentelemetry.trace import SpanContext, TraceFlags

    for record in records:
        for _, value in context_headers(record):
            found = _TRACEPARENT.fullmatch(value or b"")
            assert found is not None
            trace, span, flags = (int(part, 16) for part in found.groups())
            context = SpanContext(trace, span, is_remote=True, trace_flags=TraceFlags(flags))
            if context.is_valid and context.trace_flags.sampled:
                yield context


@contextmanager
def _child(
    tracer: Tracer, name: str, attributes: Mapping[str, Any], **options: Any
) -> Iterator[None]:
    from opentelemetry.trace import get_current_span

    if not get_current_span().is_recording():
        yield
        return
    with _span(tracer, name, attributes, **options):
        yield


@contextmanager
def _span(
    tracer: Tracer, name: str, attributes: Mapping[str, Any], **options: Any
) -> Iterator[None]:
    """Make a span current; of an error it gets the type, not the text."""
    from opentelemetry.trace import Status, StatusCode

    with tracer.start_as_current_span(
        name,
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
        **options,
    ) as span:
        try:
            yield
        except BaseException as error:
            span.set_attribute(_ERROR, type(error).__name__)
            span.set_status(Status(StatusCode.ERROR))
            raise
