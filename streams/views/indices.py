"""The indices of a view: which there are, and how one after the other comes into use.

    building   it is being made, by `cqrs views rebuild`
    followed   the workers of its definition bring it up to date
    serving    it is followed, and people read it: the alias is on it

Each step is one request that moves aliases, which Elasticsearch does at once or not at all. What
an index is stands in its aliases alone, so every process sees the same.
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
    # no replica on one node, one as soon as there are two
    "auto_expand_replicas": "0-1",
    # said outright, it also holds for an index that nobody has searched for a while
    "refresh_interval": "1s",
}
_LOADING_SETTINGS: Mapping[str, Any] = {
    "number_of_replicas": 0,
    "refresh_interval": "-1",
}


@dataclass(frozen=True)
class IndexState:
    """One of a view's indices, as it is.

    Attributes:
        name: `<alias>-v<number>`.
        number: The newest has the highest.
        uuid: Another one if it was deleted and made again under the same name.
        definition: Of the view that it was made by.
        wanted: The positions of the event topic, by partition, that it must have reached before
            anybody reads it: whatever there was when it was made.
        followed: Whether workers bring it up to date.
        serving: Whether the alias is on it.
        served: Whether it ever was.
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
        """Name and uuid: another one for an index that was deleted and made again."""
        return self.name, self.uuid

    @property
    def state(self) -> str:
        """In one word."""
        return "serving" if self.serving else "followed" if self.followed else "building"


class ViewIndices:
    """The indices of one view. Every method raises `Transient` or `Fatal`."""

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
        """Those of a view in one deployment."""
        return cls(
            client,
            in_namespace(settings, view.index),
            view.definition,
            bulk_documents=settings.bulk_documents,
        )

    @property
    def alias(self) -> str:
        """What people read."""
        return self._index.alias

    async def all(self) -> list[IndexState]:
        """What there is, the oldest first."""
        with translating(self._client, starting=True):
            found = await self._client.indices.get(
                index=f"{self.alias}-v*",
                filter_path="*.aliases,*.mappings._meta,*.settings.index.uuid",
            )
        states = []
        for name, said in found.body.items():
            number = re.fullmatch(rf"{re.escape(self.alias)}-v(\d+)", name)
            if number is not None:
                states.append(self._state(name, int(number[1]), said))
        return sorted(states, key=lambda state: state.number)

    def is_current(self, state: IndexState) -> bool:
        """Whether an index is of this program's definition."""
        return state.definition == self._definition

    def store(self, name: str) -> ViewStore:
        """The documents of one of them."""
        return ViewStore(self._client, self._index, name=name, bulk_documents=self._bulk_documents)

    async def create(self, number: int, wanted: Mapping[int, int], *, followed: bool) -> bool:
        """Make an index, and return when it works; False if there is one of that number already.

        It is set for loading: nobody searches it before it is complete. See `loaded`.
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
        """Set an index that was loaded as those that are read are set, and show what it has."""
        with translating(self._client):
            await self._client.indices.put_settings(index=name, settings=dict(_SERVING_SETTINGS))
            await self._client.indices.refresh(index=name)

    async def follow(self, name: str) -> None:
        """Have an index brought up to date by the workers of its definition."""
        await self._move({"add": {"index": name, "alias": self._followed}})

    async def serve(self, name: str) -> None:
        """Let people read this index, and no other one from the same moment on."""
        await self.finish_loading(name)
        await self._move(
            {"remove": {"index": f"{self.alias}-v*", "alias": self.alias, "must_exist": False}},
            {"add": {"index": name, "alias": self.alias}},
            {"add": {"index": name, "alias": self._served}},
        )

    async def drop(self, name: str) -> None:
        """Delete an index and its aliases, if it is there."""
        with translating(self._client):
            await self._client.options(ignore_status=404).indices.delete(index=name)

    async def _move(self, *actions: dict[str, Any]) -> None:
        with translating(self._client):
            await self._client.indices.update_aliases(actions=list(actions))

    def _state(self, name: str, number: int, said: Mapping[str, Any]) -> IndexState:
        aliases = said.get("aliases", {})
        meta = said.get("mappings", {}).get("_meta", {})
        if "definition" not in meta:
            raise Fatal(
                f"The index {name} was not made by this project: delete it, or use another "
                "CQRS_NAMESPACE"
            )
        return IndexState(
            name=name,
            number=number,
            uuid=said["settings"]["index"]["uuid"],
            definition=meta["definition"],
            wanted={int(p): end for p, end in meta.get("wanted", {}).items()},
            followed=self._followed in aliases,
            serving=self.alias in aliases,
            served=self._served in aliases,
        )
