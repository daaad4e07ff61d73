"""A trace goes from `dispatch` through real workers to the document, and ends there."""

from __future__ import annotations

from uuid import uuid4

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agents.client import open_commands, open_queries
from deploy.waiting import wait_until
from models.commands import RegisterUser
from models.queries import GetUserById
from streams import tracing
from tests.conftest import Deploy
from tests.harness.deployments import until_processing
from tests.harness.otlp import collecting


def anna(user: str) -> RegisterUser:
    return RegisterUser(
        aggregate_id=user,
        email=f"{user}@example.org",
        first_name="Anna",
        last_name="Li",
        registration_source="web",
    )


async def test_one_trace_from_dispatch_to_the_document(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "_tracer", None)
    tracing.enable(provider)
    user = f"anna-{uuid4().hex[:8]}"
    async with collecting() as collector:
        deployed = deploy(partitions=1, tracing=True)
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": "100",  # milliseconds until spans are exported
        }
        for role in ("commands", "views"):
            await until_processing(deployed.start(role, **environment))
        async with (
            open_commands(deployed.settings) as commands,
            open_queries(deployed.settings) as queries,
        ):
            outcome = await commands.dispatch(anna(user))
            assert await queries.execute(GetUserById(user), at_least=outcome.token, timeout=60)
            (sent,) = exporter.get_finished_spans()
            trace = sent.context.trace_id

            async def all_have_come() -> bool:
                return len(collector.of_trace(trace)) >= 5

            await wait_until(all_have_come)
            # A command that comes without a context has none.
            monkeypatch.setattr(tracing, "_tracer", None)
            untraced = deployed.settings.model_copy(update={"tracing": False})
            async with open_commands(untraced) as others:
                outcome = await others.dispatch(anna(f"{user}-2"))
            await queries.execute(GetUserById(user), at_least=outcome.token, timeout=60)
        for worker in list(deployed.workers):
            await deployed.retire(worker)  # exports what is left

    names, settings = deployed.names, deployed.settings
    found = {span.name: (service, span) for service, span in collector.of_trace(trace)}
    services = {name: service for name, (service, _) in found.items()}
    deciding = f"{settings.namespace}users-commands"
    assert services.keys() == {
        f"process {names.commands}",
        "decide",
        "commit",
        f"process {names.events}",
        f"bulk {settings.namespace}user-views-v1",
    }
    assert {services["decide"], services["commit"], services[f"process {names.commands}"]} == {
        deciding
    }
    assert services[f"process {names.events}"] != deciding
    for topic, children in (
        (names.commands, ["decide", "commit"]),
        (names.events, [f"bulk {settings.namespace}user-views-v1"]),
    ):
        _, process = found[f"process {topic}"]
        assert process.parent_span_id == sent.context.span_id.to_bytes(8, "big")
        assert [link.span_id for link in process.links] == [process.parent_span_id]
        for child in children:
            assert found[child][1].parent_span_id == process.span_id
    assert {int.from_bytes(span.trace_id, "big") for _, span in collector.spans} == {trace}
    assert user not in str(collector.spans)
