"""The indices of a view in Elasticsearch: finds them with their aliases, and carries out actions.

What has to happen to them is decided in `views/lifecycle.py`. Each action that changes aliases is
one request, which Elasticsearch does completely or not at all, and only if the aliases are there
that were seen when it was planned. Each index has an alias of its own for that, which no other
index ever has, also none that is created later under the same name. The state of an index is stored
in its aliases alone, so every process sees the same.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import uuid4

import async_timeout
from elasticsearch import AsyncElasticsearch, BadRequestError, NotFoundError
from typing_extensions import Self

from models.errors import Fatal, NoSuchView, Transient
from streams.concurrency import gather_or_cancel
from streams.elasticsearch.connection import translating
from streams.elasticsearch.index import IndexDefinition, in_namespace, writes_alias
from streams.settings import Settings
from streams.views.checkpoint import IndexChanged
from streams.views.lifecycle import Delete, Follow, Serve, Strip
from streams.views.projection import View
from streams.views.situation import EventLog, IndexState, Situation
from streams.views.store import ViewStore

# What an index template must not decide: a checkpoint holds for one shard only, and a pipeline
# would change or refuse every document.
_FIXED_SETTINGS: Mapping[str, Any] = {
    "number_of_shards": 1,
    "default_pipeline": "_none",
    "final_pipeline": "_none",
}
LOADING_SETTINGS: Mapping[str, Any] = {
    "number_of_replicas": 0,
    "auto_expand_replicas": "false",  # it would overrule the number
    "refresh_interval": "-1",
}

# Set explicitly: by default an index that was not searched for a while is not refreshed.
_REFRESH_INTERVAL = "1s"

# What is looked at of each index.
_SEEN = ",".join(
    [
        "*.aliases",
        "*.mappings._meta",
        "*.settings.index.uuid",
        "*.settings.index.number_of_shards",
        "*.settings.index.refresh_interval",
        "*.settings.index.verified_before_close",
    ]
)

# How long the checkpoints of one index may take: an index that is ill must not hold up the others.
_READ_TIMEOUT_S = 5.0


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
        view: str = "",
        role: str = "views",
        replicas: int | None = None,
        bulk_documents: int = 2000,
    ) -> None:
        """Create it; see `from_settings`.

        Args:
            client: Connection to Elasticsearch.
            index: Definition of the index, with its alias in a namespace.
            definition: This program's definition of the view.
            view: Name of the view for people; by default the alias.
            role: Name of its workers in `cqrs worker`.
            replicas: Replicas of an index once it is loaded; None for one if there are two nodes.
            bulk_documents: Most documents in one bulk request.
        """
        self._client = client
        self._index = index
        self._definition = definition
        self._view = view or index.alias
        self._role = role
        self._replicas = replicas
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
            view=view.name,
            role=view.role,
            replicas=settings.view_replicas,
            bulk_documents=settings.bulk_documents,
        )

    @property
    def alias(self) -> str:
        """Alias that queries read from."""
        return self._index.alias

    async def look(self, log: EventLog | None, *, starting: bool = False) -> Situation:
        """Look at all indices.

        Args:
            log: The event topic. Without it names and aliases are all that is looked at, and no
                checkpoints are read.
            starting: Whether an unknown host is a mistake in the settings; later it is an outage.

        Raises:
            Fatal: One of them was not created by this project.
        """
        situation = await self._find(starting=starting)
        indices = situation.indices
        if log is not None:
            indices = await gather_or_cancel(*(self._read(state, log) for state in indices))
        return replace(situation, indices=tuple(indices), log=log)

    async def all(self) -> list[IndexState]:
        """Return the states of all indices, the oldest first, without their checkpoints.

        Raises:
            Fatal: One of them was not created by this project.
        """
        return list((await self._find()).indices)

    def is_current(self, state: IndexState) -> bool:
        """Return whether an index has this program's definition of the view."""
        return state.definition == self._definition

    def store(self, name: str) -> ViewStore:
        """Return the store for the documents of the index with this name."""
        return ViewStore(self._client, self._index, name=name, bulk_documents=self._bulk_documents)

    async def create(
        self,
        number: int,
        wanted: Mapping[int, int],
        *,
        followed: bool,
        log: EventLog | None = None,
    ) -> bool:
        """Create an index that is ready for fast loading; see `finish_loading`.

        Args:
            number: Number of the new index.
            wanted: As in `IndexState`.
            followed: Whether workers are to keep it up to date from now on.
            log: The event topic that `wanted` is of.

        Returns:
            Whether it was created; False if an index of this number exists already.
        """
        name = f"{self.alias}-v{number}"
        identity = f"{name}-is-{uuid4().hex}"
        meta: dict[str, Any] = {
            "definition": self._definition,
            "wanted": {str(partition): end for partition, end in wanted.items()},
            "identity": identity,
        }
        if log is not None:
            meta |= {"partitions": log.partitions, "topic": log.topic_id}
        aliases = [writes_alias(name), identity, *([self._followed] if followed else [])]
        fixed = {**_FIXED_SETTINGS, **LOADING_SETTINGS}
        with translating(self._client):
            try:
                await self._client.indices.create(
                    index=name,
                    settings={"index": {**self._index.settings, **fixed}},
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
        settings: dict[str, Any] = {"refresh_interval": _REFRESH_INTERVAL}
        if self._replicas is None:
            # No replica on one node, one as soon as there are two nodes.
            settings["auto_expand_replicas"] = "0-1"
        else:
            settings["number_of_replicas"] = self._replicas
        with translating(self._client):
            await self._client.indices.put_settings(index=name, settings=settings)
            await self._client.indices.refresh(index=name)

    async def carry_out(self, action: Follow | Serve | Strip | Delete) -> None:
        """Carry out an action, if what it was planned for is still so.

        Raises:
            IndexChanged: It is not; nothing was changed but perhaps settings.
        """
        if isinstance(action, Follow):
            state = action.index
            names = [self._followed, writes_alias(state.name), state.identity]
            added = [{"add": {"index": state.name, "alias": name}} for name in names]
            await self._update_aliases(*_if_it_is(state), *added)
        elif isinstance(action, Serve):
            state = action.index
            if state.loading:
                await self.finish_loading(state.name)
            with translating(self._client):  # so that searches find whom they found before
                await self._client.indices.refresh(index=state.name)
            await self._update_aliases(
                *_if_it_is(state),
                *(_remove(name, self.alias) for name in action.away_from),
                # Whoever got it in the meantime; the wildcard finds open indices only.
                {"remove": {"index": f"{self.alias}-v*", "alias": self.alias, "must_exist": False}},
                {"add": {"index": state.name, "alias": self.alias}},
                {"add": {"index": state.name, "alias": self._served}},
            )
        elif isinstance(action, Strip):
            names = sorted(action.aliases)
            await self._update_aliases(*(_remove(action.name, name) for name in names))
        else:
            await self._update_aliases(
                *(
                    step
                    for name in action.serving
                    for step in (
                        _remove(name, self.alias),
                        {"add": {"index": name, "alias": self.alias}},
                    )
                ),
                {"remove_index": {"index": action.index.name}},
            )

    async def drop(self, name: str) -> None:
        """Delete an index and its aliases, if it exists."""
        with translating(self._client):
            await self._client.options(ignore_status=404).indices.delete(index=name)

    async def _update_aliases(self, *actions: dict[str, Any]) -> None:
        with translating(self._client):
            try:
                await self._client.indices.update_aliases(actions=list(actions))
            except NotFoundError:
                raise IndexChanged(
                    f"the indices or aliases of {self.alias} have changed meanwhile"
                ) from None

    async def _find(self, *, starting: bool = False) -> Situation:
        """Find all indices that have a name or an alias of the view, closed ones included."""
        with translating(self._client, starting=starting):
            found = await self._client.indices.get(
                index=[self.alias, f"{self.alias}-v*", self._followed, self._served],
                expand_wildcards=["open", "closed"],
                ignore_unavailable=True,
                filter_path=_SEEN,
            )
        states: list[IndexState] = []
        strangers: dict[str, frozenset[str]] = {}
        for name, description in found.body.items():
            number = re.fullmatch(rf"{re.escape(self.alias)}-v(\d+)", name)
            if number is not None:
                states.append(self._state(name, int(number[1]), description))
            elif name != self.alias:
                strangers[name] = frozenset(filter(self._is_ours, description.get("aliases", {})))
        return Situation(
            view=self._view,
            role=self._role,
            alias=self.alias,
            definition=self._definition,
            indices=tuple(sorted(states, key=lambda state: state.number)),
            strangers={name: aliases for name, aliases in strangers.items() if aliases},
            is_index=self.alias in found.body,
        )

    def _is_ours(self, alias: str) -> bool:
        """Return whether an alias is one of those that only the view's indices may have."""
        shared = (self.alias, self._followed, self._served)
        return alias in shared or self._owner(alias) is not None

    def _owner(self, alias: str) -> str | None:
        """Return the only index of the view that may have an alias; None for any other alias."""
        found = re.fullmatch(rf"({re.escape(self.alias)}-v\d+)-(?:writes|is-[0-9a-f]+)", alias)
        return None if found is None else found[1]

    async def _read(self, state: IndexState, log: EventLog) -> IndexState:
        """Add the checkpoints to the state of an index, unless they cannot be read now."""
        if state.closed:
            return state
        store = self.store(state.name)
        node = store.node
        try:
            async with async_timeout.timeout(_READ_TIMEOUT_S):
                found = await store.sound_checkpoints(range(log.partitions))
                return replace(state, checkpoints=found)
        except (Transient, NoSuchView):
            return state
        except asyncio.TimeoutError:
            store.ask_another_node(node)
            return state

    def _state(self, name: str, number: int, description: Mapping[str, Any]) -> IndexState:
        aliases = description.get("aliases", {})
        meta = description.get("mappings", {}).get("_meta", {})
        if "definition" not in meta:
            raise Fatal(
                f"The index {name} was not created by this project: delete it, or use another "
                "CQRS_NAMESPACE"
            )
        settings = description["settings"]["index"]
        identity = meta.get("identity", "")
        if not identity.startswith(f"{name}-is-"):  # of an older version, or a copy of another one
            identity = f"{name}-is-{settings['uuid'].encode().hex()}"
        return IndexState(
            name=name,
            number=number,
            uuid=settings["uuid"],
            definition=meta["definition"],
            wanted={int(p): end for p, end in meta.get("wanted", {}).items()},
            partitions=meta.get("partitions"),
            topic=meta.get("topic", ""),
            shards=int(settings.get("number_of_shards", 1)),
            identity=identity,
            followed=self._followed in aliases,
            serving=self.alias in aliases,
            served=self._served in aliases,
            writable=writes_alias(name) in aliases and identity in aliases,
            borrowed=frozenset(one for one in aliases if self._owner(one) not in (None, name)),
            closed=settings.get("verified_before_close") == "true",
            loading=settings.get("refresh_interval") == LOADING_SETTINGS["refresh_interval"],
        )


def _remove(index: str, alias: str) -> dict[str, Any]:
    """Return the step that takes an alias away, and fails if it is not there."""
    return {"remove": {"index": index, "alias": alias, "must_exist": True}}


def _if_it_is(state: IndexState) -> list[dict[str, Any]]:
    """Return steps that fail if the index is not the one that was seen, and change nothing."""
    if not state.writable:
        return []
    return [
        _remove(state.name, state.identity),
        {"add": {"index": state.name, "alias": state.identity}},
    ]
