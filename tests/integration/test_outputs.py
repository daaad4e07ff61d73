"""What commands print for programs is what they declare, in every form.

The harness checks each `--json` of all other tests as well (`tests/harness/command_line.py`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from uuid import uuid4

from agents.client import open_commands
from deploy.environment import child_environment
from models.commands import RegisterUser
from tests.conftest import Deploy
from tests.harness.command_tree import Done, Job, run_all
from tests.harness.outputs import misfits, name_of, outputs
from tests.integration.erasure import encrypted, until_projected

# In any order: each only reads, finds nothing to change, or is rejected. {id} is that of a command
# of anna.
TOGETHER = (
    *("active", "config", "dead drop --all --yes", "dead export", "dead list", "dead replay --all"),
    *("dead show anna", "doctor --timeout 60", "follow {id} --aggregate anna --since 60"),
    *("get anna", "history anna", "keys rotate", "keys status", "new", "search email anna"),
    *("send deactivate --id nobody", "send reactivate --id nobody", "send --from {file}"),
    *("send update --id nobody --last-name Li", "state verify", "status"),
    *("send register --id anna --email a@example.org --first-name A --last-name L",),
    *("tail events --from-beginning --limit 1", "tail outcomes --from-beginning --limit 1"),
    *("topics adopt --all", "topics create", "topics skip-expired 0", "verify", "views prune"),
    *("views status --check",),
)
IN_TURN = ("views rebuild --timeout 110", "views rollback --timeout 110", "views prune --yes")
# The mechanism is the same for all; these have lines of another type than the whole, or rows.
IN_OTHER_FORMS = ("history anna", "search email anna", "send deactivate --id nobody", "status")
ELSEWHERE: Mapping[str, str] = {
    "demo": "tests/integration/test_demo.py",
    "down": "tests/integration/test_embedded_stack.py",
    "erase": "tests/integration/test_erasure.py",
    "faults": "tests/unit/faults/test_report.py",
    "registrations": "tests/integration/test_daily_registrations.py",
    "state rebuild": "tests/integration/test_state_versions.py",
    "top": "tests/integration/test_watching.py",
    "up": "tests/integration/test_embedded_stack.py",
}
AT_ONCE = 10  # more would make servers on two cores seem slow


def check(done: Done) -> None:
    """That it printed something that fits, or nothing because there is nothing."""
    form = done.arguments[-1]
    told = f"{' '.join(done.arguments)} ended with {done.code}: {done.out}{done.err}"
    assert done.code in (0, 1), told
    assert done.out or form != "json", told
    assert misfits(name_of(done.arguments), form, done.out) == [], told  # type: ignore[arg-type]


def test_every_command_is_run() -> None:
    run = {name_of(line.split()) for line in (*TOGETHER, *IN_TURN)}
    assert run | ELSEWHERE.keys() == outputs().keys()
    assert run.isdisjoint(ELSEWHERE)


async def test_each_form_is_as_declared(deploy: Deploy, tmp_path: Path) -> None:
    deployed = deploy("commands", "views", partitions=1, **encrypted())
    register = RegisterUser(
        aggregate_id="anna",
        email="anna@example.org",
        first_name="Anna",
        last_name="Li",
        registration_source="web",
    )
    async with open_commands(deployed.settings) as commands:
        await commands.dispatch(register)
    await until_projected(deployed, "anna", 1)
    file = tmp_path / "commands.ndjson"
    file.write_text(f'{{"type": "EraseUser", "aggregateId": "{uuid4()}"}}\nno command\n')
    others = {name: value for name, value in os.environ.items() if name[:5] != "CQRS_"}
    environment = {
        **others,
        **child_environment(deployed.settings),
        "CQRS_STACK_HOME": str(tmp_path),
    }

    async def run(*jobs: tuple[str, str]) -> None:
        words = [
            [*line.format(id=register.id, file=file).split(), "-o", form] for line, form in jobs
        ]
        found = [Job(one, environment, timeout=120) for one in words]
        for done in await asyncio.to_thread(run_all, found):
            check(done)

    jobs = [(line, "json") for line in TOGETHER]
    jobs += product(IN_OTHER_FORMS, ("ndjson", "tsv"))
    for start in range(0, len(jobs), AT_ONCE):
        await run(*jobs[start : start + AT_ONCE])
    for line in IN_TURN:
        await run((line, "json"))
