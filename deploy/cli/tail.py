"""`cqrs tail`: show the records of the event, outcome or dead-letter topic."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, get_args

import click
import orjson
from msgspec.structs import replace
from pydantic.alias_generators import to_camel

from agents.users import USERS
from deploy.cli.failed_commands import Text, text
from deploy.cli.output import Form, Output, json_line, printable
from deploy.cli.terminal import examples
from deploy.colour import OF_OUTCOMES, marked
from deploy.environment import load_settings
from models.errors import Poison
from models.events import UserEvent
from models.messages import EventRecord, Source
from models.outcomes import Outcome
from streams.aggregate import TopicNames
from streams.encryption.cipher import may_be_sealed, open_dead_letter
from streams.encryption.events import open_personal
from streams.encryption.key_ring import KeyRing, open_key_ring
from streams.kafka.clients import new_consumer, started
from streams.kafka.dead_letters import (
    CODE,
    REASON,
    SOURCE_OFFSET,
    SOURCE_PARTITION,
    SOURCE_TOPIC,
    VIEW,
    WITHHELD,
    is_sealed,
    opened_letter,
    split_headers,
)
from streams.kafka.records import Record
from streams.kafka.rights import reader
from streams.kafka.topics import check_topics, partitions_of, topic_specs
from streams.logs import name_of
from streams.settings import Settings

# Fields that every event has, apart from those of its type.
_ENVELOPE = {to_camel(name) for name in EventRecord.__struct_fields__} | {"type", "schemaVersion"}

Kind = Literal["events", "outcomes", "dead", "dead-views"]

# What reading a record that somebody else wrote may raise.
_FAILURES = (ArithmeticError, AttributeError, LookupError, Poison, TypeError, ValueError)


@dataclass(frozen=True)
class DeadLetterRecord:
    """A dead letter: a command, or an event that a view could not take."""

    code: str | None
    """Why it could not be decided, or taken; as for the reason."""
    reason: str | None
    view: str | None
    """Name of the view; null of a command."""
    source: Source
    """Place of the command or event."""
    encrypted: bool
    """Whether the value is encrypted still: its key or the master key is missing."""
    key: Text
    value: Text


@dataclass(frozen=True)
class UnreadableRecord:
    """A record that is not what belongs on its topic."""

    unreadable: str
    """Why."""
    source: Source
    """Its place."""
    key: Text
    value: Text


_OUTPUT = Output(
    EventRecord[UserEvent] | Outcome | DeadLetterRecord | UnreadableRecord,
    forms=("table", "json", "ndjson"),
)


@click.command(
    epilog=examples(
        "cqrs tail outcomes",
        "cqrs tail events --from-beginning --limit 10 --json",
        "cqrs tail dead-views --from-beginning",
    )
)
@click.argument("kind", type=click.Choice(get_args(Kind)))
@click.option(
    "--from-beginning", is_flag=True, help="Show existing records first, not only new ones."
)
@click.option("--limit", type=click.IntRange(min=1), help="Stop after this many records.")
@_OUTPUT.option
def tail(kind: Kind, from_beginning: bool, limit: int | None, form: Form) -> None:
    """Show events, outcomes or dead letters as they arrive, until Ctrl-C.

    `dead` are commands, which `cqrs dead` can replay; `dead-views` are events that a view could not
    take.

    Only committed records are shown, those of one partition in order. Encrypted data is
    decrypted if CQRS_MASTER_KEY is set and the user's key was not destroyed. JSON is one object per
    line.
    """
    as_json = form != "table"
    asyncio.run(_tail(load_settings(), kind, from_beginning, limit, as_json=as_json))


async def _tail(
    settings: Settings,
    kind: Kind,
    from_beginning: bool,
    limit: int | None,
    *,
    as_json: bool,
) -> None:
    names = TopicNames.of(settings, USERS.name)
    topic = {
        "events": names.events,
        "outcomes": names.outcomes,
        "dead": names.dead_commands,
        "dead-views": names.dead_views,
    }[kind]
    await check_topics(
        settings,
        [spec for spec in topic_specs(settings, names) if spec.name == topic],
        [right for right in reader(names) if right.name in (topic, names.keys)],
    )
    left = limit
    async with open_key_ring(settings, names) as ring:
        async for record in _records(settings, topic, from_beginning):
            click.echo(await _line(kind, record, ring, as_json=as_json))
            if left is not None:
                left -= 1
                if not left:
                    return


async def _line(kind: Kind, record: Record, ring: KeyRing | None, *, as_json: bool) -> str:
    """Return the line for a record, whatever somebody has written to the topic."""
    opened = record
    # That a dead letter does not open may be why it is one.
    may_stay_closed = _FAILURES if kind in ("dead", "dead-views") else ()
    try:
        with suppress(*may_stay_closed):
            opened = await _decrypted(record, ring)
        return _SHOW[kind][as_json](opened)
    except _FAILURES:
        reason = str(record.unreadable or "it is none of ours")
        place = f"{name_of(record)} offset {record.offset}"
        value = text(record.value)
        if not as_json:
            return f"{place} cannot be read: {reason}: {value!r}"
        source = Source(record.topic, record.partition, record.offset)
        return json_line(UnreadableRecord(reason, source, text(record.key), value))


async def _records(settings: Settings, topic: str, from_beginning: bool) -> AsyncIterator[Record]:
    async with started(new_consumer(settings), settings) as consumer:
        partitions = partitions_of(settings, topic)
        consumer.assign(partitions)
        if not from_beginning:
            for partition, end in (await consumer.end_offsets(partitions)).items():
                consumer.seek(partition, end)
        while True:
            for records in (await consumer.getmany(timeout_ms=500)).values():
                for record in records:
                    yield record


async def _decrypted(record: Record, ring: KeyRing | None) -> Record:
    """Return the record decrypted, or as it is if there is no key for it."""
    key, value = record.key, record.value
    is_dead_letter = is_sealed(record.headers)
    if ring is None or key is None or value is None:
        return record
    if not (is_dead_letter or may_be_sealed(value)):
        return record
    await ring.ensure_loaded(record.partition, {key})
    keys = ring.of(record.partition)
    if not is_dead_letter:
        event = orjson.loads(value)
        open_personal(event, USERS.events, keys)
        return replace(record, value=orjson.dumps(event))
    data_key = keys.get(key)
    if data_key is None:
        return record
    plain, headers = opened_letter(
        value, record.headers, lambda content: open_dead_letter(content, key, data_key)
    )
    return replace(record, value=plain, headers=tuple(headers))


def _event(record: Any) -> str:
    event = orjson.loads(record.value)
    user = f"{event['aggregateId']} #{event['sequence']}"
    fields = " ".join(
        f"{name}={json.dumps(value, ensure_ascii=False)}"
        for name, value in event.items()
        if name not in _ENVELOPE
    )
    return printable(f"{event['timestamp']}  {event['type']}  {user}  {fields}")


def _outcome(record: Any) -> str:
    outcome = orjson.loads(record.value)
    first = outcome.get("of", outcome)  # of a duplicate: the outcome that it repeats
    if outcome["status"] == "unparked":
        detail = f"{outcome['ended']} parked commands ended, {outcome['left']} left"
    elif "sequence" in first:
        detail = f"version {first['sequence']}"
    elif "code" in first:
        detail = f"{first['code']}: {first['reason']}"
    else:  # of a duplicate
        detail = f"the command at offset {first['offset']}"
    if outcome["status"] == "parked":
        detail += f" ({outcome['behind']} before it)"
    if "of" in outcome:
        detail = f"{first['status']} before: {detail}"
    if "decidedBy" in outcome:
        detail += " (was parked)"
    status = marked(outcome["status"], OF_OUTCOMES.get(outcome["status"], "late"))
    user = printable(outcome.get("aggregateId", "-"))
    return f"{outcome['timestamp']}  {status}  {user}  {printable(detail)}"


def _dead(record: Any) -> str:
    dead_letter = _dead_letter(record)
    source = dead_letter.source
    value = "(encrypted)" if dead_letter.encrypted else repr(dead_letter.value)
    if WITHHELD in dict(split_headers(record.headers)[1]):
        value = "(left out: the key of its user is not in this partition)"
    view = "" if dead_letter.view is None else f"{dead_letter.view}  "
    return printable(
        f"{view}{name_of(source)} offset {source.offset}  {dead_letter.code}: "
        f"{dead_letter.reason}  {value}"
    )


def _dead_letter(record: Any) -> DeadLetterRecord:
    _, own = split_headers(record.headers)
    headers = {name: (value or b"").decode(errors="replace") for name, value in own}
    return DeadLetterRecord(
        code=headers.get(CODE),
        reason=headers.get(REASON),
        view=headers.get(VIEW),
        source=Source(
            headers.get(SOURCE_TOPIC, ""),
            int(headers.get(SOURCE_PARTITION, -1)),
            int(headers.get(SOURCE_OFFSET, -1)),
        ),
        encrypted=is_sealed(record.headers),
        key=text(record.key),
        value=text(record.value),
    )


def _dead_as_json(record: Any) -> str:
    return json_line(_dead_letter(record))


def _value(record: Any) -> str:
    return json_line(orjson.loads(record.value))  # one line, whoever wrote it


# kind -> (one line for people, one line of JSON)
_SHOW: dict[Kind, tuple[Callable[[Any], str], Callable[[Any], str]]] = {
    "events": (_event, _value),
    "outcomes": (_outcome, _value),
    "dead": (_dead, _dead_as_json),
    "dead-views": (_dead, _dead_as_json),
}
