"""Commands that expired before they were decided: the worker stops, a person lets it go on."""

from __future__ import annotations

import json
from itertools import islice
from typing import Any
from uuid import uuid4

import pytest
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.structs import TopicPartition
from faust.types import TP

from agents.users import COMMAND_WORKER, USERS
from models.errors import Fatal
from streams.audit.report import CheckedRange
from streams.audit.verify import verify
from streams.commands import skip_expired as skipping
from streams.commands.skip_expired import Expired, find_expired, skip_expired
from streams.kafka.clients import admin_client
from streams.kafka.transactions import TransactionalProducer
from streams.settings import Settings
from tests.conftest import Deploy
from tests.harness.command_line import cqrs
from tests.unit.samples import wire_register


async def test_skip_expired(deploy: Deploy) -> None:
    deployed = deploy("commands", partitions=1)
    settings, worker = deployed.settings, deployed.workers[0]
    send_users(settings, 5)
    assert (await verify(settings, USERS)).accepted == 5
    worker.terminate()
    send_users(settings, 10)
    await expire(TopicPartition(deployed.names.commands, 0), settings, before=8)

    worker.start()
    assert worker.wait() == 1
    assert "3 commands expired before they were decided (position 5, log starts at 8)" in (
        worker.log_text
    )
    assert "`cqrs topics skip-expired 0`" in worker.log_text

    asked = cqrs(settings, "topics", "skip-expired", "0", given=b"n\n")
    assert asked.returncode == 1
    assert "3 commands expired before they were decided (offsets 5 to 7)" in asked.stderr
    assert "Give them up?" in asked.stderr
    done = cqrs(settings, "topics", "skip-expired", "0", "--yes")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(": 3 commands given up; it continues at 8\n")
    assert "nothing expired" in cqrs(settings, "topics", "skip-expired", "0").stdout
    again = json.loads(cqrs(settings, "topics", "skip-expired", "0", "--json").stdout)
    assert (again["givenUp"], again["position"]) == (0, 8)

    worker.start()
    report = await verify(settings, USERS)
    assert report.first_violation is None
    assert (report.commands, report.accepted, report.events) == (7, 7, 12)
    assert report.ranges == [CheckedRange(0, 8, 15)]


@pytest.mark.parametrize("takeovers", [1, 10])
async def test_workers_that_take_the_partition_over_meanwhile(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch, takeovers: int
) -> None:
    deployed = deploy(partitions=1)
    settings, names = deployed.settings, deployed.names
    send_users(settings, 5)
    await expire(TopicPartition(names.commands, 0), settings, before=3)
    tp, group = TP(names.commands, 0), settings.namespace + COMMAND_WORKER
    rivals = iter([TransactionalProducer(settings, group, tp) for _ in range(takeovers)])

    async def and_be_fenced(*args: Any) -> Expired:
        for rival in islice(rivals, 1):
            await rival.start()
            await rival.close()
        return Expired(0, 3)

    monkeypatch.setattr(skipping, "find_expired", and_be_fenced)
    if takeovers == 1:
        await skip_expired(settings, names, 0, COMMAND_WORKER)
        monkeypatch.undo()
        assert await find_expired(settings, names, 0) == Expired(3, 3)
    else:
        with pytest.raises(Fatal, match="stop the command workers and try again"):
            await skip_expired(settings, names, 0, COMMAND_WORKER)


def send_users(settings: Settings, count: int) -> None:
    commands = [wire_register(id=str(uuid4()), aggregateId=f"user-{uuid4()}") for _ in range(count)]
    lines = "\n".join(map(json.dumps, commands)).encode()
    assert cqrs(settings, "send", "--from", "-", given=lines).returncode == 0


async def expire(partition: TopicPartition, settings: Settings, *, before: int) -> None:
    """Delete records, as retention does."""
    async with admin_client(settings) as admin:
        await admin.delete_records({partition: RecordsToDelete(before)})
