"""Registrations by day and source: whatever way their events come, they are counted once."""

from collections import Counter
from datetime import date, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from agents.daily_registrations import DAILY_REGISTRATIONS
from agents.user_views import USER_VIEWS
from models.daily_registrations import DailyRegistrations, count, day_at, document_id
from models.errors import Fatal
from models.events import UserDeactivated, UserEvent, UserRegistered
from models.messages import EventRecord, Source
from streams.elasticsearch.index import Document
from streams.views.tally import NO_EVENTS, DocumentTallies
from tests.unit.samples import NOON, names, record

Record = EventRecord[UserEvent]

PARTITIONS = 3
PROJECTION = DAILY_REGISTRATIONS.projection


def registered(
    source: str = "web",
    at: datetime = NOON,
    partition: int = 0,
    offset: int = 7,
    command_offset: int = 3,
) -> Record:
    event = UserRegistered("anna@example.org", "Anna", "Müller", source)
    command = Source("users.commands.v1", partition, command_offset)
    return record(event, timestamp=at, source=command, offset=offset)


def test_a_registration_makes_the_document_of_its_day_source_and_partition() -> None:
    assert count(None, registered(partition=2)) == {
        "id": "2026-11-23/web/2",
        "version": 8,
        "day": "2026-11-23",
        "source": "web",
        "partition": 2,
        "registrations": 1,
    }


def test_the_next_one_is_counted_and_the_document_before_left_as_it_is() -> None:
    before = count(None, registered())
    after = count(before, registered(offset=9))
    assert (after["registrations"], after["version"]) == (2, 10)
    assert before == count(None, registered())


def test_the_day_is_that_of_utc() -> None:
    zone = timezone(timedelta(hours=2))
    at = datetime(2026, 11, 24, 1, 59, 59, tzinfo=zone)
    assert document_id(registered(at=at)) == "2026-11-23/web/0"
    assert document_id(registered(at=at + timedelta(seconds=1))) == "2026-11-24/web/0"


@given(st.dates())
@example(date.min)
@example(date(1969, 12, 31))
@example(date(1970, 1, 21))
@example(date.max)
def test_each_day_of_the_calendar_is_itself_in_milliseconds(day: date) -> None:
    milliseconds = (day - date(1970, 1, 1)) // timedelta(milliseconds=1)
    assert day_at(milliseconds) == day
    assert day_at(milliseconds + 86_399_999) == day


@pytest.mark.parametrize("number", [0, 1_641_600_000, "1641600000", 1.5])
def test_a_number_is_no_day(number: object) -> None:
    with pytest.raises(ValidationError):
        DailyRegistrations.model_validate({"day": number, "source": "web", "registrations": 1})


def test_other_events_have_no_document() -> None:
    assert document_id(record(UserDeactivated())) is None
    with pytest.raises(Fatal, match="UserDeactivated is not a registration"):
        count(None, record(UserDeactivated()))


@pytest.mark.parametrize(
    "source", ["例" * 200, "😀" * 200, "#", "a/b/1", "x" * 40_000, "\ud800", ""]
)
def test_every_source_has_an_id(source: str) -> None:
    key = document_id(registered(source))
    assert key is not None
    assert 0 < len(key.encode(errors="surrogatepass")) <= 512


@given(names | st.text(), names | st.text(), st.integers(0, 99), st.integers(0, 99))
def test_no_two_documents_have_the_same_id(one: str, other: str, first: int, second: int) -> None:
    ids = [
        document_id(registered(one, partition=first)),
        document_id(registered(other, partition=second)),
    ]
    assert (ids[0] == ids[1]) == ((one, first) == (other, second))


def test_a_source_cannot_be_taken_for_the_hash_of_another() -> None:
    key = document_id(registered("例" * 200))
    assert key is not None
    hashed = key.split("/")[1]
    assert document_id(registered(hashed)) != key


@st.composite
def histories(draw: st.DrawFn) -> list[Record]:
    """The events of all partitions, each in its order.

    Their commands are in any: a command topic that is created again begins at 0.
    """
    offsets = [0] * PARTITIONS
    history = []
    for _ in range(draw(st.integers(0, 30))):
        partition = draw(st.integers(0, PARTITIONS - 1))
        offsets[partition] += draw(st.integers(1, 3))
        at = NOON + timedelta(hours=draw(st.integers(0, 48)))
        one = registered(
            draw(st.sampled_from(["web", "#", "例"])),
            at,
            partition,
            offsets[partition],
            draw(st.integers(0, 99)),
        )
        if draw(st.booleans()):
            one = record(UserDeactivated(), 2, source=one.source, offset=one.offset)
        history.append(one)
    return history


def project(documents: dict[str, Document], chunk: list[Record]) -> None:
    """As the projector does: what is at or below a document's version is passed over."""
    for one in chunk:
        key = PROJECTION.key(one)
        if key is None:
            continue
        document = documents.get(key)
        if document is None or PROJECTION.version(one) > document["version"]:
            documents[key] = PROJECTION.fold(document, one)


@given(histories(), st.data())
def test_the_count_is_right_for_any_chunks_and_replays(
    history: list[Record], data: st.DataObject
) -> None:
    documents: dict[str, Document] = {}
    reached = 0
    while reached < len(history):
        begin = data.draw(st.integers(0, reached), "begin")  # at or before what was projected
        reached = data.draw(st.integers(reached + 1, len(history)), "end")
        project(documents, history[begin:reached])
    counted: Counter[tuple[str, str]] = Counter()
    for document in documents.values():
        counted[document["day"], document["source"]] += document["registrations"]
    assert counted == Counter(
        (one.timestamp.date().isoformat(), one.event.registration_source)
        for one in history
        if isinstance(one.event, UserRegistered)
    )


@given(histories())
def test_the_documents_add_up_to_the_events(history: list[Record]) -> None:
    expected = [NO_EVENTS] * PARTITIONS
    for one in history:
        key = PROJECTION.key(one)
        if key is not None:
            number = one.source.partition
            expected[number] = expected[number].plus(key, 1)
    documents: dict[str, Document] = {}
    project(documents, history)
    tallies = DocumentTallies(PROJECTION, PARTITIONS)
    tallies.add_all(documents.values())
    assert tallies.by_partition == expected


@pytest.mark.parametrize(
    "rest", [{}, {"partition": PARTITIONS, "registrations": 1}, {"partition": "0"}]
)
def test_a_document_that_somebody_else_wrote_does_not_add_up(rest: Document) -> None:
    tallies = DocumentTallies(PROJECTION, PARTITIONS)
    tallies.add_all([{"id": "2026-01-31/web/0", "version": 1, **rest}])
    assert tallies.by_partition != [NO_EVENTS] * PARTITIONS


def test_it_is_a_view_of_its_own() -> None:
    one, other = DAILY_REGISTRATIONS, USER_VIEWS
    assert one.name != other.name
    assert one.group != other.group
    assert one.definition != other.definition
