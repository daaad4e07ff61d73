"""A state that outlives its program: another program rebuilds it, or leaves it alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import msgspec
from aiokafka.structs import TopicPartition
from faust.types import TP

from agents.client import open_commands
from agents.users import COMMAND_WORKER, USERS
from deploy.ephemeral import Deployment
from models.commands import EraseUser, RegisterUser, UpdateUserProfile
from models.messages import Command
from models.outcomes import Accepted, Duplicate, FirstAcceptance, FirstRejection, Outcome, Rejection
from models.user import User
from streams.audit.states import verify_states
from streams.audit.verify import verify
from streams.kafka.log_reader import open_logs
from streams.kafka.transactions import OutputRecord, TransactionalProducer
from streams.settings import Settings
from streams.state.changelog import restore
from streams.state.snapshot import Snapshot, decode_snapshot, encode_snapshot
from streams.state.store import MemoryStore
from tests.conftest import Deploy
from tests.harness.command_line import cqrs
from tests.harness.crash_points import Point
from tests.harness.newer_users_worker import NEWER_USERS, NewerUser

NEWER_APP = "tests.harness.newer_users_worker"
KEY = "a2V5IG9mIHRoaXMgdGVzdCwgMzIgYnl0ZXMgbG9uZy4="


def registration() -> RegisterUser:
    return RegisterUser(
        aggregate_id=f"user-{uuid4()}",
        email="anna@example.org",
        first_name="Anna",
        last_name="Müller",
        registration_source="web",
    )


async def dispatch(settings: Settings, commands: Sequence[Command]) -> Sequence[Outcome]:
    async with open_commands(settings) as bus:
        return await asyncio.gather(*map(bus.dispatch, commands))


async def stored(deployed: Deployment) -> MemoryStore:
    """What the changelog of the first partition contains."""
    changelog = TopicPartition(deployed.names.changelog, 0)
    async with open_logs(deployed.settings, [changelog]) as logs:
        logs.consumer.assign([changelog])
        end = (await logs.end_offsets([changelog]))[changelog]
        store = MemoryStore()
        await restore(logs.consumer, changelog, store, end)
        return store


async def test_an_older_state_is_rebuilt_and_a_newer_one_is_left_alone(
    deploy: Deploy, tmp_path: Path
) -> None:
    deployed = deploy(
        "commands",
        partitions=1,
        master_key=KEY,
        encrypt_personal_data=True,
        state_dir=tmp_path,
    )
    settings, older = deployed.settings, deployed.workers[0]
    registered = [registration() for _ in range(50)]
    user = registered[0].aggregate_id
    change = UpdateUserProfile(aggregate_id=user, first_name="Anne")
    refused = registration().model_copy(update={"aggregate_id": user})
    outcomes = await dispatch(settings, registered)
    erase = EraseUser(aggregate_id=registered[1].aggregate_id)  # its events lose their key
    accepted, rejected, _ = await dispatch(settings, [change, refused, erase])
    assert isinstance(accepted, Accepted)
    assert isinstance(rejected, Rejection)
    older.terminate()

    newer = deployed.start("commands", app=NEWER_APP)
    again, first, refusal = await dispatch(settings, [change, registered[0], refused])
    assert isinstance(again, Duplicate)
    assert again.of == FirstAcceptance(
        sequence=2, event_ids=accepted.event_ids, token=accepted.token
    )
    assert isinstance(first, Duplicate)
    assert first.token == outcomes[0].token
    assert isinstance(refusal, Duplicate)
    assert refusal.of == FirstRejection(code="user-exists", reason="User already exists")
    assert "rebuilt the state of 50 aggregates from 52 events; 50 records changed" in newer.log_text
    report = await verify(settings, NEWER_USERS)
    assert report.first_violation is None
    assert report.findings["I3"].checked == 50

    newer.terminate()
    newer.start()  # with the store on disk that the rebuild was applied to
    (changed,) = await dispatch(settings, [UpdateUserProfile(aggregate_id=user, last_name="Meier")])
    assert isinstance(changed, Accepted)
    assert changed.sequence == 3
    assert newer.log_text.count("rebuilding the state") == 1
    assert (await verify(settings, NEWER_USERS)).first_violation is None
    newer.terminate()

    before = await stored(deployed)
    line = (
        f"the state of {deployed.names.commands}[0] was made by a newer program (state version 2, "
        "this is 1): start that one"
    )
    older.start()
    assert older.wait() == 1
    assert line in older.log_text
    done = cqrs(settings, "state", "rebuild", "0")
    assert (done.returncode, done.stderr) == (75, f"cqrs: {line}\n")
    assert cqrs(settings, "state", "verify").stderr == f"cqrs: {line}\n"
    after = await stored(deployed)
    assert (after.end, after.records) == (before.end, before.records)


async def test_a_rebuild_that_was_killed_is_repeated(deploy: Deploy) -> None:
    deployed = deploy("commands", partitions=1)
    settings, older = deployed.settings, deployed.workers[0]
    registered = [registration() for _ in range(50)]
    await dispatch(settings, registered)
    older.terminate()

    second = Point("kill", "after", "changelog", 2)
    newer = deployed.start("commands", app=NEWER_APP, **second.environment())
    assert newer.wait() == -9
    # A mixture of old and new states: the older program must not decide with it.
    older.start()
    assert older.wait() == 1
    assert "was made by a newer program (state version 2, this is 1)" in older.log_text
    newer.start(**Point("kill", "after", "commit", 1).environment())
    assert newer.wait() == -9
    newer.start()
    (again,) = await dispatch(settings, registered[:1])
    assert isinstance(again, Duplicate)
    report = await verify(settings, NEWER_USERS)
    assert report.first_violation is None
    assert report.findings["I3"].checked == 50
    states = [
        decode_snapshot(NEWER_USERS, value).state
        for value in (await stored(deployed)).records.values()
    ]
    assert all(isinstance(state, NewerUser) and state.events == 1 for state in states)


async def test_damage_is_found_and_repaired_while_a_worker_runs(deploy: Deploy) -> None:
    deployed = deploy("commands", partitions=1)
    settings = deployed.settings
    registered = [registration() for _ in range(5)]
    await dispatch(settings, registered)
    fine = cqrs(settings, "state", "verify", "--json")
    assert json.loads(fine.stdout) == {
        "ok": True,
        "aggregates": 5,
        "events": 5,
        "violations": 0,
        "first": None,
    }

    user = registered[0].aggregate_id
    await damage(deployed, user)
    found = cqrs(settings, "state", "verify", "--partition", "0")
    assert found.returncode == 1
    assert f"{user}: its state of version 1 is not the fold of its events" in found.stderr
    assert found.stdout == "5 aggregates, 5 events: 1 differ\n"

    done = cqrs(settings, "state", "rebuild", "--all", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [{"partition": 0, "events": 5, "aggregates": 5, "changed": 1}]
    assert (await verify_states(settings, USERS, [0])).first_violation is None
    again, changed = await dispatch(
        settings, [registered[0], UpdateUserProfile(aggregate_id=user, first_name="Anne")]
    )
    assert isinstance(again, Duplicate)
    assert isinstance(changed, Accepted)
    assert (await verify(settings, USERS)).first_violation is None
    assert cqrs(settings, "state", "rebuild").returncode == 2
    assert cqrs(settings, "state", "rebuild", "7").returncode == 2


async def damage(deployed: Deployment, user: str) -> None:
    """Write another first name into the state of a user, in the place of its worker."""
    tp = TP(deployed.names.commands, 0)
    settings = deployed.settings
    producer = TransactionalProducer(settings, settings.namespace + COMMAND_WORKER, tp)
    await producer.start()
    try:
        snapshot = decode_snapshot(USERS, (await stored(deployed)).get(user.encode()))
        assert isinstance(snapshot.state, User)
        other = msgspec.structs.replace(snapshot.state, first_name="Otto")
        value = encode_snapshot(Snapshot(other, snapshot.version, snapshot.remembered))
        record = OutputRecord(user.encode(), value)
        await producer.commit({deployed.names.changelog: producer.batches([record])})
    finally:
        await producer.close()
