"""What a view's index is made of, and how it comes to exist.

The index is called `<alias>-v<version>` and is only ever used through its alias, so that a rebuild
can put another one behind it. Raise the version whenever the definition changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import orjson
from elasticsearch import AsyncElasticsearch, BadRequestError

from models.errors import Fatal

Document = dict[str, Any]

REFUSED = "refused"
"""The field of a stand-in that holds the document which Elasticsearch refused."""


@dataclass(frozen=True)
class ViewIndex:
    """The definition of a view's index.

    Attributes:
        alias: What everybody reads from and writes to.
        version: Which definition this is, from 1.
        properties: The mapping of a document's fields; anything else in a document is refused.
        hidden: The fields which are only searched, and left out of what is read back.
        settings: What `index.*` settings this view needs.
        to_source: From a document to what is sent, search fields included. It raises ValueError
            for what cannot be searched.
    """

    alias: str
    version: int
    properties: Mapping[str, Any]
    hidden: tuple[str, ...]
    settings: Mapping[str, Any]
    to_source: Callable[[Document], Document]

    @property
    def name(self) -> str:
        """The name of the index itself."""
        return f"{self.alias}-v{self.version}"

    def manifest(self) -> dict[str, Any]:
        """The body that creates the index, as any client would send it."""
        mappings: dict[str, Any] = {
            "dynamic": "strict",
            "_source": {"excludes": list(self.hidden)},
            "properties": {
                "id": {"type": "keyword"},
                "version": {"type": "long"},
                REFUSED: {"type": "object", "enabled": False},
                "progress": {"type": "object", "enabled": False},
                **self.properties,
            },
        }
        definition = [mappings, self.settings]
        mappings["_meta"] = {"definition": _fingerprint(definition)}
        settings = {
            # no replica on one node, one as soon as there are two
            "auto_expand_replicas": "0-1",
            # said outright, it also holds for an index that nobody has searched for a while
            "refresh_interval": "1s",
            **self.settings,
        }
        return {
            "settings": {"index": settings},
            "mappings": mappings,
            "aliases": {self.alias: {"is_write_index": True}},
        }

    async def create_if_missing(self, client: AsyncElasticsearch) -> bool:
        """Make index and alias in one step; True if it was this call that did.

        Safe when several start at once: Elasticsearch lets one of them create it.

        Raises:
            Fatal: There is an index of another version or definition.
            elasticsearch.ApiError, elastic_transport.TransportError: The request failed.
        """
        created = False
        if not await self._serving(client):
            try:
                await client.indices.create(index=self.name, **self.manifest())
                created = True
            except BadRequestError as error:
                if error.message != "resource_already_exists_exception":
                    raise
        await self._check(client)
        return created

    async def _serving(self, client: AsyncElasticsearch) -> dict[str, Any]:
        """The indices behind the alias, with their mappings."""
        found = await client.options(ignore_status=404).indices.get(index=self.alias)
        return {} if found.meta.status == 404 else dict(found.body)

    async def _check(self, client: AsyncElasticsearch) -> None:
        serving = await self._serving(client)
        if list(serving) != [self.name]:
            there = ", ".join(sorted(serving)) or "nothing"
            raise Fatal(
                f"Behind the alias {self.alias} is {there} where this program uses {self.name}: "
                "delete what is there and project the events again, or run the program that fits"
            )
        meta = serving[self.name]["mappings"].get("_meta", {})
        if meta.get("definition") != self.manifest()["mappings"]["_meta"]["definition"]:
            raise Fatal(
                f"The index {self.name} has another mapping than this program makes: raise the "
                "version of its definition, or delete it and project the events again"
            )


def _fingerprint(definition: object) -> str:
    return sha256(orjson.dumps(definition, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
