"""One partition of the command topic: chunks of commands in, one transaction per chunk out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

from faust.types import TP

from models.errors import Poison, Rejected
from models.messages import Command, Event, EventRecord, Source, check_expected_version, event_id
from models.outcomes import Accepted, DeadLettered, Duplicate, Outcome, Rejection
from models.tokens import Token
from models.wire import encode
from streams.aggregate import Aggregate, Names
from streams.app import StreamApp
from streams.buses import CommandBus
from streams.chunks import Record
from streams.commands import CommandReader, check_partition, identify, reply_key, source_of, time_of
from streams.dead_letters import dead_letter
from streams.entity import Entity, No, Yes
from streams.keys import Keys, master_key
from streams.logs import log_defect
from streams.recovery import recover_partition
from streams.repository import Repository
from streams.sealing import Sealing
from streams.state_table import StateTable, encode_position, position_key
from streams.transactions import Output, TransactionalProducer

S = TypeVar("S")

# What deciding gives: the uncommitted events of the command's aggregate, already saved.
DecisionBus = CommandBus[Sequence[Event]]


@dataclass
class _Decisions:
    """What a chunk brings about, before it is written."""

    events: list[Output] = field(default_factory=list)
    outcomes: list[Output] = field(default_factory=list)
    dead: list[Output] = field(default_factory=list)


class CommandPartition(Generic[S]):
    """Decides the commands of one partition.

    Commands are decided in order on staged copies; everything that follows from a chunk (events,
    outcomes, dead letters, state, keys, position) is one transaction; only after its commit does
    the state table change.
    """

    def __init__(
        self,
        app: StreamApp,
        aggregate: Aggregate[S],
        table: StateTable,
        new_bus: Callable[[Repository[S]], DecisionBus],
        tp: TP,
    ) -> None:
        self._settings = app.settings
        self._cluster = app.cluster
        self._aggregate = aggregate
        self._names = Names(app.settings.namespace, aggregate.name)
        self._reader = CommandReader(aggregate.commands)
        self._table = table
        self._new_bus = new_bus
        self._tp = tp
        self._master = master_key(app.settings)
        self._encrypt = app.settings.encrypt_personal_data and aggregate.is_personal
        self._producer = TransactionalProducer(app.settings, app.conf.id, tp)

    @property
    def waits(self) -> bool:
        """Never: what the broker does not do in a transaction's time has failed."""
        return False

    async def start(self) -> int:
        """Fence earlier owners, restore the state, and return the position that it stands at."""
        self._table.owned.pop(self._tp.partition, None)
        await self._producer.start()
        recovered = await recover_partition(self._settings, self._names, self._tp)
        self._stored = recovered.state
        self._table.owned[self._tp.partition] = recovered.state
        self._sealing = Sealing(Keys(self._master, recovered.keys), encrypt=self._encrypt)
        self._repository = Repository(self._aggregate, recovered.state, self._sealing)
        self._bus = self._new_bus(self._repository)
        return recovered.position

    async def process(self, records: Sequence[Record], position: int) -> None:
        """Decide and commit a chunk."""
        decisions = _Decisions()
        for record in records:
            outcome = await self._decide(record, decisions)
            decisions.outcomes.append(Output(reply_key(record), encode(outcome)))
        changes = self._repository.staged()
        changes[position_key(self._tp)] = encode_position(position)
        await self._producer.commit(
            {
                self._names.keys: self._sealing.changes(),
                self._names.events: decisions.events,
                self._names.outcomes: decisions.outcomes,
                self._names.dead_commands: decisions.dead,
                self._table.changelog: [Output(key, value) for key, value in changes.items()],
            },
            position,
        )
        self._apply(changes)

    async def close(self) -> None:
        """Give the partition up and drop its state."""
        self._table.owned.pop(self._tp.partition, None)
        await self._producer.close()

    def _apply(self, changes: Mapping[bytes, bytes]) -> None:
        """Take what was committed over into the table."""
        for key, value in changes.items():
            self._stored.apply(key, value)
        self._repository.clear()
        self._sealing.clear()

    async def _decide(self, record: Record, decisions: _Decisions) -> Outcome:
        source = source_of(record)
        try:
            command = self._read(record)
            return await self._answer(command, record, source, decisions)
        except Poison as poison:
            decisions.dead.append(self._sealing.letter(dead_letter(record, poison)))
            command_id, aggregate_id = identify(record)
            return DeadLettered(
                command_id=command_id,
                aggregate_id=aggregate_id,
                timestamp=time_of(record),
                source=source,
                code=poison.code,
                reason=poison.reason,
            )

    async def _answer(
        self, command: Command, record: Record, source: Source, decisions: _Decisions
    ) -> Outcome:
        entity = self._repository.get(command.aggregate_id)
        if entity.version == 0:
            # An aggregate that exists here has had its partition checked.
            check_partition(record, self._settings.partitions)
        first = entity.answer_to(command.id, partial(self._token, command.aggregate_id))
        if first is not None:
            return Duplicate(
                command_id=command.id,
                aggregate_id=command.aggregate_id,
                timestamp=time_of(record),
                source=source,
                correlation_id=command.correlation_id,
                of=first,
            )
        try:
            events = await self._dispatch(command, entity)
        except Rejected as rejected:
            if entity.version > 0:
                self._repository.remember(
                    command.aggregate_id, No(command.id.bytes, rejected.code, rejected.reason)
                )
            return Rejection(
                command_id=command.id,
                aggregate_id=command.aggregate_id,
                timestamp=time_of(record),
                source=source,
                correlation_id=command.correlation_id,
                code=rejected.code,
                reason=rejected.reason,
            )
        sequence = entity.version + len(events)
        ids = tuple([event_id(command.id, index) for index in range(len(events))])
        for number, (id_, event) in enumerate(zip(ids, events, strict=True), entity.version + 1):
            envelope = EventRecord(
                id=id_,
                aggregate_id=command.aggregate_id,
                sequence=number,
                timestamp=command.timestamp,
                command_id=command.id,
                correlation_id=command.correlation_id,
                causation_id=command.causation_id,
                source=source,
                event=event,
            )
            decisions.events.append(Output(record.key, self._sealing.event(envelope)))
        self._repository.remember(
            command.aggregate_id, Yes(command.id.bytes, sequence, len(events), source.offset)
        )
        return Accepted(
            command_id=command.id,
            aggregate_id=command.aggregate_id,
            timestamp=time_of(record),
            source=source,
            correlation_id=command.correlation_id,
            sequence=sequence,
            event_ids=ids,
            token=self._token(command.aggregate_id, source.offset, sequence),
        )

    def _read(self, record: Record) -> Command:
        """The command in a record; a record that breaks the reading is poison, too."""
        try:
            return self._reader.read(record)
        except Poison:
            raise
        except Exception as error:
            log_defect(f"reading {record.topic}[{record.partition}] at {record.offset}", error)
            raise Poison("unreadable", f"reading it raised {type(error).__name__}") from error

    def _token(self, aggregate_id: str, offset: int, sequence: int) -> str:
        source = Source(self._tp.topic, self._tp.partition, offset)
        return str(Token.of(self._cluster, source, aggregate_id, sequence))

    async def _dispatch(self, command: Command, entity: Entity[S]) -> Sequence[Event]:
        """Let the handler decide; whatever it raises, nothing of it stays staged."""
        try:
            check_expected_version(command, entity.version)
            return await self._bus.dispatch(command)
        except Rejected:
            self._repository.put(command.aggregate_id, entity)
            raise
        except Exception as error:
            self._repository.put(command.aggregate_id, entity)
            log_defect(f"deciding {type(command).__name__} {command.id}", error)
            raise Poison("decide-failed", f"deciding it raised {type(error).__name__}") from error
