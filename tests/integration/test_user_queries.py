"""The queries about users on the real Elasticsearch, held against brute force."""

import base64
import json
import random
import re
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest

from agents.client import all_users_by_email, open_queries
from agents.user_queries import UserQueryHandler
from agents.user_views import EMAIL_FRAGMENTS, USER_VIEWS
from models.errors import Fatal, QueryError, Transient
from models.queries import GetActiveUsers, GetUserById, GetUsersByEmail, Page
from models.user_view import UserReadModel
from streams.buses import QueryBus
from streams.elasticsearch.connection import connect
from streams.elasticsearch.index import REFUSED, Document
from streams.elasticsearch.substring import fold, fragment_query, fragment_text
from streams.settings import Settings
from streams.views.read_your_writes import ReadYourWrites
from streams.views.store import ViewStore
from tests.harness.command_line import ROOT


@pytest.fixture
async def queries(store: ViewStore) -> QueryBus:
    queries = QueryBus()
    UserQueryHandler(store).register_at(queries, ReadYourWrites(store, "users.commands.v1", 2))
    return queries


def user(key: str, email: str = "anna@example.org", **fields: Any) -> Document:
    return {
        "id": key,
        "email": email,
        "firstName": "Anna",
        "lastName": "Müller",
        "isActive": True,
        "registeredAt": "2026-11-23T12:00:00.000Z",
        "lastUpdated": "2026-11-23T12:00:00.000Z",
        "version": 1,
        **fields,
    }


async def write(store: ViewStore, documents: Sequence[Document]) -> None:
    await store.bulk_index(documents)
    await store.refresh()


def ids(page: Page[UserReadModel]) -> list[str]:
    return [one.id for one in page.items]


async def emails(queries: QueryBus, fragment: str) -> list[str]:
    return [one.email async for one in all_users_by_email(queries, fragment)]


# GetUserById


async def test_a_user_is_found_by_id_at_once(store: ViewStore, queries: QueryBus) -> None:
    await store.bulk_index([user("a"), user("b", isActive=False)])
    found = await queries.execute(GetUserById("a"))
    assert found == UserReadModel.model_validate(user("a"))
    assert (await queries.execute(GetUserById("b"))).is_active is False
    assert await queries.execute(GetUserById("c")) is None


async def test_a_user_with_a_refused_document_is_none(store: ViewStore, queries: QueryBus) -> None:
    stand_in = {"id": "a", "version": 1, REFUSED: user("a")}
    await write(store, [stand_in])
    assert await queries.execute(GetUserById("a")) is None
    assert ids(await queries.execute(GetUsersByEmail("anna"))) == []
    assert ids(await queries.execute(GetActiveUsers())) == []


# What a fragment finds

ODD = [
    "anna.b+news@example.org",
    "ANNA.B@EXAMPLE.ORG",
    "annaxb@example.org",
    "o'neil*?@exa-mple.org",
    "back\\slash@example.org",
    "_under%score_@example.org",
    "x2ez@example.org",
    "hhhhh@example.org",
    "straße@example.de",
    "STRASSE@example.de",
    "oﬃce@example.com",
    "İstanbul@örnek.com",
    "istanbul@örnek.com",
    "e\u0301ve@example.com",
    "éve@example.com",
    "日本語@例え.jp",
    "👍🏽😀@example.com",
    "a b@example.com",
    "ab",
    "@",
    'quo"te{}[]()^$|~@example.org',
    "Σίσυφος@example.gr",
    "x" * 245 + "@long.org",
]


async def test_fragments_find_what_brute_force_finds(store: ViewStore, queries: QueryBus) -> None:
    chance = random.Random(1)
    letters = "ab.@+*?\\ ßsİiéΣσ😀"  # noqa: RUF001
    addresses = [
        *ODD,
        *("".join(chance.choices(letters, k=chance.randint(1, 12))) for _ in range(300)),
    ]
    await write(store, [user(f"u-{n:03}", address) for n, address in enumerate(addresses)])
    fragments = ["".join(chance.choices(letters, k=chance.randint(1, 4))) for _ in range(150)]
    for address in chance.choices(addresses, k=100) + ODD:
        start = chance.randrange(len(address))
        piece = address[start : start + chance.choice((1, 2, 3, 4, 5, 6, 7, 254))]
        fragments.append(chance.choice((piece, piece.upper(), piece.lower(), piece[::-1])))
    for fragment in fragments:
        expected = [address for address in addresses if fold(fragment) in fold(address)]
        assert await emails(queries, fragment) == expected, fragment


