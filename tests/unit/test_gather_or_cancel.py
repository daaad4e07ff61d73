"""Doing things side by side."""

from __future__ import annotations

import asyncio

import pytest

from streams.concurrency import gather_or_cancel


async def give(value: int) -> int:
    return value


async def test_results_are_in_order() -> None:
    assert await gather_or_cancel(give(1), give(2)) == [1, 2]


async def test_the_first_error_cancels_the_others() -> None:
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
