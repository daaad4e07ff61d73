"""F8: what Kafka deletes: the groups' offsets, old states, expired commands, erased states."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Mapping

from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.protocol.admin import DeleteGroupsRequest
from aiokafka.structs import TopicPartition

from agents.user_views import USER_VIEWS
from agents.users import COMMAND_WORKER
from deploy.ephemeral import Deployment, WorkerProcess
from deploy.samples.commands import generate
from deploy.waiting import wait_until
from streams.commands.skip_expired import find_expired, skip_expired
from streams.kafka.clients import admin_client
from streams.kafka.log_reader import LogReader, open_logs
from streams.kafka.topics import partitions_of, topic_specs
from tests.faults.scenario import Run, Scenario
from tests.faults.scenarios.erased_states import erase_states
from tests.harness.checks import require
from tests.harness.traffic import Traffic, open_traffic, records_of

_RATE = 100.0  # commands per second

# Makes Kafka compact as soon and as thoroughly as it can. Segments have at least 1 MiB, so only
# time closes one.
_COMPACT_HARD = {
    "segment.ms": "200",
    "min.cleanable.dirty.ratio": "0.001",
    "max.compaction.lag.ms": "200",
    "delete.retention.ms": "0",  # tombstones and markers go as well
}


async def forget(run: Run) -> None:
    """Run four deployments side by side, each of which loses something else."""
    parts = (lose_offsets, compact_states, expire_commands, erase_states)
    await asyncio.gather(*(part(run, random.Random(run.rng.random())) for part in parts))


async def lose_offsets(run: Run, rng: random.Random) -> None:
    """Delete the offsets of both groups while no worker runs.

    Deciding continues at the position in the changelog, projecting at that in the index.
    """
    commands = run.pick(2_000, 20_000)
    deployed = await run.deploy("commands", "views")
    stream = generate(2 * commands, rng.randrange(1 << 30), duplicates=0.2)
    async with open_traffic(deployed, records_of(stream)) as traffic:
        traffic.burst(commands)
        await traffic.wait_for_decided(rng.randrange(1, commands))
        for worker in deployed.workers:
            code = await asyncio.to_thread(worker.terminate)
            require(code == 0, f"a {worker.role} worker ended with code {code}")
        await _delete_groups(deployed, COMMAND_WORKER, USER_VIEWS.group)
        run.result.faults += 1
        for worker in deployed.workers:
            worker.start()
        traffic.burst(commands)
        await traffic.finish()
    await run.verify(deployed, sent=traffic.sent)


async def compact_states(run: Run, rng: random.Random) -> None:
    """Kill the worker when compaction has left only the last state of each user.

    A worker that did not restore that state would decide repeated commands again, and number the
    next event wrongly.
    """
    kills, commands = run.pick((2, 1_000), (10, 5_000))
    deployed = await run.deploy(session_timeout=3.0)
    await _compact_hard(deployed)
    worker = deployed.start("commands")
    deployed.start("views")
    stream = generate(1_000_000, rng.randrange(1 << 30), duplicates=0.2)
    changelogs = partitions_of(deployed.settings, deployed.names.changelog)
    async with (
        open_traffic(deployed, records_of(stream), rate=_RATE) as traffic,
        open_logs(deployed.settings, changelogs) as logs,
    ):
        written = 0
        for _ in range(kills):
            traffic.burst(commands)
            await traffic.wait_for_decided(traffic.decided + rng.randrange(1, commands))
            ends = await logs.end_offsets(changelogs)
            written = sum(ends.values())
            kept = await _until_compacted(logs, ends)
            worker.kill()
            worker.start()
            run.result.faults += 1
            await traffic.until_deciding()
        await traffic.finish()
    await run.verify(deployed, sent=traffic.sent)
    run.result.figures["changelog records kept"] = f"{kept} of {written}"


async def expire_commands(run: Run, rng: random.Random) -> None:
    """Let decided commands expire, which must not matter, and undecided ones.

    Then the worker must end with code 1 and one line, whether it was stopped or slow, until these
    commands are given up with `skip-expired`. They are the only ones that `verify` does not see.
    """
    rounds, commands = run.pick((1, 500), (5, 2_000))
    deployed = await run.deploy("commands", "views", partitions=1)
    worker = deployed.of("commands")[0]
    stream = generate(1_000_000, rng.randrange(1 << 30), duplicates=0.1)
    given_up = 0
    async with open_traffic(deployed, records_of(stream)) as traffic:

        async def decide() -> None:
            due = traffic.sent - given_up + commands
            traffic.burst(commands)
            await traffic.wait_for_decided(due)

        for _ in range(rounds):
            await decide()
            worker.kill()
            log = await find_expired(deployed.settings, deployed.names, 0)
            await _delete_commands(deployed, before=rng.randint(log.begin + 1, log.position))
            run.result.faults += 1
            worker.start()
            await decide()
            for suspended in (False, True):
                amount = rng.randrange(2, commands)
                given_up += await _expire(deployed, traffic, amount, suspended=suspended)
                run.result.faults += 1
                await decide()
    report = await run.verify(deployed)
    (checked,) = report.ranges
    require(report.commands == checked.end - checked.start, "not every command was checked")
    require(checked.end == traffic.sent, "not every command was decided or given up")
    run.result.figures["commands expired undecided"] = given_up


async def _expire(deployed: Deployment, traffic: Traffic, amount: int, *, suspended: bool) -> int:
    """Let `amount` commands or one more expire undecided, give them up, return their number."""
    settings, names = deployed.settings, deployed.names
    worker = deployed.of("commands")[0]
    end = (await find_expired(settings, names, 0)).position
    if suspended:
        worker.suspend()
    else:
        worker.kill()
    # The suspended worker may have fetched the first one. Two stay after those that expire.
    decided = traffic.decided + 1
    await _send(deployed, traffic, 1, end + 1)
    await _send(deployed, traffic, amount + 1, end + amount + 2)
    await _delete_commands(deployed, before=end + amount)
    if suspended:
        worker.resume()
    else:
        worker.start()
    await wait_until(
        lambda: worker.exit_code is not None or traffic.decided > decided,
        timeout=60,
        what="the worker ends",
    )
    require(worker.exit_code is not None, "the worker continues after the expired commands")
    expired = await find_expired(settings, names, 0)
    _check_end(worker, expired.count)
    require(
        await skip_expired(settings, names, 0, COMMAND_WORKER) == expired,
        "other commands were given up than had expired",
    )
    worker.start()
    return expired.count


def _check_end(worker: WorkerProcess, expired: int) -> None:
    line = worker.log_text.splitlines()[-1]
    require(worker.exit_code == 1, f"the worker ended with {worker.exit_code}: {line}")
    require(
        f"{expired} commands expired before they were decided" in line
        and "run `cqrs topics skip-expired 0`" in line,
        f"{expired} commands expired, and the worker's last line is: {line}",
    )


async def _send(deployed: Deployment, traffic: Traffic, records: int, end: int) -> None:
    """Send `records`, and wait until the log of the only partition ends at `end`."""
    tp = TopicPartition(deployed.names.commands, 0)
    traffic.burst(records)
    async with open_logs(deployed.settings, [tp]) as logs:

        async def is_there() -> bool:
            return (await logs.end_offsets([tp]))[tp] >= end

        await wait_until(is_there, what=f"{records} commands are on their topic")


async def _delete_commands(deployed: Deployment, *, before: int) -> None:
    """Delete commands as retention does."""
    tp = TopicPartition(deployed.names.commands, 0)
    async with admin_client(deployed.settings) as admin:
        await admin.delete_records({tp: RecordsToDelete(before)})


async def _delete_groups(deployed: Deployment, *workers: str) -> None:
    """Delete consumer groups and their offsets, as soon as they have no members."""
    async with admin_client(deployed.settings) as admin:
        for worker in workers:
            group = deployed.settings.namespace + worker
            coordinator = await admin.find_coordinator(group)

            async def is_deleted(group: str = group, coordinator: int = coordinator) -> bool:
                request = DeleteGroupsRequest([group])
                response = await admin._send_request(request, coordinator)
                return all(code == 0 for _, code in response.results)

            await wait_until(is_deleted, what=f"the group {group} is deleted")


async def _compact_hard(deployed: Deployment) -> None:
    changelog = deployed.names.changelog
    specs = topic_specs(deployed.settings, deployed.names)
    (configs,) = (spec.configs for spec in specs if spec.name == changelog)
    wanted = {**configs, **_COMPACT_HARD}
    async with admin_client(deployed.settings) as admin:
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, changelog, wanted)])


async def _until_compacted(logs: LogReader, ends: Mapping[TopicPartition, int]) -> int:
    """Wait until no key occurs twice below `ends`; return the number of records left."""
    records = 0

    async def is_compacted() -> bool:
        nonlocal records
        records = 0
        for tp, end in ends.items():
            keys = Counter([one.key async for part in logs.read(tp, 0, end) for one in part])
            records += keys.total()
            if keys and max(keys.values()) > 1:
                return False
        return True

    await wait_until(is_compacted, timeout=120, what="Kafka compacts the changelog")
    return records


F8 = Scenario("F8", "offsets, old states, commands and a user are forgotten", forget)
