"""Validate a file of resources for Kubernetes: `python validate_manifests.py FILE SCHEMAS`.

It runs in an environment with `kubernetes-validate`, which has the schemas of Kubernetes inside.
Those of custom resources are in the folder SCHEMAS. Prints a line per resource: what it is and what
is wrong with it, or that there is no schema.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

_VERSION = "1.37"


def main(file: Path, schemas: Path) -> None:
    """Print the lines."""
    for resource in yaml.safe_load_all(file.read_text()):
        custom = schemas / f"{resource['kind']}.json"
        try:
            if custom.exists():
                jsonschema.validate(resource, _strict(json.loads(custom.read_text())))
            else:
                kubernetes_validate.validate(resource, _VERSION, strict=True)
            result = "valid"
        except kubernetes_validate.SchemaNotFoundError:
            result = "no schema"
        except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as error:
            result = f"{'.'.join(map(str, error.path))}: {error.message}"
        print(f"{resource['kind']} {resource['metadata']['name']}: {result}")


def _strict(schema: Any) -> Any:
    """Return a schema in which an object has no other fields than those that it names."""
    if isinstance(schema, list):
        return [_strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: _strict(value) for key, value in schema.items()}
    is_open = "additionalProperties" in schema or "x-kubernetes-preserve-unknown-fields" in schema
    if isinstance(schema.get("properties"), dict) and "type" in schema and not is_open:
        strict["additionalProperties"] = False
    return strict


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
