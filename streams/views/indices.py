"""The indices of a view, and the states through which an index comes into use.

    building   `cqrs views rebuild` fills it
    followed   workers with its definition keep it up to date
    serving    it is followed, and queries read it: the view's alias points to it

Each transition is one request that changes aliases, which Elasticsearch does atomically. The state
of an index is stored in its aliases alone, so every process sees the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from elasticsearch import AsyncElasticsearch, BadRequestError
from typing_extensions import Self

from models.errors import Fatal
from streams.elasticsearch.connection import translating
from streams.elasticsearch.index import IndexDefinition, in_namespace, writes_alias
from streams.settings import Settings
from streams.views.projection import View
from streams.views.store import ViewStore

_SERVING_SETTINGS: Mapping[str, Any] = {
    # No replica on one node, one as soon as there are two nodes.
    "auto_expand_replicas": "0-1",
    # Set explicitly: by default an index that was not searched for a while is not refreshed.
    "refresh_interval": "1s",
}
_LOADING_SETTINGS: Mapping[str, Any] = {
    "number_of_replicas": 0,
    "refresh_interval": "-1",
}


@dataclass(frozen=True)
class IndexState:
    """State of one of a view's indices.

    Attributes:
        name: `<alias>-v<number>`.
        number: Number of the index; the newest has the highest.
        uuid: Elasticsearch's id of the index: it changes when an index is deleted and created
            again under the same name.
        definition: Definition of the view that the index was created for (`View.definition`).
        wanted: Position, by partition of the event topic, that the index has to reach before it
            may serve queries: the end of the partition when the index was created.
        followed: Whether workers keep it up to date.
        serving: Whether the view's alias points to it.
        served: Whether the alias points to it, or did before.
    """

    name: str
    number: int
    uuid: str
    definition: str
    wanted: Mapping[int, int]
    followed: bool
    serving: bool
    served: bool

    @property
    def key(self) -> tuple[str, str]:
        """Name and uuid, which tell apart two indices that had the same name."""
        return self.name, self.uuid

    @property
    def state(self) -> str:
        """One of `building`, `followed` and `serving`; see the module."""
        return "serving" if self.serving else "followed" if self.followed else "building"


class ViewIndices:
    """The indices of one view.

    Every request raises `Transient` if Elasticsearch fails, and `Fatal` if it refuses.
    """

    def __init__(
        self,
        client: AsyncElasticsearch,
        index: IndexDefinition,
        definition: str,
        *,
        bulk_documents: int = 2000,
    ) -> None:
        self._client = client
        self._index = index
        self._definition = definition
        self._bulk_documents = bulk_documents
        self._followed = f"{index.alias}-followed"
        self._served = f"{index.alias}-served"

    @classmethod
    def from_settings(cls, settings: Settings, client: AsyncElasticsearch, view: View[Any]) -> Self:
        """Create it for a view in the namespace of the settings."""
        return cls(
            client,
            in_namespace(settings, view.index),
            view.definition,
            bulk_documents=settings.bulk_documents,
        )

    @property
    def alias(self) -> str:
        """Alias that queries read from."""
        return self._index.alias

    async def all(self) -> list[IndexState]:
        """Return the states of all indices, the oldest first.

        Raises:
            Fatal: One of them was not created by this project.
        """
        with translating(self._client, starting=True):
            found = await self._client.indices.get(
                index=f"{self.alias}-v*",
                filter_path="*.aliases,*.mappings._meta,*.settings.index.uuid",
            )
        states = []
        for name, description in found.body.items():
            number = re.fullmatch(rf"{re.escape(self.alias)}-v(\d+)", name)
            if number is not None:
                states.append(self._state(name, int(number[1]), description))
        return sorted(states, key=lambda state: state.number)

    def is_current(self, state: IndexState) -> bool:
        """Return whether an index has this program's definition of the view."""
        return state.definition == self._definition

    def store(self, name: str) -> ViewStore:
        """Return the store for the documents of the index with this name."""
        return ViewStore(self._client, self._index, name=name, bulk_documents=self._bulk_documents)

    async def create(self, number: int, wanted: Mapping[int, int], *, followed: bool) -> bool:
        """Create an index that is ready for fast loading; see `finish_loading`.

        Args:
            number: Number of the new index.
            wanted: As in `IndexState`.
            followed: Whether workers are to keep it up to date from now on.

        Returns:
            Whether it was created; False if an index of this number exists already.
        """
        name = f"{self.alias}-v{number}"
        ends = {str(partition): end for partition, end in wanted.items()}
        meta = {"definition": self._definition, "wanted": ends}
        aliases = [writes_alias(name), *([self._followed] if followed else [])]
        with translating(self._client):
            try:
                await self._client.indices.create(
                    index=name,
                    settings={"index": {**_LOADING_SETTINGS, **self._index.settings}},
                    mappings={**self._index.mappings(), "_meta": meta},
                    aliases={alias: {} for alias in aliases},
                )
            except BadRequestError as error:
                if error.message != "resource_already_exists_exception":
                    raise
                return False
        return True

    async def finish_loading(self, name: str) -> None:
        """Give a loaded index the settings for serving, and make its documents searchable."""
        with translating(self._client):
            await self._client.indices.put_settings(index=name, settings=dict(_SERVING_SETTINGS))
            await self._client.indices.refresh(index=name)

    async def follow(self, name: str) -> None:
        """Let the workers with its definition keep an index up to date."""
        await self._update_aliases({"add": {"index": name, "alias": self._followed}})

    async def serve(self, name: str) -> None:
        """Let queries read this index, and from the same moment on no other one."""
        await self.finish_loading(name)
        await self._update_aliases(
            {"remove": {"index": f"{self.alias}-v*", "alias": self.alias, "must_exist": False}},
            {"add": {"index": name, "alias": self.alias}},
            {"add": {"index": name, "alias": self._served}},
        )

    async def drop(self, name: str) -> None:
        """Delete an index and its aliases, if it exists."""
        with translating(self._client):
            await self._client.options(ignore_status=404).indices.delete(index=name)

    async def _update_aliases(self, *actions: dict[str, Any]) -> None:
        with translating(self._client):
            await self._client.indices.update_aliases(actions=list(actions))

    def _state(self, name: str, number: int, description: Mapping[str, Any]) -> IndexState:
        aliases = description.get("aliases", {})
        meta = description.get("mappings", {}).get("_meta", {})
        if "definition" not in meta:
            raise Fatal(
                f"The index {name} was not created by this project: delete it, or use another "
                "CQRS_NAMESPACE"
            )
        return IndexState(
            name=name,
            number=number,
            uuid=description["settings"]["index"]["uuid"],
            definition=meta["definition"],
            wanted={int(p): end for p, end in meta.get("wanted", {}).items()},
            followed=self._followed in aliases,
            serving=self.alias in aliases,
            served=self._served in aliases,
        )
