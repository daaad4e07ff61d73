"""`PartitionAudit` on a correct history, and on one with each possible violation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid5

import orjson
import pytest
from msgspec.structs import replace

from agents.users import USERS
from models.events import UserDeactivated, UserEvent, UserProfileUpdated, UserReactivated
from models.messages import EventRecord, Source, event_id
from models.outcomes import (
    Accepted,
    DeadLettered,
    Duplicate,
    FirstAcceptance,
    FirstRejection,
    Outcome,
    Rejection,
)
from models.tokens import token_text
from models.user import User, evolve
from models.user_view import project
from models.wire import encode
from streams.aggregate import TopicNames
from streams.audit.folds import Frozen, Kept, ViewDocuments
from streams.audit.history import check_extra_documents
from streams.audit.partition import PartitionAudit
from streams.audit.report import CheckedRange, Report
from streams.elasticsearch.index import REFUSED, Document
from streams.encryption.keys import PartitionKeys
from streams.encryption.sealer import PartitionSealer
from streams.kafka.dead_letters import SOURCE_OFFSET, SOURCE_PARTITION, SOURCE_TOPIC
from streams.kafka.records import Record
from streams.state.snapshot import DEDUPE_WINDOW, Snapshot, encode_snapshot
from tests.unit.samples import ANNA, NOON

NAMES = TopicNames("", "users")
NO = FirstRejection(code="no", reason="No")
NUMBER = 3


def line(
    topic: str,
    offset: int,
    value: bytes | None = None,
    key: bytes | None = None,
    headers: Iterable[tuple[str, bytes | None]] = (),
    partition: int = NUMBER,
    timestamp: int = 0,
) -> Record:
    """A record that was read."""
    return Record(topic, partition, offset, timestamp, key, value, tuple(headers))


def id_of(number: int) -> UUID:
    """Return the id of a command by its number."""
    return uuid5(UUID(int=0), str(number))


def token(offset: int, user: str, sequence: int) -> str:
    """Return the token of the command at this offset."""
    return token_text("cluster", Source(NAMES.commands, NUMBER, offset), user, sequence)


def yes(number: int, sequence: int, user: str = "anna") -> FirstAcceptance:
    """Return the reply to the command at this offset, if it was accepted with one event."""
    return FirstAcceptance(
        sequence=sequence,
        event_ids=(event_id(id_of(number), user, sequence),),
        token=token(number, user, sequence),
    )


@dataclass
class History:
    """The logs of a partition, as a worker writes them."""

    commands: list[Record] = field(default_factory=list)
    events: list[EventRecord[UserEvent]] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    dead_letters: list[int] = field(default_factory=list)
    users: dict[str, Snapshot[User]] = field(default_factory=dict)
    documents: dict[str, Document] = field(default_factory=dict)
    view_dead_letters: set[str] = field(default_factory=set)
    position: int = 0
    view_end: int | None = None
    kept: Kept = field(default_factory=Kept)
    sealing: PartitionSealer = field(default_factory=PartitionSealer)
    """What the worker encrypts with."""
    keys: PartitionKeys | None = None
    """The keys that the check finds."""

    def accept(self, user: str, *events: UserEvent, id_: UUID | None = None) -> None:
        fields = self._new_command(user, id_)
        old = self.users.get(user, Snapshot(None, 0, ()))
        state, document = old.state, self.documents.get(user)
        for index, event in enumerate(events):
            at = NOON + timedelta(seconds=len(self.events))
            record = EventRecord(
                id=event_id(fields["command_id"], user, old.version + 1 + index),
                aggregate_id=user,
                sequence=old.version + 1 + index,
                timestamp=at,
                command_id=fields["command_id"],
                correlation_id=None,
                causation_id=None,
                source=fields["source"],
                event=event,
            )
            self.events.append(record)
            state, document = evolve(state, event, at), project(document, record)
        assert state is not None
        assert document is not None
        version = old.version + len(events)
        self.users[user] = Snapshot(state, version, ())
        self.documents[user] = document
        ids = tuple(record.id for record in self.events[len(self.events) - len(events) :])
        fields["token"] = token(fields["source"].offset, user, version)
        self.outcomes.append(Accepted(**fields, sequence=version, event_ids=ids))

    def reject(self, user: str, id_: UUID | None = None) -> None:
        self.outcomes.append(Rejection(**self._new_command(user, id_), code="no", reason="No"))

    def repeat(self, user: str, id_: UUID, first: FirstAcceptance | FirstRejection) -> None:
        self.outcomes.append(Duplicate(**self._new_command(user, id_), of=first))

    def dead_letter(self) -> None:
        fields = {**self._new_command("", None), "command_id": None, "aggregate_id": None}
        self.outcomes.append(DeadLettered(**fields, code="malformed-json", reason="it is"))
        self.dead_letters.append(fields["source"].offset)

    def marker(self) -> None:
        """Add a commit marker of a transactional producer: an offset without a record."""
        self.position += 1

    def _new_command(self, user: str, id_: UUID | None) -> dict[str, Any]:
        offset = self.position
        self.position += 1
        self.commands.append(line(NAMES.commands, offset))
        return {
            "command_id": id_ or id_of(offset),
            "aggregate_id": user,
            "timestamp": NOON,
            "source": Source(NAMES.commands, NUMBER, offset),
        }

    def check(self) -> Report:
        report = Report()
        view = ViewDocuments(
            project,
            {document["id"]: orjson.dumps(document) for document in self.documents.values()},
            {key.encode()[:512] for key in self.view_dead_letters},
        )
        audit = PartitionAudit(
            USERS,
            NAMES,
            NUMBER,
            Frozen(self.position, len(self.events) if self.view_end is None else self.view_end),
            view=view,
            report=report,
            keys=self.keys,
        )
        state = {id_.encode(): self._stored(id_, user) for id_, user in self.users.items()}
        audit.add_commands(self.commands)
        audit.add_outcomes(
            line(NAMES.outcomes, place, encode(outcome))
            for place, outcome in enumerate(self.outcomes)
        )
        audit.add_dead_letters(dead_letter(source) for source in self.dead_letters)
        audit.add_events(
            line(NAMES.events, place, self.sealing.seal_event(event), event.aggregate_id.encode())
            for place, event in enumerate(self.events)
        )
        audit.conclude(state, self.kept)
        check_extra_documents(view, report)
        return report

    def _stored(self, user: str, entity: Snapshot[User]) -> bytes:
        value = encode_snapshot(entity)
        erased = entity.state is not None and entity.state.erased
        return value if erased else self.sealing.seal_state(user.encode(), value)


def dead_letter(source: int) -> Record:
    headers = {
        SOURCE_TOPIC: NAMES.commands.encode(),
        SOURCE_PARTITION: str(NUMBER).encode(),
        SOURCE_OFFSET: str(source).encode(),
    }
    return line(NAMES.dead_commands, 0, headers=list(headers.items()))


def sound() -> History:
    """Return the history of Anna and Ben: every kind of outcome, and commit markers between."""
    history = History()
    history.accept("anna", ANNA)  # command 0, event 0
    history.marker()
    history.accept("ben", ANNA)  # command 2, event 1
    history.accept("anna", UserDeactivated())  # command 3, event 2
    history.reject("anna")  # command 4
    history.reject("nobody")  # command 5
    history.repeat("anna", id_of(0), yes(0, 1))  # command 6
    history.repeat("anna", id_of(4), NO)  # command 7
    history.dead_letter()  # command 8
    history.accept("ben", UserProfileUpdated(first_name="Ben"), UserDeactivated())  # command 9
    history.marker()
    return history


def broken(report: Report) -> set[str]:
    return {name for name, finding in report.findings.items() if not finding.ok}


def test_a_sound_history_is_sound_and_counted() -> None:
    report = sound().check()
    assert report.first_violation is None
    assert report.ok
    counts = (report.commands, report.accepted, report.rejected, report.duplicate, report.dead)
    assert counts == (9, 4, 2, 2, 1)
    assert (report.events, report.aggregates) == (5, 2)
    checked = {name: finding.checked for name, finding in report.findings.items()}
    assert checked == {"I1": 4, "I2": 5, "I3": 2, "I4": 2, "I5": 2, "I7": 9}


def an_event_is_missing(history: History) -> None:
    del history.events[2]


def an_event_is_there_twice(history: History) -> None:
    again = history.events[2]
    history.events.append(replace(again, sequence=3))
    history.users["anna"] = Snapshot(history.users["anna"].state, 3, ())
    history.documents["anna"]["version"] = 3


def an_event_has_another_id(history: History) -> None:
    history.events[0] = replace(history.events[0], id=id_of(99))


def a_command_was_accepted_twice(history: History) -> None:
    history.accept("anna", UserReactivated(), id_=id_of(3))


def a_rejected_command_was_decided_again(history: History) -> None:
    history.accept("anna", UserReactivated(), id_=id_of(4))


def an_event_has_no_command(history: History) -> None:
    history.accept("anna", UserReactivated())
    history.outcomes[-1] = rejection_of(history.outcomes[-1], DeadLettered)
    history.dead_letters.append(history.outcomes[-1].source.offset)


def a_duplicate_got_another_reply(history: History) -> None:
    history.repeat("anna", id_of(3), yes(3, 7))


def a_duplicate_got_its_own_token(history: History) -> None:
    history.repeat("anna", id_of(3), replace(yes(3, 2), token=token(11, "anna", 2)))


def a_token_is_of_another_command(history: History) -> None:
    said = history.outcomes[0]
    assert isinstance(said, Accepted)
    history.outcomes[0] = replace(said, token=token(2, "anna", 1))


def a_token_is_of_another_user(history: History) -> None:
    said = history.outcomes[1]
    assert isinstance(said, Accepted)
    history.outcomes[1] = replace(said, token=token(2, "anna", 1))


def a_token_is_none(history: History) -> None:
    said = history.outcomes[1]
    assert isinstance(said, Accepted)
    history.outcomes[1] = replace(said, token="none")


def a_duplicate_of_nothing(history: History) -> None:
    history.repeat("anna", id_of(77), NO)


def a_sequence_is_left_out(history: History) -> None:
    history.events[2] = replace(history.events[2], sequence=3)


def commands_were_decided_out_of_order(history: History) -> None:
    history.accept("anna", UserReactivated())
    moved = replace(history.events[-1], source=Source(NAMES.commands, NUMBER, 1))
    history.events[-1] = moved


def an_event_is_of_another_partition(history: History) -> None:
    moved = replace(history.events[4], source=Source(NAMES.commands, NUMBER + 1, 9))
    history.events[4] = moved


def a_history_does_not_begin_with_registration(history: History) -> None:
    history.events[0] = replace(history.events[0], event=UserDeactivated())


def the_state_is_behind(history: History) -> None:
    user = history.users["ben"]
    history.users["ben"] = Snapshot(user.state, user.version - 1, ())


def the_state_is_another(history: History) -> None:
    other = evolve(history.users["ben"].state, UserProfileUpdated(last_name="X"), NOON)
    history.users["ben"] = Snapshot(other, 3, ())


def a_state_is_missing(history: History) -> None:
    del history.users["ben"]


def a_state_has_no_events(history: History) -> None:
    history.users["carl"] = history.users["ben"]


def a_document_differs(history: History) -> None:
    history.documents["anna"]["isActive"] = True


def a_document_is_missing(history: History) -> None:
    del history.documents["anna"]


def a_document_has_no_events(history: History) -> None:
    history.documents["carl"] = {**history.documents["ben"], "id": "carl"}


def a_document_is_behind(history: History) -> None:
    history.documents["anna"] = project(None, history.events[0])


def a_document_is_ahead(history: History) -> None:
    history.documents["anna"]["version"] = 9


def a_refused_document_has_no_dead_letter(history: History) -> None:
    anna = history.documents["anna"]
    history.documents["anna"] = {"id": "anna", "version": 2, REFUSED: anna}


def a_rejected_command_has_an_event(history: History) -> None:
    history.accept("anna", UserReactivated())
    history.outcomes[-1] = rejection_of(history.outcomes[-1], Rejection)


def a_command_has_no_outcome(history: History) -> None:
    del history.outcomes[4]


def a_command_has_two_outcomes(history: History) -> None:
    history.outcomes.append(history.outcomes[4])


def an_outcome_is_of_no_command(history: History) -> None:
    history.marker()
    said = history.outcomes[3]
    history.outcomes.append(
        Rejection(
            command_id=said.command_id,
            aggregate_id="nobody",
            timestamp=NOON,
            source=Source(NAMES.commands, NUMBER, 1),
            code="no",
            reason="No",
        )
    )


def a_dead_letter_is_missing(history: History) -> None:
    history.dead_letters.clear()


def a_dead_letter_is_there_twice(history: History) -> None:
    history.dead_letters *= 2


def an_accepted_command_has_a_dead_letter(history: History) -> None:
    history.dead_letters.append(0)


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


IMPOSSIBLE = "i" * 513  # an id that Elasticsearch takes for no document


def test_a_refused_document_is_known_to_be_missing() -> None:
    history = sound()
    a_refused_document_has_no_dead_letter(history)
    history.view_dead_letters = {"anna"}
    report = history.check()
    assert report.first_violation is None
    assert report.known_missing == 1


def test_a_document_that_cannot_exist_is_known_to_be_missing() -> None:
    history = sound()
    history.accept(IMPOSSIBLE, ANNA)
    del history.documents[IMPOSSIBLE]
    history.view_dead_letters = {IMPOSSIBLE}
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


def rejection_of(
    outcome: Outcome, kind: type[Rejection] | type[DeadLettered]
) -> Rejection | DeadLettered:
    return kind(
        command_id=outcome.command_id,
        aggregate_id=outcome.aggregate_id,
        timestamp=outcome.timestamp,
        source=outcome.source,
        code="no",
        reason="No",
    )
