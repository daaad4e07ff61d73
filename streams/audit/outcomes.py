"""I1, I5 and I7 for one partition: its commands, their outcomes, their events and dead letters.

Pure: what the logs hold is handed in. Everything is held against each other by the offset of the
command that it came of, its source.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import NamedTuple
from uuid import UUID

from msgspec.structs import replace

from models.errors import InvalidToken
from models.messages import Event, EventRecord
from models.outcomes import (
    Accepted,
    DeadLettered,
    Duplicate,
    FirstAcceptance,
    FirstRejection,
    Outcome,
    Rejection,
)
from models.tokens import Point, Token
from streams.audit.report import Report, ViolationKind
from streams.state.snapshot import DEDUPE_WINDOW

First = FirstAcceptance | FirstRejection


class _SeenOutcome(NamedTuple):
    """An outcome, as far as it is checked; a million of them have to fit in memory."""

    offset: int
    status: str
    command_id: UUID | None
    aggregate_id: str | None
    said: First | None
    named: int | None
    """The offset of the command that its token names; None without one, or if it is another's."""


class _SeenEvent(NamedTuple):
    """The same of an event."""

    sequence: int
    id: UUID
    command_id: UUID
    aggregate_id: str


class OutcomeAudit:
    """Collects what there is of the commands below `position`, then compares."""

    def __init__(self, *, position: int, report: Report) -> None:
        self._position = position
        self._report = report
        self._i1, self._i5, self._i7 = (report.findings[name] for name in ("I1", "I5", "I7"))
        self._commands = array("q")
        self._answers: dict[int, list[_SeenOutcome]] = defaultdict(list)
        self._events: dict[int, list[_SeenEvent]] = defaultdict(list)
        self._letters: Counter[int] = Counter()

    def add_command(self, offset: int) -> None:
        """The next command of the partition."""
        if offset < self._position:
            self._commands.append(offset)

    def add_outcome(self, offset: int, outcome: Outcome) -> None:
        """The next outcome, and its own offset."""
        if outcome.source.offset >= self._position:
            return
        said: First | None = None
        if isinstance(outcome, Accepted):
            said = FirstAcceptance(
                sequence=outcome.sequence, event_ids=outcome.event_ids, token=outcome.token
            )
        elif isinstance(outcome, Rejection):
            said = FirstRejection(code=outcome.code, reason=outcome.reason)
        elif isinstance(outcome, Duplicate):
            said = outcome.of
        named: int | None = None
        if isinstance(said, FirstAcceptance):
            named = _named(said, outcome)
            said = replace(said, token="")  # half of the memory, and not needed any more
        self._answers[outcome.source.offset].append(
            _SeenOutcome(
                offset, outcome.status, outcome.command_id, outcome.aggregate_id, said, named
            )
        )

    def add_event(self, event: EventRecord[Event]) -> None:
        """The next event."""
        if event.source.offset < self._position:
            self._events[event.source.offset].append(
                _SeenEvent(event.sequence, event.id, event.command_id, event.aggregate_id)
            )

    def add_dead_letter(self, source: int) -> None:
        """The next dead letter, of the command at offset `source`."""
        if source < self._position:
            self._letters[source] += 1

    def conclude(
        self,
        *,
        commands_from: int,
        outcomes_from: int,
        letters_from: int,
        exists_at: Callable[[str, int], bool],
    ) -> int:
        """All of it was added; returns the offset from which the commands could be checked.

        Args:
            commands_from: the first offset of the command topic that retention has left.
            outcomes_from: the first source of which retention has left the outcome; 0 if all.
            letters_from: the same for dead letters.
            exists_at: whether an aggregate existed when the command at an offset was decided.
        """
        start = max(commands_from, outcomes_from)
        for offset in self._commands:
            if offset >= start:
                self._report.commands += 1
                self._check_one_outcome(offset)
        remembered = _Remembered(exists_at, complete=outcomes_from == 0)
        for source in sorted(self._answers):
            if source >= commands_from and not self._is_command(source):
                self._i7.violated(
                    f"the outcome at offset {self._answers[source][0].offset} is of offset "
                    f"{source}, where no command is"
                )
            for answer in self._answers[source]:
                if source >= start:
                    self._count(answer)
                self._check_answer(source, answer, remembered)
                if answer.status == DeadLettered.status and source >= letters_from:
                    self._check_letters(source)
        self._check_unanswered(outcomes_from)
        return start

    def _is_command(self, offset: int) -> bool:
        place = bisect_left(self._commands, offset)
        return place < len(self._commands) and self._commands[place] == offset

    def _check_one_outcome(self, offset: int) -> None:
        self._i7.checked += 1
        answers = self._answers.get(offset, [])
        if len(answers) != 1:
            said = ", ".join(f"{answer.status} at offset {answer.offset}" for answer in answers)
            self._i7.violated(
                f"the command at offset {offset} has {len(answers)} outcomes"
                + (f": {said}" if said else ""),
                "doubled" if answers else "lost",
            )

    def _count(self, answer: _SeenOutcome) -> None:
        match answer.status:
            case Accepted.status:
                self._report.accepted += 1
            case Rejection.status:
                self._report.rejected += 1
            case Duplicate.status:
                self._report.duplicate += 1
            case _:
                self._report.dead += 1

    def _check_answer(self, source: int, answer: _SeenOutcome, remembered: _Remembered) -> None:
        events = self._events.get(source, [])
        match answer.status:
            case Accepted.status:
                self._i1.checked += 1
                self._check_events(source, answer, events)
                if answer.named != source:
                    self._i1.violated(
                        f"the token of the accepted command {answer.command_id} at offset {source} "
                        "is not of this command"
                    )
            case Rejection.status:
                self._i5.checked += 1
                if events:
                    self._i5.violated(
                        f"the rejected command {answer.command_id} at offset {source} has "
                        f"{len(events)} events, the first is number {events[0].sequence} of "
                        f"{events[0].aggregate_id}"
                    )
        fault = remembered.fault_of(source, answer)
        if fault is not None:
            self._i1.violated(*fault)

    def _check_events(self, source: int, answer: _SeenOutcome, events: list[_SeenEvent]) -> None:
        assert isinstance(answer.said, FirstAcceptance)
        last, ids = answer.said.sequence, answer.said.event_ids
        first = last - len(ids) + 1
        expected = [
            _SeenEvent(first + index, id_, answer.command_id, answer.aggregate_id)  # type: ignore[arg-type]
            for index, id_ in enumerate(ids)
        ]
        if events != expected:
            self._i1.violated(
                f"the accepted command {answer.command_id} at offset {source} has the events "
                f"{_numbers(events)} where its outcome says {_numbers(expected)}",
                _kind(len(events) - len(expected)),
            )

    def _check_letters(self, source: int) -> None:
        if self._letters[source] != 1:
            self._i7.violated(
                f"the dead-lettered command at offset {source} has {self._letters[source]} dead "
                "letters",
                _kind(self._letters[source] - 1),
            )

    def _check_unanswered(self, outcomes_from: int) -> None:
        for source, events in self._events.items():
            if source >= outcomes_from and all(
                answer.status not in (Accepted.status, Rejection.status)
                for answer in self._answers.get(source, [])
            ):
                self._i1.violated(
                    f"event {events[0].sequence} of {events[0].aggregate_id} is of the command at "
                    f"offset {source}, which was not accepted"
                )
        for source in self._letters:
            if source >= outcomes_from and all(
                answer.status != DeadLettered.status for answer in self._answers.get(source, [])
            ):
                self._i7.violated(
                    f"there is a dead letter of the command at offset {source}, whose outcome "
                    "says otherwise"
                )


