"""The types of the fields that commands share, and what their rules are called in words.

A reason names the field and the rule and never the value: reasons go to topics and logs that are
not made for personal data.
"""

import re
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    StringConstraints,
    ValidationError,
)

from models.errors import PoisonCode

_KEY = r"^[^\s\p{Cc}](?:\P{Cc}*[^\s\p{Cc}])?$"
_LINE = r"^\P{Cc}*$"
_TIME_RULE = "must be an ISO 8601 time with a zone, as 2026-11-23T10:00:00Z"
_RULES = {
    "missing": "is missing",
    "string_type": "must be a string",
    "string_unicode": "must be valid Unicode",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "uuid_type": "must be a UUID",
    "uuid_parsing": "must be a UUID",
    "timezone_aware": _TIME_RULE,
    "int_type": "must be a whole number from 0",
    "greater_than_equal": "must be a whole number from 0",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "value_error": "{error}",
    "string_pattern_mismatch": "{pattern}",
}
_PATTERNS = {
    _KEY: "must not contain control characters, nor begin or end with whitespace",
    _LINE: "must not contain control characters",
}
_SHOWN = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}").fullmatch
_MOST_PROBLEMS = 5


def _only_iso(value: object) -> object:
    """Keeps out the Unix times, as numbers or strings, that pydantic would read."""
    if isinstance(value, datetime) or (isinstance(value, str) and value[4:5] == "-"):
        return value
    raise ValueError(_TIME_RULE)


def _to_utc(at: datetime) -> datetime:
    try:
        return at.astimezone(timezone.utc)
    except OverflowError:  # the first or last hours of the calendar, in another zone
        raise ValueError(_TIME_RULE) from None


Time = Annotated[
    AwareDatetime,
    BeforeValidator(_only_iso),
    AfterValidator(_to_utc),
]
KEY_LENGTH = 128  # characters: at most 512 bytes, the longest id of a document in Elasticsearch
LINE_LENGTH = 200

Key = Annotated[str, StringConstraints(min_length=1, max_length=KEY_LENGTH, pattern=_KEY)]
# One line that people typed.
Line = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=LINE_LENGTH, pattern=_LINE),
]


def show_name(name: object) -> str:
    """A name from outside for a reason, if it looks like a name; it could be anything."""
    return name if isinstance(name, str) and _SHOWN(name) else "(a name not shown here)"


def explain(error: ValidationError, model: type[BaseModel]) -> tuple[PoisonCode, tuple[str, ...]]:
    """A code for all, and a line for each problem with a field of `model`."""
    found = error.errors(include_url=False, include_input=False)
    names = {name for field, info in model.model_fields.items() for name in (field, info.alias)}
    lines = [_line(problem, names, model) for problem in found[:_MOST_PROBLEMS]]
    if len(found) > _MOST_PROBLEMS:
        lines.append(f"and {len(found) - _MOST_PROBLEMS} more")
    return _code(found[0]), tuple(lines)


def _line(problem: Mapping[str, Any], names: set[str | None], model: type[BaseModel]) -> str:
    kind, name = problem["type"], problem["loc"][0] if problem["loc"] else None
    if kind == "extra_forbidden":
        given_twice = name in names
        rule = "is given in both spellings" if given_twice else f"is no field of {model.__name__}"
    else:
        context = dict(problem.get("ctx", {}))
        context["pattern"] = _PATTERNS.get(context.get("pattern", ""), "is not valid")
        rule = _RULES.get(kind, "is not valid").format(**context)
        if kind.startswith("datetime"):
            rule = _TIME_RULE
    return f"{show_name(name)}: {rule}"


def _code(problem: Mapping[str, Any]) -> PoisonCode:
    if problem["type"] == "missing":
        return "missing-field"
    return "unknown-version" if problem["type"] == "literal_error" else "invalid-field"
