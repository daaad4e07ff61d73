"""One run for all who wait; several coroutines as one."""

import asyncio
from types import SimpleNamespace

import pytest

from streams import concurrency
from streams.concurrency import Coalesced, gather_or_cancel


class Counted:
    """An action that ends when it is let go, and gives its number."""

    def __init__(self) -> None:
        self.begun = 0
        self.go = asyncio.Event()

    async def __call__(self) -> int:
        self.begun += 1
        number = self.begun
        await self.go.wait()
        return number


async def settle() -> None:
    """Let everything happen that can happen without waiting."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_callers_during_a_run_share_the_next_one() -> None:
    action = Counted()
    shared = Coalesced(action, min_interval=0)
    first = asyncio.create_task(shared())
    await settle()
    others = [asyncio.create_task(shared()) for _ in range(50)]
    await settle()
    assert action.begun == 1  # it began before they asked
    action.go.set()
    assert await first == 1
    assert await asyncio.gather(*others) == [2] * 50
    assert action.begun == 2


@pytest.mark.parametrize(
    ("rests", "expected"),
    [
        (False, [0.0, 0.01, 0.05, 9.05]),
        # A slow server has half of the time for its other work; at most a quarter of a second.
        (True, [0.0, 0.01, 0.09, 9.34]),
    ],
)
async def test_runs_keep_the_minimal_interval_and_may_rest_after_each(
    monkeypatch: pytest.MonkeyPatch, rests: bool, expected: list[float]
) -> None:
    now, begun = 0.0, []
    durations = [0.001, 0.04, 9.0, 0.0]

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += max(seconds, 0)

    async def action() -> None:
        nonlocal now
        begun.append(round(now, 6))
        now += durations[len(begun) - 1]

    monkeypatch.setattr(concurrency, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(concurrency, "asyncio", SimpleNamespace(sleep=sleep, Lock=asyncio.Lock))
    shared = Coalesced(action, min_interval=0.01, rests=rests)
    for _ in durations:
        await shared()
    assert begun == expected


async def test_a_waiting_caller_continues_when_the_running_one_is_cancelled() -> None:
    action = Counted()
    shared = Coalesced(action, min_interval=0)
    first = asyncio.create_task(shared())
    await settle()
    second = asyncio.create_task(shared())
    first.cancel()
    await settle()
    action.go.set()
    assert await second == 2
    assert first.cancelled()


async def test_a_failure_does_not_affect_the_next_run() -> None:
    results: list[ValueError | int] = [ValueError("no"), 2]

    async def action() -> int:
        result = results.pop(0)
        if isinstance(result, ValueError):
            raise result
        return result

    shared = Coalesced(action, min_interval=0)
    first, second = await asyncio.gather(shared(), shared(), return_exceptions=True)
    assert isinstance(first, ValueError)
    assert second == 2


async def test_nothing_runs_when_nobody_waits() -> None:
    action = Counted()
    action.go.set()
    shared = Coalesced(action, min_interval=0)
    assert await shared() == 1
    await settle()
    assert action.begun == 1


async def give(value: int) -> int:
    return value


async def test_all_of_it_is_given_back_in_order() -> None:
    assert await gather_or_cancel(give(1), give(2)) == [1, 2]


async def test_after_the_first_error_nothing_goes_on() -> None:
    ended = asyncio.Event()

    async def endless() -> int:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.set()
        return 0

    async def fail() -> int:
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        await gather_or_cancel(endless(), fail())
    assert ended.is_set()
