"""`cqrs views status`: what its exit code says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner

from deploy.cli import views
from deploy.cli.exit_codes import ExitCode
from streams.views.status import IndexStatus

SOUND = IndexStatus(
    name="user-views-v1",
    state="serving",
    trouble=None,
    of_this_program=True,
    positions={0: 5},
    behind=0,
    seconds=0.0,
    documents=2,
    complete=True,
)
CHANGED = replace(SOUND, complete=None)
ILL = replace(CHANGED, name="user-views-v2", state="followed", trouble="cannot be read")
FOREIGN = replace(ILL, name="copy", state="foreign", of_this_program=False)
FORMER = replace(ILL, trouble=None, of_this_program=False)


@pytest.mark.parametrize(
    ("indices", "options", "code"),
    [
        ([SOUND], ["--check"], ExitCode.OK),
        ([SOUND, replace(SOUND, complete=False)], ["--check"], ExitCode.NO),
        ([CHANGED, replace(SOUND, complete=False)], ["--check"], ExitCode.NO),
        ([replace(CHANGED, trouble="closed")], ["--check"], ExitCode.NO),
        ([CHANGED], ["--check"], ExitCode.UNKNOWN),
        ([SOUND, ILL], ["--check"], ExitCode.UNKNOWN),
        ([SOUND, FOREIGN], ["--check"], ExitCode.OK),
        ([SOUND, FORMER], ["--check"], ExitCode.OK),
        ([], [], ExitCode.NO),
        ([replace(SOUND, state="followed")], [], ExitCode.NO),
        ([CHANGED], [], ExitCode.OK),
        ([SOUND, ILL], [], ExitCode.OK),
    ],
)
def test_an_index_that_could_not_be_checked_is_not_called_sound(
    monkeypatch: pytest.MonkeyPatch, indices: list[IndexStatus], options: list[str], code: int
) -> None:
    async def status_of(*_: Any, **__: Any) -> list[IndexStatus]:
        return indices

    monkeypatch.setattr(views, "status_of", status_of)
    done = CliRunner().invoke(views.views, ["status", "user-views", *options])
    assert done.exit_code == code
    unknown = [one.name for one in indices if one.complete is None and one.of_this_program]
    said = f"could not be found out of {', '.join(unknown)}" in done.stderr
    assert said is (code == ExitCode.UNKNOWN)
