"""One partition of the command topic: chunks of commands in, one transaction per chunk out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import starmap
from typing import Generic, TypeVar

from faust.types import TP

from models.errors import Poison, Rejected
from models.messages import Command, Event, EventRecord, Source, check_expected_version, event_id
from models.outcomes import Accepted, DeadLettered, Duplicate, Outcome, Rejection
from models.tokens import token_text
from models.wire import encode
from streams.aggregate import Aggregate, TopicNames
from streams.buses import CommandBus
from streams.commands.reader import CommandReader, identify
from streams.commands.repository import Repository
from streams.encryption.keys import PartitionKeys, master_key
from streams.encryption.sealer import PartitionSealer
from streams.kafka.dead_letters import dead_letter
from streams.kafka.partitioner import check_partition
from streams.kafka.records import Record, reply_key, source_of, time_of
from streams.kafka.transactions import OutputRecord, TransactionalProducer
from streams.state.recovery import recover_partition
from streams.state.snapshot import (
    Remembered,
    RememberedAcceptance,
    RememberedRejection,
    first_answer,
)
from streams.state.store import encode_position, position_key
from streams.state.table import StateTable
from streams.worker.app import StreamApp
from streams.worker.logs import log_defect

S = TypeVar("S")

# What a handler gives: the uncommitted events of the command's aggregate, already saved.
DecisionBus = CommandBus[Sequence[Event]]

# What deciding gives: the events with the answer that is remembered from now on, the answer that
# was remembered, or why there is none.
_Verdict = tuple[Sequence[Event], RememberedAcceptance] | Remembered | Rejected | Poison

# So many commands are read, then decided, then answered, then put into batches: the code of a step
# and the data of so few stay in the processor's caches. One by one they take a quarter longer, with
# batches made at the end of the chunk 5%.
_GROUP = 64


@dataclass
class _Outputs:
    """What a group of commands brings about."""

    events: list[OutputRecord] = field(default_factory=list)
    outcomes: list[OutputRecord] = field(default_factory=list)
    dead: list[OutputRecord] = field(default_factory=list)


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
        self._names = TopicNames.of(app.settings, aggregate.name)
        self._reader = CommandReader(aggregate.commands)
        self._table = table
        self._new_bus = new_bus
        self._tp = tp
        self._master = master_key(app.settings)
        self._encrypt = app.settings.encrypt_personal_data and aggregate.is_personal
        self._producer = TransactionalProducer(app.settings, app.conf.id, tp)

    @property
    def is_waiting(self) -> bool:
        """Never: what the broker does not do in a transaction's time has failed."""
        return False

    async def start(self) -> int:
        """Fence earlier owners, restore the state, and return the position that it stands at."""
        self._drop_state()
        await self._producer.start()
        recovered = await recover_partition(self._settings, self._names, self._tp)
        self._stored = recovered.state
        self._table.owned[self._tp.partition] = recovered.state
        self._sealing = PartitionSealer(
            PartitionKeys(self._master, recovered.keys), encrypt=self._encrypt
        )
        self._repository = Repository(self._aggregate, recovered.state, self._sealing)
        self._bus = self._new_bus(self._repository)
        return recovered.position

    async def process(self, records: Sequence[Record], position: int) -> None:
        """Decide and commit a chunk."""
        new = self._producer.batches
        events, outcomes, dead = new(), new(), new()
        for start in range(0, len(records), _GROUP):
            if start:
                await asyncio.sleep(0)  # meanwhile the transactions of other partitions get on
            outputs = await self._process_group(records[start : start + _GROUP])
            events.extend(outputs.events)
            outcomes.extend(outputs.outcomes)
            dead.extend(outputs.dead)
        changes = self._repository.staged()
        changes[position_key(self._tp)] = encode_position(position)
        offsets = await self._producer.commit(
            {
                self._names.keys: new(self._sealing.changes()),
                self._names.events: events,
                self._names.outcomes: outcomes,
                self._names.dead_commands: dead,
                self._table.changelog: new(starmap(OutputRecord, changes.items())),
            }
        )
        self._apply(changes, offsets[self._table.changelog] + len(changes))

    async def close(self) -> None:
        """Give the partition up and drop its state; a local store keeps its files."""
        self._drop_state()
        await self._producer.close()

    def _drop_state(self) -> None:
        state = self._table.owned.pop(self._tp.partition, None)
        if state is not None:
            state.close()

    def _apply(self, changes: Mapping[bytes, bytes], end: int) -> None:
        """Take what was committed, and lies before `end` in the changelog, over into the table."""
        self._stored.apply(changes, end)
        self._repository.clear()
        self._sealing.clear()

    async def _process_group(self, records: Sequence[Record]) -> _Outputs:
        outputs = _Outputs()
        commands = [self._read(record) for record in records]
        verdicts = [await self._decide(*read) for read in zip(records, commands, strict=True)]
        for record, command, verdict in zip(records, commands, verdicts, strict=True):
            outcome = self._answer(record, command, verdict, outputs)
            outputs.outcomes.append(OutputRecord(reply_key(record), encode(outcome)))
        return outputs

    def _read(self, record: Record) -> Command | Poison:
        """The command in a record; one that breaks the reading is poison, too."""
        try:
            return self._reader.read(record)
        except Poison as poison:
            return poison.without_traceback()
        except Exception as error:
            log_defect(f"reading {record.topic}[{record.partition}] at {record.offset}", error)
            return Poison("unreadable", f"reading it raised {type(error).__name__}")

    async def _decide(self, record: Record, command: Command | Poison) -> _Verdict:
        """Let the handler decide, and stage what comes of it: whatever it raises, nothing else."""
        if isinstance(command, Poison):
            return command
        aggregate_id, id_ = command.aggregate_id, command.id.bytes
        entity = self._repository.get(aggregate_id)
        if entity.version == 0:
            # An aggregate that exists here has had its partition checked.
            try:
                check_partition(record, self._settings.partitions)
            except Poison as poison:
                return poison.without_traceback()
        first = entity.reply_to(id_)
        if first is not None:
            return first
        try:
            check_expected_version(command, entity.version)
            events = await self._bus.dispatch(command)
        except Rejected as rejected:
            self._repository.put(aggregate_id, entity)
            if entity.version > 0:
                self._repository.remember(
                    aggregate_id, RememberedRejection(id_, rejected.code, rejected.reason)
                )
            return rejected.without_traceback()
        except Exception as error:
            self._repository.put(aggregate_id, entity)
            log_defect(f"deciding {type(command).__name__} {command.id}", error)
            return Poison("decide-failed", f"deciding it raised {type(error).__name__}")
        answer = RememberedAcceptance(id_, entity.version + len(events), len(events), record.offset)
        self._repository.remember(aggregate_id, answer)
        return events, answer

    def _answer(
        self, record: Record, command: Command | Poison, verdict: _Verdict, outputs: _Outputs
    ) -> Outcome:
        """The reply to a command; the events or the dead letter are added to the outputs."""
        source, at = source_of(record), time_of(record)
        if isinstance(verdict, Poison):
            outputs.dead.append(self._sealing.seal_dead_letter(dead_letter(record, verdict)))
            command_id, aggregate_id = identify(record)
            return DeadLettered(
                command_id=command_id,
                aggregate_id=aggregate_id,
                timestamp=at,
                source=source,
                code=verdict.code,
                reason=verdict.reason,
            )
        assert isinstance(command, Command)
        if isinstance(verdict, Rejected):
            return Rejection(
                command_id=command.id,
                aggregate_id=command.aggregate_id,
                timestamp=at,
                source=source,
                correlation_id=command.correlation_id,
                code=verdict.code,
                reason=verdict.reason,
            )
        if isinstance(verdict, RememberedAcceptance | RememberedRejection):
            return Duplicate(
                command_id=command.id,
                aggregate_id=command.aggregate_id,
                timestamp=at,
                source=source,
                correlation_id=command.correlation_id,
                of=first_answer(command.id, verdict, partial(self._token, command.aggregate_id)),
            )
        events, answer = verdict
        ids = tuple([event_id(command.id, index) for index in range(len(events))])
        sequences = range(answer.sequence - len(events) + 1, answer.sequence + 1)
        for sequence, id_, event in zip(sequences, ids, events, strict=True):
            envelope = EventRecord(
                id=id_,
                aggregate_id=command.aggregate_id,
                sequence=sequence,
                timestamp=command.timestamp,
                command_id=command.id,
                correlation_id=command.correlation_id,
                causation_id=command.causation_id,
                source=source,
                event=event,
            )
            outputs.events.append(OutputRecord(record.key, self._sealing.seal_event(envelope)))
        return Accepted(
            command_id=command.id,
            aggregate_id=command.aggregate_id,
            timestamp=at,
            source=source,
            correlation_id=command.correlation_id,
            sequence=answer.sequence,
            event_ids=ids,
            token=token_text(self._cluster, source, command.aggregate_id, answer.sequence),
        )

    def _token(self, aggregate_id: str, offset: int, sequence: int) -> str:
        source = Source(self._tp.topic, self._tp.partition, offset)
        return token_text(self._cluster, source, aggregate_id, sequence)
