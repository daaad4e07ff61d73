"""When personal data is gone, and what a report says about it."""

from datetime import datetime, timedelta, timezone

from streams.audit.erasure_report import NEVER, ErasureFinding, ErasureReport, Expiry

NOON = Expiry(datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc))
LATER = NOON + timedelta(days=7)


def test_expiries_are_ordered_and_never_is_the_last() -> None:
    assert min(LATER, NOON, NEVER) == NOON
    assert max(NOON, LATER) == LATER
    assert max(NOON, NEVER, LATER) == NEVER
    assert LATER.date - NOON.date == timedelta(days=7)


def test_never_stays_never_whatever_is_added() -> None:
    assert NEVER + timedelta(minutes=6) == NEVER


def test_an_expiry_as_json() -> None:
    assert NOON.isoformat() == "2026-11-23T12:00:00+00:00"
    assert NEVER.isoformat() is None


def test_a_finding_without_readable_data_is_gone() -> None:
    finding = ErasureFinding("topic", records=3)
    assert finding.ok
    assert finding.verdict == "gone"


def test_a_finding_that_expires_says_when() -> None:
    finding = ErasureFinding("topic", records=3, readable=1, expires_at=NOON)
    assert finding.ok
    assert finding.verdict == "gone by 2026-11-23 12:00 UTC"


def test_a_finding_that_never_expires_is_not_ok() -> None:
    finding = ErasureFinding("topic", records=3, readable=1)
    assert not finding.ok
    assert finding.verdict == "NOT gone"
    assert not ErasureReport("anna", erased=True, findings=[finding]).ok


def test_what_could_not_be_looked_at_is_not_gone() -> None:
    finding = ErasureFinding("index", unseen=1)
    assert not finding.ok
    assert finding.verdict == "NOT looked at"
    assert not ErasureReport("anna", erased=True, findings=[finding]).ok


def test_what_could_not_be_looked_at_may_be_gone_by_a_date() -> None:
    finding = ErasureFinding("topic", unseen=1, expires_at=NOON)
    assert finding.ok
    assert not finding.gone
    assert finding.verdict == "gone by 2026-11-23 12:00 UTC"


def test_a_report_needs_the_erasure_itself() -> None:
    assert ErasureReport("anna", erased=True).ok
    assert not ErasureReport("anna", erased=False).ok
