"""Traces: given these headers, then these spans; and nothing at all when it is off."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import nullcontext

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NoOpTracerProvider, SpanKind, StatusCode

from models.errors import Fatal
from streams import tracing
from streams.kafka.records import Record
from tests.harness.otlp import collecting

TRACE = "0af7651916cd43dd8448eb211c80319c"
TOPIC = "users.commands.v1"


def context(number: int, flags: str = "01") -> bytes:
    return f"00-{TRACE}-{number:016x}-{flags}".encode()


def record(*headers: tuple[str, bytes | None]) -> Record:
    return Record(TOPIC, 0, 0, 0, b"anna", b"{}", headers)


def traced(number: int, flags: str = "01") -> Record:
    return record(("other", b"x"), ("traceparent", context(number, flags)), ("tracestate", b"a=b"))


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """The spans that have ended, with tracing on."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "_tracer", None)
    tracing.enable(provider)
    yield exporter
    provider.shutdown()


class TestOff:
    def test_nothing_of_opentelemetry_is_needed(self) -> None:
        """Elasticsearch's client imports it where it is installed."""
        program = (
            "import sys; sys.modules['opentelemetry'] = None\n"
            "import streams.commands.client, streams.commands.partition, streams.views.store,"
            " streams.worker.app\n"
            "from streams import tracing\n"
            "with tracing.sending('t') as headers, tracing.processing('t', 0, []),"
            " tracing.step('decide'), tracing.bulk('i'): assert headers == ()"
        )
        subprocess.run([sys.executable, "-c", program], check=True)

    def test_records_are_not_looked_at(self) -> None:
        class Untouchable:
            def __iter__(self) -> Iterator[Record]:
                raise AssertionError

        assert not tracing.is_enabled()
        nothing = tracing.processing(TOPIC, 0, Untouchable())  # type: ignore[arg-type]
        assert isinstance(nothing, nullcontext)

    async def test_without_the_extra_it_says_what_to_install(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("opentelemetry.trace", "opentelemetry.sdk.resources"):
            monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(Fatal, match=r"pip install 'cqrs-streams\[tracing\]'"):
            tracing.enable()
        with pytest.raises(Fatal, match=r"pip install 'cqrs-streams\[tracing\]'"):
            async with tracing.exporting("users-commands"):
                pass


class TestSending:
    def test_the_command_gets_the_context_of_the_span(self, spans: InMemorySpanExporter) -> None:
        with tracing.sending(TOPIC) as headers:
            pass
        (span,) = spans.get_finished_spans()
        assert (span.name, span.kind) == (f"send {TOPIC}", SpanKind.PRODUCER)
        ids = f"{span.context.trace_id:032x}-{span.context.span_id:016x}"
        assert span.context.trace_flags.sampled
        flags = f"{span.context.trace_flags:02x}"
        assert headers == [("traceparent", f"00-{ids}-{flags}".encode())]
        assert tracing.context_headers(record(*headers)) == headers

    def test_a_program_without_a_provider_sends_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tracing, "_tracer", None)
        tracing.enable(NoOpTracerProvider())
        with tracing.sending(TOPIC) as headers:
            assert headers == ()


