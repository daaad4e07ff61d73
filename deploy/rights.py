"""The rights of each role on Kafka and Elasticsearch: least privilege."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from agents.users import COMMAND_WORKER, USERS
from agents.views import VIEWS
from deploy.roles import SecuredRole
from streams.aggregate import TopicNames
from streams.kafka import rights
from streams.kafka.rights import Right
from streams.settings import Settings


def kafka_rights(role: SecuredRole, settings: Settings) -> Sequence[Right]:
    """Return what a role needs on Kafka, in the namespace of the settings."""
    names = TopicNames.of(settings, USERS.name)
    namespace = settings.namespace
    if role == "command-worker":
        return rights.command_worker(names, f"{namespace}{COMMAND_WORKER}")
    if role == "view-worker":
        # The group of a view contains its definition, which changes with upgrades.
        each = (
            rights.view_worker(names, f"{namespace}{view.app_id}-", prefixed=True)
            for view in VIEWS.values()
        )
        return tuple(dict.fromkeys(chain.from_iterable(each)))
    if role == "client":
        return rights.client(names)
    apps = (COMMAND_WORKER, *(view.app_id for view in VIEWS.values()))
    return rights.operator(names, [f"{namespace}{app}" for app in apps])


def elasticsearch_rights(role: SecuredRole, settings: Settings) -> Mapping[str, Any] | None:
    """Return what a role needs on Elasticsearch, as a role descriptor; None for nothing."""
    if role == "command-worker":
        return None
    privileges = ["read", "view_index_metadata", "maintenance"]  # a query refreshes on demand
    if role != "client":
        privileges = ["read", "write", "manage"]
    names = [f"{settings.namespace}{view}*" for view in VIEWS]
    return {"cluster": [], "indices": [{"names": names, "privileges": privileges}]}
