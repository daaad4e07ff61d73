from collections.abc import Callable
from datetime import date, datetime, timezone
from functools import partial
from typing import Any

import pytest

from models.errors import QueryError
from models.queries import (
    GetActiveUsers,
    GetDailyRegistrations,
    GetNewUsers,
    GetUserById,
    GetUsersByEmail,
    Page,
)

DAY = date(2026, 11, 23)


def test_defaults_of_the_specification() -> None:
    assert (GetActiveUsers().limit, GetActiveUsers().offset) == (50, 0)
    assert GetUsersByEmail("x").limit == 50


@pytest.mark.parametrize(
    "query",
    [
        lambda: GetUsersByEmail("x", limit=1),
        lambda: GetUsersByEmail("x", limit=10_000),
        lambda: GetUsersByEmail('"*?\\%_ ä'),
        lambda: GetUsersByEmail("x" * 254, cursor="next"),
        lambda: GetActiveUsers(limit=10_000, offset=1_000_000),
        lambda: GetActiveUsers(cursor="next"),
        lambda: GetNewUsers(limit=10_000, cursor="next"),
        lambda: GetUserById("x" * 128),
        lambda: GetDailyRegistrations(DAY, DAY),
        lambda: GetDailyRegistrations(date.min, date.max, "x" * 200),
    ],
)
def test_within_bounds(query: Callable[[], object]) -> None:
    query()


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        (lambda: GetUserById(""), "user_id must be text of 1 to 128 characters"),
        (lambda: GetUserById("x" * 129), "user_id must be text of 1 to 128 characters"),
        (lambda: GetUsersByEmail(""), "email must be text of 1 to 254 characters"),
        (lambda: GetUsersByEmail("x" * 255), "email must be text of 1 to 254 characters"),
        (lambda: GetUsersByEmail("x" * 10_000), "email must be text of 1 to 254 characters"),
        *(
            (
                partial(query, f"a{odd}b"),
                f"{name} must not contain control characters, nor be invalid Unicode",
            )
            for query, name in ((GetUserById, "user_id"), (GetUsersByEmail, "email"))
            for odd in ("\x00", "\n", "\t", "\x1b", "\x7f", "\x85", "\ud800")
        ),
        (lambda: GetNewUsers(limit=0), "limit must be a whole number from 1 to 10,000, not 0"),
        (
            lambda: GetUsersByEmail("x", limit=-1),
            "limit must be a whole number from 1 to 10,000, not -1",
        ),
        (
            lambda: GetUsersByEmail("x", limit=0),
            "limit must be a whole number from 1 to 10,000, not 0",
        ),
        (
            lambda: GetActiveUsers(limit=10_001),
            "limit must be a whole number from 1 to 10,000, not 10001",
        ),
        (
            lambda: GetActiveUsers(limit=True),
            "limit must be a whole number from 1 to 10,000, not True",
        ),
        (lambda: GetActiveUsers(offset=-1), "offset must be a whole number from 0, not -1"),
        (
            lambda: GetActiveUsers(offset=5, cursor="next"),
            "give an offset or a cursor, not both",
        ),
        (
            lambda: GetDailyRegistrations(DAY, date(2026, 11, 22)),
            "first_day must not be after last_day",
        ),
        (
            lambda: GetDailyRegistrations("2026-11-23", DAY),  # type: ignore[arg-type]
            "first_day must be a date",
        ),
        (
            lambda: GetDailyRegistrations(DAY, datetime(2026, 11, 23, tzinfo=timezone.utc)),
            "last_day must be a date",
        ),
        (
            lambda: GetDailyRegistrations(DAY, DAY, "x" * 201),
            "source must be text of 1 to 200 characters",
        ),
        (lambda: GetDailyRegistrations(DAY, DAY, ""), "source must be text of 1 to 200 characters"),
    ],
)
def test_out_of_bounds(query: Callable[[], Any], reason: str) -> None:
    with pytest.raises(QueryError) as caught:
        query()
    assert str(caught.value) == reason


def test_a_page_has_items_and_a_cursor() -> None:
    page = Page(items=("a", "b"), cursor=None)
    assert (page.items, page.cursor) == (("a", "b"), None)
