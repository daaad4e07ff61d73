"""`PartitionAudit` on a correct history, also while parts of it expire, arrive or cannot exist."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from agents.users import USERS
from models.events import UserReactivated
from models.wire import encode
from streams.audit.folds import Frozen, Kept
from streams.audit.partition import PartitionAudit
from streams.audit.report import CheckedRange, Report
from streams.kafka.dead_letters import SOURCE_OFFSET
from streams.state.snapshot import DEDUPE_WINDOW
from tests.unit.audit.histories import NAMES, NUMBER, dead_letter, id_of, line, sound
from tests.unit.audit.tampering import a_refused_document_has_no_dead_letter
from tests.unit.samples import ANNA


def test_a_sound_history_is_sound_and_counted() -> None:
    report = sound().check()
    assert report.first_violation is None
    assert report.ok
    counts = (report.commands, report.accepted, report.rejected, report.duplicate, report.dead)
    assert counts == (9, 4, 2, 2, 1)
    assert (report.events, report.aggregates) == (5, 2)
    checked = {name: finding.checked for name, finding in report.findings.items()}
    assert checked == {"I1": 4, "I2": 5, "I3": 2, "I4": 2, "I5": 2, "I7": 9}


def test_a_repeat_beyond_the_window_is_decided_again() -> None:
    history = sound()
    for number in range(DEDUPE_WINDOW):
        history.reject("anna", id_of(100 + number))
    history.accept("anna", UserReactivated(), id_=id_of(3))
    assert history.check().first_violation is None


def test_the_rejections_of_a_user_who_does_not_exist_are_not_remembered() -> None:
    history = sound()
    history.reject("carl", id_of(50))
    history.accept("carl", ANNA, id_=id_of(50))
    assert history.check().first_violation is None


def test_expired_commands_and_outcomes_are_left_out() -> None:
    history = sound()
    del history.commands[:2], history.outcomes[:3]
    history.kept = Kept(commands_from=3, outcomes_from=4)
    report = history.check()
    assert report.first_violation is None
    assert report.commands == 6
    assert report.findings["I7"].checked == 6
    assert history.kept.start == 4


def test_a_report_counts_what_was_before_its_ranges() -> None:
    report = Report(ranges=[CheckedRange(0, 4, 11), CheckedRange(1, 0, 3)])
    assert report.expired == 4


def test_expired_dead_letters_are_left_out() -> None:
    history = sound()
    history.dead_letters.clear()
    history.kept = Kept(dead_letters_from=9)
    assert history.check().first_violation is None


def test_what_is_newer_than_the_position_is_left_out() -> None:
    """Commands arrive during the check, and only some of their effects are seen."""
    history = sound()
    frozen, documents = len(history.events), dict(history.documents)
    position, users = history.position, dict(history.users)
    history.accept("anna", UserReactivated())
    history.accept("carl", ANNA)
    history.outcomes.pop()
    history.position, history.users, history.view_end = position, users, frozen
    report = history.check()  # the view has got them already
    assert report.first_violation is None
    assert (report.commands, report.aggregates) == (9, 2)
    history.documents = documents  # the view has not got them yet
    assert history.check().first_violation is None


def test_a_refused_document_is_known_to_be_missing() -> None:
    history = sound()
    a_refused_document_has_no_dead_letter(history)
    history.view_dead_letters = {"anna"}
    report = history.check()
    assert report.first_violation is None
    assert report.known_missing == 1


@pytest.mark.parametrize("impossible", ["i" * 513, " progress 0"])
def test_a_document_that_cannot_exist_is_known_to_be_missing(impossible: str) -> None:
    history = sound()
    history.accept(impossible, ANNA)
    del history.documents[impossible]
    history.view_dead_letters = {impossible}
    report = history.check()
    assert report.first_violation is None
    assert report.known_missing == 1
    history.view_dead_letters = set()
    assert history.check().lost == 1


def test_a_document_that_was_lost_is_not_known_by_an_older_dead_letter() -> None:
    """What was refused has a stand-in, so a user with a dead letter and without any is lost."""
    history = sound()
    del history.documents["ben"]
    history.view_dead_letters = {"ben"}
    report = history.check()
    assert (report.known_missing, report.lost) == (0, 1)
    assert report.findings["I4"].first == "ben has 3 events and no document"


def test_the_last_source_header_counts() -> None:
    """A dead letter repeats the headers of the record, whatever they are, before its own."""
    history = sound()
    forged = dead_letter(8)
    forged = replace(forged, headers=((SOURCE_OFFSET, b"0"), *forged.headers))
    history.dead_letters.clear()
    report = Report()
    audit = PartitionAudit(USERS, NAMES, NUMBER, Frozen(9, 0), view=None, report=report)
    audit.add_commands([line(NAMES.commands, 8)])
    audit.add_outcomes([line(NAMES.outcomes, 0, encode(history.outcomes[7]))])
    audit.add_dead_letters([forged])
    audit.conclude({})
    assert report.first_violation is None
