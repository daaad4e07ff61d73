"""The rights of a role, in the forms that people and tools take."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any, Literal, get_args

from deploy.cli.topic_manifests import CLUSTER_LABEL, STRIMZI_API
from deploy.rights import elasticsearch_rights, kafka_rights
from deploy.roles import SecuredRole
from streams.kafka.rights import Right
from streams.settings import Settings

Form = Literal["kafka-acls", "strimzi", "json"]
FORMS: tuple[Form, ...] = get_args(Form)

# As Strimzi names them.
_STRIMZI_TYPES: Mapping[str, str] = {
    "topic": "topic",
    "group": "group",
    "transactional-id": "transactionalId",
}


def acls(
    role: SecuredRole, principal: str, form: Form, settings: Settings, cluster: str = "kafka"
) -> str:
    """Return the rights of a role in the namespace of the settings, for a principal.

    Args:
        role: whose rights.
        principal: as Kafka names it: `User:anna`, or `User:CN=anna` of a certificate.
        form: `kafka-acls` are commands, `strimzi` is a KafkaUser; `json` is for other tools, and
            has the role of Elasticsearch, too.
        settings: with the namespace.
        cluster: name of the Kafka resource of Strimzi.
    """
    if form == "strimzi":
        return _strimzi(role, principal, settings, cluster)
    write = {"kafka-acls": _kafka_acls, "json": _json}
    return write[form](role, principal, settings)


def _kafka_acls(role: SecuredRole, principal: str, settings: Settings) -> str:
    lines = []
    for right in kafka_rights(role, settings):
        words = ["kafka-acls.sh", "--bootstrap-server", settings.bootstrap_servers]
        words += ["--command-config", "admin.properties", "--add", "--allow-principal", principal]
        for operation in right.operations:
            words += ["--operation", operation]
        words += [f"--{right.resource}", right.name]
        words += ["--resource-pattern-type", _pattern(right)]
        lines.append(shlex.join(words))
    return "\n".join(lines)


def _strimzi(role: SecuredRole, principal: str, settings: Settings, cluster: str) -> str:
    # JSON is YAML; only the name is given by a person, and it is in quotes.
    entries = [
        {
            "resource": {
                "type": _STRIMZI_TYPES[right.resource],
                "name": right.name,
                "patternType": "prefix" if right.prefixed else "literal",
            },
            "operations": list(right.operations),
        }
        for right in kafka_rights(role, settings)
    ]
    user = {
        "apiVersion": STRIMZI_API,
        "kind": "KafkaUser",
        "metadata": {
            "name": principal.removeprefix("User:"),
            "labels": {CLUSTER_LABEL: cluster},
        },
        "spec": {
            "authentication": {"type": "scram-sha-512"},
            "authorization": {"type": "simple", "acls": entries},
        },
    }
    return json.dumps(user, indent=2)


def _json(role: SecuredRole, principal: str, settings: Settings) -> str:
    found: dict[str, Any] = {
        "principal": principal,
        "kafka": [
            {
                "resource": right.resource,
                "name": right.name,
                "pattern": _pattern(right),
                "operations": list(right.operations),
            }
            for right in kafka_rights(role, settings)
        ],
        "elasticsearch": elasticsearch_rights(role, settings),
    }
    return json.dumps(found, indent=2)


def _pattern(right: Right) -> str:
    return "prefixed" if right.prefixed else "literal"
