"""Decide the commands of a partition in the order of each aggregate.

Most are decided when they are read. If one fails that another program could decide, it is parked
(`streams/commands/parking.py`), if that is switched on. Whatever comes for its aggregate then waits
behind it, until a control record (`streams/commands/control.py`) ends the wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar
from uuid import UUID

import msgspec

from models.errors import Fatal, Poison, Rejected, Transient
from models.messages import Command, Event, check_expected_version
from streams.aggregate import Aggregate
from streams.buses import CommandBus
from streams.commands.control import Control, DropParked, read_control
from streams.commands.parking import CURABLE, DEFECTS, ParkedCommands
from streams.commands.reader import CommandReader
from streams.commands.repository import EventSourcedRepository
from streams.kafka.partitioner import check_partition
from streams.kafka.records import Record, time_of
from streams.state.parked import Failure, ParkedCommand, ParkedQueue
from streams.state.snapshot import Remembered, RememberedAcceptance, RememberedRejection
from streams.worker.logs import log_defect

S = TypeVar("S")

# A handler returns the new events of the command's aggregate, which it has saved (staged) already.
DecisionBus = CommandBus[Sequence[Event]]


class NewEvents(msgspec.Struct, frozen=True, gc=False):
    """The events of an accepted command, and what is remembered of it."""

    events: Sequence[Event]
    acceptance: RememberedAcceptance


class Waits(msgspec.Struct, frozen=True):
    """The command is parked, with so many others of its aggregate before it."""

    failure: Failure
    behind: int


class Obeyed(msgspec.Struct, frozen=True):
    """A control record did what it says, or nothing; so many commands are parked afterwards."""

    left: int
    code: str | None = None
    """Of the failure that is in their way, or why nothing was done."""
    reason: str | None = None

    @classmethod
    def leaving(cls, left: ParkedQueue | None) -> Obeyed:
        """Return that these commands are left."""
        if left is None:
            return cls(0)
        return cls(len(left.commands), left.failure.code, left.failure.reason)


# Decision about one command: new events, the remembered reply of a duplicate, that it waits (or
# that one with its id does), or why there is none of these.
Decision = NewEvents | Remembered | Waits | ParkedCommand | Rejected | Poison

# What a record of the command topic contains.
Readable = Command | Control | Poison


class Ended(msgspec.Struct, frozen=True):
    """A command that was parked, and its decision now.

    What cannot be read as a command of its type is a bare `Command` with its ids.
    """

    record: Record
    command: Command
    decision: Decision


class Ending(msgspec.Struct, frozen=True):
    """A decision that also ends parked commands of the aggregate, in this order."""

    own: NewEvents | Rejected | Obeyed
    ended: Sequence[Ended]


class Decider(Generic[S]):
    """Decides commands on staged copies of the states and of what is parked."""

    def __init__(
        self,
        aggregate: Aggregate[S],
        repository: EventSourcedRepository[S],
        bus: DecisionBus,
        parked: ParkedCommands,
        *,
        partitions: int,
        parks: bool,
        control_key: bytes | None,
    ) -> None:
        """Create the decider of one partition.

        Args:
            aggregate: kind of the aggregates.
            repository: their states.
            bus: with the handlers that decide.
            parked: what is parked.
            partitions: number of partitions of the command topic.
            parks: whether a failed command is parked; if not, it is a dead letter. What is parked
                already stays so, and keeps its order.
            control_key: key of the control records.
        """
        self._reader = CommandReader(aggregate.commands)
        self._repository = repository
        self._bus = bus
        self._parked = parked
        self._partitions = partitions
        self._parks = parks
        self._control_key = control_key

    async def decide(
        self, records: Sequence[Record]
    ) -> tuple[list[Readable], list[Decision | Ending]]:
        """Read the next records and decide what is in them, in order.

        Raises:
            Transient, Fatal: a handler's, which say nothing about the command.
            PartitionFatal: too much would be parked.
        """
        commands = [self._read(record) for record in records]
        decisions: list[Decision | Ending] = []
        parked, parks = self._parked.by_id, self._parks
        for record, command in zip(records, commands, strict=True):
            if record.key in parked:
                decisions.append(await self._decide_behind(record, command, parked[record.key]))
                continue
            if isinstance(command, Control):
                decisions.append(_NOTHING_PARKED)
                continue
            decision = await self._decide(record, command, record.offset)
            if parks and type(decision) is Poison:
                decision = self._park(record, command, decision)
            decisions.append(decision)
        return commands, decisions

    def _read(self, record: Record) -> Readable:
        """Return what is in a record; if reading it fails for any reason, the poison."""
        try:
            return self._reader.read(record)
        except Poison as poison:
            if poison.code == "unknown-type":
                return self._read_control(record) or poison.without_traceback()
            return poison.without_traceback()
        except Exception as error:
            log_defect("reading a command", error, record, offset=record.offset)
            return Poison("unreadable", f"reading it raised {type(error).__name__}")

    def _read_command(self, record: Record) -> Command | Poison:
        """Return the command in a record that was parked."""
        found = self._read(record)
        if isinstance(found, Control):
            return Poison("forged-control", "a control record is never parked")
        return found

    def _read_control(self, record: Record) -> Control | Poison | None:
        try:
            return read_control(record, self._control_key)
        except Poison as poison:
            return poison.without_traceback()

    async def _decide(self, record: Record, command: Command | Poison, offset: int) -> Decision:
        """Let the handler decide and stage the result; if it fails, take back what it staged.

        `offset` is that of the record in whose turn it is.

        Raises:
            Transient, Fatal: the handler's, which say nothing about the command.
        """
        if isinstance(command, Poison):
            return command
        aggregate_id, id_ = command.aggregate_id, command.id.bytes
        try:
            snapshot = self._repository.get(aggregate_id)
            if snapshot.version == 0:
                # An aggregate that exists had this checked for its first command.
                check_partition(record, self._partitions)
        except Poison as poison:
            return poison.without_traceback()
        first = snapshot.reply_to(id_)
        if first is not None:
            return first
        try:
            check_expected_version(command, snapshot.version)
            events = await self._bus.dispatch(command)
        except Rejected as rejected:
            self._repository.put(aggregate_id, snapshot)
            if snapshot.version > 0:
                self._repository.remember(
                    aggregate_id, RememberedRejection(id_, rejected.code, rejected.reason)
                )
            return rejected.without_traceback()
        except Poison as poison:  # the handler has loaded another aggregate, which is unreadable
            self._repository.put(aggregate_id, snapshot)
            return poison.without_traceback()
        except (Transient, Fatal):
            raise
        except Exception as error:
            self._repository.put(aggregate_id, snapshot)
            log_defect(
                f"deciding {type(command).__name__}",
                error,
                record,
                offset=record.offset,
                command=command.id,
            )
            return Poison("decide-failed", f"deciding it raised {type(error).__name__}")
        sequence = snapshot.version + len(events)
        acceptance = RememberedAcceptance(id_, sequence, len(events), offset, indexed=False)
        self._repository.remember(aggregate_id, acceptance)
        return NewEvents(events, acceptance)

    def _park(self, record: Record, command: Command | Poison, poison: Poison) -> Decision:
        """Park a command that failed, if another program could decide it.

        One for an erased aggregate would be rejected by any program.
        """
        if isinstance(command, Command) and command.overtakes_parked:
            return poison
        if self._repository.is_erased(record.key):
            return poison
        parked = self._parked.park(record, _command_in(command), poison)
        return poison if parked is None else Waits(parked.failure, 0)

    async def _decide_behind(
        self, record: Record, command: Readable, parked: ParkedQueue
    ) -> Decision | Ending:
        """Decide about a record whose aggregate has parked commands."""
        if isinstance(command, Control):
            if command.first != parked.first.offset:
                reason = "another command is the first of the parked ones by now"
                return Ending(Obeyed(len(parked.commands), "parked-changed", reason), ())
            if isinstance(command, DropParked):
                return self._drop(record, command, parked)
            return await self._replay(record, parked)
        if isinstance(command, Command):
            if command.overtakes_parked:
                return await self._overtake(record, command, parked)
            first = self._reply_to(command) or parked.find(command.id.bytes)
            if first is not None:
                return first
        poison = command if isinstance(command, Poison) else None
        if poison is not None and poison.code not in CURABLE:
            return poison
        behind = self._parked.append(record, _command_in(command), poison)
        if behind is not None:
            return Waits(parked.failure, behind)
        return poison or Poison("parked-full", "too many commands of its aggregate are parked")

    def _reply_to(self, command: Command) -> Remembered | None:
        try:
            return self._repository.get(command.aggregate_id).reply_to(command.id.bytes)
        except Poison:  # the state is unreadable: the command waits, and may be decided later
            return None

    async def _replay(self, record: Record, parked: ParkedQueue) -> Ending:
        """Decide the parked commands in order, until one fails again."""
        assert record.key is not None, "it has parked commands"
        ended: list[Ended] = []
        left: ParkedQueue | None = None
        for waiting in parked.commands:
            found = self._parked.open(record.key, waiting)
            if isinstance(found, Poison):
                decision: Decision = found
            else:
                command = self._read_command(found)
                decision = await self._decide(found, command, record.offset)
            if isinstance(decision, Poison) and decision.code in _STAYS_PARKED:
                left = parked.failed_again(len(ended), decision.code, decision.reason)
                break
            assert isinstance(found, Record), "what cannot be opened stays parked"
            if not isinstance(command, Command):
                command = _bare(found, waiting)
            ended.append(Ended(found, command, decision))
        self._parked.put(record.key, left)
        return Ending(Obeyed.leaving(left), ended)

    def _drop(self, record: Record, drop: DropParked, parked: ParkedQueue) -> Ending:
        """Make dead letters of the first parked commands."""
        assert record.key is not None, "it has parked commands"
        number = parked.count_through(drop.through)
        reason = f"an operator dropped it; parked because of {parked.failure.code}"
        left = parked.without_first(number)
        self._parked.put(record.key, left)
        dropped = Poison("dropped", reason)
        ended = self._end(record.key, parked.commands[:number], dropped)
        return Ending(Obeyed.leaving(left), ended)

    async def _overtake(
        self, record: Record, command: Command, parked: ParkedQueue
    ) -> Decision | Ending:
        """Decide a command at once; if it erases the aggregate, nothing waits any longer.

        Neither does anything if there is no aggregate: what waits would make the one that was to
        be erased.
        """
        assert record.key is not None, "it has parked commands"
        decision = await self._decide(record, command, record.offset)
        if isinstance(decision, NewEvents):
            nothing_is_left = any(one.erases for one in decision.events)
        elif isinstance(decision, Rejected):
            version = self._repository.get(command.aggregate_id).version
            nothing_is_left = version == 0 and not command.expected_version
        else:
            return decision
        if not nothing_is_left:
            return decision
        self._parked.put(record.key, None)
        rejected = Rejected("erased", "Its aggregate was erased while it was parked")
        if isinstance(decision, NewEvents):
            for waiting in parked.commands:
                self._repository.remember(
                    command.aggregate_id,
                    RememberedRejection(waiting.command, rejected.code, rejected.reason),
                )
        return Ending(decision, self._end(record.key, parked.commands, rejected))

    def _end(
        self, aggregate_id: bytes, waiting: Sequence[ParkedCommand], decision: Rejected | Poison
    ) -> Sequence[Ended]:
        """Return these parked commands with the same decision for all."""
        ended = []
        for one in waiting:
            found = self._parked.open(aggregate_id, one)
            if isinstance(found, Poison):  # what is known of it
                found = self._parked.without_content(aggregate_id, one)
            command = self._read_command(found)
            bare = command if isinstance(command, Command) else _bare(found, one)
            ended.append(Ended(found, bare, decision))
        return ended


def is_failure(decision: Decision | Ending) -> bool:
    """Return whether this program is at fault; what waits behind such a command does not count."""
    if isinstance(decision, Waits):
        return decision.behind == 0 and decision.failure.code in DEFECTS
    return isinstance(decision, Poison) and decision.code in DEFECTS


_NOTHING_PARKED = Ending(Obeyed(0, "nothing-parked", "no command of this aggregate is parked"), ())

# What a replay leaves as it is: a mended program may still decide it, or what it needs may come
# back (the key of its aggregate from a backup, its state by `cqrs state rebuild`).
_STAYS_PARKED = CURABLE | {"unreadable-state"}


def _bare(record: Record, waiting: ParkedCommand) -> Command:
    assert record.key is not None, "it was parked"
    return Command(
        id=UUID(bytes=waiting.command),
        aggregate_id=record.key.decode(),
        timestamp=time_of(record),
    )


def _command_in(command: Readable) -> Command | None:
    return command if isinstance(command, Command) else None
