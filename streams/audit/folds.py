"""What the events of an aggregate so far amount to, for its state and for its document.

Three facts about the events of an aggregate so far decide what is compared:

    shredded       one was read without its key, so its personal fields are empty
    erased         one erased the aggregate; that destroys the key
    state_erased   one that did so is of a command below the position: the state must show it

The fold of an erased aggregate is the same, whether its events were readable or not. So a state is
compared if it is `state_erased` or not `shredded`, and a document if, at its version, the aggregate
was `erased` or not `shredded`. Otherwise they may have been made while the events were readable,
which the fold was not: the aggregate is erased while this runs, and only versions are compared.
An aggregate that is `shredded` and never `erased` has lost its key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import orjson

from models.messages import EventRecord
from streams.elasticsearch.index import REFUSED, Document
from streams.kafka.records import cut_key

S = TypeVar("S")


@dataclass(frozen=True)
class Frozen:
    """Positions of one partition that a check refers to, while the workers continue.

    Attributes:
        position: Position of the command topic that the state table has reached. The effects of
            commands below it are checked; later ones only explain documents that are ahead.
        view_end: Position of the event topic that the view has to have reached.
        events_from: Offset of the event topic up to which the events are of a former command topic
            (`cqrs topics adopt`), whose offsets mean nothing in this one.
    """

    position: int
    view_end: int
    events_from: int = 0


@dataclass(frozen=True)
class Kept:
    """What retention has left of one partition: offsets of its commands.

    Attributes:
        commands_from: First offset of the command topic.
        outcomes_from: Lowest offset of a command whose outcome is left; 0 if no outcome expired.
        dead_letters_from: The same of dead letters.
    """

    commands_from: int = 0
    outcomes_from: int = 0
    dead_letters_from: int = 0

    @property
    def start(self) -> int:
        """Offset from which on commands can be checked."""
        return max(self.commands_from, self.outcomes_from)


@dataclass
class ViewDocuments:
    """The documents of a view, to be compared with the events of all partitions."""

    project: Callable[[Document | None, EventRecord[Any]], Document]
    documents: dict[str, bytes] = field(default_factory=dict)
    """Encoded documents by id. One is taken out when its first event comes: extra ones are left."""
    dead_lettered: set[bytes] = field(default_factory=set)
    """Keys of the view's dead letters, as `reply_key` cuts them."""

    def take(self, aggregate_id: str) -> Document | None:
        """Return the document of an aggregate and remove it; None if there is none.

        One that somebody else wrote, of which the id is all that was read, stays: an extra one.
        """
        encoded = self.documents.get(aggregate_id)
        document: Document | None = None if encoded is None else orjson.loads(encoded)
        if document is None or "version" not in document:
            return None
        del self.documents[aggregate_id]
        return document

    def has_dead_letter(self, aggregate_id: str) -> bool:
        """Return whether an event of an aggregate is in the view's dead letters."""
        return cut_key(aggregate_id.encode()) in self.dead_lettered


@dataclass(slots=True)
class StateFold(Generic[S]):
    """Fold of the events that the state table has to contain."""

    state: S | None = None
    events: int = 0


@dataclass(slots=True)
class ViewFold:
    """Fold of the events up to the version of the view's document, and that document.

    Attributes:
        required: Version that the document must have at least; 0 if it need not exist.
        found_version: Version that it has; 0 if it does not exist.
        refused: Whether it is a stand-in.
        found: The document, until the fold has reached its version.
        document: The fold, until then.
    """

    required: int = 0
    found_version: int = 0
    refused: bool = False
    found: Document | None = None
    document: Document | None = None

    @classmethod
    def of(cls, found: Document | None) -> ViewFold:
        """Create the fold to compare with a document of the view."""
        if found is None:
            return cls()
        refused = REFUSED in found
        return cls(
            found_version=found["version"],
            refused=refused,
            found=found[REFUSED] if refused else found,
        )


@dataclass(slots=True)
class History(Generic[S]):
    """The events of one aggregate so far.

    Attributes:
        state: Their fold as the state table must have it.
        view: Their fold as the view must have it.
        version: Sequence of the last one.
        first_source: Offset of the first one's command.
        last_source: Offset of the last one's command.
        shredded, erased, state_erased: See the module.
    """

    state: StateFold[S]
    view: ViewFold
    version: int = 0
    first_source: int = -1
    last_source: int = -1
    shredded: bool = False
    erased: bool = False
    state_erased: bool = False