async def test_the_analyzers_keep_every_character(settings: Settings, store: ViewStore) -> None:
    """Whatever the character: on the real node its code word stays whole, and in its place."""
    chance = random.Random(2)
    characters = [*range(0x250), *chance.sample(range(sys.maxunicode), 700)]
    # in pieces, since there may be thousands of characters in one after folding
    for start in range(0, len(characters), 300):
        text = fragment_text("".join(map(chr, characters[start : start + 300])))
        words = text.split()
        grams = list(map("".join, zip(words, words[1:], words[2:])))  # noqa: B905
        pairs = list(map("".join, pairwise(words)))
        assert await _analyzed(settings, "fragment_search", text) == list(enumerate(words))
        assert await _analyzed(settings, "fragment_grams", text) == list(enumerate(grams))
        short = [token for _, token in await _analyzed(settings, "fragment_short", text)]
        assert sorted(short) == sorted([*words, *pairs])


async def _analyzed(settings: Settings, analyzer: str, text: str) -> list[tuple[int, str]]:
    """Positions and tokens, as the analyzer of the index makes them."""
    async with connect(settings, timeout=30) as client:
        answer = await client.indices.analyze(
            index=f"{settings.namespace}user-views", analyzer=analyzer, text=text
        )
    return [(token["position"], token["token"]) for token in answer["tokens"]]


async def test_the_longest_fragment_is_found(store: ViewStore) -> None:
    value = "".join(random.Random(3).choices("😀ab.", k=1000))
    await write(store, [user("a", value), user("b", value[:-1] + "q")])
    for fragment in (value, value[1:], value[:-1]):
        hits = await store.search(fragment_query(EMAIL_FRAGMENTS, fragment), sort=("id",), limit=9)
        expected = ["a", "b"] if fragment == value[:-1] else ["a"]
        assert [hit.document["id"] for hit in hits] == expected


async def test_inactive_users_are_found_too(store: ViewStore, queries: QueryBus) -> None:
    await write(store, [user("a"), user("b", isActive=False)])
    assert ids(await queries.execute(GetUsersByEmail("ANNA@"))) == ["a", "b"]
    assert ids(await queries.execute(GetActiveUsers())) == ["a"]


async def test_after_a_change_of_address_only_the_new_one_is_found(
    store: ViewStore, queries: QueryBus
) -> None:
    await write(store, [user("a", "old@example.org")])
    await write(store, [user("a", "new@example.org", version=2)])
    assert await emails(queries, "old") == []
    assert await emails(queries, "ew@") == ["new@example.org"]


# Pages


def registered_in(year: int) -> dict[str, str]:
    return {"registeredAt": f"{year:04}-01-01T00:00:00.000Z"}


async def test_pages_are_in_the_order_of_registration_then_id(
    store: ViewStore, queries: QueryBus
) -> None:
    # times before 1970 and the last year of the calendar go through a cursor, too
    people = [
        user("z", **registered_in(1)),
        user("b", **registered_in(1969)),
        user("a", **registered_in(2026)),
        user("c", **registered_in(2026)),
        user("ä,\"'", **registered_in(2026)),
        user("0", **registered_in(9999)),
    ]
    await write(store, random.Random(4).sample(people, k=6))
    everybody = ["z", "b", "a", "c", "ä,\"'", "0"]
    for query in (GetUsersByEmail("anna"), GetActiveUsers()):
        cursor, seen = None, []
        for _ in range(3):
            page = await queries.execute(type(query)(**_but(query, limit=2, cursor=cursor)))
            assert len(page.items) == 2
            seen += ids(page)
            cursor = page.cursor
        assert seen == everybody
        assert cursor is None  # a full last page says that it is the last


def _but(query: GetUsersByEmail | GetActiveUsers, **changes: Any) -> dict[str, Any]:
    given = {"email": query.email} if isinstance(query, GetUsersByEmail) else {}
    return {**given, **changes}


async def test_paging_shows_everybody_once_while_users_change(
    store: ViewStore, queries: QueryBus
) -> None:
    await write(store, [user(f"u-{n:02}") for n in range(20)])
    first = await queries.execute(GetUsersByEmail("anna", limit=10))
    await write(
        store,
        [
            user("u-05", "bert@example.org", version=2),  # left behind already
            user("u-03x"),  # registered in the same millisecond, before the page's end
            user("u-20"),
            user("u-15", "anna.b@example.org", version=2),
        ],
    )
    rest = await queries.execute(GetUsersByEmail("anna", limit=50, cursor=first.cursor))
    assert ids(first) + ids(rest) == [f"u-{n:02}" for n in range(21)]


