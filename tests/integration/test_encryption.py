"""Personal data under the key of its user, with real workers: where it lies, who can read it."""

from __future__ import annotations

import json
import re
from itertools import chain

import pytest

from agents.user_audit import verify_users
from agents.user_views import USER_VIEWS
from deploy.samples.commands import generate
from deploy.waiting import wait_until
from models.commands import DeactivateUser, EraseUser, UpdateUserProfile
from models.errors import Fatal
from models.outcomes import Accepted, DeadLettered, Rejection
from streams.encryption.cipher import is_sealed_state
from streams.kafka.clients import new_producer, started
from streams.progress import no_progress
from streams.views.rebuild import Rebuild, rebuild
from tests.conftest import Deploy
from tests.harness.command_line import cqrs
from tests.harness.deployments import create_again
from tests.harness.traffic import check, counting, send
from tests.integration.erasure import (
    PERSONAL,
    dispatch,
    encrypted,
    records,
    register,
    send_poison,
    shown_by,
    topics_with,
    until_projected,
)


async def test_from_registration_to_search_and_over_a_restart(deploy: Deploy) -> None:
    deployed = deploy("commands", "views", **encrypted())
    names = deployed.names
    outcomes = await dispatch(
        deployed,
        register("anna", last_name="Other"),
        UpdateUserProfile(aggregate_id="anna", last_name="Győr"),
    )
    assert [type(outcome) for outcome in outcomes] == [Accepted, Accepted]
    await send_poison(deployed, "anna", nickname="Győr")
    await wait_until(lambda: records(deployed, names.dead_commands))
    await until_projected(deployed, "anna", 2)
    assert await shown_by(deployed, "anna") == {"id", "email", "active"}
    assert await topics_with(deployed, *PERSONAL) == {names.commands}
    states = [r.value for r in await records(deployed, names.changelog) if r.key == b"anna"]
    assert states
    assert all(map(is_sealed_state, states))

    for worker in deployed.workers:
        assert worker.terminate() == 0
        worker.start()
    (outcome,) = await dispatch(
        deployed, UpdateUserProfile(aggregate_id="anna", first_name="Zsófia")
    )
    assert isinstance(outcome, Rejection)
    assert outcome.code == "nothing-to-change"  # so the state was read
    await dispatch(deployed, DeactivateUser(aggregate_id="anna"))
    report = await check(deployed)
    assert (report.aggregates, report.documents, report.dead) == (1, 1, 1)

    shown = cqrs(deployed.settings, "tail", "dead", "--from-beginning", "--limit", "1", "--json")
    assert json.loads(json.loads(shown.stdout)["value"])["nickname"] == "Győr"
    shown = cqrs(deployed.settings, "tail", "events", "--from-beginning", "--limit", "3")
    assert "ZsaZsa@example.org" in shown.stdout


async def test_a_stream_of_commands_of_all_kinds(deploy: Deploy) -> None:
    deployed = deploy("commands", "views", **encrypted())
    async with counting(deployed) as outcomes, new_producer(deployed.settings) as producer:
        sent = await send(producer, deployed, generate(2000, seed=3))
        await outcomes.reach(sent)
    report = await check(deployed)
    assert report.commands == sent
    keys = {record.key for record in await records(deployed, deployed.names.keys)}
    assert len(keys) == report.aggregates == report.documents
    assert await topics_with(deployed, b"example.") == {deployed.names.commands}


async def test_encryption_can_be_switched_on_for_existing_users(deploy: Deploy) -> None:
    """What was written before stays as it is and is read; what comes after is encrypted."""
    deployed = deploy("commands", "views")
    await dispatch(deployed, register("anna"), register("ben"))
    await until_projected(deployed, "ben", 1)  # a worker that still imports cannot stop cleanly
    changes = deployed.settings.model_copy(update=encrypted())
    for worker in deployed.workers:
        assert worker.terminate() == 0
        worker.settings = changes
        worker.start()
    deployed.settings = changes
    await dispatch(
        deployed,
        UpdateUserProfile(aggregate_id="anna", last_name="Kiskunfélegyháza"),
        DeactivateUser(aggregate_id="ben"),
    )
    await until_projected(deployed, "anna", 2)
    assert await topics_with(deployed, "Kiskunfélegyháza".encode()) == {deployed.names.commands}
    assert {record.key for record in await records(deployed, deployed.names.keys)} == {
        b"anna",
        b"ben",
    }
    await check(deployed)


async def test_a_wrong_master_key_is_one_line(deploy: Deploy) -> None:
    deployed = deploy("commands", "views", **encrypted())
    await dispatch(deployed, register("anna"))
    await until_projected(deployed, "anna", 1)
    other = deployed.settings.model_copy(update=encrypted())
    for worker in deployed.workers:
        assert worker.terminate() == 0
    commands, views = deployed.workers
    commands.settings = other
    commands.start()
    assert commands.wait() == 1
    line = "error: CQRS_MASTER_KEY is not the one that the keys of this deployment were made with"
    assert commands.log_text.splitlines()[-1].startswith(line)
    assert "continuing at position" not in commands.log_text.partition("stopping")[2]
    for role in ("commands", "views"):
        started = cqrs(other, "worker", role)
        assert (started.returncode, started.stderr.count("\n")) == (75, 1)
        assert started.stderr.startswith("cqrs: CQRS_MASTER_KEY is not the one")
    verified = cqrs(other, "verify")
    assert (verified.returncode, verified.stderr.count("\n")) == (75, 1)
    assert "CQRS_MASTER_KEY is not the one" in verified.stderr

    commands.settings = deployed.settings
    commands.start()
    await dispatch(deployed, UpdateUserProfile(aggregate_id="anna", last_name="Other"))
    views.settings = other.model_copy(update={"encrypt_personal_data": False, "master_key": None})
    views.start()
    assert views.wait() == 1
    assert "CQRS_MASTER_KEY is not set" in views.log_text.splitlines()[-1]
    for text in chain((worker.log_text for worker in deployed.workers), (verified.stderr,)):
        for settings in (deployed.settings, other):
            assert settings.master_key is not None
            assert settings.master_key.get_secret_value() not in text


