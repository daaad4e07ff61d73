"""What commands print for programs, from the types that they declare (`deploy/cli/output.py`).

As tables for `docs/reference/outputs.md`, and as a JSON Schema for what a command really printed.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import date, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints
from uuid import UUID

import jsonschema
import msgspec
from pydantic import AwareDatetime, BaseModel
from pydantic.alias_generators import to_camel

from deploy.asyncapi import event_channel_schemas
from deploy.cli.failed_commands import Text
from deploy.cli.output import Form, Output, OutputOption
from models.messages import EventRecord
from models.outcomes import Outcome
from models.schemas import Schema, one_of, outcome_schemas
from tests.harness.command_tree import leaves

_SCALARS: Mapping[Any, tuple[Schema, str]] = {
    str: ({"type": "string"}, "text"),
    Path: ({"type": "string"}, "path"),
    UUID: ({"type": "string", "format": "uuid"}, "UUID"),
    datetime: ({"type": "string", "format": "date-time"}, "time, RFC 3339"),
    AwareDatetime: ({"type": "string", "format": "date-time"}, "time, RFC 3339"),
    date: ({"type": "string", "format": "date"}, "day, such as 2026-01-31"),
    bool: ({"type": "boolean"}, "true or false"),
    int: ({"type": "integer"}, "whole number"),
    float: ({"type": "number"}, "number"),
    type(None): ({"type": "null"}, "null"),
    Any: ({}, "any value"),
}
_OURS = ("models", "streams", "agents", "deploy", "tests")
_OUTCOMES = frozenset(get_args(Outcome))


@cache
def outputs() -> Mapping[str, Output]:
    """Return what each command declares, by its words without `cqrs`."""
    return {
        " ".join(path): option.output
        for path, command in leaves()
        for option in command.params
        if isinstance(option, OutputOption)
    }


def name_of(arguments: Sequence[str]) -> str:
    """Return the command that is meant by the words of a command line."""
    possible = (" ".join(arguments[:count]) for count in range(len(arguments), 0, -1))
    return next(name for name in possible if name in outputs())


def misfits(name: str, form: Form, printed: str) -> list[str]:
    """Return what is not as the command declares of what it printed, but as a table.

    Some commands print lines of `ndjson` as `json`, too, also only one.
    """
    output, lines = outputs()[name], printed.splitlines()
    if form == "tsv":
        width = len(output.columns)
        return [line for line in lines if len(line.split("\t")) != width]
    schema = schema_of(_line(output))
    if form == "json" and len(lines) == 1:
        schema = {"anyOf": [schema_of(output.document), schema]}
    validator = jsonschema.Draft202012Validator(schema)
    return [
        f"{'.'.join(map(str, error.absolute_path)) or 'the whole'}: {error.message}"
        for line in lines
        for error in validator.iter_errors(json.loads(line))
    ]


def schema_of(shape: Any) -> Schema:
    """Return the JSON Schema of a type: each field is there, and no other one."""
    if shape in _SCALARS:
        return _SCALARS[shape][0]
    if shape in _OUTCOMES:
        return outcome_schemas()[shape.__name__]
    origin, arguments = get_origin(shape), get_args(shape)
    if (origin or shape) is EventRecord:
        return one_of("An event of a user", event_channel_schemas())
    if origin in (Union, types.UnionType):
        return {"anyOf": [schema_of(one) for one in arguments]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if _is_list(origin):
        return {"type": "array", "items": schema_of(arguments[0])}
    if _is_mapping(origin):
        return {"type": "object", "additionalProperties": schema_of(arguments[1])}
    properties = {name: schema_of(one) for name, one in _types(shape)}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def tables() -> str:
    """Return a table of the commands, and one of each type that they print."""
    rows = [
        "| command | `-o json` | a line of `-o ndjson` | columns of `-o tsv` |",
        "|---|---|---|---|",
    ]
    shapes: dict[str, Any] = {}
    for name, output in sorted(outputs().items()):
        line = _line(output)
        columns = ", ".join(f"`{one}`" for one in output.columns) or "no TSV"
        rows.append(f"| `cqrs {name}` | {words(output.document)} | {words(line)} | {columns} |")
        for shape in (output.document, line):
            for one in _classes(shape):
                assert shapes.setdefault(one.__name__, one) is one, f"two are named {one}"
    parts = [_table(one) for _, one in sorted(shapes.items())]
    return "\n".join([*rows, "", *parts])


def words(shape: Any) -> str:
    """Return in words what a value may be."""
    if shape in _SCALARS:
        return _SCALARS[shape][1]
    if shape in _OUTCOMES:
        return "[outcome](messages.md#outcomes)"
    if shape == Text:
        return 'text, or `{"base64": ...}` if it is not UTF-8, or null'
    origin, arguments = get_origin(shape), get_args(shape)
    if (origin or shape) is EventRecord:
        return "[event](messages.md#events)"
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(words(one) for one in arguments))
    if origin is Literal:
        return ", ".join(f"`{one}`" for one in arguments)
    if _is_list(origin):
        return f"list of {_operand(arguments[0])}"
    if _is_mapping(origin):
        return f"object of {_operand(arguments[1])}"
    return f"[{shape.__name__}](#{shape.__name__.lower()})"


def _operand(shape: Any) -> str:
    text = words(shape)
    return f"({text})" if get_origin(shape) in (Union, types.UnionType) else text


def _line(output: Output) -> Any:
    if output.line is not None:
        return output.line
    is_list = _is_list(get_origin(output.document))
    return get_args(output.document)[0] if is_list else output.document


def _is_list(origin: Any) -> bool:
    return isinstance(origin, type) and issubclass(origin, Sequence)


def _is_mapping(origin: Any) -> bool:
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _classes(shape: Any) -> Iterator[type]:
    """Yield the classes that a type consists of, those of their fields included."""
    if shape in _SCALARS or shape in _OUTCOMES or (get_origin(shape) or shape) is EventRecord:
        return
    if get_origin(shape) is Literal:
        return
    arguments = get_args(shape)
    if not arguments:
        yield shape
        arguments = tuple(one for _, one, _ in _fields(shape))
    for one in arguments:
        if one is not ...:
            yield from _classes(one)


def _table(shape: type) -> str:
    about = str(inspect.getdoc(shape)).partition("\n\n")[0].replace("\n", " ")
    rows = [f"| `{name}` | {words(one)} | {text} |" for name, one, text in _fields(shape)]
    head = ["| field | value | meaning |", "|---|---|---|"]
    return "\n".join([f"### {shape.__name__}", "", about, "", *head, *rows, ""])


def _types(shape: type) -> Iterator[tuple[str, Any]]:
    """Yield name and type of each field of a class, as JSON has them."""
    hints = get_type_hints(shape)
    for name in _names(shape):
        yield to_camel(name), hints[name]
    for name in _properties(shape):
        yield to_camel(name), get_type_hints(getattr(shape, name).fget)["return"]


def _names(shape: type) -> Sequence[str]:
    if is_dataclass(shape):
        return [one.name for one in fields(shape)]
    if issubclass(shape, BaseModel):
        return [*shape.model_fields]
    assert issubclass(shape, msgspec.Struct), shape
    return [*shape.__struct_fields__]


def _properties(shape: type) -> Sequence[str]:
    return getattr(shape, "json_properties", ())


def _fields(shape: type) -> Iterator[tuple[str, Any, str]]:
    """Yield name, type and meaning of each field of a class."""
    meanings: dict[str, str] = {}
    for one in reversed(shape.__mro__[:-1]):
        if one.__module__.partition(".")[0] in _OURS:
            meanings |= _docstrings(one)
    meanings |= {name: str(getattr(shape, name).__doc__) for name in _properties(shape)}
    found = {to_camel(name): _as_json(meaning) for name, meaning in meanings.items()}
    for name, kind in _types(shape):
        yield name, kind, found.get(name, "")


def _as_json(text: str) -> str:
    words_of = {"None": "null", "True": "true", "False": "false"}
    found = " ".join(text.split())
    return re.sub(r"\b(None|True|False)\b", lambda word: words_of[word[0]], found)


def _docstrings(shape: type) -> dict[str, str]:
    """Return the strings below the fields in a class's code, by the names of the fields."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(shape))).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, text in zip(tree.body, tree.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            found[field.target.id] = str(text.value.value)
    return found
