"""Queries about users, and the page that their results come in."""

from dataclasses import dataclass
from datetime import date
from typing import Generic, TypeVar
from unicodedata import category

from models.errors import QueryError

DEFAULT_LIMIT = 50
MAX_LIMIT = 10_000
MAX_FRAGMENT_CHARS = 254  # no email is longer
MAX_ID_CHARS = 128  # no aggregate id is longer
MAX_SOURCE_CHARS = 200  # no registration source is longer

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class GetUserById:
    """One user, active or not, or None."""

    user_id: str

    def __post_init__(self) -> None:
        _check_text("user_id", self.user_id, MAX_ID_CHARS)


@dataclass(frozen=True, slots=True)
class GetUsersByEmail:
    """A page of the users, active or not, whose email contains the text; case is ignored.

    The text has no wildcards. `cursor` is that of the previous page for the same text.
    """

    email: str
    limit: int = DEFAULT_LIMIT
    cursor: str | None = None

    def __post_init__(self) -> None:
        _check_text("email", self.email, MAX_FRAGMENT_CHARS)
        _check_limit(self.limit)


@dataclass(frozen=True, slots=True)
class GetActiveUsers:
    """A page of the active users, in an order that does not change: by offset, or by cursor."""

    limit: int = DEFAULT_LIMIT
    offset: int = 0
    cursor: str | None = None

    def __post_init__(self) -> None:
        _check_limit(self.limit)
        _check_whole("offset", self.offset, 0, None)
        if self.offset and self.cursor is not None:
            raise QueryError("give an offset or a cursor, not both")


@dataclass(frozen=True, slots=True)
class GetNewUsers:
    """A page of the users who are new since the last page: for whoever exports or copies users.

    Every registered user is on one page, whatever time a command carries, but for those who cannot
    be shown when it is read: they were erased, or Elasticsearch refuses their document. These are
    on no later page either. The order is that of arrival, within a partition. `cursor` is that of
    the last page, or None for all from the first one on. A page always has a cursor, from which the
    next one continues, also much later; if it has fewer than `limit` users, that is all for now.
    """

    limit: int = DEFAULT_LIMIT
    cursor: str | None = None

    def __post_init__(self) -> None:
        _check_limit(self.limit)


@dataclass(frozen=True, slots=True)
class GetDailyRegistrations:
    """Number of users who registered on each day (UTC) from the first to the last, by source."""

    first_day: date
    last_day: date
    source: str | None = None

    def __post_init__(self) -> None:
        _check_day("first_day", self.first_day)
        _check_day("last_day", self.last_day)
        if self.first_day > self.last_day:
            raise QueryError("first_day must not be after last_day")
        if self.source is not None:
            _check_text("source", self.source, MAX_SOURCE_CHARS)


@dataclass(frozen=True, slots=True)
class Page(Generic[T_co]):
    """A part of the results. `cursor` asks for the next page; it is None on the last one."""

    items: tuple[T_co, ...]
    cursor: str | None


def _check_limit(limit: int) -> None:
    _check_whole("limit", limit, 1, MAX_LIMIT)


def _check_whole(name: str, value: int, least: int, most: int | None) -> None:
    fits = type(value) is int and value >= least and (most is None or value <= most)
    if not fits:
        bounds = f"from {least}" + ("" if most is None else f" to {most:,}")
        raise QueryError(f"{name} must be a whole number {bounds}, not {value!r}")


def _check_day(name: str, day: date) -> None:
    if type(day) is not date:  # a datetime is one, but its day depends on the time zone
        raise QueryError(f"{name} must be a date")


def _check_text(name: str, text: str, most: int) -> None:
    """Check length and characters: no id or email has control characters or lone surrogates."""
    if not isinstance(text, str) or not 1 <= len(text) <= most:
        raise QueryError(f"{name} must be text of 1 to {most} characters")
    if any(category(character) in ("Cc", "Cs") for character in text):
        raise QueryError(f"{name} must not contain control characters, nor be invalid Unicode")
