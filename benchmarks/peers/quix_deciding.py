"""Quix Streams, exactly once, as its documentation teaches stateful processing.

Run as `python -m benchmarks.peers.quix_deciding FOLDER`; it keeps its state in that folder.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import orjson
from quixstreams import Application, State

from benchmarks.peers.rules import Json, decide, event_of, evolve, outcome_of
from streams.aggregate import TopicNames
from streams.settings import Settings, settings

EVENT, OUTCOME = 0, 1
_Answer = tuple[int, Json]


def run(where: Settings, folder: str) -> None:
    """Decide until the process is ended."""
    names = TopicNames.of(where, "users")
    app = Application(
        broker_address=where.bootstrap_servers,
        consumer_group=f"{where.namespace}quixstreams",
        processing_guarantee="exactly-once",
        auto_offset_reset="earliest",
        state_dir=folder,
        loglevel="WARNING",
    )
    # malformed commands are answered as well, so that it is not Quix that reads the JSON
    commands = app.topic(names.commands, key_deserializer="bytes", value_deserializer="bytes")
    answers = app.dataframe(commands).apply(_answers, stateful=True, expand=True)
    for kind, topic in ((EVENT, names.events), (OUTCOME, names.outcomes)):
        answers.filter(_is(kind)).apply(_value).to_topic(
            app.topic(topic, key_serializer="bytes", value_serializer="bytes")
        )
    app.run()


def _answers(value: bytes, state: State) -> Iterator[_Answer]:
    command: Json = {}
    try:
        command = orjson.loads(value)
        user = state.get("user")
        answer = decide(command, user)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        yield OUTCOME, {"status": "dead-lettered"}
        return
    if isinstance(answer, str):
        yield OUTCOME, outcome_of(command, "rejected", code=answer)
    else:
        user = evolve(user, *answer)
        state.set("user", user)
        yield EVENT, event_of(command, *answer, user["version"])
        yield OUTCOME, outcome_of(command, "accepted", sequence=user["version"])


def _is(kind: int) -> Any:
    return lambda answer: answer[0] == kind


def _value(answer: _Answer) -> bytes:
    return orjson.dumps(answer[1])


if __name__ == "__main__":
    run(settings(), sys.argv[1])
