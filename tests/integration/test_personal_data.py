"""Addresses and names are in no log, metric, health page, outcome or process list."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from pydantic import SecretStr

from deploy.ephemeral import Deployment, WorkerProcess
from deploy.waiting import wait_until
from models.events import UserProfileUpdated
from streams.connection_settings import ConnectionSettings
from streams.encryption.keys import new_master_key
from streams.kafka.clients import new_producer, started
from streams.kafka.partitioner import partition_of
from tests.conftest import Deploy
from tests.harness.command_line import cqrs
from tests.harness.disclosure import lines_with, processes_of
from tests.harness.elasticsearch_proxy import FaultProxy, Refuse
from tests.harness.exposition import get
from tests.harness.read_side import encoded, registered, send_events, view_dead_letters
from tests.integration.erasure import records

# In each of them, whatever happens to its letters.
MARK = "zq7x"
ADDRESS = f"{MARK}.mark@example.org"
NAME = f"{MARK} Zsófia"
PERSON = {"email": ADDRESS, "firstName": NAME, "lastName": NAME}


def command(kind: str, user: str, **fields: Any) -> tuple[bytes, bytes]:
    """Key and value of a command."""
    wire = {"type": kind, "aggregateId": user, **fields}
    return user.encode(), json.dumps(wire, ensure_ascii=False).encode()


def register(user: str, **fields: Any) -> tuple[bytes, bytes]:
    return command("RegisterUser", user, **{**PERSON, "registrationSource": "web", **fields})


def commands_of_all_kinds() -> list[tuple[bytes, bytes]]:
    """Accepted, rejected, repeated, of every kind that is a dead letter; anna is erased at last."""
    _, plain = register("anna")
    once = register("anna", id="33333333-3333-4333-8333-333333333333")
    return [
        *(once, once, register("anna")),
        register("bert"),
        command("UpdateUserProfile", "anna", lastName=f"{NAME} II"),
        command("UpdateUserProfile", "anna", lastName=f"{NAME} II"),
        command("UpdateUserProfile", "anna", expectedVersion=77, email=f"2{ADDRESS}"),
        command("DeactivateUser", "bert"),  # the worker's defect: the handler raises
        (b"anna", plain[:-9]),  # no JSON any more
        (b"anna", plain.replace(b"\xc3", b"\xff")),
        (b"anna", b"[%b]" % plain),
        (b"anna", NAME.encode("utf-16")),
        command(NAME, "anna", **PERSON),
        register("anna", **{ADDRESS: NAME}),
        register("anna", email=f"{NAME}@"),
        register("anna", firstName=[NAME], lastName={NAME: NAME}),
        register("anna", firstName=NAME * 100),
        register("anna", timestamp=NAME, expectedVersion=NAME, id=NAME, correlationId=NAME),
        (NAME.encode(), plain),  # the key is that of nobody
        (ADDRESS.encode(), plain),
        command("EraseUser", "anna"),
        register("anna"),
    ]


async def send(deployed: Deployment, *commands: tuple[bytes, bytes]) -> None:
    """Send these to the users' partition, each with headers that name a person, too."""
    headers = [("note", NAME.encode()), ("reply-to", ADDRESS.encode()), (NAME, b"")]
    async with started(new_producer(deployed.settings), deployed.settings) as producer:
        for key, value in commands:
            await producer.send_and_wait(
                deployed.names.commands, value, key, partition=0, headers=headers
            )


async def until_decided(deployed: Deployment, commands: int) -> None:
    async def decided() -> bool:
        return len(await records(deployed, deployed.names.outcomes)) >= commands

    await wait_until(decided, what=f"{commands} outcomes")


async def pages_of(workers: list[WorkerProcess]) -> dict[str, str]:
    return {
        f"{path} of {worker.role}": (await get(worker, path))[1]
        for worker in workers
        for path in ("/metrics", "/health", "/ready", "/startup", "/live")
    }


@pytest.mark.parametrize("encrypt", [True, False], ids=["encrypted", "plain"])
async def test_nobody_is_named(deploy: Deploy, encrypt: bool) -> None:
    key = new_master_key()
    deployed = deploy(
        partitions=1,
        health_port=0,
        log_format="json" if encrypt else "text",
        log_level="DEBUG",
        encrypt_personal_data=encrypt,
        master_key=SecretStr(key),
    )
    assert partition_of(b"anna", 1) == 0
    async with FaultProxy(deployed.settings.elasticsearch_url, random.Random(1)).serving() as proxy:
        there = deployed.settings.model_copy(update={"elasticsearch_url": proxy.url})
        deployed.settings, direct = there, deployed.settings
        commands = deployed.start(
            "commands",
            app="tests.integration.defective_worker",
            DEFECT="a deactivation raises all that is known",
        )
        views = deployed.start("views")
        deployed.settings = direct
        sent = commands_of_all_kinds()
        await send(deployed, *sent[:6])
        await until_decided(deployed, 6)
        commands.kill()
        commands.start(DEFECT="a deactivation raises all that is known")
        await send(deployed, *sent[6:])
        await until_decided(deployed, len(sent))
        # Elasticsearch refuses this document; and these are no events.
        refused = UserProfileUpdated(last_name=NAME + "x" * 40_000)
        _, poison = register("dora")
        await send_events(
            deployed,
            ("carl", encoded(deployed, "carl", 1, registered(ADDRESS, NAME))),
            ("carl", encoded(deployed, "carl", 2, refused)),
            *(("dora", poison), ("dora", poison[:-9]), (ADDRESS, poison)),
        )
        await wait_until(lambda: _has(view_dead_letters(deployed), 4), what="view dead letters")
        proxy.switch(Refuse(500))
        changed = UserProfileUpdated(last_name=NAME)
        await send_events(deployed, ("carl", encoded(deployed, "carl", 3, changed)))
        await wait_until(lambda: "Projecting waits" in views.log_text)
        seen = {
            **await pages_of(deployed.workers),
            **processes_of(deployed.workers),
        }
        proxy.switch(None)
        # A gap in a user's events parks the only partition, and by that ends the worker.
        await send_events(deployed, ("emil", encoded(deployed, "emil", 7, refused)))
        assert await wait_until(lambda: views.exit_code) == 1
    for worker in deployed.workers:
        seen[f"log of {worker.role}"] = worker.log_text
    outcomes = await records(deployed, deployed.names.outcomes)
    # Their keys are those that a producer has chosen for its commands.
    seen["outcomes"] = "\n".join(repr((one.value, one.headers)) for one in outcomes)
    if encrypt:
        states = await records(deployed, deployed.names.changelog)
        seen["states"] = "\n".join(map(repr, states))
    for words in (["verify", "--timeout", "0"], ["views", "status"], ["state", "verify"]):
        done = cqrs(deployed.settings, *words)
        seen[" ".join(words)] = done.stdout + done.stderr
    assert lines_with(seen, [MARK, key]) == {}
    letters = await records(deployed, deployed.names.dead_commands)
    assert len(letters) == 13
    if encrypt:
        of_users = [letter for letter in letters if letter.key in (b"anna", b"bert")]
        assert lines_with({"dead letters": "\n".join(map(repr, of_users))}, [MARK]) == {}


async def _has(letters: Any, number: int) -> bool:
    return len(await letters) >= number


def test_every_secret_is_hidden() -> None:
    secrets: dict[str, Any] = dict.fromkeys(ConnectionSettings.secrets(), SecretStr(MARK))
    assert secrets
    made = ConnectionSettings.model_construct(**secrets)
    assert MARK not in f"{made!r} {made} {made.model_dump()} {made.model_dump_json()}"
