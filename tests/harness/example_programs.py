"""The programs of `docs/examples`, and what each has to do, in whatever language it is written."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

from agents.user_views import USER_VIEWS
from deploy.environment import child_environment
from deploy.ephemeral import Deployment
from deploy.waiting import wait_until
from streams.elasticsearch.connection import connect
from streams.kafka.clients import new_consumer, started
from streams.kafka.topics import partitions_of
from streams.settings import Settings
from tests.harness.command_line import ROOT

EXAMPLES = ROOT / "docs" / "examples"

_EMAIL = "Anna.Muster@example.org"
_TIMEOUT_S = 120
_IMPATIENT_S = 0.5  # the wait for an outcome, where none can come yet


@dataclass(frozen=True)
class ExampleProgram:
    """A program that is ready to run: `command` and its arguments, in `folder`."""

    command: Sequence[str]
    folder: Path

    def run(
        self, settings: Settings, user: str, email: str, command_id: UUID | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Register a user, and wait until the program ends."""
        words = [*self.command, user, email, *([str(command_id)] if command_id else [])]
        return subprocess.run(
            words,
            cwd=self.folder,
            env=child_environment(settings),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )


async def until_view_is_shown(settings: Settings) -> None:
    """Wait until the view worker has made its index."""
    async with connect(settings, timeout=10) as client:

        async def is_shown() -> bool:
            alias = settings.namespace + USER_VIEWS.name
            return bool(await client.indices.exists_alias(name=alias))

        await wait_until(is_shown, timeout=_TIMEOUT_S, what="the view's index")


async def check_outcomes(program: ExampleProgram, deployed: Deployment) -> None:
    """Check what the program says of each outcome, and that it finds the user it registered."""
    await until_view_is_shown(deployed.settings)
    command_id = uuid4()
    sent, found = f"sent: RegisterUser {command_id}", f"found: anna {_EMAIL} version 1"
    accepted = "accepted: anna is at version 1"

    done = program.run(deployed.settings, "anna", _EMAIL, command_id)
    assert done.stdout.splitlines() == [sent, accepted, found], done
    assert done.returncode == 0

    done = program.run(deployed.settings, "anna", _EMAIL, command_id)
    assert done.stdout.splitlines() == [sent, f"duplicate, first {accepted}", found], done

    done = program.run(deployed.settings, "anna", _EMAIL)
    assert "rejected: User already exists (user-exists)\n" in done.stderr, done
    assert done.returncode == 1

    done = program.run(deployed.settings, "berta", "no address")
    assert "must be an email address" in done.stderr, done
    assert done.returncode == 1


async def check_sends_again(program: ExampleProgram, deployed: Deployment) -> None:
    """Check that it sends the command again with the same id; `deployed` decides nothing yet."""
    await until_view_is_shown(deployed.settings)
    impatient = deployed.settings.model_copy(update={"outcome_timeout": _IMPATIENT_S})
    running = asyncio.create_task(asyncio.to_thread(program.run, impatient, "anna", _EMAIL))
    async with started(new_consumer(impatient), impatient) as consumer:

        async def is_sent_again() -> bool:
            ends = await consumer.end_offsets(partitions_of(impatient, deployed.names.commands))
            return running.done() or sum(ends.values()) > 1

        await wait_until(is_sent_again, timeout=_TIMEOUT_S)
    deployed.start("commands")
    done = await running
    assert done.returncode == 0, done
    assert "no outcome yet: sending it again\n" in done.stderr
    _, outcome, found = done.stdout.splitlines()
    assert outcome.removeprefix("duplicate, first ") == "accepted: anna is at version 1"
    assert found == f"found: anna {_EMAIL} version 1"
