"""Definition of a view's index: its names, mapping and settings.

An index is called `<alias>-v<number>`. Queries read through the alias, which points to one of them.
Writers use a second alias that belongs to their index alone: a write to a deleted index fails then,
instead of creating it again without its mapping. `views/indices.py` creates the indices and moves
the aliases.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from streams.settings import Settings

Document = dict[str, Any]

REFUSED = "refused"
"""Field of a stand-in that holds the document which Elasticsearch refused; see `views/store.py`."""

CHECKPOINT = "progress"
"""Field that only checkpoint documents have; see `views/checkpoint.py`."""


def _as_it_is(document: Document) -> Document:
    return document


@dataclass(frozen=True)
class IndexDefinition:
    """Definition of a view's index.

    Attributes:
        alias: Name that queries read from.
        properties: Mapping of a document's fields. A document with any other field is refused.
        search_only: Fields that are indexed for searches but left out of `_source`.
        settings: `index.*` settings that this view needs.
        to_source: Turns a document into what is sent, including the search-only fields. Raises
            ValueError for a document that cannot be made searchable.
    """

    alias: str
    properties: Mapping[str, Any]
    search_only: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    to_source: Callable[[Document], Document] = _as_it_is

    def mappings(self) -> dict[str, Any]:
        """Return the mapping of all fields, those of stand-ins and checkpoints included."""
        return {
            "dynamic": "strict",
            "_source": {"excludes": list(self.search_only)},
            "properties": {
                "id": {"type": "keyword"},
                "version": {"type": "long"},
                REFUSED: {"type": "object", "enabled": False},
                CHECKPOINT: {"type": "object", "enabled": False},
                **self.properties,
            },
        }


def writes_alias(name: str) -> str:
    """Return the alias through which an index is written. It is deleted with the index."""
    return f"{name}-writes"


def in_namespace(settings: Settings, index: IndexDefinition) -> IndexDefinition:
    """Return the definition with its alias in the namespace of the settings."""
    return replace(index, alias=settings.namespace + index.alias)
