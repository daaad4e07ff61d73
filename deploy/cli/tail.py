"""`cqrs tail`: what comes on the event, outcome and dead letter topics."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal

import click
import orjson
from pydantic.alias_generators import to_camel

from agents.users import USERS
from deploy.cli.terminal import examples
from deploy.environment import load_settings
from models.messages import EventRecord
from streams.aggregate import TopicNames
from streams.encryption.cipher import may_be_sealed, open_dead_letter
from streams.encryption.key_ring import KeyRing, open_key_ring
from streams.kafka.clients import new_consumer, started
from streams.kafka.dead_letters import (
    CODE,
    REASON,
    SEALED,
    SOURCE_OFFSET,
    SOURCE_PARTITION,
    SOURCE_TOPIC,
)
from streams.kafka.topics import check_topics, partitions_of, topic_specs
from streams.settings import Settings
from streams.views.event_reader import open_personal

# What an event carries beside its own fields.
_ENVELOPE = {to_camel(name) for name in EventRecord.__struct_fields__} | {"type", "schemaVersion"}

Kind = Literal["events", "outcomes", "dead"]


@click.command(
    epilog=examples("cqrs tail outcomes", "cqrs tail events --from-beginning --limit 10 --json")
)
@click.argument("kind", type=click.Choice(["events", "outcomes", "dead"]))
@click.option("--from-beginning", is_flag=True, help="All there are, not only new ones.")
@click.option("--limit", type=click.IntRange(min=1), help="End after this many.")
@click.option("--json", "as_json", is_flag=True, help="For programs: one JSON object a line.")
def tail(kind: Kind, from_beginning: bool, limit: int | None, as_json: bool) -> None:
    """Show events, outcomes or dead letters as they come, until Ctrl-C.

    Only what was committed is shown. Records of one partition come in their order. What is
    encrypted is shown as it was, if its key is there (CQRS_MASTER_KEY).
    """
    show = _SHOW[kind][as_json]
    with suppress(KeyboardInterrupt):  # the way to end it
        asyncio.run(_tail(load_settings(), kind, from_beginning, limit, show))


async def _tail(
    settings: Settings,
    kind: Kind,
    from_beginning: bool,
    limit: int | None,
    show: Callable[[Any], str],
) -> None:
    names = TopicNames.of(settings, USERS.name)
    topic = {"events": names.events, "outcomes": names.outcomes, "dead": names.dead_commands}[kind]
    await check_topics(
        settings, [spec for spec in topic_specs(settings, names) if spec.name == topic]
    )
    left = limit
    async with open_key_ring(settings, names) as ring:
        async for record in _records(settings, topic, from_beginning):
            click.echo(show(await _opened(record, ring)))
            if left is not None:
                left -= 1
                if not left:
                    return


async def _records(settings: Settings, topic: str, from_beginning: bool) -> AsyncIterator[Any]:
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


async def _opened(record: Any, ring: KeyRing | None) -> Any:
    """The record as it was before it was sealed, as far as its key is there."""
    is_letter = SEALED in dict(record.headers)
    if ring is None or not (is_letter or may_be_sealed(record.value)):
        return record
    await ring.ensure_loaded(record.partition, {record.key})
    keys = ring.of(record.partition)
    if not is_letter:
        event = orjson.loads(record.value)
        open_personal(event, USERS.events, keys)
        return replace(record, value=orjson.dumps(event))
    key = keys.get(record.key)
    if key is None:
        return record
    headers = tuple(header for header in record.headers if header[0] != SEALED)
    return replace(record, value=open_dead_letter(record.value, record.key, key), headers=headers)


def _event(record: Any) -> str:
    event = orjson.loads(record.value)
    user = f"{event['aggregateId']} #{event['sequence']}"
    said = " ".join(
        f"{name}={json.dumps(value, ensure_ascii=False)}"
        for name, value in event.items()
        if name not in _ENVELOPE
    )
    return f"{event['timestamp']}  {event['type']}  {user}  {said}"


def _outcome(record: Any) -> str:
    outcome = orjson.loads(record.value)
    said = outcome.get("of", outcome)
    detail = (
        f"version {said['sequence']}" if "sequence" in said else f"{said['code']}: {said['reason']}"
    )
    if "of" in outcome:
        detail = f"{said['status']} before: {detail}"
    return (
        f"{outcome['timestamp']}  {outcome['status']}  {outcome.get('aggregateId', '-')}  {detail}"
    )


def _dead(record: Any) -> str:
    letter = _letter(record)
    source = letter["source"]
    return (
        f"{source['topic']}[{source['partition']}] offset {source['offset']}  {letter['code']}: "
        f"{letter['reason']}  {'(encrypted)' if letter['encrypted'] else repr(letter['value'])}"
    )


def _letter(record: Any) -> dict[str, Any]:
    said = {name: (value or b"").decode(errors="replace") for name, value in record.headers}
    return {
        "code": said.get(CODE),
        "reason": said.get(REASON),
        "source": {
            "topic": said.get(SOURCE_TOPIC),
            "partition": int(said.get(SOURCE_PARTITION, -1)),
            "offset": int(said.get(SOURCE_OFFSET, -1)),
        },
        "encrypted": SEALED in said,  # and the key is gone, or there is no master key
        "key": _text(record.key),
        "value": _text(record.value),
    }


def _text(data: bytes | None) -> Any:
    """Bytes for a JSON object: as text, or in base64 if they are none."""
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def _value(record: Any) -> str:
    value: bytes = record.value
    return value.decode()


# kind -> (for people, for programs)
_SHOW: dict[Kind, tuple[Callable[[Any], str], Callable[[Any], str]]] = {
    "events": (_event, _value),
    "outcomes": (_outcome, _value),
    "dead": (_dead, lambda record: json.dumps(_letter(record), ensure_ascii=False)),
}
