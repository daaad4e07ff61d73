"""What the tests of encryption and erasure share: one user, and looking into every topic."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from pydantic import SecretStr

from agents.client import open_commands, open_queries
from agents.user_views import USER_VIEWS
from deploy.ephemeral import Deployment
from deploy.waiting import wait_until
from models.commands import RegisterUser
from models.errors import Fatal, Transient
from models.messages import Command
from models.outcomes import Outcome
from models.queries import GetActiveUsers, GetUserById, GetUsersByEmail
from streams.elasticsearch.index import Document
from streams.encryption.keys import new_master_key
from streams.kafka.clients import new_producer, started
from streams.kafka.log_reader import open_logs
from streams.kafka.partitioner import partition_of
from streams.kafka.topics import partitions_of
from streams.views.reader import open_view

ZSOFIA = {"email": "ZsaZsa@example.org", "first_name": "Zsófia", "last_name": "Győr"}
PERSONAL = tuple(text.encode() for text in ("zsazsa", "Zsófia", "Győr"))


def encrypted() -> dict[str, Any]:
    """The settings of a deployment that encrypts, with a master key of its own."""
    return {"encrypt_personal_data": True, "master_key": SecretStr(new_master_key())}


def register(user: str, **fields: str) -> RegisterUser:
    """Zsófia's registration under this id, but for what is said otherwise."""
    return RegisterUser(aggregate_id=user, registration_source="web", **{**ZSOFIA, **fields})


async def dispatch(deployed: Deployment, *commands: Command) -> list[Outcome]:
    """The outcomes of these commands, one sent after the other."""
    async with open_commands(deployed.settings) as bus:
        return [await bus.dispatch(command) for command in commands]


async def send_poison(deployed: Deployment, user: str, **fields: str) -> None:
    """Send a command of this user that nobody can read, for it has a field too many."""
    command = {"type": "DeactivateUser", "aggregateId": user, **fields}
    value = json.dumps(command, ensure_ascii=False).encode()
    async with started(new_producer(deployed.settings), deployed.settings) as producer:
        await producer.send_and_wait(
            deployed.names.commands,
            value,
            user.encode(),
            partition=partition_of(user.encode(), deployed.settings.partitions),
        )


async def records(deployed: Deployment, topic: str) -> list[Any]:
    """All committed records of a topic."""
    partitions = partitions_of(deployed.settings, topic)
    async with open_logs(deployed.settings, partitions) as logs:
        ends = await logs.end_offsets(partitions)
        return [
            record
            for partition in partitions
            async for part in logs.read(partition, 0, ends[partition])
            for record in part
        ]


async def topics_with(deployed: Deployment, *texts: bytes) -> set[str]:
    """The topics in whose raw bytes one of the texts is, in upper or lower case."""
    names = deployed.names
    found = set()
    for topic in (
        *(names.events, names.outcomes, names.changelog, names.keys),
        *(names.commands, names.dead_commands, names.dead_views),
    ):
        for record in await records(deployed, topic):
            raw = b"%b %b" % (record.key or b"", record.value or b"")
            if any(text.lower() in raw.lower() for text in texts):
                found.add(topic)
    return found


async def document_of(deployed: Deployment, user: str) -> Document | None:
    """The user's document as it is now, tombstone or not."""
    async with open_view(deployed.settings, USER_VIEWS, timeout=10) as store:
        return (await store.fetch([user])).get(user)


async def until_projected(deployed: Deployment, user: str, version: int) -> Document:
    """Wait until the user's document is of this version at least."""

    async def projected() -> Document | None:
        with suppress(Fatal, Transient):  # the view worker has not made the index yet
            document = await document_of(deployed, user)
            return document if document and document["version"] >= version else None
        return None

    found: Document = await wait_until(projected)
    return found


async def shown_by(deployed: Deployment, user: str) -> set[str]:
    """The queries that show the user, once everything written is searchable."""
    async with open_view(deployed.settings, USER_VIEWS, timeout=10) as store:
        await store.refresh()
    async with open_queries(deployed.settings) as queries:
        by_id = await queries.execute(GetUserById(user))
        by_email = await queries.execute(GetUsersByEmail(ZSOFIA["email"][:6]))
        active = await queries.execute(GetActiveUsers(limit=1000))
    return {
        *({"id"} if by_id is not None else ()),
        *({"email"} if user in {item.id for item in by_email.items} else ()),
        *({"active"} if user in {item.id for item in active.items} else ()),
    }