async def test_deep_offsets_and_large_pages(store: ViewStore, queries: QueryBus) -> None:
    people = [
        user(f"u-{n:05}", f"{n:05}@example.org", isActive=n % 6 > 0, **registered_in(2000 + n % 9))
        for n in range(12_600)
    ]
    await write(store, people)
    order = [
        one["id"]
        for one in sorted(people, key=lambda one: (one["registeredAt"], one["id"]))
        if one["isActive"]
    ]
    assert len(order) == 10_500
    for offset, limit in ((0, 50), (1, 10_000), (7, 3), (9_990, 50), (10_200, 50), (10_450, 100)):
        page = await queries.execute(GetActiveUsers(limit, offset))
        assert ids(page) == order[offset : offset + limit]
        assert (page.cursor is None) == (offset + limit >= len(order))
    for offset in (10_500, 20_000, 10**12):
        assert await queries.execute(GetActiveUsers(offset=offset)) == Page((), None)
    page = await queries.execute(GetActiveUsers(10_000))
    rest = await queries.execute(GetActiveUsers(10_000, cursor=page.cursor))
    assert ids(page) + ids(rest) == order
    assert len(await emails(queries, "@EXAMPLE")) == 12_600


FORGED: list[Any] = [
    *(None, {}, [], [1], [1, 2], ["a", "b"], [True, "b"], [1.5, "b"], [1, None]),
    *([2**63, "b"], [1, "b", 3]),
]


def encoded(place: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode()


@pytest.mark.parametrize(
    "cursor",
    ["", "nonsense", "é", "\ud800", "====", *map(encoded, FORGED)],
)
async def test_a_forged_cursor_is_an_error(queries: QueryBus, cursor: str) -> None:
    for query in (GetUsersByEmail("anna", cursor=cursor), GetActiveUsers(cursor=cursor)):
        with pytest.raises(QueryError, match="cursor must be the cursor of a page"):
            await queries.execute(query)


async def test_any_well_formed_cursor_is_a_place_in_the_order(queries: QueryBus) -> None:
    for place in ([-(2**63) + 1, ""], [2**63 - 1, "\x00"], [0, "x" * 5000]):
        cursor = encoded(place)
        page = await queries.execute(GetActiveUsers(cursor=cursor))
        assert page == Page((), None)


# Plain clients, and what can be wrong


async def test_the_queries_in_the_docs_work_for_any_client(
    settings: Settings, store: ViewStore
) -> None:
    """The example queries of docs/search.md."""
    stand_in = {"id": "c", "version": 1, REFUSED: user("c")}
    await write(store, [user("a", "Anna.B@example.org"), user("b", "bert@example.org"), stand_in])
    async with connect(settings, timeout=30) as client:
        alias = f"{settings.namespace}user-views"
        text = (ROOT / "docs" / "search.md").read_text()
        text, _, _ = text.partition("## Daily registrations")  # which is another index
        examples = [json.loads(one) for one in re.findall(r"```json\n(.*?)```", text, re.DOTALL)]
        found = []
        for body in examples:
            answer = await client.search(index=alias, body=body)
            found.append([hit["_id"] for hit in answer["hits"]["hits"]])
    assert found == [["a"], ["a"], ["a", "b"], ["a"], ["a"], ["c"]]


async def test_without_an_index_the_error_says_what_to_do(settings: Settings) -> None:
    async with open_queries(settings) as queries:
        for query in (GetUserById("a"), GetUsersByEmail("a"), GetActiveUsers()):
            with pytest.raises(Fatal, match=r"no index .*user-views: a view worker makes it"):
                await queries.execute(query)


async def test_without_elasticsearch_the_error_is_one_line() -> None:
    async with open_queries(Settings(elasticsearch_url="http://127.0.0.1:1")) as queries:
        with pytest.raises(Transient, match="127.0.0.1:1 cannot be reached"):
            await queries.execute(GetUserById("a"))


async def test_open_queries_reads_from_the_alias(settings: Settings, store: ViewStore) -> None:
    assert USER_VIEWS.name == "user-views"
    await write(store, [user("a")])
    async with open_queries(settings) as queries:
        assert (await queries.execute(GetUserById("a"))).email == "anna@example.org"
        assert ids(await queries.execute(GetUsersByEmail("anna"))) == ["a"]
        assert ids(await queries.execute(GetActiveUsers())) == ["a"]
