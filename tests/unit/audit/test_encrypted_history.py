"""`PartitionAudit` on encrypted histories, and on users who are erased before or during the check.

`written` are the keys that the worker encrypted with, `left` those that the check finds.
"""

from __future__ import annotations

import pytest

from models.events import UserDeactivated, UserErased, UserProfileUpdated
from models.user import User
from streams.audit.report import Report
from streams.elasticsearch.index import Document
from streams.encryption.cipher import new_key
from streams.encryption.keys import MasterKeys, PartitionKeys
from streams.encryption.sealer import PartitionSealer
from streams.state.snapshot import Snapshot
from tests.unit.audit.histories import History
from tests.unit.samples import ANNA

MASTER = new_key()
TOMBSTONE: Document = {"id": "anna", "version": 3}


def history(*, gone: bool) -> History:
    """Return Anna's two events, encrypted; her key is still there or gone."""
    written = PartitionKeys(MasterKeys(MASTER))
    wrapped = written.make(b"anna")[0]
    written.apply(b"anna", wrapped)
    left = (
        PartitionKeys(MasterKeys(MASTER))
        if gone
        else PartitionKeys(MasterKeys(MASTER), {b"anna": wrapped})
    )
    made = History(sealing=PartitionSealer(written, encrypt=True), keys=left)
    made.accept("anna", ANNA)
    made.accept("anna", UserProfileUpdated(last_name="Meier"))
    return made


def erased_meanwhile(*, gone: bool) -> History:
    """Let a command after the position erase Anna, by an event that the view need not have."""
    made = history(gone=gone)
    state, document, position = made.users["anna"], made.documents["anna"], made.position
    made.accept("anna", UserErased())
    made.users["anna"], made.documents["anna"] = state, document
    made.outcomes.pop()  # its command is not below the position
    made.position, made.view_end = position, 2
    return made


def violated(report: Report) -> set[str]:
    return {name for name, finding in report.findings.items() if not finding.ok}


def test_an_encrypted_history() -> None:
    report = history(gone=False).check()
    assert report.first_violation is None
    assert report.findings["I3"].checked == report.findings["I4"].checked == 1


@pytest.mark.parametrize("gone", [True, False])
def test_a_user_who_was_erased(gone: bool) -> None:
    """The fold is the same with the key and without it, so nothing is left out."""
    made = history(gone=gone)
    made.accept("anna", UserErased())
    assert made.documents["anna"] == TOMBSTONE
    assert made.check().first_violation is None


@pytest.mark.parametrize(
    "document",
    [
        {**TOMBSTONE, "email": ANNA.email},
        {**TOMBSTONE, "isActive": False},
        {**TOMBSTONE, "version": 2},
    ],
)
@pytest.mark.parametrize("gone", [True, False])
def test_a_document_of_an_erased_user_must_be_the_tombstone(gone: bool, document: Document) -> None:
    made = history(gone=gone)
    made.accept("anna", UserErased())
    made.documents["anna"] = document
    assert violated(made.check()) == {"I4"}


@pytest.mark.parametrize("gone", [True, False])
def test_a_state_of_an_erased_user_must_be_empty(gone: bool) -> None:
    made = history(gone=gone)
    made.accept("anna", UserErased())
    state = made.users["anna"].state
    assert state is not None
    kept = User(ANNA.email, "", "", "web", False, state.registered_at, state.last_updated, True)
    made.users["anna"] = Snapshot(kept, 3, ())
    assert violated(made.check()) == {"I3"}


@pytest.mark.parametrize("gone", [True, False])
def test_a_user_who_is_erased_while_this_runs(gone: bool) -> None:
    """State and document are those from before the erasure, and so are their versions."""
    assert erased_meanwhile(gone=gone).check().first_violation is None


def test_then_the_view_may_be_a_tombstone_already() -> None:
    """Its worker read the shredded events, or has projected the erasure already."""
    made = erased_meanwhile(gone=True)
    made.documents["anna"] = {"id": "anna", "version": 2}
    assert made.check().first_violation is None
    made = erased_meanwhile(gone=True)
    made.documents["anna"] = TOMBSTONE
    assert made.check().first_violation is None


def test_then_versions_are_compared_all_the_same() -> None:
    made = erased_meanwhile(gone=True)
    made.documents["anna"] = {**made.documents["anna"], "version": 1}
    assert violated(made.check()) == {"I4"}


def test_a_key_that_is_lost_is_a_violation() -> None:
    made = history(gone=True)
    report = made.check()
    assert violated(report) >= {"I3"}
    assert report.lost
    assert "key is" in (report.findings["I3"].first or "")


def test_violations_contain_no_personal_data() -> None:
    made = history(gone=True)
    made.accept("anna", UserDeactivated())
    lines = " ".join(finding.first or "" for finding in made.check().findings.values())
    assert "anna" in lines
    assert not any(text in lines for text in (ANNA.email, ANNA.first_name, ANNA.last_name, "Meier"))
