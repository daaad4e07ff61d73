from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given

from agents.user_views import to_source
from models.errors import Fatal
from models.events import (
    UserDeactivated,
    UserErased,
    UserEvent,
    UserProfileUpdated,
    UserReactivated,
    UserRegistered,
)
from models.user_view import UserReadModel, format_milliseconds, is_tombstone, project
from tests.unit.samples import ANNA, NOON, record, times


def projected(*events: UserEvent) -> dict[str, Any]:
    document = None
    for sequence, event in enumerate(events, start=1):
        document = project(document, record(event, sequence))
    assert document is not None
    return document


def test_a_registration_makes_the_document() -> None:
    assert projected(ANNA) == {
        "id": "user-1",
        "email": "Anna@example.org",
        "firstName": "Anna",
        "lastName": "Müller",
        "isActive": True,
        "registeredAt": "2026-11-23T12:00:00.000Z",
        "lastUpdated": "2026-11-23T12:00:00.000Z",
        "version": 1,
    }


def test_an_update_changes_what_it_carries() -> None:
    before = projected(ANNA)
    after = projected(ANNA, UserProfileUpdated(email="a@example.org", last_name="Meier"))
    assert after == {
        **before,
        "email": "a@example.org",
        "lastName": "Meier",
        "lastUpdated": "2026-11-23T12:00:01.000Z",
        "version": 2,
    }


def test_deactivation_and_reactivation_change_the_document() -> None:
    assert projected(ANNA, UserDeactivated())["isActive"] is False
    assert projected(ANNA, UserDeactivated(), UserReactivated())["isActive"] is True


def test_the_document_before_is_left_as_it_is() -> None:
    before = projected(ANNA)
    project(before, record(UserDeactivated(), 2))
    assert before == projected(ANNA)


def test_what_search_adds_to_a_document_stays() -> None:
    document = project({**projected(ANNA), "extra": [1]}, record(UserDeactivated(), 2))
    assert document["extra"] == [1]


@pytest.mark.parametrize(
    "event", [UserProfileUpdated(email="a@b.org"), UserDeactivated(), UserErased()]
)
def test_nothing_comes_before_the_registration(event: UserEvent) -> None:
    with pytest.raises(Fatal, match="comes before UserRegistered"):
        project(None, record(event))


def test_nobody_is_registered_twice() -> None:
    with pytest.raises(Fatal, match="number 2 follows other events"):
        project(projected(ANNA), record(ANNA, 2))


SHREDDED = UserRegistered("", "", "", "web")


@pytest.mark.parametrize(
    "events",
    [
        (ANNA, UserErased()),
        (SHREDDED,),
        (SHREDDED, UserDeactivated(), UserReactivated()),
        (SHREDDED, UserProfileUpdated("", "", "")),
        (ANNA, UserProfileUpdated("", "", "")),  # the first one was written in the clear
        (SHREDDED, UserProfileUpdated(email="a@example.org")),
        (SHREDDED, UserDeactivated(), UserErased()),
    ],
)
def test_of_an_erased_user_a_tombstone_is_left(events: tuple[UserEvent, ...]) -> None:
    document = projected(*events)
    assert document == {"id": "user-1", "version": len(events)}
    assert is_tombstone(document)
    assert to_source(document) == document


@given(times)
def test_milliseconds_are_what_the_library_writes(at: datetime) -> None:
    assert format_milliseconds(at) == at.isoformat(timespec="milliseconds")[:-6] + "Z"


def test_any_other_document_is_no_tombstone() -> None:
    assert not is_tombstone(projected(ANNA))


def test_the_read_model_reads_a_document_and_writes_it() -> None:
    document = projected(ANNA)
    view = UserReadModel.model_validate({**document, "whatSearchNeeds": "x"})
    assert (view.id, view.first_name, view.registered_at) == ("user-1", "Anna", NOON)
    assert view.model_dump(mode="json") == {
        **document,
        "registeredAt": "2026-11-23T12:00:00Z",
        "lastUpdated": "2026-11-23T12:00:00Z",
    }


@pytest.mark.parametrize(
    ("microsecond", "text"), [(0, ".000Z"), (999_999, ".999Z"), (1_000, ".001Z")]
)
def test_times_in_documents_have_milliseconds(microsecond: int, text: str) -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, microsecond, tzinfo=timezone.utc)
    assert format_milliseconds(at) == "2026-01-02T03:04:05" + text
