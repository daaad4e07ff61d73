"""What the machinery has to know of a kind of aggregate, and the names of its topics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from models.messages import Command, Event
from streams.settings import Settings

S = TypeVar("S")


@dataclass(frozen=True)
class Aggregate(Generic[S]):
    """One kind of aggregate: its name, its messages, and the type and the fold of its state."""

    name: str
    """Name, as used in the names of its topics."""
    commands: Mapping[str, type[Command]]
    """Command types by their names on the wire."""
    events: Mapping[str, type[Event]]
    """Event types by their names on the wire."""
    state: type[S]
    """Anything that `msgspec` can encode and decode, a frozen struct for instance."""
    evolve: Callable[[S | None, Any, datetime], S]
    """From the state (None before the first event), an event and its time to the next state."""
    is_erased: Callable[[S], bool] = lambda _: False
    """Whether the state is that of an aggregate that an event has erased (`Event.erases`)."""
    state_version: int = 1
    """Number to raise by hand with every change of `state` or of what `evolve` returns: a worker
    then rebuilds the stored states from the events (`streams/state/version.py`)."""

    @property
    def has_personal_data(self) -> bool:
        """Whether any of its events has personal fields, and so its state."""
        return any(event.personal for event in self.events.values())


@dataclass(frozen=True)
class TopicNames:
    """Names of the topics of one aggregate."""

    namespace: str
    aggregate: str

    @classmethod
    def of(cls, settings: Settings, aggregate: str) -> TopicNames:
        """Return the names for the aggregate of this name, in the namespace of the settings."""
        return cls(settings.namespace, aggregate)

    @property
    def commands(self) -> str:
        """Topic of the commands."""
        return f"{self.namespace}{self.aggregate}.commands.v1"

    @property
    def events(self) -> str:
        """Topic of the events: the event store."""
        return f"{self.namespace}{self.aggregate}.events.v1"

    @property
    def outcomes(self) -> str:
        """Topic of the outcomes: the replies to commands."""
        return f"{self.namespace}{self.aggregate}.outcomes.v1"

    @property
    def dead_commands(self) -> str:
        """Topic of the dead letters of commands, which could not be read or decided."""
        return f"{self.namespace}{self.aggregate}.commands.dead.v1"

    @property
    def dead_views(self) -> str:
        """Topic of the dead letters of views: events that a view could not take."""
        return f"{self.namespace}{self.aggregate}.views.dead.v1"

    @property
    def keys(self) -> str:
        """Topic of the data keys, wrapped."""
        return f"{self.namespace}{self.aggregate}.keys.v1"

    @property
    def changelog(self) -> str:
        """Changelog of the state table."""
        return f"{self.namespace}{self.aggregate}.state-changelog.v1"

    @property
    def all(self) -> tuple[str, ...]:
        """All topics of the aggregate."""
        return (
            self.commands,
            self.events,
            self.outcomes,
            self.dead_commands,
            self.dead_views,
            self.keys,
            self.changelog,
        )
