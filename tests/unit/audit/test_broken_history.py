"""`PartitionAudit` on a history with each possible violation, and on records that are not ours."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from agents.users import USERS
from streams.audit.folds import Frozen
from streams.audit.partition import PartitionAudit
from streams.audit.report import Report
from tests.unit.audit.histories import NAMES, NUMBER, History, broken, line, sound
from tests.unit.audit.tampering import (
    a_command_has_no_outcome,
    a_command_has_two_outcomes,
    a_command_was_accepted_twice,
    a_dead_letter_is_missing,
    a_dead_letter_is_there_twice,
    a_document_differs,
    a_document_has_no_events,
    a_document_is_ahead,
    a_document_is_behind,
    a_document_is_missing,
    a_duplicate_got_another_reply,
    a_duplicate_got_its_own_token,
    a_duplicate_of_nothing,
    a_history_does_not_begin_with_registration,
    a_refused_document_has_no_dead_letter,
    a_rejected_command_has_an_event,
    a_rejected_command_was_decided_again,
    a_sequence_is_left_out,
    a_state_has_no_events,
    a_state_is_missing,
    a_token_is_none,
    a_token_is_of_another_command,
    a_token_is_of_another_user,
    an_accepted_command_has_a_dead_letter,
    an_event_has_another_id,
    an_event_has_no_command,
    an_event_is_missing,
    an_event_is_of_another_partition,
    an_event_is_there_twice,
    an_outcome_is_of_no_command,
    commands_were_decided_out_of_order,
    the_state_is_another,
    the_state_is_behind,
)


@pytest.mark.parametrize(
    ("tamper", "names", "line"),
    [
        (an_event_is_missing, {"I1", "I3", "I4"}, "has the events none where its outcome says 2"),
        (an_event_is_there_twice, {"I1"}, "has the events 2 of anna, 3 of anna where"),
        (an_event_has_another_id, {"I1"}, "at offset 0 has the events 1 of anna where"),
        (a_command_was_accepted_twice, {"I1"}, "was decided again as accepted"),
        (a_rejected_command_was_decided_again, {"I1"}, "accepted; it was rejected before"),
        (an_event_has_no_command, {"I1"}, "event 3 of anna is of the command at offset 11, which"),
        (a_duplicate_got_another_reply, {"I1"}, "got another reply than the first time"),
        (a_duplicate_got_its_own_token, {"I1"}, "got another reply than the first time"),
        (a_token_is_of_another_command, {"I1"}, "at offset 0 is not of this command"),
        (a_token_is_of_another_user, {"I1"}, "at offset 2 is not of this command"),
        (a_token_is_none, {"I1"}, "at offset 2 is not of this command"),
        (a_duplicate_of_nothing, {"I1"}, "at offset 11 is a duplicate of none before it"),
        (a_sequence_is_left_out, {"I1", "I2", "I4"}, "anna: after event 1 comes number 3"),
        (commands_were_decided_out_of_order, {"I1", "I2"}, "one of the later command at offset 3"),
        (an_event_is_of_another_partition, {"I1", "I2", "I3", "I4"}, "of users.commands.v1[4]"),
        (
            a_history_does_not_begin_with_registration,
            {"I2", "I3", "I4"},
            "UserDeactivated comes before UserRegistered",
        ),
        (the_state_is_behind, {"I3"}, "ben: its state is of version 2, of its events 3 are"),
        (the_state_is_another, {"I3"}, "ben: its state of version 3 is not the fold"),
        (a_state_is_missing, {"I3"}, "ben has 3 events and no state"),
        (a_state_has_no_events, {"I3"}, "carl: its state is of version 3, of its events 0"),
        (a_document_differs, {"I4"}, "anna of version 2 differs from the fold of its events in is"),
        (a_document_is_missing, {"I4"}, "anna has 2 events and no document"),
        (a_document_has_no_events, {"I4"}, "the document carl has no events"),
        (a_document_is_behind, {"I4"}, "anna is of version 1, it has 2 events"),
        (a_document_is_ahead, {"I4"}, "anna is of version 9, the last event of it is number 2"),
        (a_refused_document_has_no_dead_letter, {"I4"}, "anna was refused, and no dead letter"),
        (a_rejected_command_has_an_event, {"I5"}, "has 1 events, the first is number 3 of anna"),
        (a_command_has_no_outcome, {"I7"}, "the command at offset 5 has 0 outcomes"),
        (
            a_command_has_two_outcomes,
            {"I7"},
            "offset 5 has 2 outcomes: rejected at offset 4, rejected at offset 9",
        ),
        (an_outcome_is_of_no_command, {"I7"}, "at offset 9 is of offset 1, where no command is"),
        (a_dead_letter_is_missing, {"I7"}, "dead-lettered command at offset 8 has 0 dead letters"),
        (a_dead_letter_is_there_twice, {"I7"}, "command at offset 8 has 2 dead letters"),
        (an_accepted_command_has_a_dead_letter, {"I7"}, "a dead letter of the command at off"),
    ],
)
def test_a_broken_history_is_found_and_named(
    tamper: Callable[[History], None], names: set[str], line: str
) -> None:
    history = sound()
    tamper(history)
    report = history.check()
    assert not report.ok
    lines = [finding.first or "" for finding in report.findings.values()]
    assert any(line in found for found in lines), lines
    assert broken(report) == names
    assert report.first_violation is not None
    assert report.first_violation.startswith(f"{min(names)} is broken (")
    assert "\n" not in report.first_violation


@pytest.mark.parametrize(
    ("tamper", "lost", "doubled", "diverged"),
    [
        (an_event_is_missing, 1, 0, 2),
        (an_event_is_there_twice, 0, 1, 0),
        (an_event_has_another_id, 0, 0, 1),
        (a_command_was_accepted_twice, 0, 1, 0),
        (a_sequence_is_left_out, 1, 0, 2),
        (a_state_is_missing, 1, 0, 0),
        (a_document_is_missing, 1, 0, 0),
        (a_document_differs, 0, 0, 1),
        (a_command_has_no_outcome, 1, 0, 0),
        (a_command_has_two_outcomes, 0, 1, 0),
        (a_dead_letter_is_missing, 1, 0, 0),
        (a_dead_letter_is_there_twice, 0, 1, 0),
    ],
)
def test_what_is_lost_doubled_and_diverged(
    tamper: Callable[[History], None], lost: int, doubled: int, diverged: int
) -> None:
    history = sound()
    tamper(history)
    report = history.check()
    assert (report.lost, report.doubled, report.diverged) == (lost, doubled, diverged)


@pytest.mark.parametrize("value", [None, b"{", b"[]", b"{}", b"\xff"])
def test_foreign_records_are_named(value: bytes | None) -> None:
    report = Report()
    audit = PartitionAudit(USERS, NAMES, NUMBER, Frozen(0, 0), view=None, report=report)
    audit.add_events([line(NAMES.events, 7, value)])
    audit.add_outcomes([line(NAMES.outcomes, 8, value)])
    audit.add_dead_letters([line(NAMES.dead_commands, 9, value)])
    audit.conclude({b"anna": value or b""})
    assert broken(report) == {"I2", "I3", "I7"}
    assert report.findings["I2"].first is not None
    assert report.findings["I2"].first.startswith("users.events.v1[3] offset 7 cannot be read")
