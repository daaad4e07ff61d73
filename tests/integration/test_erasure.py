"""Erasing a user, with real workers: what is left where, and that nothing brings the user back."""

from __future__ import annotations

import asyncio
import json
import signal
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from elasticsearch import AsyncElasticsearch

from agents.user_audit import check_user_erasure
from agents.user_views import USER_VIEWS
from deploy.ephemeral import Deployment
from deploy.samples.commands import generate
from deploy.waiting import wait_until
from models.commands import (
    DeactivateUser,
    EraseUser,
    ReactivateUser,
    UpdateUserProfile,
)
from models.outcomes import Accepted, Rejection
from models.wire import parse_time
from streams.elasticsearch.connection import connect
from streams.kafka.clients import admin_client, new_producer
from streams.kafka.topics import topic_specs
from streams.progress import no_progress
from streams.views.checkpoint import checkpoint_id
from streams.views.reader import open_view
from streams.views.rebuild import rebuild
from tests.conftest import Deploy
from tests.harness.command_line import cqrs
from tests.harness.crash_points import APPS, Point
from tests.harness.traffic import check, counting, send
from tests.integration.erasure import (
    dispatch,
    document_of,
    encrypted,
    records,
    register,
    send_poison,
    shown_by,
    until_projected,
)

TOMBSTONE = {"id": "anna", "version": 4}


async def register_and_change(deployed: Deployment) -> None:
    """Anna with three events and a dead letter, and Ben, who stays."""
    await dispatch(
        deployed,
        register("anna", email="old@example.org"),
        UpdateUserProfile(aggregate_id="anna", email="ZsaZsa@example.org"),
        DeactivateUser(aggregate_id="anna"),
        register("ben"),
    )
    await send_poison(deployed, "anna", nickname="Győr", email="zsazsa@example.org")
    await wait_until(lambda: records(deployed, deployed.names.dead_commands))
    await until_projected(deployed, "anna", 3)


def erase(deployed: Deployment, *options: str) -> tuple[int, dict[str, Any]]:
    """Exit code and answer of `cqrs erase`; with --prove the places by their kind."""
    done = cqrs(deployed.settings, "erase", "anna", "--yes", "--json", *options)
    assert done.stdout, done.stderr
    said = json.loads(done.stdout)
    namespace = deployed.settings.namespace
    places = {place["place"].removeprefix(namespace): place for place in said["places"] or ()}
    return done.returncode, {**said, "places": places}


def verdicts(said: dict[str, Any]) -> dict[str, str]:
    return {
        name: "gone" if place["gone"] else "later" if place["goneBy"] else "NOT"
        for name, place in said["places"].items()
    }


async def test_the_user_is_gone_and_stays_gone(deploy: Deploy, tmp_path: Path) -> None:
    deployed = deploy("commands", "views", state_dir=tmp_path, **encrypted())
    await register_and_change(deployed)
    code, said = erase(deployed, "--prove")
    assert (code, said["ok"], said["version"]) == (0, True, 4)
    # The destroyed key is on its topic until that is compacted, and opens what was sealed with it.
    assert verdicts(said) == {
        "users.keys.v1": "later",
        "users.events.v1": "later",
        "users.outcomes.v1": "gone",
        "users.state-changelog.v1": "later",
        "users.commands.dead.v1": "later",
        "users.views.dead.v1": "gone",
        "users.commands.v1": "later",
        "CQRS_STATE_DIR of command workers": "later",
        "user-views-v1": "gone",
    }
    places = said["places"]
    assert {name: place["readable"] for name, place in places.items() if place["readable"]} == {
        "users.keys.v1": 1,
        "users.events.v1": 2,
        "users.state-changelog.v1": 3,
        "users.commands.dead.v1": 1,
        "users.commands.v1": 3,
        "CQRS_STATE_DIR of command workers": 1,
    }
    within_the_hour = datetime.now(timezone.utc) + timedelta(hours=1)
    for name in ("users.keys.v1", "users.events.v1", "users.state-changelog.v1"):
        assert parse_time(places[name]["goneBy"]) < within_the_hour
    assert await document_of(deployed, "anna") == TOMBSTONE
    assert await shown_by(deployed, "anna") == set()
    assert await shown_by(deployed, "ben") == {"id", "email", "active"}
    keys = [
        record for record in await records(deployed, deployed.names.keys) if record.key == b"anna"
    ]
    assert [record.value is None for record in keys] == [False, True]

    for command in (
        register("anna"),
        UpdateUserProfile(aggregate_id="anna", email="new@example.org"),
        ReactivateUser(aggregate_id="anna"),
        EraseUser(aggregate_id="anna"),
    ):
        (outcome,) = await dispatch(deployed, command)
        assert isinstance(outcome, Rejection)
        assert (outcome.code, outcome.reason) == ("user-erased", "User was erased")
    await check(deployed)
    assert erase(deployed, "--prove")[0] == 0


