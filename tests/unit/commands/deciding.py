"""A partition of commands without servers: each transaction is committed, and can be read."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest
from faust.types import TP
from msgspec.structs import replace

from agents.user_commands import user_command_bus
from agents.users import USERS
from models.messages import Command, Event
from models.user import User
from streams.aggregate import TopicNames
from streams.audit.folds import Frozen
from streams.audit.partition import PartitionAudit
from streams.audit.report import Report
from streams.buses import CommandBus
from streams.commands import partition as command_partition
from streams.commands.partition import CommandPartition
from streams.encryption.keys import PartitionKeys, master_keys
from streams.kafka.records import Record
from streams.kafka.transactions import OutputRecord
from streams.settings import Settings
from streams.state.parked import PARKED_PREFIX, ParkedQueue, decode_parked
from streams.state.recovery import Recovered
from streams.state.store import RESERVED, MemoryStore, Position
from streams.state.version import StateVersion

NAMES = TopicNames("", "users")
TOPIC = TP(NAMES.commands, 0)


class Written:
    """Takes the outputs in the place of the producer; each transaction is committed."""

    def __init__(self, *_: object) -> None:
        self.topics: dict[str, list[OutputRecord]] = defaultdict(list)

    async def start(self) -> None:
        """There is nobody to be fenced."""

    async def close(self) -> None:
        """Nothing is open."""

    def batches(self, records: Iterable[OutputRecord] = ()) -> list[OutputRecord]:
        """Of any size, and they stay records."""
        return list(records)

    async def commit(
        self, outputs: Mapping[str, Sequence[OutputRecord]], **_checks: object
    ) -> Mapping[str, int]:
        """Keep them."""
        begins = {topic: len(self.topics[topic]) for topic in outputs}
        for topic, records in outputs.items():
            self.topics[topic] += records
        return begins


class Deciding:
    """One partition of users under a program that fails for what `breaks` says."""

    def __init__(self, **changes: Any) -> None:
        self.settings = Settings(**{"partitions": 1, **changes})
        self.topics: dict[str, list[OutputRecord]] = defaultdict(list)
        self.breaks: Callable[[Command], bool] = lambda _: False
        self.log: list[Record] = []
        self._read = 0

    def send(self, key: bytes, value: object, *headers: tuple[str, bytes | None]) -> int:
        """Put a record on the command topic, and return its offset."""
        offset = len(self.log)
        encoded = value if isinstance(value, bytes) else orjson.dumps(value)
        self.log.append(Record(*TOPIC, offset, 1_790_000_000_000 + offset, key, encoded, headers))
        return offset

    def decide(self, *, at_a_time: int = 1000) -> None:
        """Start a worker, and let it decide what was sent, in chunks of this size."""
        asyncio.run(self._decide(at_a_time))

    async def _decide(self, at_a_time: int) -> None:
        app = SimpleNamespace(
            settings=self.settings, cluster="cluster", conf=SimpleNamespace(id="app")
        )
        table = SimpleNamespace(owned={}, changelog=NAMES.changelog)
        partition = CommandPartition[User](
            cast("Any", app), USERS, cast("Any", table), self._bus, TOPIC
        )
        cast("Any", partition._producer).topics = self.topics
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(command_partition, "recover_partition", self._recover)
            self._read = await partition.start()
        while self._read < len(self.log):
            chunk = self.log[self._read : self._read + at_a_time]
            await partition.process(chunk, chunk[-1].offset + 1)
            self._read = chunk[-1].offset + 1
        await partition.close()

    async def _recover(self, *_: object) -> Recovered:
        store, keys = MemoryStore(), MemoryStore()
        for records, into in ((NAMES.changelog, store), (NAMES.keys, keys)):
            for one in self.topics[records]:
                into.apply({one.key or b"": one.value}, into.end + 1)
        stored = store.position(TOPIC) or Position(0, state=str(StateVersion.of(USERS)))
        return Recovered(store, replace(stored, partitions=1), keys.records)

    def _bus(self, users: Any) -> CommandBus[Sequence[Event]]:
        bus = user_command_bus(users)
        inner = bus.dispatch

        async def dispatch(command: Command) -> Sequence[Event]:
            events = await inner(command)
            if self.breaks(command):
                raise ZeroDivisionError("a defect")
            return events

        bus.dispatch = dispatch  # type: ignore[method-assign]
        return bus

    def outcomes(self) -> list[dict[str, Any]]:
        """All outcomes so far."""
        return [orjson.loads(one.value or b"") for one in self.topics[NAMES.outcomes]]

    def statuses(self) -> list[tuple[int, str]]:
        """Offset of the command and status of each outcome so far, in their order."""
        return [(one["source"]["offset"], one["status"]) for one in self.outcomes()]

    def events(self) -> list[dict[str, Any]]:
        """All events so far."""
        return [orjson.loads(one.value or b"") for one in self.topics[NAMES.events]]

    def audit(self) -> Report:
        """What `verify` says about the topics, without a view."""
        last = {one.key or b"": one.value or b"" for one in self.topics[NAMES.changelog]}
        store = MemoryStore()
        store.apply(last, 1)
        position = store.position(TOPIC) or Position(0)
        report = Report()
        keys = {one.key or b"": one.value for one in self.topics[NAMES.keys] if one.value}
        audit = PartitionAudit(
            USERS,
            NAMES,
            TOPIC.partition,
            Frozen(position.offset, 0),
            view=None,
            report=report,
            keys=PartitionKeys(master_keys(self.settings), keys),
        )
        audit.add_commands(self.log)
        audit.add_outcomes(self._records(NAMES.outcomes))
        audit.add_dead_letters(self._records(NAMES.dead_commands))
        audit.add_events(self._records(NAMES.events))
        audit.conclude(
            {
                key: value
                for key, value in last.items()
                if not key.startswith(RESERVED) or key.startswith(PARKED_PREFIX)
            }
        )
        return report

    def _records(self, topic: str) -> list[Record]:
        return [
            Record(topic, 0, offset, 0, one.key, one.value, tuple(one.headers))
            for offset, one in enumerate(self.topics[topic])
        ]

    def parked(self) -> dict[bytes, ParkedQueue]:
        """What is parked, by user, according to the changelog."""
        last = {one.key: one.value for one in self.topics[NAMES.changelog] if one.key is not None}
        found = {
            key[len(PARKED_PREFIX) :]: decode_parked(value)
            for key, value in last.items()
            if key.startswith(PARKED_PREFIX)
        }
        return {key: parked for key, parked in found.items() if parked is not None}
