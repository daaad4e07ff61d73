"""F12: a command worker's stores on disk are damaged between its end and its next start."""

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
        """Return the folder of one partition."""
        return self._folder / f"{self._topic}-{partition}"

    def files(self, pattern: str) -> Iterator[Path]:
        """Yield the files of all partitions whose names match."""
        for partition in self._partitions:
            yield from (self.of(partition) / "0").glob(pattern)

    def copy(self, to: Path) -> None:
        """Copy all stores, into a folder per partition."""
        for partition in self._partitions:
            shutil.copytree(self.of(partition), to / str(partition))

    def put_back(self, copy: Path) -> None:
        """Replace all stores by those of `copy`."""
        self.wipe()
        for partition in self._partitions:
            shutil.copytree(copy / str(partition), self.of(partition))

    def wipe(self) -> None:
        """Remove all stores."""
        shutil.rmtree(self._folder)

    def swap(self) -> None:
        """Exchange the stores of the first two partitions."""
        one, other, aside = self.of(0), self.of(1), self._folder / "aside"
        one.rename(aside)
        other.rename(one)
        aside.rename(other)


class _Damage(NamedTuple):
    """Damage to the stores of a worker that has ended, and what it logs at its next start."""

    name: str
    do: Callable[[], object]
    logged: str
    """As a regular expression."""
    killed: bool = False
    """Whether the worker is killed before; if it is stopped, everything is in the files."""


async def damage_local_stores(run: Run) -> None:
    """End a worker during a burst, damage its stores, start it again; then the next damage.

    Whatever it finds, its state must be that of the changelog, and its log must say why it did not
    use a store.
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
        await traffic.until_deciding()
        for number, damage in enumerate(damages, 1):
            if damage.name == "none":
                shutil.rmtree(older)
            await _end_during_a_burst(traffic, worker.kill if damage.killed else worker.terminate)
            damage.do()
            run.result.faults += 1
            before = len(worker.log_text)
            worker.start()
            traffic.burst(500)
            await traffic.until_deciding()
            log = worker.log_text[before:]
            require(re.search(damage.logged, log), f"after {damage.name} it does not log that")
            for begin, _ in re.findall(_RESTORED, log) if damage.logged == _RESTORED else ():
                require(begin != "0", f"after {damage.name} it read the whole changelog")
            run.say(number, len(damages))
        await traffic.finish()
    await run.verify(deployed, sent=traffic.sent)


async def _end_during_a_burst(traffic: Traffic, end: Callable[[], object]) -> None:
    traffic.burst(1000)
    await traffic.wait_for_decided(traffic.decided + 200)
    end()


async def foreign_stores(run: Run, *, partitions: int, commands: int) -> Path:
    """Return a copy of the stores of another deployment, which has decided `commands`."""
    deployed = await run.deploy("commands", partitions=partitions, state_dir=run.new_folder())
    async with open_traffic(deployed, records_of(generate(commands, run.seed + 1))) as traffic:
        traffic.burst(commands)
        await traffic.finish()
    await deployed.retire(deployed.workers[0])
    copy = run.new_folder()
    Stores(deployed).copy(copy)
    return copy


def _tear(run: Run, stores: Stores, pattern: str, part: tuple[float, float]) -> None:
    """Overwrite a part of each of the files with random bytes."""
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
