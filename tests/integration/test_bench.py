"""The benchmarks at a tiny size, so that they keep working. Figures are not looked at."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from benchmarks.catalogue import BENCHMARKS
from benchmarks.deciding import (
    NewWorker,
    Worker,
    decide,
    kafka_streams,
    let_decide,
    our_worker,
    plain_loop,
)
from benchmarks.rig.backlog import backlog, read_committed
from benchmarks.rig.runner import BenchContext
from deploy.embedded.stack import EmbeddedStack
from models.errors import Fatal
from models.tokens import Token
from streams.kafka.dead_letters import CODE

TINY = {
    "deciding": {"commands": 2000, "warm-up": 200},
    "latency": {
        "commands": 10_000,
        "warm-up": 1000,
        "settling": 20,
        "at 5/s": 5,
        "at 50/s": 20,
        "seconds at 20%": 1,
        "idle seconds": 0,
        "found": 5,
    },
    # enough to take longer than the time between two looks
    "projecting": {"documents": 20_000, "warm-up": 500},
    "memory": {
        "users": 5000,
        "commands": 2000,
        "warm-up": 200,
        "users at 50%": 20,
        "seconds at 50%": 1,
    },
    "rebuilding": {"users": 2000},
    "recovery": {"records": 3000, "aggregates": 1000},
    "scaling": {"aggregates": 200, "many aggregates": 400, "commands": 8000, "warm-up": 500},
    "search": {"users": 2000, "fragments": 14, "warm-up": 7},
    "search-many": {"users": 3000, "fragments": 14, "warm-up": 7},
    "starting": {"calls": 1},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all, so that the Java sources are compiled once."""
    return tmp_path_factory.mktemp("bench")


@pytest.mark.parametrize("name", BENCHMARKS)
async def test_every_contestant_takes_part(stack: EmbeddedStack, folder: Path, name: str) -> None:
    assert TINY[name].keys() == BENCHMARKS[name].sizes["full"].keys()
    ground = BenchContext(stack, folder, TINY[name], seed=1)
    async with ground.kept:
        for contestant in BENCHMARKS[name].contestants:
            figures = await contestant.measure(ground)
            assert figures
            assert all(figure > 0 for figure in figures.values())


async def test_kafka_streams_writes_what_we_write(stack: EmbeddedStack, folder: Path) -> None:
    ground = BenchContext(stack, folder, {}, seed=3)
    records = backlog(2000, ground.seed).records
    ours = await written(ground, our_worker, records)
    theirs = await written(ground, kafka_streams, records)
    assert len(ours[1]) == len(records)
    assert theirs == ours


async def written(
    ground: BenchContext, new_worker: NewWorker, records: Sequence[tuple[bytes, bytes]]
) -> tuple[list[Any], list[Any], list[Any]]:
    """Events, outcomes and dead letters, without what is new for each deployment."""
    settings, names, _ = await let_decide(ground, new_worker, records)
    events, outcomes, dead = [
        await read_committed(settings, topic)
        for topic in (names.events, names.outcomes, names.dead_commands)
    ]
    return (
        [_anywhere(orjson.loads(one.value)) for one in events],
        [_anywhere(_of_any_time(orjson.loads(one.value))) for one in outcomes],
        [(one.key, one.value, dict(one.headers)[CODE]) for one in dead],
    )


def _anywhere(message: dict[str, Any]) -> dict[str, Any]:
    """Without the deployment's name."""
    del message["source"]["topic"]
    for said in (message, message.get("of", {})):
        if "token" in said:
            said["token"] = [point[1:] for point in Token.parse(said["token"]).points]
    return message


def _of_any_time(outcome: dict[str, Any]) -> dict[str, Any]:
    """Without the time of the command's record, and the wording for what is no command."""
    del outcome["timestamp"]
    if outcome["status"] == "dead-lettered":
        del outcome["reason"]
    return outcome


async def test_a_contestant_with_wrong_outcomes_is_an_error(
    stack: EmbeddedStack, folder: Path
) -> None:
    ground = BenchContext(stack, folder, TINY["deciding"], seed=1)
    with pytest.raises(Fatal, match="the outcomes were"):
        await decide(ground, new_worker=plain_loop, same_outcomes=True)


async def test_a_contestant_that_ends_is_an_error_with_its_last_log_lines(
    stack: EmbeddedStack, folder: Path
) -> None:
    def broken(*_: object) -> Worker:
        return Worker([sys.executable, "-c", "exit('no partitions for me')"], "broken")

    with pytest.raises(Fatal, match="broken-0 ended with code 1: no partitions for me"):
        await let_decide(BenchContext(stack, folder, {}, seed=1), broken, [(b"key", b"value")])
