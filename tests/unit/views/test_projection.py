"""The definition of a view, and the tallies of events and documents."""

import os
import subprocess
import sys
from collections import defaultdict
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.user_views import USER_VIEWS, UserProjection
from models.events import UserEvent
from models.messages import EventRecord
from models.user_history import EXAMPLES
from streams.elasticsearch.index import REFUSED, Document
from streams.views.projection import View
from streams.views.tally import NO_EVENTS, DocumentTallies, Tally

Views = View[UserEvent]


def test_every_process_finds_the_same_definition() -> None:
    """Whatever the order of sets in Python: else no worker would recognise its own index."""
    program = "from agents.user_views import USER_VIEWS; print(USER_VIEWS.definition)"
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2", "3")
    }
    assert found == {USER_VIEWS.definition}


class LouderNames(UserProjection):
    def fold(self, document: Document | None, record: EventRecord[UserEvent]) -> Document:
        folded = super().fold(document, record)
        return {**folded, "lastName": folded.get("lastName", "").upper()}


def other_search_fields(document: Document) -> Document:
    return {**document, "emailFragments": document.get("email")}


@pytest.mark.parametrize(
    "changed",
    [
        replace(USER_VIEWS, projection=LouderNames()),
        replace(USER_VIEWS, index=replace(USER_VIEWS.index, to_source=other_search_fields)),
        replace(USER_VIEWS, index=replace(USER_VIEWS.index, search_only=())),
        replace(USER_VIEWS, index=replace(USER_VIEWS.index, settings={"number_of_shards": 2})),
    ],
    ids=["projection", "search fields", "mapping", "settings"],
)
def test_a_change_of_what_comes_out_is_another_definition(changed: Views) -> None:
    assert changed.definition != USER_VIEWS.definition
    assert changed.group != USER_VIEWS.group


def test_the_name_alone_makes_no_other_definition() -> None:
    other = replace(USER_VIEWS, index=replace(USER_VIEWS.index, alias="other"))
    assert other.definition == USER_VIEWS.definition


users = st.lists(st.sampled_from(["anna", "bert", "çelik", "d"]), max_size=40)


def documents_of(events: list[str]) -> dict[str, Document]:
    documents: dict[str, Document] = defaultdict(dict)
    for user in events:
        documents[user] = {"id": user, "version": documents[user].get("version", 0) + 1}
    return documents


def tally_of(documents: list[Any]) -> Tally:
    tallies = DocumentTallies(USER_VIEWS.projection, 1)
    tallies.add_all(documents)
    return tallies.by_partition[0]


@given(users)
def test_documents_add_up_to_their_events(events: list[str]) -> None:
    expected = NO_EVENTS
    for user in events:
        expected = expected.plus(user, 1)
    assert tally_of(list(documents_of(events).values())) == expected


@given(users.filter(bool), st.data())
def test_one_document_less_or_older_does_not_add_up(events: list[str], data: Any) -> None:
    documents = documents_of(events)
    expected = tally_of(list(documents.values()))
    user = data.draw(st.sampled_from(sorted(documents)))
    older = {**documents, user: {"id": user, "version": documents[user]["version"] - 1}}
    assert tally_of(list(older.values())) != expected


@given(users, st.sampled_from([{}, {"version": 0}, {"version": -1}]))
def test_a_document_that_somebody_else_wrote_does_not_add_up(
    events: list[str], rest: Document
) -> None:
    documents = documents_of(events)
    expected = tally_of(list(documents.values()))
    for user in [*documents, "nobody"]:
        changed = {**documents, user: {"id": user, **rest}}
        assert tally_of(list(changed.values())) != expected


def test_a_stand_in_counts_as_what_it_stands_for() -> None:
    document = {"id": "anna", "version": 3}
    assert tally_of([{**document, REFUSED: document}]) == tally_of([document])


def test_the_examples_show_every_event() -> None:
    assert {type(record.event) for record in EXAMPLES} == set(USER_VIEWS.events.values())
