"""A table written as Faust's documentation teaches, and an agent that only reports its size."""

from __future__ import annotations

import faust
from faust.types import StreamT

from streams.aggregate import TopicNames
from streams.settings import settings

_names = TopicNames.of(settings(), "users")

app = faust.App(
    f"{settings().namespace}faust-table",
    broker=[f"kafka://{one}" for one in settings().bootstrap_servers.split(",")],
    topic_partitions=settings().partitions,
)
commands = app.topic(_names.commands, value_serializer="raw", key_serializer="raw")
outcomes = app.topic(_names.outcomes, value_serializer="raw", key_serializer="raw")
users = app.Table("users", partitions=settings().partitions, key_type=bytes, value_type=bytes)


@app.agent(commands)
async def decide_commands(stream: StreamT[bytes]) -> None:
    """Reply to each command with the number of users in the table."""
    async for key, _ in stream.items():  # noqa: PERF102 - a stream is not a dict
        await outcomes.send(key=key, value=b"%d" % len(users))
