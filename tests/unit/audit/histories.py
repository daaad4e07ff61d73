"""The logs of a partition as a worker writes them, with what `PartitionAudit` says about them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid5

import orjson

from agents.users import USERS
from models.events import UserDeactivated, UserEvent, UserProfileUpdated
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
from streams.audit.report import Report
from streams.elasticsearch.index import Document
from streams.encryption.keys import PartitionKeys
from streams.encryption.sealer import PartitionSealer
from streams.kafka.dead_letters import SOURCE_OFFSET, SOURCE_PARTITION, SOURCE_TOPIC
from streams.kafka.records import Record
from streams.state.snapshot import Snapshot, encode_snapshot
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
