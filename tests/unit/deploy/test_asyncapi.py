import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from jsonschema import Draft7Validator

from deploy.asyncapi import asyncapi
from deploy.cli.schema import PARTS, schema
from streams.settings import Settings

# Of the package @asyncapi/specs 6.11.1 (Apache-2.0), without white space.
SPECIFICATION = Path(__file__).parents[2] / "data" / "asyncapi-3.0.0.schema.json.gz"


def references(part: Any) -> list[str]:
    if isinstance(part, dict):
        found = [part["$ref"]] if "$ref" in part else []
        return found + [one for value in part.values() for one in references(value)]
    return [one for value in part for one in references(value)] if isinstance(part, list) else []


def test_the_document_is_valid() -> None:
    rules = Draft7Validator(json.loads(gzip.decompress(SPECIFICATION.read_bytes())))
    document = asyncapi(Settings(namespace="shop."), "1.0")
    rules.validate(document)
    assert not rules.is_valid(document | {"channels": {"commands": {"adress": "typo"}}})


def test_each_reference_leads_to_something() -> None:
    document = asyncapi(Settings(), "1.0")
    found = references(document)
    assert found
    for reference in found:
        part = document
        for name in reference.removeprefix("#/").split("/"):
            part = part[name]
        assert part


def test_it_names_the_topics_of_the_namespace() -> None:
    channels = asyncapi(Settings(namespace="shop.", partitions=12), "1.0")["channels"]
    assert channels["commands"]["address"] == "shop.users.commands.v1"
    assert channels["events"]["bindings"]["kafka"]["partitions"] == 12


@pytest.mark.parametrize("part", PARTS)
def test_each_part_is_printed_as_json(part: str) -> None:
    done = CliRunner().invoke(schema, [part])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)