class _Remembered:
    """The last answers of each aggregate, as the dedupe window of its state has them.

    A command that comes again within the window is a duplicate, and is answered as before; one that
    comes later is decided anew, as documented.
    """

    def __init__(self, exists_at: Callable[[str, int], bool], *, complete: bool) -> None:
        self._exists_at = exists_at
        self._complete = complete
        self._answers: dict[str, list[_SeenOutcome]] = defaultdict(list)

    def fault_of(self, source: int, answer: _SeenOutcome) -> tuple[str, ViolationKind] | None:
        """Takes in the next answer in the order of the commands; what is wrong with it."""
        if answer.said is None or answer.aggregate_id is None:
            return None
        window = self._answers[answer.aggregate_id]
        first = next((old for old in window if old.command_id == answer.command_id), None)
        name = f"the command {answer.command_id} at offset {source}"
        if answer.status == Duplicate.status:
            if first is None:
                if self._complete:
                    return f"{name} is a duplicate of none before it", "diverged"
            elif (first.said, first.named) != (answer.said, answer.named):
                line = f"{name} is a duplicate and got another answer than the first time"
                return line, "diverged"
            return None
        if answer.status == Accepted.status or self._exists_at(answer.aggregate_id, source):
            window.append(answer)
            del window[:-DEDUPE_WINDOW]
        if first is not None:
            again = f"{name} was decided again as {answer.status}; it was {first.status} before"
            return again, "doubled"
        return None


def _named(accepted: FirstAcceptance, outcome: Outcome) -> int | None:
    """The offset that a token names, if it is one of the outcome's aggregate and its sequence."""
    try:
        (point,) = Token.parse(accepted.token).points
    except (InvalidToken, ValueError):
        return None
    topic, partition = outcome.source.topic, outcome.source.partition
    fits = Point(topic, partition, point.offset, outcome.aggregate_id or "", accepted.sequence)
    return point.offset if point == fits else None


def _kind(surplus: int) -> ViolationKind:
    return "diverged" if surplus == 0 else "doubled" if surplus > 0 else "lost"


def _numbers(events: list[_SeenEvent]) -> str:
    return ", ".join(f"{event.sequence} of {event.aggregate_id}" for event in events) or "none"
