"""What the machinery has to know of an aggregate to run it."""

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
    """One kind of aggregate: its name, its messages, and the type and the fold of its state.

    The state is anything that `msgspec` can write and read back, a frozen struct for instance.
    """

    name: str
    commands: Mapping[str, type[Command]]
    events: Mapping[str, type[Event]]
    state: type[S]
    evolve: Callable[[S | None, Any, datetime], S]

    @property
    def is_personal(self) -> bool:
        """Whether any of its events has personal data, and so its state."""
        return any(event.personal for event in self.events.values())


@dataclass(frozen=True)
class TopicNames:
    """The names of an aggregate's topics."""

    namespace: str
    aggregate: str

    @classmethod
    def of(cls, settings: Settings, aggregate: str) -> TopicNames:
        """Return the names of the aggregate of this name, in the namespace of the settings."""
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
        """Topic of the replies."""
        return f"{self.namespace}{self.aggregate}.outcomes.v1"

    @property
    def dead_commands(self) -> str:
        """Topic of the commands that could not be decided."""
        return f"{self.namespace}{self.aggregate}.commands.dead.v1"

    @property
    def dead_views(self) -> str:
        """Topic of the events that a view could not take."""
        return f"{self.namespace}{self.aggregate}.views.dead.v1"

    @property
    def keys(self) -> str:
        """Topic of the keys of personal data, wrapped."""
        return f"{self.namespace}{self.aggregate}.keys.v1"

    @property
    def changelog(self) -> str:
        """Topic of the state table's changes."""
        return f"{self.namespace}{self.aggregate}.state-changelog.v1"
