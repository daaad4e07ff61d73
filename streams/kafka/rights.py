"""What each role needs to be allowed on Kafka: the one list.

Workers and clients check it before they start (`streams/kafka/permissions.py`), and
`cqrs topics acls` prints it. Kafka denies what no ACL allows. Read, Write, Create, Alter and Delete
imply Describe; nothing but Alter Configs implies DescribeConfigs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from streams.aggregate import TopicNames

Operation = Literal["Read", "Write", "Create", "Describe", "DescribeConfigs"]


@dataclass(frozen=True)
class Right:
    """Operations that have to be allowed on one resource."""

    resource: Literal["topic", "group", "transactional-id"]
    name: str
    operations: tuple[Operation, ...]
    prefixed: bool = False
    """Whether it is on all resources whose names begin with `name`."""


def command_worker(names: TopicNames, app_id: str) -> tuple[Right, ...]:
    """Return the rights of the command workers of one aggregate; `app_id` has the namespace."""
    written = (names.events, names.outcomes, names.dead_commands, names.changelog, names.keys)
    return (
        *_topics(
            names,
            # Events: to rebuild states after an upgrade.
            read=(names.commands, names.changelog, names.keys, names.events),
            written=written,
        ),
        Right("group", app_id, ("Read",)),
        Right("transactional-id", f"{app_id}-", ("Write",), prefixed=True),
    )


def view_worker(names: TopicNames, group: str, *, prefixed: bool = False) -> tuple[Right, ...]:
    """Return the rights of the workers of one view; `group` has the namespace."""
    topics = _topics(names, read=(names.events, names.keys), written=(names.dead_views,))
    return (*topics, Right("group", group, ("Read",), prefixed))


def client(names: TopicNames) -> tuple[Right, ...]:
    """Return the rights of who sends commands and waits for their outcomes."""
    return (
        Right("topic", names.commands, ("Write", "DescribeConfigs")),
        Right("topic", names.outcomes, ("Read", "DescribeConfigs")),
    )


def reader(names: TopicNames) -> tuple[Right, ...]:
    """Return the rights of who reads all topics of an aggregate, to verify or to search them."""
    return tuple(_topics(names, read=names.all, written=()))


def operator(names: TopicNames, app_ids: Iterable[str]) -> tuple[Right, ...]:
    """Return the rights of who creates topics, rebuilds views and verifies a deployment."""
    return (
        Right(
            "topic",
            f"{names.namespace}{names.aggregate}.",
            ("Create", "Read", "Write", "Describe", "DescribeConfigs"),
            prefixed=True,
        ),
        *(Right("group", app_id, ("Read",), prefixed=True) for app_id in app_ids),
        *(Right("transactional-id", f"{app_id}-", ("Write",), prefixed=True) for app_id in app_ids),
    )


def _topics(names: TopicNames, read: tuple[str, ...], written: tuple[str, ...]) -> Iterable[Right]:
    """Yield a worker's rights on all topics of an aggregate: it checks how each is configured."""
    for topic in names.all:
        needed: list[Operation] = []
        if topic in read:
            needed.append("Read")
        if topic in written:
            needed.append("Write")
        yield Right("topic", topic, (*(needed or ["Describe"]), "DescribeConfigs"))
