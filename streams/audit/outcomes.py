"""Checks I1, I5 and I7 of one partition: its commands, their outcomes, events and dead letters.

Pure: what the logs contain is handed in. Outcomes, events and dead letters are matched by their
source: the offset of the command that caused them. A command that was parked is decided later, in
the turn of another record: that one is the source of its events.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple
from uuid import UUID

from msgspec.structs import replace

from models.errors import InvalidToken
from models.messages import Event, EventRecord
from models.outcomes import (
    Accepted,
    DeadLettered,
    Duplicate,
    FirstAcceptance,
    FirstParked,
    FirstRejection,
    Outcome,
    Parked,
    Rejection,
    Unparked,
)
from models.tokens import Point, Token
from streams.audit.dedupe import DedupeWindows, Reply, SeenOutcome
from streams.audit.folds import Kept
from streams.audit.report import Report, ViolationKind
from streams.state.parked import ParkedQueue

NOTHING_PARKED: Final[Mapping[bytes, ParkedQueue]] = MappingProxyType({})


class _SeenEvent(NamedTuple):
    """The checked part of an event."""

    sequence: int
    id: UUID
    command_id: UUID
    aggregate_id: str


class OutcomeAudit:
    """Collects what was caused by the commands below a position, and then compares it."""

    def __init__(self, *, position: int, has_former: bool, report: Report) -> None:
        """Create an audit.

        Args:
            position: Position of the command topic at which the check stops.
            has_former: Whether commands of a former topic were decided, which may be repeated.
            report: Receives violations and numbers.
        """
        self._position = position
        self._has_former = has_former
        self._report = report
        self._i1, self._i2, self._i5, self._i7 = (
            report.findings[name] for name in ("I1", "I2", "I5", "I7")
        )
        self._commands = array("q")
        self._command_ids = array("Q")  # half of each id, which is enough; 0: it has none
        # By the offset of the command:
        self._outcomes: dict[int, list[SeenOutcome]] = defaultdict(list)
        self._events: dict[int, list[_SeenEvent]] = defaultdict(list)
        self._dead_letters: Counter[int] = Counter()
        # Ids of the parked commands that were accepted later, by what ended them.
        self._accepted_late: dict[int, set[UUID | None]] = defaultdict(set)
        # Offset of the last accepted command of each aggregate, in the order of deciding.
        self._last_accepted: dict[str | None, int] = {}

    def add_command(self, offset: int, id_: UUID | None) -> None:
        """Add the next command of the partition, with the id in its value if it has one."""
        if offset < self._position:
            self._commands.append(offset)
            self._command_ids.append(_half(id_))

    def add_outcome(self, offset: int, outcome: Outcome) -> None:
        """Add the next outcome, with its own offset."""
        if outcome.decided_at >= self._position:
            return
        if isinstance(outcome, Accepted) and outcome.decided_by is not None:
            self._accepted_late[outcome.decided_by].add(outcome.command_id)
        reply: Reply | None = None
        waits_at: int | None = None
        if isinstance(outcome, Accepted):
            reply = FirstAcceptance(
                sequence=outcome.sequence, event_ids=outcome.event_ids, token=outcome.token
            )
        elif isinstance(outcome, Rejection):
            reply = FirstRejection(code=outcome.code, reason=outcome.reason)
        elif isinstance(outcome, Duplicate):
            if isinstance(outcome.of, FirstParked):
                waits_at = outcome.of.offset
            else:
                reply = outcome.of
        token_offset: int | None = None
        if isinstance(reply, FirstAcceptance):
            token_offset = _token_offset(reply, outcome)
            reply = replace(reply, token="")  # half of the memory, and not needed any more
        self._outcomes[outcome.source.offset].append(
            SeenOutcome(
                offset,
                outcome.status,
                outcome.command_id,
                outcome.aggregate_id,
                reply,
                token_offset,
                outcome.decided_at,
                waits_at,
            )
        )

    def add_event(self, event: EventRecord[Event]) -> None:
        """Add the next event."""
        if event.source.offset < self._position:
            self._events[event.source.offset].append(
                _SeenEvent(event.sequence, event.id, event.command_id, event.aggregate_id)
            )

    def add_dead_letter(self, source: int, decided_at: int) -> None:
        """Add the next dead letter, of the command at offset `source`."""
        if decided_at < self._position:
            self._dead_letters[source] += 1

    def conclude(
        self,
        kept: Kept,
        exists_at: Callable[[str, int], bool],
        parked: Mapping[bytes, ParkedQueue] = NOTHING_PARKED,
    ) -> None:
        """Compare what was added.

        Args:
            kept: What retention has left.
            exists_at: Tells whether an aggregate existed before the command at an offset.
            parked: Parked commands by the ids of their aggregates, at the position.
        """
        waiting = {one.offset for found in parked.values() for one in found.commands}
        for offset in self._commands:
            if offset >= kept.start:
                self._report.commands += 1
                self._check_one_outcome(offset, is_parked=offset in waiting)
        windows = DedupeWindows(
            exists_at, complete=kept.outcomes_from == 0 and not self._has_former
        )
        decided: list[tuple[int, SeenOutcome]] = []
        for source in sorted(self._outcomes):
            if source >= kept.commands_from:
                self._check_command_of(source, self._outcomes[source])
            decided += ((source, outcome) for outcome in self._outcomes[source])
        decided.sort(key=_turn)
        for source, outcome in decided:
            if source >= kept.start:
                self._count(outcome, is_parked=source in waiting)
            self._check_outcome(source, outcome, windows, kept.outcomes_from)
            if outcome.status == DeadLettered.status and source >= kept.dead_letters_from:
                self._check_dead_letters(source)
        self._check_without_outcome(kept.outcomes_from)

    def _check_command_of(self, source: int, outcomes: Sequence[SeenOutcome]) -> None:
        """Check that the outcomes of an offset are of the command at it."""
        place = bisect_left(self._commands, source)
        if place == len(self._commands) or self._commands[place] != source:
            self._i7.violated(
                f"the outcome at offset {outcomes[0].offset} is of offset {source}, where no "
                "command is"
            )
            return
        id_ = self._command_ids[place]
        for outcome in outcomes:
            if id_ and outcome.command_id is not None and _half(outcome.command_id) != id_:
                self._i7.violated(
                    f"the outcome at offset {outcome.offset} is of the command "
                    f"{outcome.command_id}, at its offset {source} is another one: it may be of a "
                    "former topic"
                )

    def _check_one_outcome(self, offset: int, *, is_parked: bool) -> None:
        """Check that a command has one final outcome, or is parked and has none."""
        self._i7.checked += 1
        outcomes = self._outcomes.get(offset, [])
        final = [one for one in outcomes if one.status != Parked.status]
        was_parked = len(outcomes) - len(final)
        listed = ", ".join(f"{outcome.status} at offset {outcome.offset}" for outcome in outcomes)
        name = f"the command at offset {offset}"
        if was_parked > 1:
            self._i7.violated(f"{name} was parked {was_parked} times: {listed}", "doubled")
        elif is_parked and not was_parked:
            self._i7.violated(f"{name} is parked, and no outcome says so")
        elif is_parked and final:
            self._i7.violated(f"{name} is parked, and has an outcome: {listed}", "doubled")
        elif was_parked and not final and not is_parked:
            self._i7.violated(f"{name} was parked, and is neither parked nor decided", "lost")
        elif not is_parked and len(final) != 1:
            self._i7.violated(
                f"{name} has {len(final)} outcomes" + (f": {listed}" if listed else ""),
                "doubled" if final else "lost",
            )

    def _count(self, outcome: SeenOutcome, *, is_parked: bool) -> None:
        match outcome.status:
            case Accepted.status:
                self._report.accepted += 1
            case Rejection.status:
                self._report.rejected += 1
            case Duplicate.status:
                self._report.duplicate += 1
            case DeadLettered.status:
                self._report.dead += 1
            case Unparked.status:
                self._report.controls += 1
            case _:
                self._report.parked += is_parked

    def _check_outcome(
        self, source: int, outcome: SeenOutcome, windows: DedupeWindows, outcomes_from: int
    ) -> None:
        events = self._events.get(outcome.decided_at, [])
        if outcome.decided_at != source:  # others were decided in the same turn
            events = [one for one in events if one.command_id == outcome.command_id]
        match outcome.status:
            case Accepted.status:
                self._i1.checked += 1
                self._check_events(source, outcome, events)
                self._check_turn(source, outcome)
                if outcome.token_offset != outcome.decided_at:
                    self._i1.violated(
                        f"the token of the accepted command {outcome.command_id} at offset "
                        f"{source} is not of this command"
                    )
            case Rejection.status:
                self._i5.checked += 1
                if events:
                    self._i5.violated(
                        f"the rejected command {outcome.command_id} at offset {source} has "
                        f"{len(events)} events, the first is number {events[0].sequence} of "
                        f"{events[0].aggregate_id}"
                    )
        if outcome.waits_at is not None and outcome.waits_at >= outcomes_from:
            self._check_waits(source, outcome, self._outcomes.get(outcome.waits_at, []))
        violation = windows.check(source, outcome)
        if violation is not None:
            self._i1.violated(*violation)

    def _check_turn(self, source: int, outcome: SeenOutcome) -> None:
        """Check that no later command of the aggregate was accepted before this one."""
        last = self._last_accepted.get(outcome.aggregate_id, -1)
        if source < last:
            self._i2.violated(
                f"{outcome.aggregate_id}: the command at offset {source} was accepted after the "
                f"later one at offset {last}"
            )
        self._last_accepted[outcome.aggregate_id] = max(source, last)

    def _check_waits(
        self, source: int, outcome: SeenOutcome, repeated: Sequence[SeenOutcome]
    ) -> None:
        """Check that what a duplicate repeats was parked then."""
        if not any(
            one.status == Parked.status and one.command_id == outcome.command_id for one in repeated
        ):
            self._i1.violated(
                f"the command {outcome.command_id} at offset {source} is a duplicate of one at "
                f"offset {outcome.waits_at} that was not parked"
            )

    def _check_events(self, source: int, outcome: SeenOutcome, events: list[_SeenEvent]) -> None:
        assert isinstance(outcome.reply, FirstAcceptance)
        last, ids = outcome.reply.sequence, outcome.reply.event_ids
        first = last - len(ids) + 1
        expected = [
            _SeenEvent(first + index, id_, outcome.command_id, outcome.aggregate_id)  # type: ignore[arg-type]
            for index, id_ in enumerate(ids)
        ]
        if events != expected:
            self._i1.violated(
                f"the accepted command {outcome.command_id} at offset {source} has the events "
                f"{_numbers(events)} where its outcome says {_numbers(expected)}",
                _kind(len(events) - len(expected)),
            )

    def _check_dead_letters(self, source: int) -> None:
        if self._dead_letters[source] != 1:
            self._i7.violated(
                f"the dead-lettered command at offset {source} has {self._dead_letters[source]} "
                "dead letters",
                _kind(self._dead_letters[source] - 1),
            )

    def _check_without_outcome(self, outcomes_from: int) -> None:
        """Check that no events or dead letters are of a command without a matching outcome."""
        for source, events in self._events.items():
            if source < outcomes_from or any(
                outcome.status in (Accepted.status, Rejection.status)
                for outcome in self._outcomes.get(source, [])
            ):
                continue
            accepted = self._accepted_late.get(source, set())
            for event in events:
                if event.command_id not in accepted:
                    self._i1.violated(
                        f"event {event.sequence} of {event.aggregate_id} is of the command at "
                        f"offset {source}, which was not accepted"
                    )
                    break
        for source in self._dead_letters:
            if source >= outcomes_from and all(
                outcome.status != DeadLettered.status for outcome in self._outcomes.get(source, [])
            ):
                self._i7.violated(
                    f"there is a dead letter of the command at offset {source}, whose outcome "
                    "says otherwise"
                )


def _turn(decided: tuple[int, SeenOutcome]) -> tuple[int, bool, int]:
    """Return the place of an outcome in the order of deciding; what a record ends comes after."""
    source, outcome = decided
    return outcome.decided_at, outcome.decided_at != source, outcome.offset


def _token_offset(accepted: FirstAcceptance, outcome: Outcome) -> int | None:
    """Return the command's offset in a token; None unless it is of this aggregate and sequence."""
    try:
        (point,) = Token.parse(accepted.token).points
    except (InvalidToken, ValueError):
        return None
    topic, partition = outcome.source.topic, outcome.source.partition
    expected = Point(topic, partition, point.offset, outcome.aggregate_id or "", accepted.sequence)
    return point.offset if point == expected else None


def _half(id_: UUID | None) -> int:
    return 0 if id_ is None else id_.int & 0xFFFF_FFFF_FFFF_FFFF


def _kind(surplus: int) -> ViolationKind:
    return "diverged" if surplus == 0 else "doubled" if surplus > 0 else "lost"


def _numbers(events: list[_SeenEvent]) -> str:
    return ", ".join(f"{event.sequence} of {event.aggregate_id}" for event in events) or "none"
