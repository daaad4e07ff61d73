"""No dead letter of a view is lost, at whatever step its worker is killed."""

from __future__ import annotations

import signal

import pytest

from agents.user_audit import verify_users
from deploy.waiting import wait_until
from tests.conftest import Deploy
from tests.harness.crash_points import APPS, Point
from tests.harness.read_side import (
    REFUSED_UPDATE,
    encoded,
    registered,
    send_events,
    view_dead_letters,
)


@pytest.mark.parametrize(
    "point",
    [
        Point("kill", "after", "bulk", 2),  # the worker knows what is refused
        Point("kill", "after", "dead-letters", 1),
        Point("kill", "after", "bulk", 3),  # it has asked whether the index takes any document
        Point("kill", "after", "bulk", 4),  # there is a stand-in
        Point("kill", "after", "position", 2),
        Point("kill", "before", "dead-letters", 2),  # it knows what cannot be decoded
        Point("kill", "after", "position", 4),
    ],
    ids=lambda point: f"{point.moment} {point.step} {point.time}",
)
async def test_no_dead_letter_is_lost(deploy: Deploy, point: Point) -> None:
    deployed = deploy(partitions=1, session_timeout=3.0, max_chunk_records=1)
    await send_events(
        deployed,
        ("anna", encoded(deployed, "anna", 1, registered("anna@example.org"))),
        # In a chunk of its own it is folded onto what is read back: a first event never is.
        ("anna", encoded(deployed, "anna", 2, REFUSED_UPDATE)),
        ("bert", encoded(deployed, "bert", 1, registered("bert@example.org"))),
        ("carl", b"no event"),
    )
    worker = deployed.start("views", app=APPS["views"], **point.environment())
    await wait_until(lambda: worker.exit_code is not None, what="it is killed")
    assert worker.exit_code == -signal.SIGKILL
    worker.start()
    report = await verify_users(deployed.settings)
    assert report.findings["I4"].first is None
    assert report.known_missing == 1
    assert set(await view_dead_letters(deployed)) == {
        (b"anna", b"refused-document"),
        (b"carl", b"malformed-json"),
    }
    assert worker.is_running
