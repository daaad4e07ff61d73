"""Queries that are given a token see the write it stands for: real servers, real workers."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import pytest
from elasticsearch import AsyncElasticsearch

from agents.client import open_commands, open_queries, pages_by_email
from agents.user_views import USER_VIEWS
from agents.users import USERS
from deploy.embedded.stack import EmbeddedStack
from deploy.ephemeral import Deployment
from deploy.waiting import wait_until
from models.commands import RegisterUser, UpdateUserProfile
from models.errors import InvalidToken, NoSuchView, ViewBehind
from models.messages import Command
from models.outcomes import Accepted, Duplicate
from models.queries import GetActiveUsers, GetUserById, GetUsersByEmail
from models.tokens import Token, join
from streams.aggregate import TopicNames
from streams.buses import QueryBus
from streams.commands.client import KafkaCommandBus
from streams.elasticsearch.connection import connect
from streams.kafka.partitioner import partition_of
from streams.views.read_your_writes import ReadYourWrites
from streams.views.reader import open_view
from tests.conftest import Deploy
from tests.harness.command_line import cqrs
from tests.harness.deployments import deployment, run_apart

NUMBERS = count()


@pytest.fixture(scope="module")
def deployed(stack: EmbeddedStack) -> Iterator[Deployment]:
    with deployment(stack, "commands", "views") as running:
        run_apart(wait_for_index(running))
        yield running


async def wait_for_index(deployed: Deployment) -> None:
    """Until the view worker has made it there is no view to wait for."""
    async with index_of(deployed) as (client, alias):

        async def exists() -> bool:
            return bool(await client.indices.exists_alias(name=alias))

        await wait_until(exists, what="the view's index")


@pytest.fixture
async def commands(deployed: Deployment) -> AsyncIterator[KafkaCommandBus]:
    async with open_commands(deployed.settings) as bus:
        yield bus


@pytest.fixture
async def queries(deployed: Deployment) -> AsyncIterator[QueryBus]:
    async with open_queries(deployed.settings) as bus:
        yield bus


def registration() -> RegisterUser:
    """Of somebody whom nobody else is like."""
    name = f"user-{next(NUMBERS)}"
    return RegisterUser(
        aggregate_id=name,
        email=f"{name}x@example.org",
        first_name="Anna",
        last_name="Müller",
        registration_source="web",
    )


async def accepted(commands: KafkaCommandBus, command: Command) -> str:
    """The token of a command that is accepted."""
    outcome = await commands.dispatch(command)
    assert isinstance(outcome, Accepted)
    return outcome.token


async def found(queries: QueryBus, fragment: str, at_least: Any = None, **more: Any) -> list[str]:
    """The ids of who has this in the address."""
    page = await queries.execute(GetUsersByEmail(fragment, limit=500), at_least=at_least, **more)
    return [user.id for user in page.items]


@asynccontextmanager
async def suspended_view(deployed: Deployment) -> AsyncIterator[None]:
    """The view does not get on within the block."""
    (worker,) = deployed.of("views")
    worker.suspend()
    try:
        yield
    finally:
        worker.resume()


@asynccontextmanager
async def index_of(deployed: Deployment) -> AsyncIterator[tuple[AsyncElasticsearch, str]]:
    """Elasticsearch itself, and the alias of the view."""
    async with connect(deployed.settings, timeout=30) as client:
        yield client, deployed.settings.namespace + USER_VIEWS.name


# Seen at once


async def test_a_write_is_seen_by_every_query(commands: KafkaCommandBus, queries: QueryBus) -> None:
    for _ in range(15):
        register = registration()
        user = register.aggregate_id
        token = await accepted(commands, register)
        assert (await queries.execute(GetUserById(user), at_least=token)).version == 1
        token = await accepted(commands, UpdateUserProfile(aggregate_id=user, first_name="B"))
        assert (await queries.execute(GetUserById(user), at_least=token)).version == 2

        register = registration()
        token = await accepted(commands, register)
        assert await found(queries, register.email, token) == [register.aggregate_id]

        register = registration()
        token = await accepted(commands, register)
        page = await queries.execute(GetActiveUsers(limit=10_000), at_least=Token.parse(token))
        assert register.aggregate_id in [one.id for one in page.items]


async def test_several_writes_are_seen_together(
    commands: KafkaCommandBus, queries: QueryBus
) -> None:
    sent = [registration() for _ in range(30)]
    tokens = await asyncio.gather(*(accepted(commands, one) for one in sent))
    session = join(tokens)
    assert session is not None
    assert len(session.points) == 2  # as many as there are partitions
    wanted = {one.aggregate_id for one in sent}
    assert wanted <= set(await found(queries, "x@example", session))
    pages = [
        {user.id for user in page.items}
        async for page in pages_by_email(
            queries, GetUsersByEmail("x@example", limit=7), at_least=str(session)
        )
    ]
    assert wanted <= set().union(*pages)


async def test_a_duplicate_has_the_first_token(
    commands: KafkaCommandBus, queries: QueryBus
) -> None:
    register = registration()
    token = await accepted(commands, register)
    await accepted(commands, UpdateUserProfile(aggregate_id=register.aggregate_id, last_name="C"))
    again = await commands.dispatch(register)
    assert isinstance(again, Duplicate)
    assert again.token == token
    assert await found(queries, register.email, again.token) == [register.aggregate_id]


# Late


async def test_a_view_that_is_behind_is_an_error_at_the_timeout(
    deployed: Deployment, commands: KafkaCommandBus, queries: QueryBus
) -> None:
    register = registration()
    user = register.aggregate_id
    before = await accepted(commands, register)
    await queries.execute(GetUserById(user), at_least=before)
    async with suspended_view(deployed):
        token = await accepted(commands, UpdateUserProfile(aggregate_id=user, last_name="Late"))
        for query in (GetUserById(user), GetUsersByEmail(user), GetActiveUsers()):
            with pytest.raises(ViewBehind) as caught:
                await queries.execute(query, at_least=token, timeout=0.3)
            partition = partition_of(user.encode(), 2)
            assert str(caught.value).startswith(
                "The write succeeded, but the view did not show it in 0.3 s: it is "
            )
            assert f"positions behind in partition {partition} of" in str(caught.value)
        # what it has, it shows
        assert (await queries.execute(GetUserById(user), at_least=before)).last_name == "Müller"
        assert (await queries.execute(GetUserById(user))).last_name == "Müller"
    assert (await queries.execute(GetUserById(user), at_least=token)).last_name == "Late"


# Refreshes


async def refreshes(client: AsyncElasticsearch, alias: str) -> int:
    """How often searches were made to see more."""
    stats = await client.indices.stats(index=alias, metric="refresh")
    return int(stats["_all"]["primaries"]["refresh"]["external_total"])


async def test_waiting_queries_share_refreshes_and_ids_need_none(
    deployed: Deployment, commands: KafkaCommandBus, queries: QueryBus
) -> None:
    async with index_of(deployed) as (client, alias):
        await accepted_and_seen(commands, queries)
        await client.indices.put_settings(index=alias, settings={"index.refresh_interval": "-1"})
        try:
            sent = [registration() for _ in range(50)]
            async with suspended_view(deployed):
                tokens = await asyncio.gather(*(accepted(commands, one) for one in sent))
                waiting = [
                    asyncio.create_task(found(queries, one.email, token))
                    for one, token in zip(sent, tokens, strict=True)
                ]
                before = await refreshes(client, alias)
            assert await asyncio.gather(*waiting) == [[one.aggregate_id] for one in sent]
            shared = await refreshes(client, alias) - before
            assert 1 <= shared <= 10

            register = registration()
            token = await accepted(commands, register)
            before = await refreshes(client, alias)
            by_id = GetUserById(register.aggregate_id)
            assert (await queries.execute(by_id, at_least=token)).version == 1
            assert await refreshes(client, alias) == before
            assert await found(queries, register.email) == []  # nothing else has made it visible
            assert await found(queries, register.email, token) == [register.aggregate_id]
            assert await refreshes(client, alias) == before + 1
        finally:
            await client.indices.put_settings(
                index=alias, settings={"index.refresh_interval": "1s"}
            )


async def accepted_and_seen(commands: KafkaCommandBus, queries: QueryBus) -> None:
    """The workers are at work."""
    register = registration()
    token = await accepted(commands, register)
    await queries.execute(GetUserById(register.aggregate_id), at_least=token)


# Another index takes over


async def test_a_result_of_an_index_that_is_behind_is_not_used(deploy: Deploy) -> None:
    deployed = deploy("commands", "views")
    await wait_for_index(deployed)
    async with (
        open_commands(deployed.settings) as commands,
        open_queries(deployed.settings) as queries,
        index_of(deployed) as (client, alias),
        open_view(deployed.settings, USER_VIEWS, timeout=30) as store,
    ):
        register = registration()
        token = await accepted(commands, register)
        await queries.execute(GetUserById(register.aggregate_id), at_least=token)
        for worker in deployed.of("views"):
            await deployed.retire(worker)
        (old,) = await client.indices.get(index=alias)
        new = f"{alias}-another"
        await client.indices.create(index=new)
        asked = []

        async def look_while_it_is_replaced(_: GetUserById) -> bool:
            asked.append(old)
            await client.indices.update_aliases(
                actions=[
                    {"remove": {"index": old, "alias": alias}},
                    {"add": {"index": new, "alias": alias, "is_write_index": True}},
                ]
            )
            return await store.get(register.aggregate_id) is not None

        bus = QueryBus()
        freshness = ReadYourWrites(store, deployed.names.commands, deployed.settings.partitions)
        bus.register(GetUserById, look_while_it_is_replaced, after=freshness.once_projected)
        with pytest.raises(ViewBehind):
            await bus.execute(GetUserById("a"), at_least=token, timeout=3)
        assert asked == [old]
        await client.indices.delete(index=[old, new])


# The command line


def test_send_waits_and_prints_the_token(deployed: Deployment) -> None:
    sent = cqrs(deployed.settings, *register_from_shell("cli-1"), "--wait")
    assert (sent.returncode, sent.stderr) == (0, "")
    said, token = sent.stdout.splitlines()
    assert said == "accepted: user cli-1 is at version 1"
    found = cqrs(deployed.settings, "search", "email", "cli-1@", "--json")
    assert [user["id"] for user in json.loads(found.stdout)["items"]] == ["cli-1"]
    assert Token.parse(token).points[0].aggregate_id == "cli-1"


def test_queries_wait_for_all_tokens_that_they_are_given(deployed: Deployment) -> None:
    tokens = []
    for user in ("cli-2", "cli-3"):
        sent = cqrs(deployed.settings, *register_from_shell(user), "--json")
        tokens += ["--at-least", json.loads(sent.stdout)["token"]]
    shown = cqrs(deployed.settings, "get", "cli-3", "--json", *tokens)
    assert json.loads(shown.stdout)["version"] == 1
    for query in (
        ["search", "email", "cli-2@"],
        ["search", "email", "cli-2@", "--all"],
        ["active", "--limit", "10000"],
    ):
        found = cqrs(deployed.settings, *query, "--json", "--timeout", "20", *tokens)
        assert '"cli-2"' in found.stdout
        assert found.returncode == 0


async def test_a_timeout_is_one_line_and_prints_the_token(
    deployed: Deployment, queries: QueryBus
) -> None:
    async with suspended_view(deployed):
        wait = [*register_from_shell("cli-4"), "--wait", "--timeout", "5"]
        sent = await asyncio.to_thread(cqrs, deployed.settings, *wait)
        assert sent.returncode == 75
        assert re.fullmatch("cqrs: The write succeeded, but .* behind .*\n", sent.stderr)
        said, token = sent.stdout.splitlines()
        assert said == "accepted: user cli-4 is at version 1"
        get = ["get", "cli-4", "--at-least", token, "--timeout", "2"]
        shown = await asyncio.to_thread(cqrs, deployed.settings, *get)
        assert (shown.returncode, shown.stdout) == (75, "")
        assert re.fullmatch("cqrs: The write succeeded, but .* behind .*\n", shown.stderr)
    user = await queries.execute(GetUserById("cli-4"), at_least=token, timeout=60)
    assert user.id == "cli-4"


@pytest.mark.parametrize("token", ["", "forged", "\n", "A" * 10_000])
def test_a_forged_token_is_one_line(deployed: Deployment, token: str) -> None:
    for query in (["get", "a"], ["search", "email", "a"], ["active"]):
        done = cqrs(deployed.settings, *query, "--at-least", token)
        assert (done.returncode, done.stdout) == (2, "")
        assert re.fullmatch("cqrs: invalid token: .*\n", done.stderr)


def register_from_shell(user: str) -> list[str]:
    who = ["--email", f"{user}@example.org", "--first-name", "Anna", "--last-name", "Li"]
    return ["send", "register", "--id", user, *who]


# Tokens that are none of this view's


async def test_a_token_of_another_cluster_topic_or_partition_is_an_error(
    commands: KafkaCommandBus, queries: QueryBus
) -> None:
    token = Token.parse(await accepted(commands, registration()))
    (point,) = token.points
    cases = {
        "another Kafka cluster": Token("another", token.points),
        "on another topic": Token(token.cluster, (point._replace(topic="orgs.commands.v1"),)),
        "names a partition": Token(token.cluster, (point._replace(partition=5),)),
        "cannot be": Token(token.cluster, (point._replace(partition=1 - point.partition),)),
    }
    await queries.execute(GetUserById("a"), at_least=token)
    for line, foreign in cases.items():
        for query in (GetUserById("a"), GetUsersByEmail("a"), GetActiveUsers()):
            with pytest.raises(InvalidToken, match=line):
                await queries.execute(query, at_least=str(foreign))


async def test_a_token_of_a_future_write_times_out(
    commands: KafkaCommandBus, queries: QueryBus
) -> None:
    token = Token.parse(await accepted(commands, registration()))
    (point,) = token.points
    for later in (point._replace(offset=2**63 - 1), point._replace(sequence=2**63 - 1)):
        forged = Token(token.cluster, (later,))
        with pytest.raises(ViewBehind):
            await queries.execute(GetUserById("a"), at_least=forged, timeout=0.2)


async def test_a_view_that_does_not_exist_is_an_error_of_its_own(
    stack: EmbeddedStack, commands: KafkaCommandBus, deployed: Deployment
) -> None:
    token = Token.parse(await accepted(commands, registration()))
    settings = deployed.settings.model_copy(update={"namespace": "nothing-"})
    topic = TopicNames.of(settings, USERS.name).commands
    there = Token(token.cluster, tuple(point._replace(topic=topic) for point in token.points))
    async with open_queries(settings) as queries:
        for at_least in (None, there):
            for query in (GetUserById("a"), GetUsersByEmail("a"), GetActiveUsers()):
                with pytest.raises(NoSuchView, match=r"no index nothing-user-views"):
                    await queries.execute(query, at_least=at_least)
