"""F10: poison of every kind, each made from the command that follows it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from itertools import chain, cycle, islice
from typing import Any

from aiokafka.structs import TopicPartition

from deploy.ephemeral import Deployment
from deploy.samples.commands import plan, tally
from deploy.samples.poison import GIANTS, KINDS, Command, Kind
from models.outcomes import DeadLettered, parse_outcome
from streams.kafka.dead_letters import CODE, CUT, CUT_KEY, SOURCE_OFFSET
from streams.kafka.log_reader import LogReader, open_logs
from streams.kafka.partitioner import partition_of
from tests.faults.scenario import Run, Scenario
from tests.harness.checks import require
from tests.harness.traffic import Record, open_traffic, record_of

_RATE = 100.0  # commands per second
_ALL: Mapping[str, Kind] = {**KINDS, **GIANTS}
_MARK = "poison"  # a header of poison with the name of its kind

# Giants are small only when compressed.
_PRODUCER = {"compression_type": "gzip", "max_request_size": 64 * 1024 * 1024}


async def poison_commands(run: Run) -> None:
    """Send poisoned copies before some of the commands: same user, same id, same partition.

    Each must become exactly one dead letter with its own bytes and the right reason, and every
    command must get the outcome that it would have got without it.
    """
    commands = run.pick(3_000, 50_000)
    planned = list(plan(commands, run.seed, duplicates=0.1))
    kinds = [*islice(cycle(KINDS), max(len(KINDS), commands // 100)), *GIANTS]
    run.rng.shuffle(kinds)
    places = sorted(run.rng.sample(range(commands), len(kinds)))
    poison = dict(zip(places, kinds, strict=True))
    deployed = await run.deploy("commands", "commands", "views", partitions=4)
    partitions = deployed.settings.partitions

    def records() -> Iterator[Record]:
        for place, (command, _) in enumerate(planned):
            if place in poison:
                yield _poisoned(poison[place], command, partitions)
            yield record_of(command)

    async with open_traffic(deployed, records(), rate=_RATE, **_PRODUCER) as traffic:
        traffic.burst(commands + len(kinds))
        await traffic.finish(timeout=600)
    run.result.faults += len(kinds)
    report = await run.verify(deployed)
    require(report.commands == commands + len(kinds), "not every record was checked")
    require(report.dead == len(kinds), f"{report.dead} of {len(kinds)} are dead letters")
    expected = tally(planned)
    for name in ("accepted", "rejected", "duplicate", "events", "documents"):
        there, due = getattr(report, name), getattr(expected, name)
        require(there == due, f"{there} {name}, {due} were expected")
    require(await _check_dead_letters(deployed) == Counter(kinds), "some poison was not found")
    run.result.figures["kinds of poison"] = len(_ALL)


def _poisoned(name: str, command: Command, partitions: int) -> Record:
    key, value, headers, astray = _ALL[name].spoil(command)
    home = partition_of(str(command["aggregateId"]).encode(), partitions)
    return Record(key, value, [(_MARK, name.encode()), *headers], (home + astray) % partitions)


async def _check_dead_letters(deployed: Deployment) -> Counter[str]:
    """Check the dead letter of each poison; return how many of each kind there are."""
    names, found = deployed.names, Counter[str]()
    wanted = [
        [
            TopicPartition(topic, number)
            for topic in (names.commands, names.outcomes, names.dead_commands)
        ]
        for number in range(deployed.settings.partitions)
    ]
    async with open_logs(deployed.settings, [*chain.from_iterable(wanted)]) as logs:
        for commands, outcomes, dead_letters in wanted:
            codes = {}
            async for record in _records(logs, outcomes):
                outcome = parse_outcome(record.value)
                if isinstance(outcome, DeadLettered):
                    codes[outcome.source.offset] = outcome.code
            dead_letters_of: dict[int, list[Any]] = defaultdict(list)
            async for dead_letter in _records(logs, dead_letters):
                dead_letters_of[int(dict(dead_letter.headers)[SOURCE_OFFSET])].append(dead_letter)
            async for record in _records(logs, commands):
                name = (dict(record.headers).get(_MARK) or b"").decode()
                if name:
                    found[name] += 1
                    _check(
                        name, record, dead_letters_of.pop(record.offset, ()), codes[record.offset]
                    )
            require(not dead_letters_of, f"dead letters of commands: {sorted(dead_letters_of)[:5]}")
    return found


def _check(name: str, record: Any, dead_letters: Sequence[Any], code: str) -> None:
    """Compare the outcome and the dead letter of a poison with its kind and its bytes."""
    what = f"{name!r} at offset {record.offset} of partition {record.partition}"
    require(len(dead_letters) == 1, f"{what} has {len(dead_letters)} dead letters")
    dead_letter, dead_headers = dead_letters[0], dict(dead_letters[0].headers)
    require(code == _ALL[name].code, f"the outcome of {what} has the code {code}")
    found = (dead_headers[CODE] or b"").decode()
    require(found == code, f"the dead letter of {what} has the code {found}")
    if name in GIANTS:
        lengths = dead_headers.get(CUT), dead_headers.get(CUT_KEY)
        whole = tuple(str(len(part or b"")).encode() for part in (record.value, record.key))
        require(lengths == whole, f"the dead letter of {what} does not have the original lengths")
        kept = record.value.startswith(dead_letter.value) and record.key.startswith(dead_letter.key)
    else:
        headers = dead_letter.headers[: len(record.headers)]
        kept = (dead_letter.key, dead_letter.value, headers) == (
            record.key,
            record.value,
            record.headers,
        )
    require(kept, f"the dead letter of {what} has other bytes")


async def _records(logs: LogReader, tp: TopicPartition) -> AsyncIterator[Any]:
    end = (await logs.end_offsets([tp]))[tp]
    async for records in logs.read(tp, 0, end):
        for record in records:
            yield record


F10 = Scenario("F10", "poison of every kind among the commands", poison_commands)
