"""`cqrs schema`: print the schemas of what other programs send and read."""

from __future__ import annotations

import json
from importlib.metadata import version

import click

from deploy.cli.terminal import examples

PARTS = ("asyncapi", "commands", "events", "outcomes")


@click.command(
    epilog=examples(
        "cqrs schema > asyncapi.json",
        "cqrs schema commands > commands.schema.json",
        "cqrs schema events | jq '.oneOf[].title'",
    )
)
@click.argument("part", type=click.Choice(PARTS), default="asyncapi")
def schema(part: str) -> None:
    """Print the AsyncAPI 3 document of the topics, or one JSON Schema.

    The document names the topics of CQRS_NAMESPACE and asks no server. The JSON Schemas are of the
    draft 2020-12; each describes the values of one topic.
    """
    from deploy.asyncapi import asyncapi, command_channel_schemas, event_channel_schemas
    from models.schemas import one_of, outcome_schemas
    from streams.settings import read_settings

    if part == "commands":
        document = one_of("A command for a user", command_channel_schemas())
    elif part == "events":
        document = one_of("An event of a user", event_channel_schemas())
    elif part == "outcomes":
        document = one_of("The outcome of a command", outcome_schemas())
    else:
        document = asyncapi(read_settings(), version("cqrs-streams"))
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))
