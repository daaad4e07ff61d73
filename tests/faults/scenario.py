"""A scenario of the fault suite: its input, its result, and `play`, which runs it.

A scenario is an async function that creates deployments, sends commands, breaks something, lets the
system recover and calls `Run.verify`. Every random choice comes from `Run.rng`, which depends only
on the scenario's name and the seed. It fails by raising; what it measures is in `Result.figures`.
"""

from __future__ import annotations

import random
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from agents.user_views import USER_VIEWS
from agents.users import USERS
from deploy.embedded.secrets import Secrets
from deploy.embedded.stack import EmbeddedStack
from deploy.ephemeral import (
    Deployment,
    Servers,
    WorkerProcess,
    create_user_topics,
    new_settings,
    open_deployment,
    worker_logs,
)
from deploy.roles import SecuredRole
from deploy.supervisor import Role
from models.errors import CqrsError
from streams.aggregate import Aggregate
from streams.audit.report import Report
from streams.audit.verify import verify
from streams.progress import ProgressCallback
from streams.settings import Settings
from tests.harness.checks import require
from tests.harness.command_line import ROOT
from tests.harness.crash_points import APPS, Point
from tests.harness.secured import Secured

T = TypeVar("T")

Scale = Literal["small", "full"]


@dataclass
class Result:
    """Result of one run of a scenario. Lost, doubled and diverged are counts of `verify`."""

    scenario: str
    title: str
    scale: Scale
    seed: int
    local_store: bool = False
    """Whether command workers kept their state on disk."""
    secure: bool = False
    """Whether the servers were secured, with one principal per role."""
    commit: str = ""
    """The checkout's commit; empty if that is not known."""
    ok: bool = False
    failure: str | None = None
    seconds: float = 0.0
    faults: int = 0
    """Number of faults: how often something was broken."""
    commands: int = 0
    events: int = 0
    lost: int = 0
    doubled: int = 0
    diverged: int = 0
    figures: dict[str, float | int | str] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)
    """Last lines of each worker's log, if the run failed."""


@dataclass
class Run:
    """One run of a scenario: what it may use, and its result."""

    stack: EmbeddedStack
    scale: Scale
    seed: int
    result: Result
    resources: ExitStack
    progress: ProgressCallback
    apps: Mapping[Role, str]
    """Modules of other worker apps by role: tests take protections away with them."""

    def __post_init__(self) -> None:
        """Create `rng` from the scenario's name and the seed."""
        self.rng = random.Random(f"{self.result.scenario}/{self.seed}")

    def pick(self, small: T, full: T) -> T:
        """Return the value for this run's scale."""
        return small if self.scale == "small" else full

    def say(self, done: int, total: int, what: str = "") -> None:
        """Report progress: `done` of `total`."""
        self.progress(f"{self.result.scenario} {what or self.result.title}", done, total)

    async def deploy(
        self, *roles: Role, servers: Servers | None = None, **changes: Any
    ) -> Deployment:
        """Create a deployment with a worker of each role; it ends with the run.

        `changes` are settings. `servers` are other ones than the run's stack, and secured if that
        is.
        """
        servers = servers or self.stack
        if self.result.local_store:
            changes = {"state_dir": self.new_folder(), **changes}
        principals: Mapping[SecuredRole, Settings] = {}
        if self.secrets is None:
            settings = new_settings(servers, **changes)
            await create_user_topics(settings)
        else:
            secured = await Secured.create(
                self.stack,
                self.new_folder(),
                bootstrap_servers=servers.bootstrap_servers,
                **{"partitions": 2, **changes},
            )
            settings, principals = secured.admin, await secured.roles()
        return self.resources.enter_context(open_deployment(settings, roles, self.apps, principals))

    @property
    def secrets(self) -> Secrets | None:
        """The principals of a secured run, also for other servers than its stack."""
        return self.stack.secrets if self.result.secure else None

    def new_folder(self) -> Path:
        """Create an empty folder; it is removed with the run."""
        folder = tempfile.TemporaryDirectory(prefix="cqrs-faults-")
        return Path(self.resources.enter_context(folder))

    def start(self, deployed: Deployment, role: Role, point: Point) -> WorkerProcess:
        """Start one more worker, with a crash point armed."""
        app = self.apps.get(role, APPS[role])
        return deployed.start(role, app=app, **point.environment())

    async def verify(
        self,
        deployed: Deployment,
        *,
        sent: int | None = None,
        timeout: float = 120,
        aggregate: Aggregate[Any] = USERS,
        foreign: Mapping[str, int] = MappingProxyType({}),
    ) -> Report:
        """Run `verify`, add its counts to the result, and check that all workers still run.

        Args:
            deployed: what to verify.
            sent: number of commands that it must have checked, where that is known.
            timeout: seconds that the workers get to catch up.
            aggregate: users, as the program folds them that made their states.
            foreign: how many violations it must find of an invariant, because somebody wrote as
                many records of other programs on its topics.

        Raises:
            Failed: an invariant is broken, or a worker has ended.
            NotCaughtUp: the workers did not process everything within `timeout` seconds.
        """
        report = await verify(
            deployed.settings, aggregate, USER_VIEWS, timeout=timeout, progress=self.progress
        )
        self.result.commands += report.commands
        self.result.events += report.events
        self.result.lost += report.lost
        self.result.doubled += report.doubled
        self.result.diverged += report.diverged - sum(foreign.values())
        broken = {name: one.violations for name, one in report.findings.items() if not one.ok}
        require(broken == foreign, str(report.first_violation or f"found {broken} of {foreign}"))
        require(sent in (None, report.commands), "not every command was checked")
        for worker in deployed.workers:
            require(worker.is_running, f"a {worker.role} worker has ended: {_last_line(worker)}")
        return report


@dataclass(frozen=True)
class Scenario:
    """One kind of fault, such as F1."""

    name: str
    title: str
    play: Callable[[Run], Awaitable[None]]


async def play(
    scenario: Scenario,
    stack: EmbeddedStack,
    *,
    scale: Scale,
    seed: int,
    progress: ProgressCallback = lambda _what, _done, _total: None,
    apps: Mapping[Role, str] = MappingProxyType({}),
    local_store: bool = False,
    secure: bool = False,
) -> Result:
    """Run a scenario on a stack that nothing else uses, and return its result.

    With `local_store` the command workers of a deployment keep their state on disk, in one folder,
    as on one host. With `secure` the stack has to be secured. A failure is part of the result: a
    guarantee that does not hold, or a server that fails.
    """
    title = scenario.title + (", state on disk" if local_store else "")
    title += ", secured" if secure else ""
    result = Result(scenario.name, title, scale, seed, local_store, secure, _commit())
    begin = time.monotonic()
    with ExitStack() as resources:
        run = Run(stack, scale, seed, result, resources, progress, apps)
        try:
            await scenario.play(run)
            result.ok = True
        except CqrsError as error:
            result.failure = str(error)
            result.logs = dict(worker_logs())
        result.seconds = round(time.monotonic() - begin, 1)
    return result


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def _last_line(worker: WorkerProcess) -> str:
    return (worker.log_text.splitlines() or ["it logged nothing"])[-1]
