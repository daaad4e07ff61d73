"""What a version writes, reads and keeps, and what another version may not change of it.

`python -m tests.harness.wire > tests/unit/wire/VERSION.json` notes that of a release. The rules are
those of `docs/upgrading.md`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from agents.users import USERS
from deploy.asyncapi import command_channel_schemas, event_channel_schemas
from models.errors import CqrsError
from models.schemas import Schema, outcome_schemas
from streams.aggregate import TopicNames
from streams.connection_settings import variable
from streams.settings import CommandVariables, Settings
from streams.state.version import StateVersion
from tests.harness.kept import KEPT

Wire = Mapping[str, Any]

_SAYS_NOTHING = frozenset({"description", "title", "examples"})


def wire() -> Wire:
    """Return that of this version."""
    return {
        "commands": command_channel_schemas(),
        "events": event_channel_schemas(),
        "outcomes": outcome_schemas(),
        "state": str(StateVersion.of(USERS)),
        "topics": sorted(TopicNames("", USERS.name).all),
        "settings": sorted(map(variable, (*Settings.model_fields, *CommandVariables.model_fields))),
        "kept": {name: one.write(one.value).hex() for name, one in KEPT.items()},
    }


def broken(old: Wire, new: Wire) -> Iterator[str]:
    """Yield what the new version has changed that it may not, a line each."""
    for kind in ("commands", "events", "outcomes"):
        for name, schema in old[kind].items():
            if name not in new[kind]:
                yield f"{kind}: {name} is gone"
            else:
                yield from _changes(f"{kind}: {name}", schema, new[kind][name])
        for name, schema in new[kind].items():
            added = set(schema["required"]) - set(old[kind].get(name, schema)["required"])
            if added and kind != "outcomes":
                yield f"{kind}: {name} needs {', '.join(sorted(added))}, which older ones lack"
    for kind in ("topics", "settings"):
        for name in sorted(set(old[kind]) - set(new[kind])):
            yield f"{kind}: {name} is gone"
    yield from _misread(old["kept"])
    before, now = StateVersion.read(old["state"]), StateVersion.read(new["state"])
    assert before is not None
    assert now is not None
    if now.number < before.number or (now.fields != before.fields and now.number == before.number):
        yield f"state: {now} after {before}: raise `state_version`"


def _misread(kept: Mapping[str, str]) -> Iterator[str]:
    for name, stored in kept.items():
        example = KEPT.get(name)
        if example is None:
            yield f"kept: nothing reads the {name}"
            continue
        try:
            read = example.read(bytes.fromhex(stored))
        except (ValueError, CqrsError) as error:
            yield f"kept: the {name} cannot be read: {error}"
        else:
            if read != example.value:
                yield f"kept: the {name} is read as {read}"


def _changes(where: str, old: Schema, new: Schema) -> Iterator[str]:
    for field, before in old["properties"].items():
        now = new["properties"].get(field)
        if now is None:
            yield f"{where} has lost {field}"
        elif _said(now) != _said(before):
            yield f"{where} means something else by {field}"
    if not where.startswith("commands"):  # whoever reads them needs what it has always had
        for field in set(old["required"]) - set(new["required"]):
            yield f"{where} may be without {field}"


def _said(part: Any) -> Any:
    """Return a part of a schema without what is there for people."""
    if isinstance(part, Mapping):
        return {key: _said(value) for key, value in part.items() if key not in _SAYS_NOTHING}
    return list(map(_said, part)) if isinstance(part, list) else part


if __name__ == "__main__":
    print(json.dumps(wire(), indent=1, sort_keys=True))
