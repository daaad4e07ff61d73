"""The AsyncAPI 3 document of the topics: what other programs send and read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from agents.users import USERS
from models.schemas import Schema, command_schemas, event_schemas, outcome_schemas
from streams.aggregate import TopicNames
from streams.encryption.cipher import PERSONAL
from streams.kafka.topics import TopicSpec, topic_specs
from streams.settings import Settings

_KEY: Schema = {"type": "string", "description": "The aggregate's id, in UTF-8."}

_ABOUT = """\
Produce commands to the command topic; each one gets exactly one outcome. Events are what happened.
Read events and outcomes with `isolation.level=read_committed`. The key of every record is the id of
its aggregate, and the partitioner is that of the Java client (murmur2)."""


def command_channel_schemas() -> dict[str, Schema]:
    """Return the schemas of the command topic's values, by name."""
    return command_schemas(USERS.commands)


def event_channel_schemas() -> dict[str, Schema]:
    """Return the schemas of the event topic's values, by name."""
    return event_schemas(USERS.events, PERSONAL)


def asyncapi(settings: Settings, version: str) -> Schema:
    """Return the document for the topics in the namespace of the settings.

    Args:
        settings: with the namespace and the configuration of the topics.
        version: of this program.
    """
    names = TopicNames.of(settings, USERS.name)
    specs = {spec.name: spec for spec in topic_specs(settings, names)}
    channels: Mapping[str, tuple[str, str, dict[str, Schema]]] = {
        "commands": (names.commands, "Requests to change a user.", command_channel_schemas()),
        "events": (names.events, "Events of users.", event_channel_schemas()),
        "outcomes": (names.outcomes, "The reply to each command.", outcome_schemas()),
    }
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "cqrs-streams", "version": version, "description": _ABOUT},
        "defaultContentType": "application/json",
        "channels": {
            channel: {
                "address": address,
                "description": about,
                "messages": {name: _ref("components", "messages", name) for name in schemas},
                "bindings": {"kafka": _topic_binding(specs[address])},
            }
            for channel, (address, about, schemas) in channels.items()
        },
        "operations": {
            "decide": {
                "action": "receive",
                "channel": _ref("channels", "commands"),
                "reply": {"channel": _ref("channels", "outcomes")},
            },
            "publish": {"action": "send", "channel": _ref("channels", "events")},
        },
        "components": {
            "messages": {
                name: {
                    "payload": _ref("components", "schemas", name),
                    "bindings": {"kafka": {"key": _KEY}},
                }
                for _, _, schemas in channels.values()
                for name in schemas
            },
            "schemas": {
                name: schema
                for _, _, schemas in channels.values()
                for name, schema in schemas.items()
            },
        },
    }


def _ref(*path: str) -> Schema:
    return {"$ref": "/".join(("#", *path))}


# The configurations that the binding knows, each with the type that it has there.
_CONFIGURATION: Mapping[str, Callable[[str], Any]] = {
    "cleanup.policy": lambda value: value.split(","),
    "retention.ms": int,
    "max.message.bytes": int,
}


def _topic_binding(spec: TopicSpec) -> Schema:
    return {
        "topic": spec.name,
        "partitions": spec.partitions,
        "replicas": spec.replicas,
        "topicConfiguration": {
            name: read(spec.configs[name])
            for name, read in _CONFIGURATION.items()
            if name in spec.configs
        },
    }
