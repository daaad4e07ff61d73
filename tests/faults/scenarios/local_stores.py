"""F12: what can become of a command worker's store on disk between its end and its next start."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from deploy.ephemeral import Deployment
from deploy.samples.commands import generate
from deploy.waiting import wait_until
from tests.faults.scenario import Run, Scenario
from tests.harness.checks import require
from tests.harness.crash_points import Point
from tests.harness.traffic import Traffic, open_traffic, records_of

_PARTITIONS = 2
_RATE = 100.0  # commands per second
_RESTORED = r"restored from offset (\d+) to (\d+)"
_FROM_THE_BEGINNING = r"restored from offset 0 to"
_REMOVED = r"this local store is removed"


class Stores:
    """The folders of a deployment's stores, one per partition."""

    def __init__(self, deployed: Deployment) -> None:
        assert deployed.settings.state_dir is not None
        self._folder = deployed.settings.state_dir
        self._topic = deployed.names.changelog
        self._partitions = range(deployed.settings.partitions)

    def of(self, partition: int) -> Path:
        """The folder of one partition."""
        return self._folder / f"{self._topic}-{partition}"

    def files(self, pattern: str) -> Iterator[Path]:
        """Some of the files of all partitions."""
        for partition in self._partitions:
            yield from (self.of(partition) / "0").glob(pattern)

    def copy(self, to: Path) -> None:
        """Keep all of them as they are now, by partition."""
        for partition in self._partitions:
            shutil.copytree(self.of(partition), to / str(partition))

    def put_back(self, copy: Path) -> None:
        """What `copy` has kept instead of what is there."""
        self.wipe()
        for partition in self._partitions:
            shutil.copytree(copy / str(partition), self.of(partition))

    def wipe(self) -> None:
        """Remove all of them."""
        shutil.rmtree(self._folder)

    def swap(self) -> None:
        """Exchange those of the first two partitions."""
        one, other, aside = self.of(0), self.of(1), self._folder / "aside"
        one.rename(aside)
        other.rename(one)
        aside.rename(other)


class _Damage(NamedTuple):
    """What becomes of the stores of a worker that has ended, and what the next one says of it."""

    name: str
    do: Callable[[], object]
    said: str
    killed: bool = False
    """Kill -9 before it; otherwise the worker was stopped, and everything is in the files."""


async def damage_local_stores(run: Run) -> None:
    """One worker and its stores: ended amid a burst, damaged, started again; then the next damage.

    Whatever it finds, the state is that of the changelog, and it says why it did not use a store.
    """
    deployed = await run.deploy(
        "views", partitions=_PARTITIONS, session_timeout=3.0, state_dir=run.new_folder()
    )
    stream = generate(1_000_000, run.seed, rejected=0.05, duplicates=0.2)
    stores, older = Stores(deployed), run.new_folder()
    foreign = await foreign_stores(run, partitions=_PARTITIONS, commands=1000)
    damages = [
        _Damage("none", lambda: stores.copy(older), _RESTORED),
        _Damage("kill", lambda: None, _RESTORED, killed=True),
        _Damage("wiped", stores.wipe, _FROM_THE_BEGINNING, killed=True),
        _Damage("torn data", lambda: _tear(run, stores, "*.sst", (0.4, 0.6)), "removed: "),
        _Damage("torn", lambda: _tear(run, stores, "*.sst", (0.0, 1.0)), _REMOVED),
        _Damage("torn", lambda: _tear(run, stores, "MANIFEST-*", (0.0, 1.0)), _REMOVED),
        _Damage("half", lambda: _halve(stores, "*.sst"), _REMOVED),
        _Damage("half", lambda: _halve(stores, "CURRENT"), _REMOVED),
        _Damage("older", lambda: stores.put_back(older), _RESTORED, killed=True),
        _Damage("foreign", lambda: stores.put_back(foreign), "of another topic", killed=True),
        _Damage("swapped", stores.swap, "of another topic"),
    ]
    damages *= run.pick(1, 10)
    async with open_traffic(deployed, records_of(stream), rate=_RATE) as traffic:
        worker = run.start(deployed, "commands", Point("kill", "after", "restore"))
        await wait_until(lambda: not worker.is_running, what="it is killed when it has restored")
        worker.start()
        await traffic.decides_again()
        for number, damage in enumerate(damages, 1):
            if damage.name == "none":
                shutil.rmtree(older)
            await _end_amid_a_burst(traffic, worker.kill if damage.killed else worker.terminate)
            damage.do()
            run.result.faults += 1
            before = len(worker.log_text)
            worker.start()
            traffic.burst(500)
            await traffic.decides_again()
            said = worker.log_text[before:]
            require(re.search(damage.said, said), f"after {damage.name} it says nothing of it")
            for begin, _ in re.findall(_RESTORED, said) if damage.said == _RESTORED else ():
                require(begin != "0", f"after {damage.name} it read the whole changelog")
            run.say(number, len(damages))
        await traffic.finish()
    await run.verify(deployed, sent=traffic.sent)


async def _end_amid_a_burst(traffic: Traffic, end: Callable[[], object]) -> None:
    traffic.burst(1000)
    await traffic.wait_for_decided(traffic.decided + 200)
    end()


async def foreign_stores(run: Run, *, partitions: int, commands: int) -> Path:
    """A copy of the stores of another deployment, which has decided so many commands."""
    deployed = await run.deploy("commands", partitions=partitions, state_dir=run.new_folder())
    async with open_traffic(deployed, records_of(generate(commands, run.seed + 1))) as traffic:
        traffic.burst(commands)
        await traffic.finish()
    await deployed.retire(deployed.workers[0])
    copy = run.new_folder()
    Stores(deployed).copy(copy)
    return copy


def _tear(run: Run, stores: Stores, pattern: str, part: tuple[float, float]) -> None:
    """Write garbage over a part of each of the files."""
    for file in stores.files(pattern):
        content = bytearray(file.read_bytes())
        begin, end = (int(len(content) * share) for share in part)
        content[begin:end] = run.rng.randbytes(end - begin)
        file.write_bytes(content)


def _halve(stores: Stores, pattern: str) -> None:
    for file in stores.files(pattern):
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])


F12 = Scenario("F12", "stores on disk: killed, wiped, torn, older, of others", damage_local_stores)
