"""When a place is in order and what is said of it, and when an erasure is complete."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from streams.audit.erasure_report import ErasureFinding, ErasureReport

SOON = datetime(2026, 11, 30, 9, 5, tzinfo=timezone.utc)

GONE = ErasureFinding("users.keys.v1", records=2)
EXPIRING = ErasureFinding("users.commands.v1", records=2, readable=1, expires_at=SOON)
STAYING = ErasureFinding("users.events.v1", records=2, readable=1)


@pytest.mark.parametrize(
    ("finding", "ok", "verdict"),
    [
        (GONE, True, "gone"),
        (EXPIRING, True, "gone by 2026-11-30 09:05 UTC"),
        (STAYING, False, "NOT gone"),
    ],
)
def test_a_place_is_in_order_if_nothing_is_readable_or_will_expire(
    finding: ErasureFinding, ok: bool, verdict: str
) -> None:
    assert finding.ok is ok
    assert finding.verdict == verdict


@pytest.mark.parametrize(
    ("erased", "places", "ok"),
    [
        (True, [], True),
        (True, [GONE, EXPIRING], True),
        (True, [GONE, STAYING], False),
        (False, [GONE], False),
    ],
)
def test_an_erasure_is_complete_if_an_event_says_so_and_all_places_are_in_order(
    erased: bool, places: list[ErasureFinding], ok: bool
) -> None:
    assert ErasureReport("user-1", erased, places).ok is ok
