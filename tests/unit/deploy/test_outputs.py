"""What commands print for programs fits what they declare: a value of each type.

The harness checks each `--json` of tests with servers as well (`tests/harness/command_line.py`).
"""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from uuid import uuid4

import pytest

from deploy.cli.config import in_effect
from deploy.cli.erase import Erased, ErasedPlace
from deploy.cli.history import History, Read
from deploy.cli.keys import KeysRotated, KeysStatus
from deploy.cli.output import json_line
from deploy.cli.queries import UserPage
from deploy.cli.send_file import Summary
from deploy.cli.stack import RunningStack, StoppedStack
from deploy.cli.state import StateCheck
from deploy.cli.status import Status
from deploy.cli.topics import Adopted, Skipped, Topic
from deploy.cli.views import PrunedIndices, ServedIndex
from deploy.embedded.status import ServerStatus
from deploy.overview import WorkersStatus
from models.daily_registrations import DailyRegistrations
from models.messages import Source
from models.outcomes import Accepted, Duplicate, FirstRejection, Rejection
from models.user_view import UserReadModel
from streams.audit.report import CheckedRange, Report
from streams.audit.timeline import CommandRecord, Entry
from streams.commands.rotate_keys import Rotated, WrappedKeys
from streams.settings import Settings
from streams.views.status import IndexStatus
from tests.harness.outputs import misfits
from tests.unit.samples import ANNA, record

NOW = datetime.now(timezone.utc)
SOURCE = Source("t", 0, 1)
ACCEPTED = Accepted(
    command_id=uuid4(),
    aggregate_id="a",
    timestamp=NOW,
    source=SOURCE,
    sequence=1,
    event_ids=(uuid4(),),
    token="x",
)
REJECTED = Rejection(timestamp=NOW, source=SOURCE, code="c", reason="r")
DUPLICATE = Duplicate(timestamp=NOW, source=SOURCE, of=FirstRejection(code="c", reason="r"))
INDEX = IndexStatus("n", "serving", None, True, {0: 1}, 0, 0.0, 1, None)
REPORT = Report(indices=[INDEX], ranges=[CheckedRange(0, 1, 2)])
USER = UserReadModel(
    id="a",
    email="a@b.c",
    first_name="A",
    last_name="B",
    is_active=True,
    registered_at=NOW,
    last_updated=NOW,
    version=1,
)
SERVER = ServerStatus("kafka", "running", 1, "x", 1, 1)
HISTORY = History(
    "a",
    0,
    (
        Entry(1, CommandRecord(NOW, "X", uuid4()), ACCEPTED, (record(ANNA),)),
        Entry(2, None, None, ()),
    ),
    1,
    {"email": "x"},
    ("u",),
    Read(1, 0.1),
)

VALUES: dict[str, object] = {
    "verify": REPORT,
    "views status": [INDEX],
    "history": HISTORY,
    "get": USER,
    "active": UserPage((USER,), None),
    "status": Status(
        Path("/x"),
        True,
        [SERVER],
        7,
        (),
        [WorkersStatus("commands", "g", 1, 0)],
        {"t": 1},
        {"v": [INDEX]},
        [],
        [],
    ),
    "erase": Erased("a", 2, True, [ErasedPlace("p", 1, 1, 0, False, NOW, "")]),
    "keys status": KeysStatus(True, [WrappedKeys(0, 1, 0, 0, 0, 0)]),
    "keys rotate": KeysRotated([1], [Rotated(0, 1, (), ())]),
    "topics create": [Topic("t", 1, "delete", "created")],
    "topics skip-expired": Skipped("t", 0, 0, 1),
    "topics adopt": [Adopted("t", 0, False, None)],
    "state verify": StateCheck(True, 1, 1, 0, None),
    "send": Summary(),
    "up": RunningStack("a", "b", Path("/x")),
    "down": StoppedStack(Path("/x"), "stopped", True),
    "views rebuild": ServedIndex("v", "i"),
    "views prune": PrunedIndices("v", ["a"]),
    "config": list(in_effect(Settings(), set())),
    "registrations": [DailyRegistrations(day=NOW.date(), source="s", registrations=1)],
    "send register": ACCEPTED,
    "send update": REJECTED,
    "send deactivate": DUPLICATE,
    "tail": ACCEPTED,
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_fits(name: str) -> None:
    assert misfits(name, "json", json_line(VALUES[name])) == []


def test_an_event_of_tail_and_an_invariant_of_verify_fit() -> None:
    assert misfits("tail", "json", json_line(record(ANNA))) == []
    assert misfits("verify", "ndjson", json_line(REPORT.findings["I1"])) == []


def test_what_does_not_fit_is_told() -> None:
    assert misfits("verify", "json", json_line(VALUES["down"])) != []
    assert misfits("state verify", "json", '{"ok": 1, "aggregates": 0, "events": 0}') != []
    assert misfits("topics create", "tsv", "one\tcell") == ["one\tcell"]
