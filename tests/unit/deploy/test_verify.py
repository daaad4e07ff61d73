"""`cqrs verify`: what its exit code says."""

from __future__ import annotations

from dataclasses import replace

import pytest
from click.testing import CliRunner

from deploy.cli import verify as command
from deploy.cli.exit_codes import ExitCode
from streams.audit.report import Report
from streams.views.status import IndexStatus

SERVING = IndexStatus(
    name="user-views-v2",
    state="serving",
    trouble=None,
    of_this_program=True,
    positions={0: 5},
    behind=0,
    seconds=0.0,
    documents=2,
    complete=True,
)
FORMER = replace(SERVING, name="user-views-v1", state="followed")
WRITTEN = replace(FORMER, complete=None)
CLOSED = replace(
    WRITTEN, trouble="closed: open it", positions={}, behind=None, seconds=None, documents=None
)
OF_ANOTHER_PROGRAM = replace(CLOSED, of_this_program=False)


@pytest.mark.parametrize(
    ("indices", "violated", "code"),
    [
        ([SERVING, FORMER], False, ExitCode.OK),
        ([SERVING, WRITTEN], False, ExitCode.OK),
        ([SERVING, OF_ANOTHER_PROGRAM], False, ExitCode.OK),
        ([SERVING, CLOSED], False, ExitCode.UNKNOWN),
        ([SERVING, CLOSED], True, ExitCode.NO),
        ([SERVING, FORMER], True, ExitCode.NO),
    ],
)
def test_an_index_that_could_not_be_read_is_not_called_sound(
    monkeypatch: pytest.MonkeyPatch, indices: list[IndexStatus], violated: bool, code: ExitCode
) -> None:
    report = Report(documents=2, indices=indices)
    if violated:
        report.findings["I4"].violated("anna has 2 events and no document", "lost")

    async def verify_users(*_: object, **__: object) -> Report:
        return report

    monkeypatch.setattr(command, "verify_users", verify_users)
    done = CliRunner().invoke(command.verify)
    assert done.exit_code == code
    assert report.ok is (code == ExitCode.OK)
    assert ("user-views-v1 could not be read" in done.stderr) is (code == ExitCode.UNKNOWN)
    assert ("I4 is broken" in done.stderr) is violated
