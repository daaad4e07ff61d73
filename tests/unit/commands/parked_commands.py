"""A worker that parks, with the commands and controls that are sent to it."""

from __future__ import annotations

import base64
from typing import Any
from uuid import uuid4

from pydantic import SecretStr

from models.messages import Command
from streams.commands.control import Control, DropParked, ReplayParked, control_key, encode_control
from tests.unit.commands.deciding import NAMES, Deciding
from tests.unit.samples import wire_register

KEY = base64.b64encode(bytes(range(32))).decode()


def in_order(**changes: Any) -> Deciding:
    settings = {"dead_letter_order": "aggregate", "control_key": SecretStr(KEY), **changes}
    deciding = Deciding(**settings)
    deciding.breaks = updates
    return deciding


def updates(command: Command) -> bool:
    return type(command).__name__ == "UpdateUserProfile"


def register(deciding: Deciding, user: str = "u") -> int:
    return deciding.send(user.encode(), wire_register(aggregateId=user, id=str(uuid4())))


def send(deciding: Deciding, type_: str, user: str = "u", **fields: Any) -> int:
    wire = {"type": type_, "aggregateId": user, "id": str(uuid4()), **fields}
    return deciding.send(user.encode(), wire)


def update(deciding: Deciding, name: str, user: str = "u", **fields: Any) -> int:
    return send(deciding, "UpdateUserProfile", user, firstName=name, **fields)


def control(deciding: Deciding, which: Control) -> int:
    key = control_key(deciding.settings)
    assert key is not None
    signed = encode_control(which, NAMES.commands, key)
    assert signed.key is not None
    return deciding.send(signed.key, signed.value or b"", *signed.headers)


def replay(deciding: Deciding, first: int, user: str = "u") -> int:
    return control(deciding, ReplayParked(id=uuid4(), aggregate_id=user, first=first))


def drop(deciding: Deciding, first: int, through: int, user: str = "u") -> int:
    return control(
        deciding, DropParked(id=uuid4(), aggregate_id=user, first=first, through=through)
    )
