"""The master key is replaced while workers run.

No destroyed key comes back by that: tests/faults/test_reverts.py.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import SecretStr

from agents.users import COMMAND_WORKER
from deploy.ephemeral import Deployment
from models.commands import EraseUser, UpdateUserProfile
from models.outcomes import Accepted
from streams.commands import rotate_keys as rotation
from streams.commands.rotate_keys import Rotated, read_wrapped_keys, rotate_keys
from streams.encryption.keys import new_master_key
from streams.kafka.clients import new_producer
from streams.kafka.transactions import TransactionalProducer
from streams.settings import Settings
from tests.conftest import Deploy
from tests.harness.command_line import cqrs
from tests.harness.traffic import check
from tests.integration.erasure import dispatch, encrypted, records, register, until_projected

USERS = [f"user-{number}" for number in range(7)]


def both_keys(settings: Settings) -> dict[str, Any]:
    """A new master key, with the one so far as the second."""
    return {
        "master_key": SecretStr(new_master_key()),
        "second_master_key": settings.master_key,
    }


@pytest.fixture
def small_transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two keys in each."""
    monkeypatch.setattr(rotation, "MAX_KEYS", 2)


def restart(deployed: Deployment, settings: Settings) -> None:
    """Start all workers again, with these settings, one after the other."""
    for worker in deployed.workers:
        assert worker.terminate() == 0
        worker.settings = settings
        worker.start()
    deployed.settings = settings


async def test_a_deployment_gets_another_master_key(deploy: Deploy) -> None:
    """As docs/security.md says it, step by step; everything can be read after each."""
    deployed = deploy("commands", "views", partitions=1, **encrypted())
    old = deployed.settings
    await dispatch(deployed, *map(register, USERS))
    await until_projected(deployed, USERS[-1], 1)  # a worker that imports cannot stop cleanly

    new = old.model_copy(update=both_keys(old))
    restart(
        deployed,
        old.model_copy(update={"second_master_key": new.master_key}),
    )
    await dispatch(deployed, register("early"))
    await until_projected(deployed, "early", 1)
    restart(deployed, new)
    await dispatch(deployed, register("late"), EraseUser(aggregate_id=USERS[0]))
    await until_projected(deployed, "late", 1)
    status = cqrs(new, "keys", "status", "--json")
    assert status.returncode == 1
    (partition,) = json.loads(status.stdout)["partitions"]
    assert (partition["current"], partition["second"], partition["unknown"]) == (1, 7, 0)

    rotated = cqrs(new, "keys", "rotate", "--json")
    assert (rotated.returncode, json.loads(rotated.stdout)["wrapped"]) == (0, [7])
    again = cqrs(new, "keys", "rotate", "--json")
    assert json.loads(again.stdout)["wrapped"] == [0]
    status = cqrs(new, "keys", "status", "--json")
    assert status.returncode == 0
    (partition,) = json.loads(status.stdout)["partitions"]
    assert (partition["current"], partition["second"], partition["unknown"]) == (8, 0, 0)

    only_new = new.model_copy(update={"second_master_key": None})
    restart(deployed, only_new)
    changes = [UpdateUserProfile(aggregate_id=user, last_name="Other") for user in USERS[1:]]
    outcomes = await dispatch(deployed, *changes)
    assert {type(outcome) for outcome in outcomes} == {Accepted}
    for user in USERS[1:]:
        document = await until_projected(deployed, user, 2)
        assert document["lastName"] == "Other"
    await check(deployed)
    without = cqrs(old, "keys", "rotate")
    assert (without.returncode, without.stderr.count("\n")) == (75, 1)
    assert without.stderr.startswith(
        "cqrs: keys of users that neither CQRS_MASTER_KEY nor CQRS_SECOND_MASTER_KEY opens (early, "
    )


async def rotate(settings: Settings, deployed: Deployment) -> Rotated:
    return await rotate_keys(settings, deployed.names, 0, COMMAND_WORKER)


async def test_a_damaged_key_holds_up_no_other(deploy: Deploy) -> None:
    deployed = deploy("commands", partitions=1, **encrypted())
    await dispatch(deployed, register("anna"), register("ben"), register("cleo"))
    new = deployed.settings.model_copy(update=both_keys(deployed.settings))
    keys = {one.key: one.value for one in await records(deployed, deployed.names.keys)}

    async def write(wrapped: bytes) -> None:
        async with new_producer(deployed.settings) as producer:
            await producer.send_and_wait(deployed.names.keys, wrapped, b"anna", partition=0)

    await write(keys[b"anna"][:-1] + b"?")
    rotated = cqrs(new, "keys", "rotate", "--json")
    assert rotated.returncode == 75
    assert json.loads(rotated.stdout) == {
        "wrapped": [2],
        "partitions": [{"partition": 0, "wrapped": 2, "unknown": [], "damaged": ["anna"]}],
    }
    assert json.loads(rotated.stderr)["error"] == (
        f"damaged keys of users (anna): restore their records on {deployed.names.keys} from a "
        "backup; the former master key is still needed"
    )
    assert cqrs(new, "keys", "status").returncode == 1

    await write(keys[b"anna"])
    rotated = cqrs(new, "keys", "rotate")
    assert (rotated.returncode, rotated.stdout) == (0, "1 keys of users were wrapped again\n")
    assert cqrs(new, "keys", "status").returncode == 0


async def test_it_continues_after_it_was_interrupted(
    deploy: Deploy, small_transactions: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed = deploy("commands", partitions=1, **encrypted())
    await dispatch(deployed, *map(register, USERS))
    new = deployed.settings.model_copy(update=both_keys(deployed.settings))
    commit = TransactionalProducer.commit
    commits = 0

    async def interrupt(self: TransactionalProducer, *args: Any, **options: Any) -> Any:
        nonlocal commits
        commits += 1
        if commits == 3:
            raise InterruptedError
        return await commit(self, *args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(TransactionalProducer, "commit", interrupt)
        with pytest.raises(InterruptedError):
            await rotate(new, deployed)
    between = await read_wrapped_keys(new, deployed.names, 0)
    assert (between.current, between.second) == (4, 3)
    # The worker still has the old master key alone: it wraps new keys with that one.
    await dispatch(deployed, register("late"))
    assert (await rotate(new, deployed)).wrapped == 4
    assert (await read_wrapped_keys(new, deployed.names, 0)).second == 0
