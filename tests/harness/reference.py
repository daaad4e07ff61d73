"""The parts of the pages in `docs/` that are made from the code.

`python -m tests.harness.reference` makes them. A part of a page stands between two comments with
its name. A test compares it with what is made here.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from agents.users import USERS
from deploy.asyncapi import command_channel_schemas, event_channel_schemas
from deploy.cli.config import text_of
from deploy.cli.main import cqrs
from models.schemas import Schema, outcome_schemas
from streams.aggregate import TopicNames
from streams.connection_settings import variable
from streams.kafka.topics import TopicSpec, topic_specs
from streams.setting_values import allowed
from streams.settings import CommandVariables, Settings
from tests.harness import outputs
from tests.harness.command_tree import Job, run_all

DOCS = Path(__file__).parents[2] / "docs"

_HELP_TIMEOUT_S = 120.0  # of all commands together, on a busy machine

_PART = re.compile(
    r"(?P<begin><!-- made from the code: (?P<name>[\w-]+) -->\n)(?P<made>.*?)"
    r"(?P<end><!-- end -->)",
    re.DOTALL,
)


def pages() -> list[Path]:
    """Return the pages that have such parts."""
    return [path for path in sorted(DOCS.glob("**/*.md")) if _PART.search(path.read_text())]


def renewed(page: str) -> str:
    """Return a page with its parts as the code has them now."""
    return _PART.sub(lambda part: f"{part['begin']}\n{MADE[part['name']]()}\n{part['end']}", page)


def _settings() -> str:
    rows = ["| setting | default | it must be | meaning |", "|---|---|---|---|"]
    for model in (Settings, CommandVariables):
        for name, field in model.model_fields.items():
            default = "" if field.default in (None, "") else f" `{text_of(field.default)}`"
            values, meaning = allowed(model, name), field.description
            rows.append(f"| `{variable(name)}` |{default} | {values} | {meaning} |")
    return "\n".join(rows)


def _schemas(schemas: Mapping[str, Schema]) -> str:
    return "\n".join(_schema(name, schema) for name, schema in schemas.items())


def _schema(name: str, schema: Schema) -> str:
    about = " ".join(str(schema.get("description", "")).split())
    required = set(schema["required"])
    for choice in schema.get("oneOf", ()):
        required.update(choice["required"])
    rows = [
        f"| `{field}` | {_shape(rule)} | {'yes' if field in required else ''} |"
        for field, rule in schema["properties"].items()
    ]
    return "\n".join(
        [f"### {name}", "", about, "", "| field | value | needed |", "|---|---|---|", *rows, ""]
    )


def _shape(rule: Mapping[str, Any]) -> str:
    """Return in words what a field may be."""
    if "anyOf" in rule:
        return " or ".join(_shape(one) for one in rule["anyOf"] if one != {"type": "null"})
    if "const" in rule or "enum" in rule:
        return f"`{rule.get('const', rule.get('enum', [''])[0])}`"
    if rule.get("contentEncoding"):
        return f"{rule['contentEncoding']}, instead of the personal fields if they are encrypted"
    if rule.get("type") == "array":
        return f"list of: {_shape(rule['items'])}"
    if rule.get("type") == "object":
        return "object of " + ", ".join(f"`{name}`" for name in rule["properties"])
    if rule.get("type") == "integer":
        return f"whole number from {rule['minimum']}" if "minimum" in rule else "whole number"
    text = {
        "uuid": "UUID",
        "date-time": "time, RFC 3339",
        "idn-email": "email address",
    }.get(str(rule.get("format")), "text")
    if "maxLength" in rule:
        unit = "bytes" if rule.get("format") == "idn-email" else "characters"
        text += f" of at most {rule['maxLength']} {unit}"
    return text


def _command_line() -> str:
    commands = list(_commands(click.Context(cqrs, info_name="cqrs")))
    environment = {**os.environ, "COLUMNS": "80"}
    helps = run_all([Job([*words, "--help"], environment, _HELP_TIMEOUT_S) for words in commands])
    parts = []
    for words, shown in zip(commands, helps, strict=True):
        heading = "###" if len(words) > 1 else "##"
        text = "\n".join(line.rstrip() for line in shown.out.splitlines())
        parts.append(f"{heading} {' '.join(['cqrs', *words])}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def _commands(context: click.Context) -> Iterator[list[str]]:
    """Yield the words of a command and of all below it."""
    command = context.command
    yield context.command_path.split()[1:]
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from _commands(click.Context(child, info_name=name, parent=context))


def _topics() -> str:
    names = TopicNames.of(Settings.without_environment({}), USERS.name)
    specs = {spec.name: spec for spec in topic_specs(Settings.without_environment({}), names)}
    rows = []
    for name, found in inspect.getmembers(TopicNames, lambda one: isinstance(one, property)):
        topic = getattr(names, name)
        if topic in specs:
            about = str(inspect.getdoc(found)).removesuffix(".").removeprefix("Topic of the ")
            rows.append(f"| `{topic}` | {about} | {_kept(specs.pop(topic))} |")
    assert not specs
    return "\n".join(["| topic | | kept | configuration |", "|---|---|---|---|", *sorted(rows), ""])


def _kept(spec: TopicSpec) -> str:
    configs = {name: value for name, value in spec.configs.items() if "insync" not in name}
    if configs.pop("cleanup.policy") == "compact":
        kept, policy = "the last record of each key", "compact"
    else:
        retention = int(configs.pop("retention.ms"))
        kept = "for ever" if retention < 0 else str(timedelta(milliseconds=retention)).split(",")[0]
        policy = f"delete`, `retention.ms={retention}"
    others = "".join(f", `{name}={value}`" for name, value in sorted(configs.items()))
    return f"{kept} | `cleanup.policy={policy}`{others}"


MADE: Mapping[str, Callable[[], str]] = {
    "command-line": _command_line,
    "settings": _settings,
    "topics": _topics,
    "commands": lambda: _schemas(command_channel_schemas()),
    "events": lambda: _schemas(event_channel_schemas()),
    "outcomes": lambda: _schemas(outcome_schemas()),
    "outputs": outputs.tables,
}


def main() -> None:
    """Renew the pages."""
    for path in pages():
        path.write_text(renewed(path.read_text()))


if __name__ == "__main__":
    main()
