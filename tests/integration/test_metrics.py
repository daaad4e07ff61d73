"""The metrics of real workers are what happened, and contain nobody's data."""

from __future__ import annotations

import json
from itertools import islice
from typing import Any

from prometheus_client import REGISTRY, generate_latest

from agents.client import open_commands, open_queries
from deploy.ephemeral import Deployment
from deploy.samples.commands import generate, malformed
from deploy.waiting import wait_until
from models.commands import RegisterUser
from models.queries import GetUserById
from streams.kafka.clients import new_producer
from tests.conftest import Deploy
from tests.harness.exposition import Exposition, get, scrape
from tests.harness.traffic import check, counting, send

COMMANDS = 300
MALFORMED = 20
MARK = "zq7x"


def marked() -> list[dict[str, Any]]:
    """Commands with a mark in every place where a person's data may be; the last is refused."""
    register = {
        "type": "RegisterUser",
        "aggregateId": f"{MARK}-user",
        "email": f"{MARK}@example.org",
        "firstName": MARK,
        "lastName": MARK,
        "registrationSource": MARK,
        "correlationId": MARK,
    }
    return [register, register, {**register, "type": MARK}, {**register, MARK: MARK}]


async def send_all(deployed: Deployment) -> int:
    """Send commands of all kinds; return how many."""
    commands = [*generate(COMMANDS, duplicates=0.1), *marked()]
    async with new_producer(deployed.settings) as producer:
        sent = await send(producer, deployed, commands)
        for key, value in islice(malformed(MALFORMED, 1), MALFORMED):
            await producer.send_and_wait(deployed.names.commands, value, key, partition=0)
    return sent + MALFORMED


async def test_the_counts_are_those_of_verify_and_name_nobody(deploy: Deploy) -> None:
    deployed = deploy("commands", "views", partitions=1, health_port=0)
    commands, views = deployed.workers
    async with counting(deployed) as outcomes:
        sent = await send_all(deployed)
        await outcomes.reach(sent)
    report = await check(deployed)
    assert report.documents

    async def all_is_counted() -> bool:
        found = await scrape(commands, views)
        return (
            found.sum("cqrs_commands_total") == sent
            and found.sum("cqrs_view_events_total") == report.events
        )

    await wait_until(all_is_counted)
    found = await scrape(commands)
    by_outcome = {
        outcome: found.sum("cqrs_commands_total", outcome=outcome)
        for outcome in ("accepted", "rejected", "duplicate", "dead-lettered")
    }
    assert by_outcome == {
        "accepted": report.accepted,
        "rejected": report.rejected,
        "duplicate": report.duplicate,
        "dead-lettered": report.dead,
    }
    assert min(by_outcome.values()) > 0
    assert found.sum("cqrs_rejections_total") == report.rejected
    assert found.sum("cqrs_dead_letters_total", stage="commands") == report.dead
    assert found.sum("cqrs_events_total") == report.events
    assert found.sum("cqrs_chunk_commands_sum") == sent
    chunks = found.value("cqrs_chunk_seconds_count", step="commit")
    assert found.value("cqrs_transactions_total", result="committed") == chunks
    assert found.sum("cqrs_transactions_total") == chunks
    assert found.value("cqrs_state_aggregates") == report.aggregates
    assert found.value("cqrs_partition_position") == report.ranges[0].end
    assert found.value("cqrs_partition_lag_records") == 0
    assert found.value("cqrs_partition_state", state="running") == 1
    projected = await scrape(views)
    assert projected.sum("cqrs_view_events_total", result="written") == report.events

    async with new_producer(deployed.settings) as producer:
        await producer.send_and_wait(deployed.names.events, MARK.encode(), MARK.encode(), 0)

    async def letter_is_counted() -> bool:
        found = await scrape(views)
        return found.sum("cqrs_dead_letters_total", stage="user-views", code="malformed-json") == 1

    await wait_until(letter_is_counted)
    for worker in deployed.workers:
        _, text = await get(worker, "/metrics")
        assert MARK not in text
        assert "@" not in text


async def test_a_worker_says_when_it_has_started_and_what_it_waits_for(deploy: Deploy) -> None:
    """One of the two has no partition: it is a standby, and ready."""
    deployed = deploy("commands", "commands", partitions=1, health_port=0, log_format="json")
    await wait_until(lambda: any(worker.has_begun for worker in deployed.workers))

    async def all_are(path: str) -> bool:
        return [(await get(one, path))[0] for one in deployed.workers] == [200, 200]

    for worker in deployed.workers:
        await wait_until(lambda worker=worker: "health: " in worker.log_text)  # type: ignore[misc]
    for path in ("/live", "/startup", "/ready", "/health"):
        await wait_until(lambda path=path: all_are(path), what=path)  # type: ignore[misc]
    found = [await scrape(worker) for worker in deployed.workers]
    assert sorted(one.value("cqrs_assigned_partitions") for one in found) == [0, 1]
    assert {one.value("cqrs_topic_partitions") for one in found} == {1}
    ready = [json.loads((await get(one, "/ready"))[1]) for one in deployed.workers]
    assert [one["why"] for one in ready] == [[], []]
    assert sorted(len(one["partitions"]) for one in ready) == [0, 1]
    group = f"{deployed.settings.namespace}users-commands"
    for worker in deployed.workers:
        lines = [json.loads(line) for line in worker.log_text.splitlines()]
        assert {line["worker"] for line in lines} == {group}
        assert "health-served" in {line["event"] for line in lines}


async def test_a_client_measures_how_long_it_waits(deploy: Deploy) -> None:
    deployed = deploy("commands", "views", partitions=1)
    await wait_until(lambda: "searches see" in deployed.workers[1].log_text)
    before = Exposition(generate_latest(REGISTRY).decode())
    anna = RegisterUser(
        aggregate_id=MARK,
        email=f"{MARK}@example.org",
        first_name=MARK,
        last_name=MARK,
        registration_source="web",
    )
    async with (
        open_commands(deployed.settings) as commands,
        open_queries(deployed.settings) as queries,
    ):
        outcome = await commands.dispatch(anna)
        await queries.execute(GetUserById(MARK), at_least=outcome.token)
    text = generate_latest(REGISTRY).decode()
    after = Exposition(text)
    for name, labels in (
        ("cqrs_dispatch_seconds_count", {"outcome": "accepted"}),
        ("cqrs_token_wait_seconds_count", {"result": "seen"}),
    ):
        assert after.sum(name, **labels) - before.sum(name, **labels) == 1
    assert MARK not in text
