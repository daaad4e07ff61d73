"""V3: users are erased, and a later replay of all events brings none of them back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from functools import partial
from http import HTTPStatus
from itertools import chain
from typing import Any
from uuid import UUID

from elasticsearch import AsyncElasticsearch
from pydantic import SecretStr

from agents.client import open_queries
from agents.user_audit import check_user_erasure
from agents.user_views import USER_VIEWS
from deploy.samples.commands import plan
from deploy.waiting import wait_until
from models.commands import EraseUser
from models.messages import to_wire
from models.queries import GetActiveUsers, GetUserById, GetUsersByEmail
from streams.buses import QueryBus
from streams.elasticsearch.connection import connect
from streams.encryption.keys import new_master_key
from streams.views.checkpoint import checkpoint_id
from streams.views.indices import ViewIndices
from streams.views.reader import ViewReader
from tests.faults.scenario import Run, Scenario
from tests.harness.checks import require
from tests.harness.traffic import open_traffic, records_of
from tests.harness.view_position import open_view_positions

_REQUEST_TIMEOUT_S = 60.0
_TIMEOUT_S = 600.0  # for the workers
_CHECKED_ERASURES = 5  # each check reads all topics


async def erase_and_replay(run: Run) -> None:
    """Erase every tenth user; later replay all events into the view.

    The replay begins when Elasticsearch has forgotten the versions of documents that were deleted
    before: a view that deleted its documents would get them back then.
    """
    users, remembered = run.pick((300, "1s"), (20_000, "60s"))  # 60 s is Elasticsearch's default
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
        open_view_positions(deployed, run.stack) as view,
        open_queries(deployed.settings) as queries,
        connect(deployed.settings, timeout=_REQUEST_TIMEOUT_S) as client,
    ):
        traffic.burst(2 * users + len(erased))
        await traffic.finish(timeout=_TIMEOUT_S)
        await view.catch_up()
        indices = ViewIndices.from_settings(deployed.settings, client, USER_VIEWS)
        (state,) = await indices.all()
        store = indices.store(state.name)
        before = await _seen(store, queries, erased, kept)
        pause = time.monotonic()
        await client.indices.put_settings(index=state.name, settings={"gc_deletes": remembered})
        await _until_deletes_are_forgotten(client, f"{state.name}-probe", remembered)
        pause = time.monotonic() - pause

        begin = time.monotonic()
        (worker,) = deployed.of("views")
        require(await asyncio.to_thread(worker.terminate) == 0, "the view worker did not stop")
        for number in range(deployed.settings.partitions):
            await client.delete(index=state.name, id=checkpoint_id(number))
        worker.start()
        await view.catch_up()
        run.result.faults += len(erased)
        seconds = time.monotonic() - begin
        require(await _seen(store, queries, erased, kept) == before, "a document was written again")
    report = await run.verify(deployed, sent=traffic.sent)
    for user in run.rng.sample(list(erased), _CHECKED_ERASURES):
        proof = await check_user_erasure(deployed.settings, user)
        left = [one.name for one in proof.findings if not one.ok]
        require(proof.ok, f"personal data of {user} stays for good in {', '.join(left)}")
    run.result.figures |= {
        "users": users,
        "erased": len(erased),
        "seconds until the replay": round(pause),
        "events replayed": report.events,
        "replay s": round(seconds, 1),
        "erased users seen": 0,
        "users of whom all places were searched": _CHECKED_ERASURES,
    }


async def _until_deletes_are_forgotten(
    client: AsyncElasticsearch, probe: str, remembered: str
) -> None:
    """Wait until Elasticsearch no longer knows the version of a document that is deleted now.

    The document is in an index of its own, which remembers deletes for as long as the view's.
    """
    await client.indices.create(index=probe, settings={"gc_deletes": remembered})
    write = partial(client.options(ignore_status=409).index, index=probe, id="1", document={})
    await write(version=2, version_type="external")
    await client.delete(index=probe, id="1", version=3, version_type="external")

    async def is_forgotten() -> bool:
        await client.indices.refresh(index=probe)
        found = await write(version=1, version_type="external")
        return found.meta.status == HTTPStatus.CREATED

    await wait_until(is_forgotten, timeout=_TIMEOUT_S, what="Elasticsearch forgets a delete")


async def _seen(
    view: ViewReader, queries: QueryBus, erased: Mapping[str, str], kept: Mapping[str, str]
) -> Mapping[str, int]:
    """Run every query for all users; return the versions of the erased users' documents."""
    await view.refresh()
    for user, address in erased.items():
        require(await queries.execute(GetUserById(user)) is None, f"{user} is found by id")
        found = await queries.execute(GetUsersByEmail(address))
        require(user not in {one.id for one in found.items}, f"{user} is found by email")
    for user in kept:
        require(await queries.execute(GetUserById(user)) is not None, f"{user} is missing")
    cursor = None
    while True:
        page = await queries.execute(GetActiveUsers(limit=1000, cursor=cursor))
        found_erased = erased.keys() & {one.id for one in page.items}
        require(not found_erased, f"{found_erased} are among the active users")
        cursor = page.cursor
        if cursor is None:
            break
    documents = await view.fetch(erased)
    for user in erased:
        names = documents.get(user, {}).keys()
        require(names == {"id", "version"}, f"the document of {user} has {', '.join(names)}")
    return {user: document["version"] for user, document in documents.items()}


def _registrations(seed: int, users: int) -> Iterator[tuple[str, str]]:
    for command in _lives(seed, users):
        if command["type"] == "RegisterUser":
            yield command["aggregateId"], command["email"]


def _lives(seed: int, users: int) -> Iterator[dict[str, Any]]:
    """Yield registrations of `users` users, then a change of each one's last name."""
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
