import inspect
import pickle

import pytest

from models import errors
from models.errors import (
    CqrsError,
    Fatal,
    InvalidCommand,
    InvalidSettings,
    InvalidToken,
    NoCommandHandler,
    NoHandler,
    NoQueryHandler,
    NoSuchView,
    OutcomeTimeout,
    Poison,
    QueryError,
    Rejected,
    Transient,
    ViewBehind,
)

ALL = [
    Rejected("user-exists", "User already exists"),
    Poison("missing-field", "email: is missing"),
    Transient("broker away"),
    Fatal("Topic missing: run cqrs topics create"),
    NoCommandHandler("X"),
    NoQueryHandler("X"),
    OutcomeTimeout("no outcome in 5 s"),
    InvalidCommand(["email: is missing", "id: must be a UUID"]),
    InvalidSettings(["CQRS_PARTITIONS is not valid: it must be a whole number"]),
    QueryError("limit must be a whole number"),
    InvalidToken("invalid token"),
    ViewBehind("the view is 5 commands behind"),
    NoSuchView("Elasticsearch has no index user-views: start the view worker"),
]


@pytest.mark.parametrize("error", ALL)
def test_every_error_is_ours_one_line_and_crosses_processes(error: CqrsError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error) != ""
    assert "\n" not in str(error)


def test_the_docstring_draws_the_whole_tree() -> None:
    drawn = errors.__doc__ or ""
    for name, found in inspect.getmembers(errors, inspect.isclass):
        if issubclass(found, CqrsError) and not name.startswith("_"):
            assert name in drawn


def test_the_words_of_the_specification() -> None:
    assert str(NoCommandHandler("X")) == "No handler registered for command: X"
    assert str(NoQueryHandler("X")) == "No handler registered for query: X"
    assert isinstance(NoCommandHandler("X"), NoHandler)
    assert isinstance(NoQueryHandler("X"), NoHandler)


def test_what_is_wrong_with_a_command_is_listed() -> None:
    error = InvalidCommand(["email: is missing", "id: must be a UUID"])
    assert error.problems == ("email: is missing", "id: must be a UUID")
    assert str(error) == "email: is missing; id: must be a UUID"


def test_codes_are_for_programs_and_reasons_for_people() -> None:
    error = Rejected("user-exists", "User already exists")
    assert (error.code, error.reason, str(error)) == (
        "user-exists",
        "User already exists",
        "User already exists",
    )
