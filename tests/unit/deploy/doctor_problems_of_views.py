"""The problems of Elasticsearch, views, certificates and this host: facts, and what is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deploy.doctor.facts import Certificate, Disk, Nodes, NotKnown
from tests.unit.deploy.doctor_facts import (
    DAY,
    GIB,
    NODE,
    NOW,
    WATERMARKS,
    index,
    nodes,
    situation,
    view,
)

VIEW_PROBLEMS: list[tuple[str, dict[str, Any], str, str]] = [
    # Elasticsearch
    (
        "another version",
        {"nodes": nodes(version="8.19.0")},
        "Elasticsearch",
        "version 8.19.0: this program is for 9.x",
    ),
    (
        "a clock that is ahead",
        {"nodes": nodes(clock_ahead=70.0)},
        "Clocks",
        "70 s ahead of this host's clock: set both by NTP",
    ),
    (
        "a clock that is behind",
        {"nodes": nodes(clock_ahead=-70.0)},
        "Clocks",
        "70 s behind this host's clock: set both by NTP",
    ),
    (
        "a full disk",
        {"nodes": nodes(free_bytes=4 * GIB)},
        "Disks",
        "4.0 GiB free, below the flood_stage watermark (5.0 GiB): indices become read-only",
    ),
    (
        "a nearly full disk",
        {"nodes": nodes(free_bytes=12 * GIB)},
        "Disks",
        "12.0 GiB free, below the low watermark (15.0 GiB): it takes no new shards",
    ),
    (
        "a privilege that is missing",
        {"privileges": ["manage on user-views*"]},
        "Rights",
        "lacks manage on user-views*: `cqrs topics acls --format json` prints",
    ),
    # views
    (
        "no index",
        {"views": situation(indices=())},
        "Views",
        "there is no index: a view worker creates it (`cqrs worker views`)",
    ),
    (
        "an alias that is gone",
        {"views": index(serving=False)},
        "Views",
        "the alias user-views is on no index, so no query is answered",
    ),
    (
        "an index that is called like the alias",
        {"views": situation(is_index=True)},
        "Views",
        "an index is called user-views, which is the alias that queries read: delete it",
    ),
    (
        "an index of another program",
        {"views": index(definition="d0")},
        "Views",
        "The view user-views is in user-views-v1, but another program created it",
    ),
    (
        "a closed index",
        {"views": index(closed=True, checkpoints=None)},
        "Views",
        "user-views-v1: closed: open it",
    ),
    (
        "an index that cannot be read",
        {"views": index(checkpoints=None)},
        "Views",
        "user-views-v1: cannot be read",
    ),
    (
        "an alias on a foreign index",
        {"views": situation(strangers={"restored": frozenset({"user-views-followed"})})},
        "Views",
        "restored has user-views-followed: a view worker takes them away, or delete it",
    ),
    (
        "an index that is read-only",
        {"views": view(blocks={"user-views-v1": ["read_only_allow_delete"]})},
        "Views",
        "user-views-v1 is read-only, since a disk was full: make room",
    ),
    (
        "an index that somebody has blocked",
        {"views": view(blocks={"user-views-v1": ["write"]})},
        "Views",
        "user-views-v1 is blocked by its setting index.blocks.write: remove it",
    ),
    (
        "another mapping",
        {"views": view(wrong_fields={"user-views-v1": ["email"]})},
        "Views",
        "user-views-v1 has another mapping of email than this program: `cqrs views rebuild",
    ),
    (
        "a red index",
        {"nodes": Nodes((NODE,), WATERMARKS, {"user-views-v1": "red"})},
        "Views",
        "user-views-v1 is red: a shard is lost or not started",
    ),
    (
        "a yellow index",
        {"nodes": Nodes((NODE,), WATERMARKS, {"user-views-v1": "yellow"})},
        "Views",
        "user-views-v1 is yellow: a replica is nowhere",
    ),
    # certificates, this host
    (
        "a certificate that has expired",
        {"certificates": {"k": Certificate("k", NOW - 3 * DAY)}},
        "Certificates",
        "expired 3 days ago: replace it",
    ),
    (
        "a certificate that expires soon",
        {"certificates": {"k": Certificate("k", NOW + 3 * DAY)}},
        "Certificates",
        "expires in 3 days: replace it",
    ),
    (
        "a certificate that is none",
        {"certificates": {"k": NotKnown("contains no certificate in PEM", "refused")}},
        "Certificates",
        "contains no certificate in PEM",
    ),
    (
        "no room for the state",
        {"state": Disk(Path("/state"), 100 * GIB, 2 * GIB, True)},
        "Disks",
        "2.0 GiB free in /state: make room, or workers cannot keep their state there",
    ),
    (
        "a state folder of somebody else",
        {"state": Disk(Path("/state"), 100 * GIB, 50 * GIB, False)},
        "Disks",
        "/state cannot be written by this user: workers need it",
    ),
]
