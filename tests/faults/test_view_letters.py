"""What a view cannot take is in its dead letters, at whatever step its worker is killed."""

from __future__ import annotations

import signal
from collections.abc import Mapping

import pytest
from aiokafka.structs import TopicPartition
from msgspec.structs import replace

from agents.user_verify import verify_users
from deploy.faults.deployment import Deployment
from deploy.faults.points import APPS, LetterStep, Moment, Point, ViewStep
from deploy.faults.waiting import wait_until
from models.events import UserEvent, UserProfileUpdated
from models.messages import Source
from models.wire import encode
from streams.dead_letters import CODE
from streams.kafka import new_producer, started
from streams.log_reader import open_logs
from tests.conftest import Deploy
from tests.integration.read_side import record, registered


async def send(deployed: Deployment, values: Mapping[str, bytes]) -> None:
    """Put these on the event topic, by the users' ids."""
    async with started(new_producer(deployed.settings), deployed.settings) as producer:
        for user, value in values.items():
            await producer.send_and_wait(deployed.names.events, value, user.encode(), 0)


def encoded(deployed: Deployment, user: str, sequence: int, event: UserEvent) -> bytes:
    """An event; the command that it is of was the first after that of the one before."""
    source = Source(deployed.names.commands, 0, sequence)
    return encode(replace(record(user, sequence, event), source=source).to_wire())


async def letters(deployed: Deployment) -> list[tuple[bytes | None, bytes | None]]:
    """Key and code of each."""
    topic = TopicPartition(deployed.names.dead_views, 0)
    async with open_logs(deployed.settings, [topic]) as logs:
        end = (await logs.ends([topic]))[topic]
        return [
            (one.key, dict(one.headers)[CODE])
            async for some in logs.read(topic, 0, end)
            for one in some
        ]


@pytest.mark.parametrize(
    ("moment", "step", "time"),
    [
        ("after", "bulk", 1),  # it is known what is refused
        ("before", "letters", 1),
        ("after", "letters", 1),
        ("before", "letters", 2),
        ("after", "letters", 2),
        ("after", "bulk", 2),  # there is a stand-in
        ("before", "position", 1),
        ("after", "position", 1),
    ],
)
async def test_no_letter_is_lost(
    deploy: Deploy, moment: Moment, step: ViewStep | LetterStep, time: int
) -> None:
    deployed = deploy(partitions=1, session_timeout=3.0)
    worker = deployed.start("views", app=APPS["views"])
    await send(deployed, {"anna": encoded(deployed, "anna", 1, registered("anna@example.org"))})
    await verify_users(deployed.settings)
    worker.terminate()
    # On a replay Anna's document is read back: a first event would make it anew.
    immense = UserProfileUpdated(last_name="x" * 40_000)  # no keyword has that
    await send(
        deployed,
        {
            "anna": encoded(deployed, "anna", 2, immense),
            "bert": encoded(deployed, "bert", 1, registered("bert@example.org")),
            "carl": b"no event",
        },
    )
    worker.start(**Point("kill", moment, step, time).environment())
    await wait_until(lambda: worker.exit_code is not None, what=f"it is killed {moment} {step}")
    assert worker.exit_code == -signal.SIGKILL
    worker.start()
    report = await verify_users(deployed.settings)
    assert report.findings["I4"].first is None
    assert report.known_missing == 1
    assert set(await letters(deployed)) == {
        (b"anna", b"refused-document"),
        (b"carl", b"malformed-json"),
    }
    assert worker.is_running