async def test_when_kafka_has_compacted_the_key_is_gone_for_good(deploy: Deploy) -> None:
    """With times a thousand times shorter; nothing else is written to that partition meanwhile."""
    deployed = deploy("commands", "views", **encrypted())
    await shorten(deployed, deployed.names.keys)
    await register_and_change(deployed)
    assert erase(deployed, "--prove")[1]["places"]["users.keys.v1"]["readable"] == 1

    async def is_compacted() -> bool:
        proof = await check_user_erasure(deployed.settings, "anna")
        return proof.ok and proof.findings[0].verdict == "gone"

    await wait_until(is_compacted, timeout=120)
    assert verdicts(erase(deployed, "--prove")[1]) == {
        "users.keys.v1": "gone",
        "users.events.v1": "gone",
        "users.outcomes.v1": "gone",
        "users.state-changelog.v1": "gone",
        "users.commands.dead.v1": "gone",
        "users.views.dead.v1": "gone",
        "users.commands.v1": "later",
        "CQRS_STATE_DIR of command workers": "gone",
        "user-views-v1": "gone",
    }
    await check(deployed)
    (outcome,) = await dispatch(deployed, UpdateUserProfile(aggregate_id="ben", last_name="Other"))
    assert isinstance(outcome, Accepted)


async def shorten(deployed: Deployment, topic: str) -> None:
    """Let a compacted topic do in a second what takes it minutes."""
    specs = topic_specs(deployed.settings, deployed.names)
    (spec,) = (spec for spec in specs if spec.name == topic)
    short = {name: "1000" for name in spec.configs if name.endswith(".ms")}
    async with admin_client(deployed.settings) as admin:
        changed = ConfigResource(ConfigResourceType.TOPIC, topic, {**spec.configs, **short})
        await admin.alter_configs([changed])


async def test_a_view_that_starts_after_the_erasure(deploy: Deploy) -> None:
    """It reads a registration whose key is gone, and never shows anything."""
    deployed = deploy("commands", **encrypted())
    await dispatch(
        deployed,
        register("anna"),
        UpdateUserProfile(aggregate_id="anna", last_name="Other"),
        DeactivateUser(aggregate_id="anna"),
        register("ben"),
        EraseUser(aggregate_id="anna"),
    )
    deployed.start("views")
    assert await until_projected(deployed, "anna", 4) == TOMBSTONE
    await until_projected(deployed, "ben", 1)
    assert await shown_by(deployed, "ben") == {"id", "email", "active"}
    await check(deployed)


@pytest.mark.parametrize("settings", [encrypted(), {}], ids=["encrypted", "plain"])
async def test_older_events_do_not_bring_the_user_back(
    deploy: Deploy, settings: dict[str, Any]
) -> None:
    """All events are projected once more, each by itself, by a worker that remembers nothing."""
    deployed = deploy("commands", "views", max_chunk_records=1, **settings)
    await register_and_change(deployed)
    await dispatch(deployed, EraseUser(aggregate_id="anna"))
    assert await until_projected(deployed, "anna", 4) == TOMBSTONE
    views = deployed.of("views")[0]
    assert views.terminate() == 0
    await rewind(deployed)
    logged = len(views.log_text)
    views.start()
    await dispatch(deployed, register("carla"))  # behind the others on one of the partitions
    await check(deployed)  # which waits until the view has read everything
    begun = views.log_text[logged:].count("continuing at position 0")
    assert begun == deployed.settings.partitions
    assert await document_of(deployed, "anna") == TOMBSTONE
    assert await shown_by(deployed, "anna") == set()


def index_of(deployed: Deployment) -> str:
    return f"{deployed.settings.namespace}{USER_VIEWS.name}-v1"


async def rewind(deployed: Deployment) -> None:
    """Let the view, which nobody writes to now, begin at the first event again."""
    async with connect(deployed.settings, timeout=10) as client:
        for number in range(deployed.settings.partitions):
            await client.options(ignore_status=404).delete(
                index=index_of(deployed), id=checkpoint_id(number)
            )


async def test_verify_holds_while_users_are_erased(deploy: Deploy) -> None:
    """Keys vanish while it reads; it takes none of that for a fault."""
    deployed = deploy("commands", "views", **encrypted())
    commands = list(generate(1500, seed=7, rejected=0, duplicates=0))
    users = sorted({command["aggregateId"] for command in commands})
    async with counting(deployed) as outcomes, new_producer(deployed.settings) as producer:
        sent = await send(producer, deployed, commands)
        await outcomes.reach(sent)

        async def erase_all() -> None:
            nonlocal sent
            for start in range(0, len(users), 10):
                sent += await send(producer, deployed, map(wire_erasure, users[start : start + 10]))
                await outcomes.reach(sent)

        erasing = asyncio.create_task(erase_all())
        while not erasing.done():
            await check(deployed)
        await erasing
    report = await check(deployed)
    assert (report.aggregates, report.accepted) == (len(users), sent)
    assert await shown_still(deployed, users) == []


def wire_erasure(user: str) -> dict[str, Any]:
    return {"type": "EraseUser", "aggregateId": user}


async def shown_still(deployed: Deployment, users: list[str]) -> list[str]:
    """The users whose document is more than a tombstone."""
    async with open_view(deployed.settings, USER_VIEWS, timeout=10) as store:
        documents = await store.fetch(users)
    return [user for user in users if documents[user].keys() != {"id", "version"}]


