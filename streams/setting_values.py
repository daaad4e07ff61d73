"""What a setting may be, in words: for errors, `cqrs config` and the table of the README."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, SecretStr


@dataclass(frozen=True)
class Values:
    """Part of a setting's type (`Annotated`): its values, where the type does not say them."""

    text: str


def allowed(model: type[BaseModel], name: str) -> str:
    """Return what a setting may be: the end of "it must be ..."."""
    field = model.model_fields[name]
    for found in field.metadata:
        if isinstance(found, Values):
            return found.text
    [kind] = [one for one in _union(field.annotation) if one is not NoneType]
    if get_origin(kind) is Literal:
        *others, last = get_args(kind)
        return f"{', '.join(others)} or {last}"
    if kind is bool:
        return "true or false"
    if kind in (int, float):
        return ("a whole number" if kind is int else "a number") + _bounds(field.metadata)
    return {Path: "a path", SecretStr: "one line of text"}.get(kind, "text")


def _union(annotation: Any) -> tuple[Any, ...]:
    """Return the parts of `X | None`; a Literal is one part."""
    if annotation is None or get_origin(annotation) in (None, Literal):
        return (annotation,)
    return get_args(annotation)


def _bounds(constraints: Sequence[Any]) -> str:
    """Return the bounds of a number, as the end of "a number"."""
    bounds = {
        bound: getattr(one, bound)
        for one in constraints
        for bound in ("ge", "gt", "le")
        if hasattr(one, bound)
    }
    if "gt" in bounds:
        return f" above {bounds['gt']}"
    if "le" in bounds:
        return f" from {bounds['ge']:g} to {bounds['le']:g}"
    return f", {bounds['ge']:g} or more"
