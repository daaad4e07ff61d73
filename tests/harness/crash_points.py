"""Points at which a worker's process kills itself, suspends itself or fails.

Only the worker modules in this package have them: `arm` wraps the steps of their transactions and
views from outside, so production code contains nothing of this. The environment variable
`TEST_FAULT_POINT` names the point and the action.

The steps, in their order:

- of a transaction: `begin`; send `events` and `changelog` (done when Kafka has acknowledged them);
  `commit`; `apply` to the local state
- of a view worker: `bulk`; write `dead-letters` (done when acknowledged); save the `position`
- of a takeover: `fence` earlier owners; `restore` the state
"""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal, get_args

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from elasticsearch import AsyncElasticsearch

from deploy.supervisor import Role
from streams.commands import partition as command_partition
from streams.commands.partition import CommandPartition
from streams.kafka.transactions import TransactionalProducer
from streams.state.recovery import recover_partition
from streams.views.dead_letters import ViewDeadLetters
from streams.views.store import ViewStore

VARIABLE = "TEST_FAULT_POINT"

# Worker modules that have crash points, by role.
APPS: Mapping[Role, str] = {
    "commands": "tests.harness.crashing_commands_worker",
    "views": "tests.harness.crashing_views_worker",
}

Action = Literal["kill", "stop", "fail"]
Moment = Literal["before", "after"]
CommandStep = Literal["begin", "events", "changelog", "commit", "apply"]
ViewStep = Literal["bulk", "position"]
DeadLetterStep = Literal["dead-letters"]
TakeoverStep = Literal["fence", "restore"]

# Steps by a part of the name of the topic that they send to.
_OUTPUTS = {".events.": "events", ".state-changelog.": "changelog"}

COMMAND_STEPS: tuple[CommandStep, ...] = get_args(CommandStep)
VIEW_STEPS: tuple[ViewStep, ...] = get_args(ViewStep)


@dataclass
class Point:
    """A point: `action`, `before` or `after` a step, the `time`th time it is reached."""

    action: Action
    moment: Moment
    step: CommandStep | ViewStep | DeadLetterStep | TakeoverStep
    time: int = 1

    def environment(self) -> dict[str, str]:
        """Return the environment variable that arms this point in a worker."""
        return {VARIABLE: f"{self.action} {self.moment} {self.step} {self.time}"}

    @classmethod
    def read(cls, text: str) -> Point:
        """Parse the value of that variable."""
        action, moment, step, time = text.split()
        return cls(action, moment, step, int(time))  # type: ignore[arg-type]

    def reached(self, moment: Moment, step: str) -> None:
        """Act if this is the point."""
        if (moment, step) != (self.moment, self.step):
            return
        self.time -= 1
        if self.time == 0:
            self._act()

    def _act(self) -> None:
        if self.action == "fail":
            raise KafkaError(f"made to fail {self.moment} {self.step}")
        os.kill(os.getpid(), signal.SIGKILL if self.action == "kill" else signal.SIGSTOP)


def arm(environment: Mapping[str, str] = os.environ) -> None:
    """Wrap the steps if the environment names a point."""
    if VARIABLE not in environment:
        return
    point = Point.read(environment[VARIABLE])
    _wrap(AIOKafkaProducer, AIOKafkaProducer.begin_transaction, "begin", point)
    _wrap_sending(point)
    _wrap(AIOKafkaProducer, AIOKafkaProducer.commit_transaction, "commit", point)
    _wrap(CommandPartition, CommandPartition._apply, "apply", point)
    _wrap(TransactionalProducer, TransactionalProducer.start, "fence", point)
    _wrap(command_partition, recover_partition, "restore", point)
    _wrap(AsyncElasticsearch, AsyncElasticsearch.bulk, "bulk", point)
    _wrap(ViewStore, ViewStore.save_checkpoint, "position", point)
    _wrap(ViewDeadLetters, ViewDeadLetters.write, "dead-letters", point)


def _wrap(owner: Any, inner: Callable[..., Any], step: str, point: Point) -> None:
    """Patch a function of `owner`, which may be async: reach the point before and after it."""

    @wraps(inner)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        point.reached("before", step)
        result = inner(*args, **kwargs)
        if inspect.isawaitable(result):
            return _awaited(result)
        point.reached("after", step)
        return result

    async def _awaited(result: Awaitable[Any]) -> Any:
        value = await result
        point.reached("after", step)
        return value

    setattr(owner, inner.__name__, wrapped)


def _wrap_sending(point: Point) -> None:
    """Wrap sending the outputs of a transaction. `after` is when Kafka has acknowledged them."""
    inner = AIOKafkaProducer.send_batch

    async def send_batch(
        self: AIOKafkaProducer, batch: Any, topic: str, *, partition: int
    ) -> asyncio.Future[Any]:
        step = next((step for name, step in _OUTPUTS.items() if name in topic), "other")
        point.reached("before", step)
        acknowledged: asyncio.Future[Any] = await inner(self, batch, topic, partition=partition)
        if (point.moment, point.step) == ("after", step):
            await acknowledged
        point.reached("after", step)
        return acknowledged

    AIOKafkaProducer.send_batch = send_batch
