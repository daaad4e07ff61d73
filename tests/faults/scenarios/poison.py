"""F10: poison of every kind among the commands, made from those that it lies between."""

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

_RATE = 100.0
_ALL: Mapping[str, Kind] = {**KINDS, **GIANTS}
_MARK = "poison"  # a header with the kind's name, by which poison is told from commands

# Giants have to be small on their way.
_PRODUCER = {"compression_type": "gzip", "max_request_size": 64 * 1024 * 1024}


async def poison_commands(run: Run) -> None:
    """Before some of the commands comes a poisoned copy: same user, same id, same partition.

    Every poison has to end as exactly one dead letter with its own bytes and the right reason, and
    every command has to get the outcome that it would have got without.
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
        require(there == due, f"{there} {name} where the plan has {due}")
    require(await _checked_letters(deployed) == Counter(kinds), "some poison was not found")
    run.result.figures["kinds of poison"] = len(_ALL)


def _poisoned(name: str, command: Command, partitions: int) -> Record:
    key, value, headers, astray = _ALL[name].spoil(command)
    home = partition_of(str(command["aggregateId"]).encode(), partitions)
    return Record(key, value, [(_MARK, name.encode()), *headers], (home + astray) % partitions)


async def _checked_letters(deployed: Deployment) -> Counter[str]:
    """How much poison of each kind there is on the topic; checks the letter of each."""
    names, found = deployed.names, Counter[str]()
    wanted = [
        [
            TopicPartition(topic, number)
            for topic in (names.commands, names.outcomes, names.dead_commands)
        ]
        for number in range(deployed.settings.partitions)
    ]
    async with open_logs(deployed.settings, [*chain.from_iterable(wanted)]) as logs:
        for commands, outcomes, letters in wanted:
            codes = {}
            async for record in _records(logs, outcomes):
                outcome = parse_outcome(record.value)
                if isinstance(outcome, DeadLettered):
                    codes[outcome.source.offset] = outcome.code
            letters_of: dict[int, list[Any]] = defaultdict(list)
            async for letter in _records(logs, letters):
                letters_of[int(dict(letter.headers)[SOURCE_OFFSET])].append(letter)
            async for record in _records(logs, commands):
                name = (dict(record.headers).get(_MARK) or b"").decode()
                if name:
                    found[name] += 1
                    _check(name, record, letters_of.pop(record.offset, ()), codes[record.offset])
            require(not letters_of, f"dead letters of commands: {sorted(letters_of)[:5]}")
    return found


def _check(name: str, record: Any, letters: Sequence[Any], code: str) -> None:
    """Hold what came of a poison against its kind and its bytes."""
    what = f"{name!r} at offset {record.offset} of partition {record.partition}"
    require(len(letters) == 1, f"{what} has {len(letters)} dead letters")
    letter, said = letters[0], dict(letters[0].headers)
    require(code == _ALL[name].code, f"the outcome of {what} says {code}")
    require((said[CODE] or b"").decode() == code, f"the dead letter of {what} says {said[CODE]}")
    if name in GIANTS:
        lengths = said.get(CUT), said.get(CUT_KEY)
        whole = tuple(str(len(part or b"")).encode() for part in (record.value, record.key))
        require(lengths == whole, f"the dead letter of {what} does not say what was cut")
        kept = record.value.startswith(letter.value) and record.key.startswith(letter.key)
    else:
        headers = letter.headers[: len(record.headers)]
        kept = (letter.key, letter.value, headers) == (record.key, record.value, record.headers)
    require(kept, f"the dead letter of {what} has other bytes")


async def _records(logs: LogReader, tp: TopicPartition) -> AsyncIterator[Any]:
    end = (await logs.end_offsets([tp]))[tp]
    async for records in logs.read(tp, 0, end):
        for record in records:
            yield record


F10 = Scenario("F10", "poison of every kind among the commands", poison_commands)
