"""Quix Streams with exactly-once and stateful processing, as its documentation teaches.

Run it as `python -m benchmarks.peers.quix_deciding FOLDER`; it keeps its state in that folder.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import orjson
from quixstreams import Application, State

from benchmarks.peers.rules import Json, decide, event_of, evolve, outcome_of
from streams.aggregate import TopicNames
from streams.settings import Settings
from streams.settings import settings as read_settings

EVENT, OUTCOME = 0, 1
_Output = tuple[int, Json]  # EVENT or OUTCOME, and its value


def run(settings: Settings, folder: str) -> None:
    """Decide commands until the process is stopped."""
    names = TopicNames.of(settings, "users")
    app = Application(
        broker_address=settings.bootstrap_servers,
        consumer_group=f"{settings.namespace}quixstreams",
        processing_guarantee="exactly-once",
        auto_offset_reset="earliest",
        state_dir=folder,
        loglevel="WARNING",
    )
    # bytes: malformed commands need an outcome as well, so Quix must not decode the JSON
    commands = app.topic(names.commands, key_deserializer="bytes", value_deserializer="bytes")
    outputs = app.dataframe(commands).apply(_decide, stateful=True, expand=True)
    for kind, topic in ((EVENT, names.events), (OUTCOME, names.outcomes)):
        outputs.filter(_is(kind)).apply(_value).to_topic(
            app.topic(topic, key_serializer="bytes", value_serializer="bytes")
        )
    app.run()


def _decide(value: bytes, state: State) -> Iterator[_Output]:
    command: Json = {}
    try:
        command = orjson.loads(value)
        user = state.get("user")
        decision = decide(command, user)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        yield OUTCOME, {"status": "dead-lettered"}
        return
    if isinstance(decision, str):
        yield OUTCOME, outcome_of(command, "rejected", code=decision)
    else:
        user = evolve(user, *decision)
        state.set("user", user)
        yield EVENT, event_of(command, *decision, user["version"])
        yield OUTCOME, outcome_of(command, "accepted", sequence=user["version"])


def _is(kind: int) -> Any:
    return lambda output: output[0] == kind


def _value(output: _Output) -> bytes:
    return orjson.dumps(output[1])


if __name__ == "__main__":
    run(read_settings(), sys.argv[1])