class TestProcessing:
    def test_several_commands_are_links(self, spans: InMemorySpanExporter) -> None:
        with tracing.processing(TOPIC, 3, [traced(1), record(), traced(2), traced(5, "00")]):
            pass
        (span,) = spans.get_finished_spans()
        assert (span.name, span.kind) == (f"process {TOPIC}", SpanKind.CONSUMER)
        assert span.parent is None
        assert [link.context.span_id for link in span.links] == [1, 2]
        assert dict(span.attributes or {}) == {
            "messaging.system": "kafka",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": TOPIC,
            "messaging.destination.partition.id": "3",
            "messaging.batch.message_count": 4,
        }

    def test_the_only_one_is_the_parent_too(self, spans: InMemorySpanExporter) -> None:
        with tracing.processing(TOPIC, 0, [record(), traced(7)]):
            pass
        (span,) = spans.get_finished_spans()
        assert span.parent is not None
        assert (span.parent.span_id, span.context.trace_id) == (7, int(TRACE, 16))
        assert len(span.links) == 1

    def test_the_first_128_are_linked(self, spans: InMemorySpanExporter) -> None:
        with tracing.processing(TOPIC, 0, [traced(number) for number in range(1, 200)]):
            pass
        (span,) = spans.get_finished_spans()
        assert [link.context.span_id for link in span.links] == list(range(1, 129))

    @pytest.mark.parametrize(
        "header",
        [
            None,
            b"",
            b"00-anna@example.org",
            context(1) + b"-more",
            context(0),
            context(1, "00"),
            context(1).upper(),
            f"00-{0:032x}-{1:016x}-01".encode(),
        ],
    )
    def test_what_is_no_sampled_context_makes_no_span(
        self, spans: InMemorySpanExporter, header: bytes | None
    ) -> None:
        with (
            tracing.processing(TOPIC, 0, [record(("traceparent", header)), record()]),
            tracing.step("decide"),
            tracing.bulk("index"),
        ):
            pass
        assert spans.get_finished_spans() == ()

    def test_steps_are_children(self, spans: InMemorySpanExporter) -> None:
        with tracing.processing(TOPIC, 0, [traced(1)]):
            for name in ("decide", "commit"):
                with tracing.step(name):
                    pass
            with tracing.bulk("user-views-v1"):
                pass
        decide, commit, bulk, process = spans.get_finished_spans()
        assert [decide.name, commit.name, bulk.name] == ["decide", "commit", "bulk user-views-v1"]
        for child in (decide, commit, bulk):
            assert child.parent is not None
            assert child.parent.span_id == process.context.span_id

    def test_of_an_error_there_is_the_type_only(self, spans: InMemorySpanExporter) -> None:
        with (
            pytest.raises(ValueError, match="anna"),
            tracing.processing(TOPIC, 0, [traced(1)]),
            tracing.step("decide"),
        ):
            raise ValueError("anna@example.org")
        for span in spans.get_finished_spans():
            assert span.status.status_code is StatusCode.ERROR
            assert (span.attributes or {})["error.type"] == "ValueError"
            assert "anna@" not in span.to_json()


@pytest.mark.parametrize("header", [None, b"", b"anna@example.org", b"00-anna@example.org-01"])
def test_what_is_no_context_does_not_travel(header: bytes | None) -> None:
    """It could be personal data, which events must not have in the clear; so could `tracestate`."""
    assert tracing.context_headers(record(("traceparent", header), ("tracestate", b"a=b"))) == ()
    assert tracing.context_headers(traced(1, "00")) == [("traceparent", context(1, "00"))]


class TestExporting:
    @pytest.fixture(autouse=True)
    def is_off_before(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tracing, "_tracer", None)

    async def test_spans_go_where_the_environment_says(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The last ones are sent when the worker stops."""
        async with collecting() as collector:
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
            async with tracing.exporting("users-commands"):
                with tracing.processing(TOPIC, 0, [traced(1)]):
                    pass
                assert collector.spans == []
        found = [(service, span.name) for service, span in collector.of_trace(int(TRACE, 16))]
        assert found == [("users-commands", f"process {TOPIC}")]

    async def test_a_collector_that_does_not_answer_holds_nobody_up(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It takes the connection, and answers when the worker has stopped."""
        stopped = asyncio.Event()

        async def answer_late(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await stopped.wait()
            writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
            writer.close()

        server = await asyncio.start_server(answer_late, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{host}:{port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "300")
        async with tracing.exporting("users-commands"):
            with tracing.processing(TOPIC, 0, [traced(1)]):
                pass
        stopped.set()
        (left,) = (one for one in threading.enumerate() if one.name == tracing.LAST_SPANS)
        await asyncio.to_thread(left.join)
        server.close()