async def test_a_damaged_key_concerns_its_user_alone(deploy: Deploy) -> None:
    """It looked like a wrong master key, and ended every worker that read it."""
    deployed = deploy("commands", "views", partitions=1, **encrypted())
    await dispatch(deployed, register("anna"), register("ben"))
    await until_projected(deployed, "ben", 1)
    async with started(new_producer(deployed.settings), deployed.settings) as producer:
        await producer.send_and_wait(deployed.names.keys, b"damaged", b"anna")
    for worker in deployed.workers:
        assert worker.terminate() == 0
        worker.start()
    outcomes = await dispatch(
        deployed,
        *(UpdateUserProfile(aggregate_id=user, last_name="Other") for user in ("anna", "ben")),
        register("cleo"),
    )
    assert [type(outcome) for outcome in outcomes] == [DeadLettered, Accepted, Accepted]
    await until_projected(deployed, "cleo", 1)
    refused = cqrs(deployed.settings, "views", "rebuild", "user-views")
    assert refused.returncode == 75
    assert "shows nothing of 1 users that were not erased and cannot be read (anna)" in (
        refused.stderr
    )
    assert await shown_by(deployed, "anna") == {"id", "email", "active"}
    given_up = cqrs(deployed.settings, "views", "rebuild", "user-views", "--abandon-serving")
    assert given_up.returncode == 0, given_up.stderr
    assert await shown_by(deployed, "anna") == set()
    assert await shown_by(deployed, "ben") == {"id", "email", "active"}
    (worker,) = deployed.of("commands")
    assert worker.log_text.count("The data key of anna is damaged") == 1
    report = await verify_users(deployed.settings, timeout=60)
    assert {name for name, finding in report.findings.items() if not finding.ok} == {"I3"}
    assert "anna: its state cannot be read" in (report.first_violation or "")


async def test_a_rebuild_takes_nobody_for_erased_whose_key_was_lost(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index that people read has the only copy that can be read."""
    deployed = deploy("commands", "views", "registrations", partitions=2, **encrypted())
    settings = deployed.settings
    users = ("anna", "ben", "cleo", "dora")
    await dispatch(deployed, *map(register, users), EraseUser(aggregate_id="dora"))
    await until_projected(deployed, "dora", 2)
    rebuilt = cqrs(settings, "views", "rebuild", "--processes", "2")
    assert rebuilt.returncode == 0, rebuilt.stderr
    (worker,) = deployed.of("commands")
    await deployed.retire(worker)
    await create_again(settings, deployed.names.keys)

    lost = "user-views-v3 shows nothing of 3 users that were not erased and cannot be read (anna, "
    for processes in ("1", "2"):
        refused = cqrs(settings, "views", "rebuild", "--processes", processes)
        assert refused.returncode == 75
        assert lost in refused.stderr
        assert "it was deleted, run this again" in refused.stderr
    # nor if an earlier run has loaded it, and was killed
    monkeypatch.setattr(Rebuild, "_lost_data", _killed)
    with pytest.raises(RuntimeError, match="killed"):
        await rebuild(settings, USER_VIEWS, timeout=60, progress=no_progress)
    monkeypatch.undo()
    with pytest.raises(Fatal, match=re.escape(lost)):
        await rebuild(settings, USER_VIEWS, timeout=60, progress=no_progress, processes=2)
    status = json.loads(cqrs(settings, "views", "status", "--json").stdout)
    assert [one["state"] for one in status] == ["followed", "serving"]
    assert await shown_by(deployed, "anna") == {"id", "email", "active"}

    counted = cqrs(settings, "views", "rebuild", "daily-registrations")
    assert counted.returncode == 0, counted.stderr
    given_up = cqrs(settings, "views", "rebuild", "--abandon-serving")
    assert given_up.returncode == 0, given_up.stderr
    assert await shown_by(deployed, "anna") == set()


def _killed(*_: object) -> None:
    raise RuntimeError("killed")


async def test_no_master_key_is_one_line(deploy: Deploy) -> None:
    deployed = deploy(encrypt_personal_data=True)
    for role in ("commands", "views"):
        started = cqrs(deployed.settings, "worker", role)
        assert started.returncode == 75
        assert started.stderr.startswith("cqrs: CQRS_ENCRYPT_PERSONAL_DATA is on and")
        assert "cqrs keys new" in started.stderr
    worker = deployed.start("commands")
    assert worker.wait() == 1
    assert "cqrs keys new" in worker.log_text.splitlines()[-1]
