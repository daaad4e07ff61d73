"""The types of the fields that commands share, and their rules in words.

A reason names the field and the rule and never the value: reasons go to topics and logs, which must
not contain personal data.
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

# Without \p{Cc}, which not all readers of the exported schemas know.
_CONTROL = r"\x00-\x1f\x7f-\x9f"
_KEY = rf"^[^\s{_CONTROL}](?:[^{_CONTROL}]*[^\s{_CONTROL}])?$"
_LINE = rf"^[^{_CONTROL}]*$"
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
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}").fullmatch
_MAX_PROBLEMS = 5


def _only_iso(value: object) -> object:
    """Refuse Unix times, as numbers or strings, which pydantic would accept."""
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
MAX_KEY_CHARS = 128  # at most 512 bytes, the longest id of a document in Elasticsearch
MAX_LINE_CHARS = 200

Key = Annotated[str, StringConstraints(min_length=1, max_length=MAX_KEY_CHARS, pattern=_KEY)]
# One line that a person typed.
Line = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True, min_length=1, max_length=MAX_LINE_CHARS, pattern=_LINE
    ),
]


def show_name(name: object) -> str:
    """Return a name from outside to show in a reason, or a placeholder if it is not like a name."""
    return name if isinstance(name, str) and _NAME(name) else "(a name not shown here)"


def explain(error: ValidationError, model: type[BaseModel]) -> tuple[PoisonCode, tuple[str, ...]]:
    """Return the code of the first problem, and a line for each problem with fields of `model`.

    There are at most five of these lines, and then one with the number of the others.
    """
    found = error.errors(include_url=False, include_input=False)
    names = {name for field, info in model.model_fields.items() for name in (field, info.alias)}
    lines = [_line(problem, names, model) for problem in found[:_MAX_PROBLEMS]]
    if len(found) > _MAX_PROBLEMS:
        lines.append(f"and {len(found) - _MAX_PROBLEMS} more")
    return _code(found[0]), tuple(lines)


def _line(problem: Mapping[str, Any], names: set[str | None], model: type[BaseModel]) -> str:
    kind, name = problem["type"], problem["loc"][0] if problem["loc"] else None
    if kind == "extra_forbidden":
        given_twice = name in names
        rule = (
            "is given in both spellings" if given_twice else f"is not a field of {model.__name__}"
        )
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
