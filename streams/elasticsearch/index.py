"""The definition of a view's index: what Elasticsearch is told when one is made.

An index is called `<alias>-v<number>`. People read through the alias, which is on one of them. Who
writes uses an alias of that index alone, so that one which was deleted does not come back without
its mapping. `view_indices` makes them and moves the aliases.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from streams.settings import Settings

Document = dict[str, Any]

REFUSED = "refused"
"""The field of a stand-in that holds the document which Elasticsearch refused."""

PROGRESS = "progress"
"""The field of a document that says how far the index is; see `view_progress`."""


@dataclass(frozen=True)
class IndexDefinition:
    """The definition of a view's index.

    Attributes:
        alias: What everybody reads from.
        properties: The mapping of a document's fields; anything else in a document is refused.
        hidden: The fields which are only searched, and left out of what is read back.
        settings: What `index.*` settings this view needs.
        to_source: From a document to what is sent, search fields included. It raises ValueError
            for what cannot be searched.
    """

    alias: str
    properties: Mapping[str, Any]
    search_only: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    to_source: Callable[[Document], Document] = lambda document: document

    def mappings(self) -> dict[str, Any]:
        """The mapping of all fields."""
        return {
            "dynamic": "strict",
            "_source": {"excludes": list(self.search_only)},
            "properties": {
                "id": {"type": "keyword"},
                "version": {"type": "long"},
                REFUSED: {"type": "object", "enabled": False},
                PROGRESS: {"type": "object", "enabled": False},
                **self.properties,
            },
        }


def writes_alias(name: str) -> str:
    """The alias by which an index is written to. It goes with the index."""
    return f"{name}-writes"


def in_namespace(settings: Settings, index: IndexDefinition) -> IndexDefinition:
    """The same for one deployment."""
    return replace(index, alias=settings.namespace + index.alias)
