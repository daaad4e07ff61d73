"""JSON Schemas (2020-12) of commands, events and outcomes, for programs in any language.

They are made from the classes that read and write the records, and each is complete in itself. They
describe how records are best written: a worker also accepts the other spellings of a command's
names, and an address that breaks its rules is refused by more than a schema can say.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import msgspec

from models.event_decoder import wire_struct
from models.messages import Command, Event
from models.outcomes import Outcome

Schema = dict[str, Any]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"

# msgspec's word for a union is of OpenAPI, and points at definitions that are gone here.
_NOT_JSON_SCHEMA = frozenset({"discriminator"})


def command_schemas(types: Mapping[str, type[Command]]) -> dict[str, Schema]:
    """Return the schema of each type of command, by its name."""
    return {name: _command_schema(name, model) for name, model in types.items()}


def event_schemas(types: Mapping[str, type[Event]], sealed: str) -> dict[str, Schema]:
    """Return the schema of each type of event, by its name.

    Args:
        types: the types of one aggregate.
        sealed: the field that has the personal fields of an event whose data is encrypted.
    """
    return {name: _event_schema(event_type, sealed) for name, event_type in types.items()}


def outcome_schemas() -> dict[str, Schema]:
    """Return the schema of each kind of outcome, by its name."""
    return {kind.__name__: _struct_schema(kind) for kind in get_args(Outcome)}


def one_of(title: str, schemas: Mapping[str, Schema]) -> Schema:
    """Return the schema of a value that fits exactly one of these."""
    return {"$schema": _DIALECT, "title": title, "oneOf": list(schemas.values())}


def _command_schema(name: str, model: type[Command]) -> Schema:
    schema = model.model_json_schema()
    properties = {"type": {"const": name}, **schema["properties"]}
    for field in properties.values():
        field.pop("title", None)  # pydantic's are the names in other letters
    return schema | {"properties": properties, "required": ["type", *schema["required"]]}


def _event_schema(event_type: type[Event], sealed: str) -> Schema:
    schema = _struct_schema(wire_struct(event_type)) | {"description": inspect.getdoc(event_type)}
    personal = [name for name in event_type.personal if name in schema["required"]]
    if event_type.personal:
        schema["properties"][sealed] = {
            "description": "The personal fields, encrypted with the key of this user.",
            "type": "string",
            "contentEncoding": "base64",
        }
    if personal:
        schema["required"] = [name for name in schema["required"] if name not in personal]
        schema["oneOf"] = [{"required": personal}, {"required": [sealed]}]
    return schema


def _struct_schema(struct: type[msgspec.Struct]) -> Schema:
    (reference,), definitions = msgspec.json.schema_components([struct])
    schema: Schema = _inline(reference, definitions)
    return schema


def _inline(part: Any, definitions: Mapping[str, Any]) -> Any:
    """Return a part of a schema with definitions in the place of references to them.

    Whoever reads what this project writes has to ignore fields that are new, so they are allowed.
    """
    if isinstance(part, Sequence) and not isinstance(part, str):
        return [_inline(one, definitions) for one in part]
    if not isinstance(part, Mapping):
        return part
    if "$ref" in part:
        return _inline(definitions[part["$ref"].rpartition("/")[2]], definitions)
    return {
        key: _inline(value, definitions)
        for key, value in part.items()
        if key not in _NOT_JSON_SCHEMA and (key, value) != ("additionalProperties", False)
    }
