"""An agent written as Faust's documentation teaches. Run it with `faust -A` and this module."""

from __future__ import annotations

import faust
import orjson
from faust.types import StreamT

from benchmarks.peers.rules import decide, event_of, evolve, outcome_of
from streams.aggregate import TopicNames
from streams.settings import settings

_names = TopicNames.of(settings(), "users")

app = faust.App(
    f"{settings().namespace}faust-agent",
    broker=[f"kafka://{one}" for one in settings().bootstrap_servers.split(",")],
    processing_guarantee="exactly_once",
    topic_partitions=settings().partitions,
)
commands = app.topic(_names.commands, value_serializer="raw", key_serializer="raw")
events = app.topic(_names.events, key_serializer="raw", value_serializer="json")
outcomes = app.topic(_names.outcomes, key_serializer="raw", value_serializer="json")
dead = app.topic(_names.dead_commands, key_serializer="raw", value_serializer="raw")
users = app.Table("users", partitions=settings().partitions)


@app.agent(commands)
async def decide_commands(stream: StreamT[bytes]) -> None:
    """Decide one command after the other."""
    async for key, value in stream.items():
        try:
            command = orjson.loads(value)
            user = users.get(command["aggregateId"])
            decision = decide(command, user)
        except (orjson.JSONDecodeError, KeyError, TypeError):
            await dead.send(key=key, value=value)
            await outcomes.send(key=key, value={"status": "dead-lettered"})
            continue
        if isinstance(decision, str):
            outcome = outcome_of(command, "rejected", code=decision)
        else:
            user = evolve(user, *decision)
            users[command["aggregateId"]] = user
            await events.send(key=key, value=event_of(command, *decision, user["version"]))
            outcome = outcome_of(command, "accepted", sequence=user["version"])
        await outcomes.send(key=key, value=outcome)
