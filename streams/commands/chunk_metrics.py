"""What became of the commands of a chunk, and how long it took, for the metrics.

Counting has to cost next to nothing per command: it is done over a group of them in C, and the
metrics change once per chunk and label set, after the commit.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Literal, get_args

from models.errors import PoisonCode
from models.messages import Command, Event
from models.outcomes import (
    Accepted,
    DeadLettered,
    Duplicate,
    Outcome,
    Parked,
    Rejection,
    Unparked,
)
from streams import metrics
from streams.aggregate import Aggregate
from streams.kafka.records import Record

_STAGE = "commands"
_OTHER = "other"
_OUTCOMES: Sequence[type[Outcome]] = (
    Accepted,
    Rejection,
    Duplicate,
    DeadLettered,
    Parked,
    Unparked,
)
_WITH_CODE = (Rejection, DeadLettered)

# `labels` itself would cost a small chunk more than all the rest of this.
_commands = cache(metrics.COMMANDS.labels)
_rejections = cache(metrics.REJECTIONS.labels)
_dead_letters = cache(metrics.DEAD_LETTERS.labels)
_events = cache(metrics.EVENTS.labels)
_seconds_of = cache(metrics.CHUNK_SECONDS.labels)


class ChunkMetrics:
    """Counts and times of one chunk; its time begins when this is created."""

    def __init__(self, names: Mapping[type[Command], str]) -> None:
        """Start from nothing; `names` are those of the command types that are labels."""
        self._names = names
        self._since = time.perf_counter()
        self._outcomes: Counter[tuple[type[object], type[Outcome]]] = Counter()
        self._codes: Counter[tuple[type[Outcome], str]] = Counter()
        self._events: Counter[type[Event]] = Counter()

    def add(
        self,
        commands: Sequence[object],
        outcomes: Sequence[Outcome],
        events: Iterable[Event],
    ) -> None:
        """Count a group of commands with the outcome of each, and their events."""
        self._outcomes.update(zip(map(type, commands), map(type, outcomes), strict=True))
        # Most are accepted, which the comparison of types sees in a third of the time.
        others = [one for one in outcomes if type(one) is not Accepted]
        self._codes.update([(type(one), one.code) for one in others if isinstance(one, _WITH_CODE)])
        self._events.update(map(type, events))

    def end_of(self, step: Literal["decide", "commit", "apply"]) -> None:
        """Note how long a step took: since the end of the one before."""
        now = time.perf_counter()
        _seconds_of(step).observe(now - self._since)
        self._since = now

    def publish(self, records: Sequence[Record]) -> None:
        """Add the counts to the metrics: the chunk, which is of these records, is durable."""
        if records:
            metrics.CHUNK_COMMANDS.observe(len(records))
            age_s = time.time() - records[0].timestamp / 1000
            metrics.CHUNK_AGE_SECONDS.observe(max(0.0, age_s))
        for (command, outcome), number in self._outcomes.items():
            name = self._names.get(command, _OTHER)  # type: ignore[arg-type]  # Poison, Control: other
            _commands(name, outcome.status).inc(number)
        for (outcome, code), number in self._codes.items():
            if outcome is Rejection:
                _rejections(code).inc(number)
            else:
                _dead_letters(_STAGE, code).inc(number)
        for event, number in self._events.items():
            _events(event.__name__).inc(number)


def label_names(aggregate: Aggregate[Any]) -> Mapping[type[Command], str]:
    """Return the label of each command type of an aggregate."""
    return {command: name for name, command in aggregate.commands.items()}


def declare(aggregate: Aggregate[Any]) -> None:
    """Set the counters of an aggregate to 0: the first dead letter is an increase, too."""
    for name in (*aggregate.commands, _OTHER):
        for outcome in _OUTCOMES:
            _commands(name, outcome.status)
    for name in aggregate.events:
        _events(name)
    for code in get_args(PoisonCode):
        _dead_letters(_STAGE, code)
