"""What facts about Elasticsearch mean: pure functions of facts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from deploy.doctor.facts import Node, Nodes, NotKnown, ViewFacts
from deploy.doctor.findings import Finding, not_known
from streams.views.lifecycle import Refuse, Wait, Warn, Work, plan
from streams.views.situation import trouble

_MAJOR = "9"
_CLOCKS_DIFFER_S = 5.0
_UNITS = {"b": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30, "tb": 1 << 40, "pb": 1 << 50}


def judge_nodes(nodes: Nodes | NotKnown) -> Iterator[Finding]:
    """Yield versions, clocks and disks of the nodes."""
    if isinstance(nodes, NotKnown):
        yield not_known("Elasticsearch", "nodes", nodes)
        return
    for node in nodes.nodes:
        major = node.version.partition(".")[0]
        right = major == _MAJOR
        line = f"version {node.version}" + ("" if right else f": this program is for {_MAJOR}.x")
        yield Finding("Elasticsearch", node.name, "ok" if right else "problem", line)
        yield _judge_clock(node)
        yield _judge_disk(node, nodes.watermarks)


def _judge_clock(node: Node) -> Finding:
    apart = abs(node.clock_ahead)
    if apart <= _CLOCKS_DIFFER_S:
        return Finding("Clocks", node.name, "ok", "as this host's")
    way = "ahead of" if node.clock_ahead > 0 else "behind"
    line = f"{apart:.0f} s {way} this host's clock: set both by NTP"
    return Finding("Clocks", node.name, "problem", line)


def _judge_disk(node: Node, watermarks: Mapping[str, str]) -> Finding:
    free = f"{node.free_bytes / (1 << 30):.1f} GiB free"
    consequences = {
        "flood_stage": "indices become read-only",
        "high": "Elasticsearch moves shards away",
        "low": "it takes no new shards, so no rebuild",
    }
    for name, consequence in consequences.items():
        needed = free_bytes_needed(watermarks, name, node.disk_bytes)
        if node.free_bytes < needed:
            mark = f"the {name} watermark ({needed / (1 << 30):.1f} GiB)"
            line = f"{free}, below {mark}: {consequence}; make room, or add disk"
            return Finding("Disks", node.name, "problem", line)
    return Finding("Disks", node.name, "ok", free)


def free_bytes_needed(watermarks: Mapping[str, str], name: str, disk_bytes: int) -> float:
    """Return how much has to be free on a disk of this size, not to be beyond a watermark.

    Watermarks are a percentage or a ratio that may be used, of large disks up to a headroom; or the
    bytes that must be free. Without that watermark it is 0.
    """
    value = watermarks.get(name, "")
    match = re.fullmatch(r"([\d.]+)(%|[kmgtp]?b)?", value.lower())
    if match is None:
        return 0.0
    number, unit = float(match[1]), match[2]
    if unit in _UNITS:
        return number * _UNITS[unit]
    needed = disk_bytes * (1 - (number / 100 if unit == "%" else number))
    headroom = re.fullmatch(
        r"([\d.]+)([kmgtp]?b)", watermarks.get(f"{name}.max_headroom", "").lower()
    )
    return needed if headroom is None else min(needed, float(headroom[1]) * _UNITS[headroom[2]])


def judge_privileges(privileges: Sequence[str] | NotKnown, role: str) -> Iterator[Finding]:
    """Yield which privileges of a role are missing on Elasticsearch."""
    if isinstance(privileges, NotKnown):
        yield not_known("Rights", "Elasticsearch", privileges)
    elif not privileges:
        yield Finding("Rights", "Elasticsearch", "ok", f"those of {role}")
    else:
        lacking = ", ".join(privileges)
        line = f"lacks {lacking}: `cqrs topics acls --format json` prints what to grant"
        yield Finding("Rights", "Elasticsearch", "problem", line)


def judge_view(
    name: str, view: ViewFacts | NotKnown, nodes: Nodes | NotKnown, unused: frozenset[str]
) -> Iterator[Finding]:
    """Yield what is wrong with the indices of a view; those of roles `unused` are not needed."""
    if isinstance(view, NotKnown):
        yield not_known("Views", name, view)
        return
    if view.role in unused:
        yield Finding("Views", name, "skipped", "this view is not in use")
        return
    lines = list(dict.fromkeys(_wrong_with(view)))
    health = {} if isinstance(nodes, NotKnown) else nodes.health
    for index in view.situation.indices:
        lines += _wrong_with_index(view, index.name, health.get(index.name, "green"))
    for line in lines:
        yield Finding("Views", name, "problem", line)
    if not lines:
        serving = ", ".join(index.name for index in view.situation.serving)
        yield Finding("Views", name, "ok", f"served by {serving}")


def _wrong_with(view: ViewFacts) -> Iterator[str]:
    """Yield what workers would say at their start, and what makes queries fail."""
    situation = view.situation
    start = f"`cqrs worker {view.role}`"
    if not situation.indices and not situation.is_index:
        yield f"there is no index: a view worker creates it ({start})"
    elif not situation.bearers and not situation.is_index:
        yield (
            f"the alias {situation.alias} is on no index, so no query is answered: a view worker "
            f"puts it on one that is complete ({start})"
        )
    for action in plan(situation, Work()):
        if isinstance(action, Refuse | Wait | Warn):
            yield action.line
    for index in situation.indices:
        wrong = trouble(situation, index)
        if wrong and (situation.log is not None or index.checkpoints is not None or index.closed):
            yield f"{index.name}: {wrong}"
    for stranger, aliases in situation.strangers.items():
        yield (
            f"{stranger} has {', '.join(sorted(aliases))}: a view worker takes them away, or "
            "delete it"
        )


def _wrong_with_index(view: ViewFacts, index: str, health: str) -> Iterator[str]:
    blocks = view.blocks.get(index, ())
    if "read_only_allow_delete" in blocks:
        yield (
            f"{index} is read-only, since a disk was full: make room; Elasticsearch then takes "
            "that back by itself"
        )
    others = [block for block in blocks if block != "read_only_allow_delete"]
    if others:
        yield f"{index} is blocked by its setting index.blocks.{others[0]}: remove it"
    fields = view.wrong_fields.get(index, ())
    if fields:
        yield (
            f"{index} has another mapping of {', '.join(fields)} than this program: "
            f"`cqrs views rebuild {view.name}`"
        )
    if health == "red":
        yield f"{index} is red: a shard is lost or not started; look at the nodes' logs and disks"
    elif health == "yellow":
        yield f"{index} is yellow: a replica is nowhere; add a node, or lower CQRS_VIEW_REPLICAS"
