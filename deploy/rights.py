"""The rights of each role on Kafka and Elasticsearch: least privilege."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agents.daily_registrations import DAILY_REGISTRATIONS
from agents.user_views import USER_VIEWS
from agents.users import COMMAND_WORKER, REGISTRATIONS_WORKER, USERS, VIEW_WORKER
from deploy.roles import SecuredRole
from streams.aggregate import TopicNames
from streams.kafka import rights
from streams.kafka.rights import Right
from streams.settings import Settings

_VIEWS = (USER_VIEWS.name, DAILY_REGISTRATIONS.name)


def kafka_rights(role: SecuredRole, settings: Settings) -> Sequence[Right]:
    """Return what a role needs on Kafka, in the namespace of the settings."""
    names = TopicNames.of(settings, USERS.name)
    namespace = settings.namespace
    if role == "command-worker":
        return rights.command_worker(names, f"{namespace}{COMMAND_WORKER}")
    if role == "view-worker":
        # The group of a view contains its definition, which changes with upgrades.
        first = rights.view_worker(names, f"{namespace}{VIEW_WORKER}-", prefixed=True)
        second = rights.view_worker(names, f"{namespace}{REGISTRATIONS_WORKER}-", prefixed=True)
        return tuple(dict.fromkeys((*first, *second)))
    if role == "client":
        return rights.client(names)
    apps = (COMMAND_WORKER, VIEW_WORKER, REGISTRATIONS_WORKER)
    return rights.operator(names, [f"{namespace}{app}" for app in apps])


def elasticsearch_rights(role: SecuredRole, settings: Settings) -> Mapping[str, Any] | None:
    """Return what a role needs on Elasticsearch, as a role descriptor; None for nothing."""
    if role == "command-worker":
        return None
    privileges = ["read", "view_index_metadata", "maintenance"]  # a query refreshes on demand
    if role != "client":
        privileges = ["read", "write", "manage"]
    names = [f"{settings.namespace}{view}*" for view in _VIEWS]
    return {"cluster": [], "indices": [{"names": names, "privileges": privileges}]}