async def test_without_encryption_the_report_finds_the_data(deploy: Deploy, tmp_path: Path) -> None:
    deployed = deploy("commands", "views", state_dir=tmp_path)
    await register_and_change(deployed)
    # Where people run commands, the folder of the workers' hosts is not set.
    settings = deployed.settings.model_copy(update={"state_dir": None})
    code, said = erase(replace(deployed, settings=settings), "--prove")
    assert (code, said["ok"], said["version"]) == (1, False, 4)
    assert verdicts(said) == {
        "users.keys.v1": "gone",
        "users.events.v1": "NOT",
        "users.outcomes.v1": "gone",
        "users.state-changelog.v1": "later",
        "users.commands.dead.v1": "later",
        "users.views.dead.v1": "gone",
        "users.commands.v1": "later",
        "CQRS_STATE_DIR of command workers": "NOT",
        "user-views-v1": "gone",
    }
    shown = cqrs(settings, "erase", "anna", "--yes", "--prove")
    assert "plain text" in shown.stdout
    assert shown.stderr.splitlines()[-1] == (
        f"cqrs: personal data of anna is NOT gone from {deployed.names.events}, "
        "CQRS_STATE_DIR of command workers"
    )
    assert await shown_by(deployed, "anna") == set()
    await check(deployed)


async def test_an_index_that_could_not_be_looked_at_is_not_called_gone(deploy: Deploy) -> None:
    """And looking changes nothing: no setting, and no segment is rewritten."""
    deployed = deploy("commands", "views", partitions=1, **encrypted())
    await dispatch(deployed, register("anna"), register("ben"), EraseUser(aggregate_id="ben"))
    await until_projected(deployed, "ben", 2)
    await rebuild(deployed.settings, USER_VIEWS, timeout=60, progress=no_progress)
    alias = f"{deployed.settings.namespace}{USER_VIEWS.name}"
    former = f"{alias}-v1"
    async with connect(deployed.settings, timeout=10) as client:
        await client.indices.close(index=former)
        code, said = erase(deployed, "--prove")
        assert (code, said["ok"]) == (75, False)
        found = {name: (place["unseen"], place["gone"]) for name, place in said["places"].items()}
        assert found["user-views-v1"] == (1, False)
        assert found["user-views-v2"] == (0, True)
        settings, segments = await shape(client, alias)
        assert "index_closed_exception" in said["places"]["user-views-v1"]["note"]
        shown = cqrs(deployed.settings, "erase", "anna", "--yes", "--prove")
        last = shown.stderr.splitlines()[-1]
        assert last == f"cqrs: personal data of anna may be in {former}, NOT looked at"
        settings_after, segments_after = await shape(client, alias)
        assert settings_after == settings
        assert segments <= segments_after, "what the worker writes meanwhile adds segments"
        await client.indices.open(index=former, wait_for_active_shards=1)

    async def is_gone() -> bool:
        return (await check_user_erasure(deployed.settings, "anna")).ok

    await wait_until(is_gone, what="the former index, followed again, has the tombstone")


async def shape(client: AsyncElasticsearch, alias: str) -> tuple[Any, set[str]]:
    """The settings of all indices, and the segments of the one that people read."""
    await client.indices.refresh(index=alias)
    settings = await client.indices.get_settings(index=f"{alias}-v*", expand_wildcards="all")
    segments = await client.indices.segments(index=alias)
    (shards,) = (one["shards"] for one in segments["indices"].values())
    names = {name for copies in shards.values() for shard in copies for name in shard["segments"]}
    return settings.body, names


async def test_erasing_an_unknown_user_is_rejected(deploy: Deploy) -> None:
    deployed = deploy("commands", "views")
    done = cqrs(deployed.settings, "erase", "nobody", "--yes")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "cqrs: rejected: User not found"


@pytest.mark.parametrize(
    "point",
    [
        Point("kill", "before", "commit"),
        Point("kill", "after", "commit"),
        Point("kill", "after", "events"),
    ],
    ids=str,
)
async def test_a_worker_that_is_killed_during_an_erasure(deploy: Deploy, point: Point) -> None:
    """Key and user end together, whenever the worker dies."""
    deployed = deploy("commands", "views", outcome_timeout=60.0, **encrypted())
    await register_and_change(deployed)
    worker = deployed.of("commands")[0]
    await deployed.retire(worker)
    deadly = deployed.start("commands", app=APPS["commands"], **point.environment())
    erasing = asyncio.create_task(dispatch(deployed, EraseUser(aggregate_id="anna")))
    assert await asyncio.to_thread(deadly.wait) == -signal.SIGKILL
    deployed.start("commands")
    assert [type(outcome) for outcome in await erasing] == [Accepted]
    assert await until_projected(deployed, "anna", 4) == TOMBSTONE
    keys = await records(deployed, deployed.names.keys)
    assert [record.value is None for record in keys if record.key == b"anna"] == [False, True]
    await check(deployed)
    assert erase(deployed, "--prove")[0] == 0
