"""Who is new: the order of the event topic, from where the last page ended."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import cast

from aiokafka.structs import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from streams.kafka.log_reader import LogReader
from streams.kafka.records import Record
from streams.views.arrivals import collect_arrivals

TOPIC = "users.events.v1"


class Logs:
    """An event topic: by partition the id and sequence of each event; None is no event."""

    def __init__(self, *partitions: Sequence[tuple[str, int] | None]) -> None:
        self.partitions = [
            [
                Record(TOPIC, number, at, 0, *(_encoded(*one) if one else (b"x", b"{}")))
                for at, one in enumerate(events)
            ]
            for number, events in enumerate(partitions)
        ]

    async def read(
        self, partition: TopicPartition, start: int, end: int
    ) -> AsyncIterator[Sequence[Record]]:
        records = self.partitions[partition.partition][start:end]
        for at in range(0, len(records), 2):
            yield records[at : at + 2]


def _encoded(user: str, sequence: int) -> tuple[bytes, bytes]:
    event = {"type": "UserRegistered", "aggregateId": user, "sequence": sequence, "personal": "?"}
    return user.encode(), json.dumps(event).encode()


async def show(ids: Sequence[str]) -> Mapping[str, str]:
    """Show those in lower case."""
    return {id_: id_ for id_ in ids if id_.islower()}


async def pages(logs: Logs, ends: dict[int, int], limit: int) -> list[str]:
    """Follow the pages to the end."""
    found: list[str] = []
    positions = [0] * len(logs.partitions)
    while True:
        shown, positions = await collect_arrivals(
            cast(LogReader, logs), TOPIC, positions, ends, show, limit
        )
        assert len(shown) <= limit
        found += shown
        if len(shown) < limit:
            assert positions == [ends[number] for number in range(len(positions))]
            return found


EVENTS = st.lists(st.sampled_from([("a", 1), ("b", 2), ("c", 1), ("X", 1), None]), max_size=8)


@given(EVENTS, EVENTS, st.integers(1, 4))
async def test_each_first_event_is_on_one_page_in_its_order(
    first: list[tuple[str, int] | None], second: list[tuple[str, int] | None], limit: int
) -> None:
    logs = Logs(first, second)
    expected = [one[0] for one in [*first, *second] if one in [("a", 1), ("c", 1)]]
    assert await pages(logs, {0: len(first), 1: len(second)}, limit) == expected


async def test_what_the_view_does_not_have_yet_comes_later() -> None:
    logs = cast(LogReader, Logs([("a", 1), ("b", 1)]))
    assert await collect_arrivals(logs, TOPIC, [0], {0: 1}, show, 9) == (["a"], [1])
    behind = {0: 0}  # a new index
    assert await collect_arrivals(logs, TOPIC, [1], behind, show, 9) == ([], [1])
    assert await collect_arrivals(logs, TOPIC, [1], {0: 2}, show, 9) == (["b"], [2])


async def test_a_record_under_another_key_is_no_event() -> None:
    logs = Logs([("a", 1)])
    (record,) = logs.partitions[0]
    logs.partitions[0] = [Record(TOPIC, 0, 0, 0, b"b", record.value)]
    assert await collect_arrivals(cast(LogReader, logs), TOPIC, [0], {0: 1}, show, 9) == ([], [1])
