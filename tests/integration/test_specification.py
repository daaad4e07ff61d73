"""One test for each row of the specification that needs the servers, named after it."""

from collections.abc import AsyncIterator

import pytest

from agents.client import all_users_by_email, open_queries
from agents.user_queries import UserQueryHandler
from agents.user_views import USER_VIEWS
from deploy.ephemeral import Servers
from models.errors import NoQueryHandler
from models.events import UserDeactivated, UserEvent
from models.queries import GetActiveUsers, GetUserById, GetUsersByEmail
from models.user_view import UserReadModel
from streams.buses import QueryBus
from streams.elasticsearch.connection import connect
from streams.settings import Settings
from streams.views.projector import Projector
from streams.views.reader import open_view
from tests.harness.read_side import namespace, none_refused, record, registered, user_views


@pytest.fixture
async def settings(stack: Servers) -> AsyncIterator[Settings]:
    """Settings whose view has Anna, Bert and Carla, registered in this order; Bert is inactive."""
    async with namespace(stack) as settings:
        history: list[tuple[str, int, UserEvent]] = [
            ("anna", 1, registered("Anna@example.org")),
            ("bert", 1, registered("bert@example.org")),
            ("bert", 2, UserDeactivated()),
            ("carla", 1, registered("carla@mail.example")),
        ]
        async with user_views(settings) as store:
            events = [record(*event) for event in history]
            await Projector(store, USER_VIEWS).project(0, events, none_refused)
            await store.refresh()
        yield settings


@pytest.fixture
async def queries(settings: Settings) -> AsyncIterator[QueryBus]:
    async with open_queries(settings) as queries:
        yield queries


async def test_query_handler_and_query_bus(settings: Settings) -> None:
    async with open_view(settings, USER_VIEWS, timeout=30) as store:
        bus = QueryBus()
        bus.register(GetUserById, UserQueryHandler(store).get_by_id)
        assert (await bus.execute(GetUserById("anna"))).id == "anna"
        with pytest.raises(NoQueryHandler, match="^No handler registered for query: GetActive"):
            await bus.execute(GetActiveUsers())


async def test_get_user_by_id_query(queries: QueryBus) -> None:
    assert (await queries.execute(GetUserById("bert"))).email == "bert@example.org"
    assert await queries.execute(GetUserById("nobody")) is None


async def test_get_users_by_email_query(queries: QueryBus) -> None:
    page = await queries.execute(GetUsersByEmail("@EXAMPLE."))
    assert [user.id for user in page.items] == ["anna", "bert"]  # active or not
    page = await queries.execute(GetUsersByEmail("example", limit=2))
    assert [user.id for user in page.items] == ["anna", "bert"]
    page = await queries.execute(GetUsersByEmail("example", cursor=page.cursor))
    assert [user.id for user in page.items] == ["carla"]
    assert (await queries.execute(GetUsersByEmail("ex.mple"))).items == ()
    everybody = [user.id async for user in all_users_by_email(queries, "example")]
    assert everybody == ["anna", "bert", "carla"]


async def test_get_active_users_query(queries: QueryBus) -> None:
    assert (GetActiveUsers().limit, GetActiveUsers().offset) == (50, 0)
    page = await queries.execute(GetActiveUsers())
    assert [user.id for user in page.items] == ["anna", "carla"]
    page = await queries.execute(GetActiveUsers(limit=1, offset=1))
    assert [user.id for user in page.items] == ["carla"]


async def test_user_read_model(settings: Settings, queries: QueryBus) -> None:
    user = await queries.execute(GetUserById("bert"))
    assert isinstance(user, UserReadModel)
    # in the index it has the specification's names, for any other client
    async with connect(settings, timeout=30) as client:
        found = await client.get(index=f"{settings.namespace}user-views", id="bert")
    assert found["_source"] == {
        "id": "bert",
        "email": "bert@example.org",
        "firstName": "Anna",
        "lastName": "Müller",
        "isActive": False,
        "registeredAt": "2026-11-23T12:00:01.000Z",
        "lastUpdated": "2026-11-23T12:00:02.000Z",
        "version": 2,
    }
    assert found["_version"] == 2


async def test_user_query_handler(settings: Settings) -> None:
    """All three, from the alias `user-views`."""
    assert USER_VIEWS.name == "user-views"
    async with open_view(settings, USER_VIEWS, timeout=30) as store:
        handler = UserQueryHandler(store)
        user = await handler.get_by_id(GetUserById("anna"))
        assert user is not None
        assert (await handler.get_by_email(GetUsersByEmail("anna@"))).items == (user,)
        assert user in (await handler.get_active(GetActiveUsers())).items
