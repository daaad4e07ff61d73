"""F20: the disk of a command worker's state is full, then that of Kafka, and has space again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from deploy.embedded import kafka
from deploy.embedded import temporary_homes as temporary
from deploy.embedded.ports import HOST, free_ports
from deploy.embedded.processes import ServerProcess
from deploy.embedded.stack import StackAddress
from deploy.samples.commands import generate
from deploy.waiting import wait_until
from tests.faults.scenario import Run, Scenario
from tests.harness.small_disk import SmallDisk, small_disk
from tests.harness.traffic import open_traffic, records_of

_STATE_MIB = 64
_KAFKA_MIB = 256
_KAFKA_HEAP_MB = 288
_RATE = 100.0  # commands per second
_BURST = 500  # commands
_STORE_FAILED = "No space left on device"
_WRITING_STORES = "tests.faults.small_buffers_worker"


async def fill_disks(run: Run) -> None:
    """Fill a disk under load, free it again, several times; no worker is started again by hand."""
    await _fill_the_state(run, run.resources.enter_context(small_disk(_STATE_MIB)))
    await _fill_kafka(run, run.resources.enter_context(small_disk(_KAFKA_MIB)))


async def _fill_the_state(run: Run, disk: SmallDisk) -> None:
    """Fill a worker's disk: it waits, says why, and reads its state from the changelog again.

    It is also killed, or stopped, and finds the disk full when it starts.
    """
    deployed = await run.deploy("views", partitions=2, session_timeout=3.0, state_dir=disk.path)
    worker = deployed.start("commands", app=_WRITING_STORES)
    stream = generate(1_000_000, run.seed, rejected=0.05, duplicates=0.1)
    ends: list[Callable[[], object] | None] = [None, worker.kill, worker.terminate]
    ends *= run.pick(1, 5)
    async with open_traffic(deployed, records_of(stream), rate=_RATE) as traffic:
        await traffic.until_deciding()
        for number, end in enumerate(ends, 1):
            async with disk.full():
                run.result.faults += 1
                if end is not None:
                    end()
                    worker.start()
                traffic.burst(_BURST)
                before = worker.log_text.count(_STORE_FAILED)
                await wait_until(
                    lambda: worker.log_text.count(_STORE_FAILED) > before,  # noqa: B023
                    timeout=60,
                    what="the worker says that its disk is full",
                )
            await traffic.until_deciding()
            run.say(number, len(ends))
        await traffic.finish()
    await run.verify(deployed, sent=traffic.sent)
    await deployed.retire(worker)


async def _fill_kafka(run: Run, disk: SmallDisk) -> None:
    """Fill a broker's disk: it halts; with space again only it is started again."""
    home = run.resources.enter_context(temporary.home())
    broker_port, controller_port = free_ports(2)
    listeners = kafka.Listeners(broker_port, controller_port)
    kafka.configure({home: listeners})
    (home / "data").mkdir()
    (home / "data" / "kafka").symlink_to(disk.path)
    broker = ServerProcess("kafka", home, heap_mb=_KAFKA_HEAP_MB)
    run.resources.callback(broker.kill)
    await asyncio.to_thread(broker.start)
    servers = StackAddress(f"{HOST}:{listeners.broker}", run.stack.elasticsearch_url)
    deployed = await run.deploy("commands", "commands", "views", servers=servers, partitions=4)
    stream = generate(1_000_000, run.seed + 1, rejected=0.05, duplicates=0.1)
    async with open_traffic(deployed, records_of(stream), rate=_RATE) as traffic:
        await traffic.until_deciding()
        for number in range(1, run.pick(1, 5) + 1):
            async with disk.full():
                run.result.faults += 1
                traffic.burst(_BURST)
                await wait_until(
                    lambda: broker.process is None, timeout=60, what="the broker halts"
                )
            await asyncio.to_thread(broker.start)
            await traffic.until_deciding()
            run.say(number, run.pick(1, 5))
        await traffic.finish()
    await run.verify(deployed, sent=traffic.sent)


F20 = Scenario("F20", "a full disk: of the state, of Kafka; then space again", fill_disks)
