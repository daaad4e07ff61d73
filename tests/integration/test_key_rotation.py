"""The master key is replaced while workers run, and no destroyed key comes back by that."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import SecretStr

from agents.users import COMMAND_WORKER
from deploy.ephemeral import Deployment
from deploy.waiting import wait_until
from models.commands import EraseUser, UpdateUserProfile
from models.outcomes import Accepted
from streams.commands import rotate_keys as rotation
from streams.commands.rotate_keys import read_wrapped_keys, rotate_keys
from streams.encryption.keys import new_master_key
from streams.kafka.transactions import Fenced, TransactionalProducer
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


async def live_keys(deployed: Deployment) -> dict[bytes, bytes]:
    """The wrapped keys that count, by user."""
    found: dict[bytes, bytes] = {}
    for record in await records(deployed, deployed.names.keys):
        if record.value is None:
            found.pop(record.key, None)
        else:
            found[record.key] = record.value
    return found


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

    new = old.model_copy(update=both_keys(old))
    restart(
        deployed,
        old.model_copy(update={"second_master_key": new.master_key}),
    )
    await dispatch(deployed, register("early"))
    restart(deployed, new)
    await dispatch(deployed, register("late"), EraseUser(aggregate_id=USERS[0]))
    status = cqrs(new, "keys", "status", "--json")
    assert status.returncode == 1
    (partition,) = json.loads(status.stdout)["partitions"]
    assert (partition["current"], partition["second"], partition["unknown"]) == (1, 7, 0)

    rotated = cqrs(new, "keys", "rotate", "--json")
    assert (rotated.returncode, json.loads(rotated.stdout)) == (0, {"wrapped": [7]})
    again = cqrs(new, "keys", "rotate", "--json")
    assert json.loads(again.stdout) == {"wrapped": [0]}
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
    assert "opens the keys of 8 users" in without.stderr


async def rotate(settings: Settings, deployed: Deployment) -> int:
    return await rotate_keys(settings, deployed.names, 0, COMMAND_WORKER)


async def test_a_key_that_is_destroyed_meanwhile_stays_destroyed(
    deploy: Deploy, small_transactions: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each moment of it: after the keys were read, and between any two transactions."""
    deployed = deploy("commands", "views", partitions=1, **encrypted())
    await dispatch(deployed, *map(register, USERS))
    new = deployed.settings.model_copy(update=both_keys(deployed.settings))
    restart(deployed, new)
    victims = iter(USERS[:5])
    fence, commit = TransactionalProducer.start, TransactionalProducer.commit
    refused = 0

    async def erase_one() -> None:
        user = next(victims, None)
        if user is not None:
            (outcome,) = await dispatch(deployed, EraseUser(aggregate_id=user))
            assert isinstance(outcome, Accepted)

    async def erase_before_fencing(self: TransactionalProducer) -> None:
        await erase_one()
        await fence(self)

    async def erase_before_writing(self: TransactionalProducer, *args: Any, **options: Any) -> Any:
        nonlocal refused
        await erase_one()
        try:
            return await commit(self, *args, **options)
        except Fenced:
            refused += 1
            raise

    monkeypatch.setattr(TransactionalProducer, "start", erase_before_fencing)
    monkeypatch.setattr(TransactionalProducer, "commit", erase_before_writing)
    await rotate(new, deployed)
    assert refused > 0
    assert next(victims, None) is None
    assert (await live_keys(deployed)).keys() == {user.encode() for user in USERS[5:]}
    assert (await read_wrapped_keys(new, deployed.names, 0)).second == 0
    assert all(worker.is_running for worker in deployed.workers)
    await check(deployed)


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
    assert await rotate(new, deployed) == 4
    assert (await read_wrapped_keys(new, deployed.names, 0)).second == 0
    await wait_until(lambda: deployed.workers[0].has_begun)
