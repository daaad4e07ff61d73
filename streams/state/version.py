"""Versions of a state: which program made the states of a partition, and what another one does.

A version is a number and a fingerprint. The number (`Aggregate.state_version`) is raised by hand
with every change of the state's type or of `evolve`. The fingerprint is computed from the fields of
the type. The position in the changelog contains it as text, `1.a1b2c3d4`, so both always change in
one transaction.

What a program does that finds the states of another version:

    lower number           it rebuilds them from the events (`streams/commands/rebuild_state.py`)
    higher number          it stops: it would drop what it does not know, and write the rest back
    same number, another   it stops, and says that the number has to be raised: nothing tells which
    fingerprint            of the two programs is newer, and during an upgrade the older one would
                           take the rebuilt states back again and again
    no version             that of a program from before there were versions: number 1, any fields

The fingerprint is there for the third case only. A rebuild marks its first transaction with
`<number>.rebuilding`: to an older program that is a higher number, and any other program rebuilds
the states again. So no program ever decides with a mixture of states of two versions.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from types import UnionType
from typing import Any, Union, get_args, get_origin

import msgspec
from faust.types import TP

from models.errors import Fatal
from streams.aggregate import Aggregate
from streams.logs import name_of
from streams.state.store import Position

_REBUILDING = "rebuilding"


@dataclass(frozen=True)
class StateVersion:
    """Version of the states of an aggregate; `str` returns the text in the position."""

    number: int
    fields: str
    """Fingerprint of the fields of the state's type, or that its states are being rebuilt."""

    @classmethod
    def of(cls, aggregate: Aggregate[Any]) -> StateVersion:
        """Return the version of the states that this program makes."""
        described = _description(aggregate.state).encode()
        return cls(aggregate.state_version, sha256(described).hexdigest()[:8])

    @classmethod
    def read(cls, text: str) -> StateVersion | None:
        """Return the version that was written as this text; None if it is no version."""
        number, dot, fields = text.partition(".")
        return cls(int(number), fields) if dot and number.isdecimal() else None

    def __str__(self) -> str:
        return f"{self.number}.{self.fields}"

    @property
    def unfinished(self) -> StateVersion:
        """The version of states that a program of this version is rebuilding."""
        return StateVersion(self.number, _REBUILDING)


def has_to_rebuild(tp: TP, stored: Position, current: StateVersion) -> bool:
    """Return whether the states at this position have to be rebuilt before anything is decided.

    Args:
        tp: input partition that the position is of.
        stored: the position as it was found.
        current: version of this program.

    Raises:
        Fatal: the states are of a newer program, or it cannot be told which one is newer.
    """
    where = name_of(tp)
    if stored.state is None:
        return current.number > 1
    found = StateVersion.read(stored.state)
    if found is None:
        raise Fatal(
            f"the state of {where} was made by a newer program (state version {stored.state!r} is "
            "unknown here): start that one"
        )
    if found.number > current.number:
        raise Fatal(
            f"the state of {where} was made by a newer program (state version {found.number}, "
            f"this is {current.number}): start that one"
        )
    if found.number < current.number or found.fields == _REBUILDING:
        return True
    if found.fields != current.fields:
        raise Fatal(
            f"the state of {where} has other fields than this program's, under the same state "
            f"version ({found}, this is {current}): raise `state_version` in the newer program"
        )
    return False


def check_version(tp: TP, stored: Position | None, current: StateVersion) -> None:
    """Check that this program can read the states at this position.

    Raises:
        Fatal: another program made them.
    """
    if stored is not None and has_to_rebuild(tp, stored, current):
        raise Fatal(
            f"the state of {name_of(tp)} has to be rebuilt (state version "
            f"{stored.state or 'unknown'}, this is {current}): start a command worker, or run "
            f"`cqrs state rebuild {tp.partition}`"
        )


def _description(kind: Any, outer: tuple[Any, ...] = ()) -> str:
    """Return names, types and defaults of the fields of a type, in order, of nested ones as well.

    It is the same in all versions of Python, and wherever the type is defined.
    """
    if kind in outer:
        return str(kind.__name__)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        fields = (
            f"{one.encode_name}:{_description(one.type, (*outer, kind))}"
            + ("" if one.required else f"={one.default!r}")
            for one in msgspec.structs.fields(kind)
        )
        return f"({','.join(fields)})"
    origin, parts = get_origin(kind), [_description(part, outer) for part in get_args(kind)]
    if origin in (Union, UnionType):
        return "|".join(parts)
    name = str(getattr(origin or kind, "__name__", kind))
    return f"{name}[{','.join(parts)}]" if parts else name
