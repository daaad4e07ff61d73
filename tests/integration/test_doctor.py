"""`cqrs doctor` on real servers: all is well, and many things are wrong at once."""

from __future__ import annotations

from aiokafka.admin import NewPartitions
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from agents.user_views import USER_VIEWS
from deploy.cli.doctor import exit_code
from deploy.cli.exit_codes import ExitCode
from deploy.doctor.collect import collect
from deploy.doctor.diagnosis import diagnose
from deploy.doctor.findings import Finding
from deploy.ephemeral import Deployment
from deploy.waiting import wait_until
from streams.elasticsearch.connection import connect
from streams.kafka.clients import admin_client, new_producer, started
from streams.kafka.topics import topic_specs
from streams.settings import Settings
from tests.conftest import Deploy
from tests.harness.deployments import until_processing

_TIMEOUT_S = 60.0  # the machine may be slow


async def findings(settings: Settings) -> list[Finding]:
    return diagnose(await collect(settings, "operator", [], timeout=_TIMEOUT_S), "operator")


def wrong(found: list[Finding]) -> list[Finding]:
    return [one for one in found if one.status in ("problem", "unknown")]


async def until_well(deployed: Deployment) -> list[Finding]:
    """Wait until the workers have shared out their partitions and the view is served."""
    for worker in deployed.workers:
        await until_processing(worker)

    async def found_well() -> list[Finding] | None:
        found = await findings(deployed.settings)
        return None if wrong(found) else found

    found: list[Finding] = await wait_until(found_well, timeout=60)
    return found


async def test_all_is_well_and_then_much_is_wrong(deploy: Deploy) -> None:
    deployed = deploy("commands", "views", partitions=1, transaction_timeout=2.0)
    settings, names = deployed.settings, deployed.names
    found = await until_well(deployed)
    assert exit_code(found) == ExitCode.OK
    lines = {(one.group, one.subject): one.line for one in found}
    assert lines["Workers", "commands"] == "1 worker"
    assert lines["Workers", "registrations"] == "this view is not in use"
    assert lines["Views", "user-views"] == f"served by {settings.namespace}user-views-v1"
    assert lines["Progress", "views"] == "everything is processed"

    for worker in list(deployed.workers):
        await deployed.retire(worker)
    events = next(one for one in topic_specs(settings, names) if one.name == names.events)
    changed = ConfigResource(
        ConfigResourceType.TOPIC, events.name, {**events.configs, "retention.ms": "86400000"}
    )
    async with admin_client(settings) as admin:
        await admin.alter_configs([changed])
        await admin.create_partitions({names.commands: NewPartitions(total_count=2)})
    alias = f"{settings.namespace}{USER_VIEWS.name}"
    async with connect(settings, timeout=30) as client:
        await client.indices.delete_alias(index=f"{alias}-v1", name=alias)
    options = {"transactional_id": f"{settings.namespace}foreign", "transaction_timeout_ms": 60_000}
    async with started(new_producer(settings, **options), settings) as producer:
        await producer.begin_transaction()
        sent = await producer.send_and_wait(names.outcomes, b"{}", partition=0)
        expected = {
            ("Topics", f"topic {names.events} has retention.ms=86400000, it must be -1"),
            ("Topics", f"topic {names.commands} has 2 partitions, CQRS_PARTITIONS says 1"),
            ("Views", f"the alias {alias} is on no index, so no query is answered"),
            ("Workers", "no worker: start one with `cqrs worker commands`"),
            ("Workers", "no worker: start one with `cqrs worker views`"),
            ("Progress", f"a transaction is open at offset {sent.offset} since "),
        }

        async def found_all() -> list[Finding] | None:
            found = wrong(await findings(settings))
            return found if len(found) >= len(expected) else None

        found = await wait_until(found_all, timeout=60)
    assert exit_code(found) == ExitCode.NO
    assert {one.status for one in found} == {"problem"}
    unexpected = [
        one
        for one in found
        if not any(one.group == group and one.line.startswith(line) for group, line in expected)
    ]
    assert unexpected == []
    assert len(found) == len(expected)
