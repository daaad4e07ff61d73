"""`verify` on the real servers: it finds that all is well, and finds what is not."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from agents.user_audit import verify_users
from agents.user_views import USER_VIEWS
from deploy.ephemeral import Deployment
from deploy.samples.commands import malformed, plan, tally
from models.errors import NoSuchView
from streams.audit.report import NotCaughtUp
from streams.elasticsearch.connection import connect
from streams.elasticsearch.index import in_namespace
from streams.kafka.clients import new_producer, started
from streams.kafka.partitioner import partition_of
from streams.views.store import ViewStore
from tests.conftest import Deploy

PLAN = list(plan(1500, seed=5, rejected=0.1, duplicates=0.1))


async def send(deployed: Deployment) -> None:
    async with started(new_producer(deployed.settings), deployed.settings) as producer:
        records = [(command["aggregateId"].encode(), orjson.dumps(command)) for command, _ in PLAN]
        records += malformed(16)
        for key, value in records:
            partition = partition_of(key, deployed.settings.partitions)
            await producer.send(deployed.names.commands, value, key, partition)
        await producer.flush()


async def test_all_is_well_and_everything_is_counted(deploy: Deploy) -> None:
    deployed = deploy("commands", "views")
    await send(deployed)
    expected = tally(PLAN)
    report = await verify_users(deployed.settings)
    assert report.first_violation is None
    assert report.commands == expected.commands + 16
    assert report.accepted == expected.accepted
    assert report.rejected == expected.rejected
    assert report.duplicate == expected.duplicate
    assert report.dead == 16
    assert report.events == expected.events
    assert report.aggregates == report.documents == expected.documents
    assert report.known_missing == report.lag == report.expired == 0
    assert {name: finding.checked for name, finding in report.findings.items()} == {
        "I1": expected.accepted,
        "I2": expected.events,
        "I3": expected.documents,
        "I4": expected.documents,
        "I5": expected.rejected,
        "I7": report.commands,
    }


async def test_an_extra_document_is_named(deploy: Deploy) -> None:
    deployed = deploy("commands", "views")
    await send(deployed)
    assert (await verify_users(deployed.settings)).ok
    async with connect(deployed.settings, timeout=10) as client:
        index = in_namespace(deployed.settings, USER_VIEWS.index)
        store = ViewStore(client, index, name=f"{index.alias}-v1")
        extra = {
            "id": "nobody",
            "email": "nobody@example.org",
            "firstName": "No",
            "lastName": "Body",
            "isActive": True,
            "registeredAt": "2026-01-01T00:00:00.000Z",
            "lastUpdated": "2026-01-01T00:00:00.000Z",
            "version": 1,
        }
        await store.bulk_index([extra])
    report = await verify_users(deployed.settings)
    assert not report.ok
    assert report.first_violation is not None
    assert report.first_violation.startswith("I4 is broken")
    assert report.first_violation.endswith("the document nobody has no events")


async def test_workers_that_do_not_run_are_named(deploy: Deploy) -> None:
    deployed = deploy()
    await send(deployed)
    with pytest.raises(NotCaughtUp, match="is a command worker running"):
        await verify_users(deployed.settings, timeout=0.1)


async def test_the_view_may_be_on_its_way_though_nothing_is_on_the_log(deploy: Deploy) -> None:
    deployed = deploy()
    with pytest.raises(NoSuchView, match="a view worker makes it"):
        await verify_users(deployed.settings, timeout=0.1)
    verifying = asyncio.create_task(verify_users(deployed.settings))
    deployed.start("views")
    report = await verifying
    assert report.ok
    assert report.commands == report.documents == 0
