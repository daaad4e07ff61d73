"""Which nodes of Elasticsearch were asked: one that is cut off answers of what it had then."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from elastic_transport import NodeConfig

_nodes: ContextVar[set[NodeConfig] | None] = ContextVar("nodes", default=None)


@contextmanager
def noting_nodes() -> Iterator[set[NodeConfig]]:
    """Note which nodes were asked in the block.

    If it was one, its answers agree. Another one may be cut off, and answer of what it had then.
    """
    nodes: set[NodeConfig] = set()
    around = _nodes.get()
    token = _nodes.set(nodes)
    try:
        yield nodes
    finally:
        _nodes.reset(token)
        if around is not None:
            around |= nodes


def note_node(node: NodeConfig) -> None:
    """Note that this node was asked, for the block of `noting_nodes` around."""
    nodes = _nodes.get()
    if nodes is not None:
        nodes.add(node)
