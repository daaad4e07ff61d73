"""V3: users are erased, and a replay of all their events later on brings none of them back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from itertools import chain
from typing import Any
from uuid import UUID

from pydantic import SecretStr

from agents.client import open_queries
from agents.user_audit import check_user_erasure
from agents.user_views import USER_VIEWS
from deploy.samples.commands import plan
from models.commands import EraseUser
from models.messages import to_wire
from models.queries import GetActiveUsers, GetUserById, GetUsersByEmail
from streams.buses import QueryBus
from streams.elasticsearch.connection import connect
from streams.encryption.keys import new_master_key
from streams.views.checkpoint import checkpoint_id
from streams.views.indices import ViewIndices
from streams.views.store import ViewStore
from tests.faults.scenario import Run, Scenario
from tests.harness.checks import require
from tests.harness.traffic import open_traffic, records_of
from tests.harness.view_position import open_view_progress

_TIMEOUT = 60.0  # seconds for one request
_PATIENCE = 600.0  # seconds that the workers get
_PROVED = 5  # users of whom everything that is left is looked for; each reads all topics


async def erase_and_replay(run: Run) -> None:
    """Every tenth user is erased; minutes later the view begins at the first event again.

    Elasticsearch forgets the version of a deleted document after 60 seconds. The pause is longer,
    so a view that deleted its documents would get them back from the replay.
    """
    users, pause = run.pick((300, 1.0), (20_000, 90.0))
    deployed = await run.deploy(
        "commands",
        "views",
        encrypt_personal_data=True,
        master_key=SecretStr(new_master_key()),
    )
    addresses = dict(_registrations(run.seed, users))
    erased = dict(list(addresses.items())[::10])
    kept = dict(list(addresses.items())[5::10])
    commands = chain(_lives(run.seed, users), map(_erasure, erased))
    async with (
        open_traffic(deployed, records_of(commands)) as traffic,
        open_view_progress(deployed, run.stack) as progress,
        open_queries(deployed.settings) as queries,
        connect(deployed.settings, timeout=_TIMEOUT) as client,
    ):
        traffic.burst(2 * users + len(erased))
        await traffic.finish(timeout=_PATIENCE)
        await progress.catch_up()
        indices = ViewIndices.from_settings(deployed.settings, client, USER_VIEWS)
        (state,) = await indices.all()
        store = indices.store(state.name)
        before = await _seen(store, queries, erased, kept)
        await asyncio.sleep(pause)  # it has to be longer than what Elasticsearch remembers

        begin = time.monotonic()
        (worker,) = deployed.of("views")
        require(await asyncio.to_thread(worker.terminate) == 0, "the view worker did not stop")
        for number in range(deployed.settings.partitions):
            await client.delete(index=state.name, id=checkpoint_id(number))
        worker.start()
        await progress.catch_up()
        run.result.faults += len(erased)
        seconds = time.monotonic() - begin
        require(await _seen(store, queries, erased, kept) == before, "a document was written again")
    report = await run.verify(deployed, sent=traffic.sent)
    for user in run.rng.sample(list(erased), _PROVED):
        proof = await check_user_erasure(deployed.settings, user)
        left = [place.name for place in proof.findings if not place.ok]
        require(proof.ok, f"of {user} there is something left for good in {', '.join(left)}")
    run.result.figures |= {
        "users": users,
        "erased": len(erased),
        "seconds until the replay": round(pause),
        "events replayed": report.events,
        "replay s": round(seconds, 1),
        "erased users seen": 0,
        "users of whom all places were searched": _PROVED,
    }


async def _seen(
    store: ViewStore, queries: QueryBus, erased: Mapping[str, str], kept: Mapping[str, str]
) -> Mapping[str, int]:
    """Ask for everybody in every way; returns the versions of the erased users' documents."""
    await store.refresh()
    for user, address in erased.items():
        require(await queries.execute(GetUserById(user)) is None, f"{user} is there by id")
        found = await queries.execute(GetUsersByEmail(address))
        require(user not in {one.id for one in found.items}, f"{user} is there by email")
    for user in kept:
        require(await queries.execute(GetUserById(user)) is not None, f"{user} is missing")
    cursor = None
    while True:
        page = await queries.execute(GetActiveUsers(limit=1000, cursor=cursor))
        there = erased.keys() & {one.id for one in page.items}
        require(not there, f"{there} are there among the active")
        cursor = page.cursor
        if cursor is None:
            break
    documents = await store.fetch(erased)
    for user in erased:
        names = documents.get(user, {}).keys()
        require(names == {"id", "version"}, f"the document of {user} has {', '.join(names)}")
    return {user: document["version"] for user, document in documents.items()}


def _registrations(seed: int, users: int) -> Iterator[tuple[str, str]]:
    for command in _lives(seed, users):
        if command["type"] == "RegisterUser":
            yield command["aggregateId"], command["email"]


def _lives(seed: int, users: int) -> Iterator[dict[str, Any]]:
    """So many registrations, and as many changes of their addresses behind them."""
    planned = plan(10 * users, seed, rejected=0, duplicates=0)
    registrations = [one for one, _ in planned if one["type"] == "RegisterUser"][:users]
    yield from registrations
    for number, one in enumerate(registrations):
        yield {
            "type": "UpdateUserProfile",
            "id": str(UUID(int=number + 1)),
            "aggregateId": one["aggregateId"],
            "timestamp": one["timestamp"],
            "lastName": f"Changed {number}",
        }


def _erasure(user: str) -> dict[str, Any]:
    return to_wire(EraseUser(aggregate_id=user, timestamp=datetime.now(timezone.utc)))


V3 = Scenario("V3", "users are erased, then everything is replayed", erase_and_replay)
