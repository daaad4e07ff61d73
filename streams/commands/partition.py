"""One partition of the command topic: chunks of commands in, one transaction per chunk out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from itertools import starmap
from typing import Generic, TypeVar

from faust.types import TP
from msgspec.structs import replace

from models.errors import Fatal, PartitionFatal
from streams import metrics, tracing
from streams.aggregate import Aggregate, TopicNames
from streams.commands.chunk_metrics import ChunkMetrics, label_names
from streams.commands.conclusions import Conclusions
from streams.commands.control import control_key
from streams.commands.decider import (
    Decider,
    DecisionBus,
    is_failure,
)
from streams.commands.parking import ParkedCommands
from streams.commands.rebuild_state import rebuild_states
from streams.commands.repository import EventSourcedRepository
from streams.encryption.keys import PartitionKeys, master_keys
from streams.encryption.sealer import PartitionSealer
from streams.kafka.records import Record
from streams.kafka.topic_ids import topic_id
from streams.kafka.transactions import OtherTopic, OutputRecord, TransactionalProducer
from streams.logs import name_of
from streams.state.failure_window import WINDOW, FailureWindow
from streams.state.input_log import check_topic
from streams.state.recovery import recover_partition
from streams.state.store import Position, encode_position, position_key
from streams.state.table import StateTable
from streams.state.version import StateVersion, has_to_rebuild
from streams.worker.app import StreamApp

S = TypeVar("S")

# Commands per group. Each step runs over a group, so that its code and data stay in the CPU's
# caches: one by one costs 25% more; building the batches at the end of the chunk costs 5% more.
_GROUP_SIZE = 64


class CommandPartition(Generic[S]):
    """One partition of the command topic: decides its commands and commits the results.

    Commands are decided in order on staged copies of the state. All results of a chunk (events,
    outcomes, dead letters, state, keys, position) are written in one transaction. The state table
    changes only after its commit.
    """

    def __init__(
        self,
        app: StreamApp,
        aggregate: Aggregate[S],
        table: StateTable,
        new_bus: Callable[[EventSourcedRepository[S]], DecisionBus],
        tp: TP,
    ) -> None:
        self._settings = app.settings
        self._cluster = app.cluster
        self._aggregate = aggregate
        self._names = TopicNames.of(app.settings, aggregate.name)
        self._version = StateVersion.of(aggregate)
        self._table = table
        self._new_bus = new_bus
        self._tp = tp
        self._master = master_keys(app.settings)
        self._encrypt = app.settings.encrypt_personal_data and aggregate.has_personal_data
        self._control_key = control_key(app.settings)
        self._limit = app.settings.dead_letter_limit
        self._producer = TransactionalProducer(app.settings, app.conf.id, tp)
        self._label_names = label_names(aggregate)

    @property
    def is_waiting(self) -> bool:
        """Always False: what the broker does not do within a transaction's timeout has failed."""
        return False

    @property
    def restored(self) -> int:
        """Number of aggregates whose state it holds, roughly."""
        return self._stored.approximate_len()

    async def start(self) -> int:
        """Fence earlier owners, restore the state, and return the position that belongs to it.

        A state of an older version, or one that may be incomplete, is rebuilt first.

        Raises:
            Fatal: only a person can repair it, or a newer program made the state; or its aggregates
                have data keys, and this worker would write their personal data in plain text.
            Fenced: the partition has a newer owner.
        """
        self._drop_state()
        await self._producer.start()
        recovered = await recover_partition(self._settings, self._names, self._tp)
        self._stored = recovered.state
        self._table.owned[self._tp.partition] = recovered.state
        self._aggregates = metrics.STATE_AGGREGATES.labels(self._tp.topic, self._tp.partition)
        if recovered.keys and not self._encrypt:
            raise Fatal(
                f"{name_of(self._tp)}: there are data keys, so this deployment encrypts, and what "
                "this worker writes could never be erased: set CQRS_ENCRYPT_PERSONAL_DATA=true"
            )
        keys = PartitionKeys(self._master, recovered.keys)
        is_older = has_to_rebuild(self._tp, recovered.position, self._version)
        if is_older or recovered.is_incomplete:
            await rebuild_states(
                self._settings, self._aggregate, self._tp, recovered, keys, self._producer
            )
        self._sealer = PartitionSealer(keys, encrypt=self._encrypt)
        self._repository = EventSourcedRepository(self._aggregate, recovered.state, self._sealer)
        self._parked = ParkedCommands(
            self._tp, self._settings.partitions, recovered.state, self._sealer
        )
        self._decider = Decider(
            self._aggregate,
            self._repository,
            self._new_bus(self._repository),
            self._parked,
            partitions=self._settings.partitions,
            parks=self._settings.dead_letter_order == "aggregate",
            control_key=self._control_key,
        )
        self._conclusions = Conclusions(
            self._sealer,
            self._repository.is_erased,
            self._cluster,
            partitions=self._settings.partitions,
        )
        self._position = replace(recovered.position, state=str(self._version))
        self._aggregates.set(self._stored.approximate_len())
        return recovered.position.offset

    async def check_log(self) -> None:
        """Check that the command topic is still the one that the position refers to.

        Raises:
            Fatal: it was deleted and created again.
            KafkaError: the broker does not know it at the moment.
        """
        check_topic(self._tp, self._position, await topic_id(self._settings, self._tp.topic))

    async def process(self, records: Sequence[Record], position: int) -> None:
        """Decide a chunk and commit the results, if its topic and the changelog are still the same.

        A command topic that was deleted and created again may have other records at the position,
        and a worker that did not look meanwhile reads them as if they were the next ones. A
        changelog that was created again would have the position and the states of this chunk
        alone, and the next owner could not see that all others are missing.
        """
        new = self._producer.batches
        events, outcomes, dead = new(), new(), new()
        failed = 0
        measured = ChunkMetrics(self._label_names)
        with tracing.step("decide"):
            for start in range(0, len(records), _GROUP_SIZE):
                if start:
                    await asyncio.sleep(0)  # lets the transactions of other partitions proceed
                group = records[start : start + _GROUP_SIZE]
                commands, decisions = await self._decider.decide(group)
                outputs = self._conclusions.conclude(group, commands, decisions, measured)
                self._repository.end_group()
                events.extend(outputs.events)
                outcomes.extend(outputs.outcomes)
                dead.extend(outputs.dead)
                if self._limit is not None:
                    failed += sum(map(is_failure, decisions))
        changes = {**self._repository.staged(), **self._parked.staged()}
        former = self._position
        recent = self._checked_window(former, len(records), failed)
        self._position = replace(former, offset=position, recent=recent)
        changes[position_key(self._tp)] = encode_position(self._position)
        measured.end_of("decide")
        try:
            with tracing.step("commit"):
                offsets = await self._producer.commit(
                    {
                        self._names.keys: new(self._sealer.changes()),
                        self._names.events: events,
                        self._names.outcomes: outcomes,
                        self._names.dead_commands: dead,
                        self._table.changelog: new(starmap(OutputRecord, changes.items())),
                    },
                    of_topic=former.topic_id,
                    ends={self._table.changelog: self._stored.end},
                )
        except OtherTopic as error:
            check_topic(self._tp, former, str(error))
            raise
        measured.end_of("commit")
        self._apply(changes, offsets[self._table.changelog] + len(changes))
        measured.end_of("apply")
        measured.publish(records)
        self._aggregates.set(self._stored.approximate_len())

    async def close(self) -> None:
        """Give the partition up and drop its state; a local store keeps its files."""
        self._drop_state()
        await self._producer.close()

    def _checked_window(self, former: Position, commands: int, failed: int) -> FailureWindow | None:
        """Return the window after so many more commands.

        Raises:
            PartitionFatal: too many of the last commands failed.
        """
        if self._limit is None:
            return None
        window = (former.recent or FailureWindow()).adding(commands, failed)
        if failed and window.exceeds(self._limit):
            raise PartitionFatal(
                f"{name_of(self._tp)}: more than {self._limit:.2%} of the last "
                f"{WINDOW} commands failed, which a mended program could decide, and this chunk "
                f"has {failed} more: start one, or raise CQRS_DEAD_LETTER_LIMIT"
            )
        return window

    def _drop_state(self) -> None:
        state = self._table.owned.pop(self._tp.partition, None)
        if state is not None:
            state.close()
            metrics.STATE_AGGREGATES.remove(self._tp.topic, self._tp.partition)
            ParkedCommands.forget(self._tp)

    def _apply(self, changes: Mapping[bytes, bytes], end: int) -> None:
        """Apply committed changes, which lie before `end` in the changelog, to the table."""
        self._stored.apply(changes, end)
        self._repository.clear()
        self._parked.clear()
        self._sealer.clear()
