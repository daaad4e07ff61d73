"""The topics of a deployment as resources of Strimzi's topic operator."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from agents.users import USERS
from streams.aggregate import TopicNames
from streams.kafka.topics import TopicSpec, topic_specs
from streams.settings import Settings

STRIMZI_API = "kafka.strimzi.io/v1"
CLUSTER_LABEL = "strimzi.io/cluster"


def topic_manifests(settings: Settings, cluster: str) -> str:
    """Return a KafkaTopic for each topic of users, for the Kafka of this name in Strimzi.

    They are what `create_topics` creates. JSON is YAML, so `kubectl apply` takes them.
    """
    specs = topic_specs(settings, TopicNames.of(settings, USERS.name))
    return "\n---\n".join(json.dumps(_manifest(spec, cluster), indent=2) for spec in specs)


def _manifest(spec: TopicSpec, cluster: str) -> Mapping[str, Any]:
    return {
        "apiVersion": STRIMZI_API,
        "kind": "KafkaTopic",
        "metadata": {
            # A name of Kubernetes has no underscore and begins with a letter or digit.
            "name": spec.name.lstrip("._-").replace("_", "-"),
            "labels": {CLUSTER_LABEL: cluster},
        },
        "spec": {
            "topicName": spec.name,
            "partitions": spec.partitions,
            "replicas": spec.replicas,
            "config": dict(spec.configs),
        },
    }
