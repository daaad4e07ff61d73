"""Working on a partition by hand, while workers take it back."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError
from faust.types import TP

from streams.commands import ownership
from streams.commands.ownership import TakenOver, work_as_owner
from streams.kafka.permissions import NotAllowed
from streams.kafka.transactions import Fenced
from streams.settings import Settings


class Producer:
    """Owns the partition each time that it is started."""

    starts = 0

    def __init__(self, *_: object) -> None: ...

    async def start(self) -> None:
        Producer.starts += 1

    async def close(self) -> None: ...


@pytest.fixture(autouse=True)
def producer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "TransactionalProducer", Producer)
    Producer.starts = 0


async def work(failures: Iterable[Exception]) -> str:
    """Work that fails in these ways before it ends."""
    left = list(failures)

    async def attempt(_: object) -> str:
        if left:
            raise left.pop(0)
        return "done"

    return await work_as_owner(
        Settings(), TP("users.commands.v1", 0), "worker", attempt, "it was done"
    )


async def test_work_is_repeated_when_a_worker_takes_the_partition_back() -> None:
    """Amid its transaction a broker may also answer something else: it is not known what became
    of it then."""
    assert await work([Fenced(), KafkaError("Unexpected error during batch delivery")]) == "done"
    assert Producer.starts == 3


async def test_a_worker_that_always_takes_it_back_is_named() -> None:
    with pytest.raises(TakenOver, match=r"users\.commands\.v1\[0\] was taken over .* it was done"):
        await work([Fenced()] * 5)


async def test_what_always_fails_is_raised() -> None:
    with pytest.raises(KafkaError, match="the last one"):
        await work([*[KafkaError("another one")] * 4, KafkaError("the last one")])
    assert Producer.starts == 5


async def test_what_is_not_allowed_is_not_repeated() -> None:
    with pytest.raises(NotAllowed, match="lacks Write on topic users"):
        await work([TopicAuthorizationFailedError("users.keys.v1")])
    assert Producer.starts == 1
