"""An export of new users misses nobody and repeats nobody, whatever times their commands carry."""

from __future__ import annotations

import base64
import json
from datetime import datetime, timezone

import pytest

from agents.client import open_commands, open_queries
from agents.user_views import USER_VIEWS
from models.commands import EraseUser, RegisterUser
from models.errors import Fatal, QueryError
from models.queries import GetActiveUsers, GetNewUsers
from streams.progress import no_progress
from streams.views.rebuild import rebuild
from tests.conftest import Deploy
from tests.harness.command_line import cqrs
from tests.integration.erasure import until_projected


def register(user: str, year: int = 2026) -> RegisterUser:
    return RegisterUser(
        aggregate_id=user,
        email=f"{user}@example.org",
        first_name="A",
        last_name="B",
        registration_source="web",
        timestamp=datetime(year, 1, 1, tzinfo=timezone.utc),
    )


async def test_whoever_registers_late_is_on_a_later_page(deploy: Deploy) -> None:
    deployed = deploy("commands", "views", partitions=2)
    async with open_commands(deployed.settings) as commands, open_queries(deployed.settings) as bus:
        tokens: list[str] = []

        async def send(*sent: RegisterUser | EraseUser) -> None:
            outcomes = [await commands.dispatch(one) for one in sent]
            tokens[:] = [outcome.token for outcome in outcomes if outcome.token]

        async def follow(query: GetNewUsers) -> tuple[list[str], str]:
            """Return all who are new after a cursor, and the last cursor."""
            found: list[str] = []
            while True:
                page = await bus.execute(query, at_least=tokens)
                assert len(page.items) <= query.limit
                if not page.items:
                    return found, page.cursor
                found += [user.id for user in page.items]
                query = GetNewUsers(query.limit, page.cursor)

        await send(*(register(f"u{n}") for n in range(7)))
        await until_projected(deployed, "u6", 1)  # the view is shown
        first, cursor = await follow(GetNewUsers(limit=2))
        assert sorted(first) == [f"u{n}" for n in range(7)]

        active = await bus.execute(GetActiveUsers(limit=7), at_least=tokens)
        assert active.cursor is None
        gone = [f"gone{n}" for n in range(6)]  # in both partitions, before and after the late one
        await send(*map(register, gone[:3]), register("late", year=2020), *map(register, gone[3:]))
        await send(*(EraseUser(aggregate_id=user) for user in gone))
        late, last = await follow(GetNewUsers(limit=1, cursor=cursor))
        assert late == ["late"]
        assert (await follow(GetNewUsers(cursor=last)))[0] == []
        await rebuild(deployed.settings, USER_VIEWS, timeout=60, progress=no_progress)
        assert (await follow(GetNewUsers(cursor=cursor)))[0] == ["late"]

        shown = cqrs(deployed.settings, "new", "--cursor", cursor, "--json")
        assert shown.returncode == 0, shown.stderr
        assert [user["id"] for user in json.loads(shown.stdout)["items"]] == ["late"]

        topic, positions = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        for forged, line in (
            (["0" * 32, positions], "of an event topic that was deleted"),
            ([topic, positions[:1]], "must be the cursor of a page"),
            ([topic, [-1, 0]], "must be the cursor of a page"),
        ):
            text = base64.urlsafe_b64encode(json.dumps(forged).encode()).decode()
            with pytest.raises(QueryError, match=line):
                await bus.execute(GetNewUsers(cursor=text))

    for partitions in (1, 3):  # some users would be missed, or looked for where nothing is
        settings = deployed.settings.model_copy(update={"partitions": partitions})
        async with open_queries(settings) as bus:
            with pytest.raises(Fatal, match=f"has 2 partitions, CQRS_PARTITIONS says {partitions}"):
                await bus.execute(GetNewUsers())
