"""Asks Elasticsearch for facts. It only reads."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from elasticsearch import ApiError, AsyncElasticsearch, AuthorizationException

from deploy.doctor.facts import Node, Nodes, NotKnown, ViewFacts
from models.errors import Fatal
from streams.elasticsearch.connection import connect, translating
from streams.settings import Settings
from streams.views.indices import ViewIndices
from streams.views.projection import View
from streams.views.situation import EventLog

# How Elasticsearch without the security module says that it has no such request.
_NO_SUCH_REQUEST = (400, 405)

_NOT_MONITORED = (
    "versions, clocks, disks and health may be seen with the cluster privilege monitor only, which "
    "no role of this project has"
)

_DISK = "cluster.routing.allocation.disk."
_WATERMARKS = f"{_DISK}watermark."


async def ask_nodes(settings: Settings, *, timeout: float) -> Nodes | NotKnown:
    """Return the nodes with their clocks and disks, and the health of the indices.

    Raises:
        Fatal, Transient: Elasticsearch refuses, or fails.
    """
    async with connect(settings, timeout=timeout) as client:
        try:
            with translating(client, starting=True):
                return await _nodes(client)
        except Fatal as error:
            if isinstance(error.__cause__, AuthorizationException):
                return NotKnown(_NOT_MONITORED, "hidden")
            raise


async def _nodes(client: AsyncElasticsearch) -> Nodes:
    before = time.time()
    stats = await client.nodes.stats(metric="fs", filter_path="nodes.*.timestamp,nodes.*.fs.total")
    middle = (before + time.time()) / 2
    info = await client.nodes.info(filter_path="nodes.*.name,nodes.*.version")
    configured = await client.cluster.get_settings(
        include_defaults=True, filter_path="*.cluster.routing.allocation.disk"
    )
    health = await client.cluster.health(level="indices", filter_path="indices.*.status")
    disk: dict[str, str] = {}
    for kind in ("defaults", "persistent", "transient"):  # the last one counts
        disk |= dict(_flat(configured.get(kind, {})))
    heeded = disk.get(f"{_DISK}threshold_enabled") != "false"
    return Nodes(
        [
            Node(
                name=info["nodes"][id_]["name"],
                version=info["nodes"][id_]["version"],
                clock_ahead=node["timestamp"] / 1000 - middle,
                disk_bytes=node["fs"]["total"]["total_in_bytes"],
                free_bytes=node["fs"]["total"]["available_in_bytes"],
            )
            for id_, node in stats["nodes"].items()
            if id_ in info["nodes"]
        ],
        {
            name.removeprefix(_WATERMARKS): value
            for name, value in disk.items()
            if heeded and name.startswith(_WATERMARKS)
        },
        {name: found["status"] for name, found in health.get("indices", {}).items()},
    )


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield nested settings by their whole names."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)


async def ask_privileges(
    settings: Settings, needed: Mapping[str, Any] | None, *, timeout: float
) -> Sequence[str]:
    """Return which privileges of a role descriptor are missing; none are without security.

    Raises:
        Fatal, Transient: Elasticsearch refuses, or fails.
    """
    if needed is None:
        return []
    async with connect(settings, timeout=timeout) as client:
        with translating(client, starting=True):
            try:
                found = await client.security.has_privileges(
                    cluster=needed["cluster"], index=needed["indices"]
                )
            except ApiError as error:
                if error.status_code in _NO_SUCH_REQUEST:
                    return []
                raise
    lacking = [name for name, has in found.get("cluster", {}).items() if not has]
    lacking += [
        f"{name} on {indices}"
        for indices, privileges in found.get("index", {}).items()
        for name, has in privileges.items()
        if not has
    ]
    return lacking


async def ask_view(
    settings: Settings, view: View[Any], log: EventLog | None, *, timeout: float
) -> ViewFacts:
    """Return the indices of a view; `log` is the event topic, None if Kafka did not answer.

    Raises:
        Fatal, Transient: Elasticsearch refuses, or fails.
    """
    async with connect(settings, timeout=timeout) as client:
        indices = ViewIndices.from_settings(settings, client, view)
        situation = await indices.look(log, starting=True)
        ours = [index.name for index in situation.indices]
        current = {index.name for index in situation.indices if indices.is_current(index)}
        found: Mapping[str, Any] = {}
        if ours:
            with translating(client):
                response = await client.indices.get(
                    index=ours,
                    expand_wildcards=["open", "closed"],
                    ignore_unavailable=True,
                    filter_path="*.settings.index.blocks,*.mappings.properties",
                )
            found = response.body
        return ViewFacts(
            view.name,
            view.role,
            situation,
            {name: list(_blocks(one)) for name, one in found.items()},
            {
                name: list(_wrong_fields(view.index.mappings(), one))
                for name, one in found.items()
                if name in current
            },
        )


def _blocks(description: Mapping[str, Any]) -> Iterator[str]:
    blocks = description.get("settings", {}).get("index", {}).get("blocks", {})
    for name, value in blocks.items():
        if str(value).lower() == "true":
            yield name


def _wrong_fields(wanted: Mapping[str, Any], description: Mapping[str, Any]) -> Iterator[str]:
    """Yield the fields whose type is another one, or that only one of the two has."""
    expected: Mapping[str, Any] = wanted["properties"]
    found: Mapping[str, Any] = description.get("mappings", {}).get("properties", {})
    for name in sorted({*expected, *found}):
        # Elasticsearch leaves out the type of an object that has fields.
        types = [one.get(name, {}).get("type", "object") for one in (expected, found)]
        if name not in expected or name not in found or types[0] != types[1]:
            yield name
