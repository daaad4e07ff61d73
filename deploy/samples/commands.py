"""Sample commands that look like life, the same for the same seed, and what has to come of them.

Every person and every domain is made up (`example.org` and the like are reserved for this), and no
two users ever share an email. A generated stream counts only as a whole and in order, on topics
which have not seen it before: sent a second time, its commands are duplicates or rejected.
"""

import random
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import cycle, islice
from typing import Any, Literal
from uuid import UUID

from deploy.samples.poison import PLAIN

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
# A repeat comes at most this many new commands after the first. The window in which a repeat is
# answered as a duplicate is the last 16 commands of the same user, so this is well inside it.
_REPEAT_WITHIN = 8

_FIRST = (
    *("Anna", "Ben", "Chiara", "David", "Elif", "Fatima", "Grace", "Hugo", "Ines", "Jonas"),
    *("Zoë", "Łukasz", "José", "Søren", "Mei", "Noah", "Olga", "Priya", "Quentin", "Renée"),
)
_LAST = (
    *("Müller", "Smith", "Rossi", "Nowak", "García", "Çelik", "Andersen", "Okafor", "Tanaka"),
    *("Dubois", "Novák", "O'Brien", "Silva", "Khan", "van Dijk", "Björk", "Ivanova", "Li"),
)
_DOMAINS = (
    *("example.com", "example.org", "example.net", "mail.example.com", "post.example.org"),
    *("corp.example.net", "bücher.example.com", "почта.example.org", "例え.example.net"),
)
_SOURCES = ("web", "mobile", "api", "partner")

Expectation = Literal["accepted", "rejected", "duplicate"]


@dataclass(frozen=True, slots=True)
class Expected:
    """What has to come of a stream: each accepted command brings exactly one event."""

    commands: int
    accepted: int
    rejected: int
    duplicate: int
    documents: int

    @property
    def events(self) -> int:
        """As many as accepted commands."""
        return self.accepted


def generate(
    count: int,
    seed: int = 1,
    *,
    start: datetime = START,
    rejected: float = 0.05,
    duplicates: float = 0.02,
) -> Iterator[dict[str, Any]]:
    """`count` commands as JSON-ready objects. See `plan`."""
    for command, _ in plan(count, seed, start=start, rejected=rejected, duplicates=duplicates):
        yield command


def plan(
    count: int,
    seed: int = 1,
    *,
    start: datetime = START,
    rejected: float = 0.05,
    duplicates: float = 0.02,
) -> Iterator[tuple[dict[str, Any], Expectation]]:
    """`count` commands, each with the status of the outcome that it has to get.

    Of them the shares `rejected` and `duplicates`, as far as chance goes. Times begin at `start`
    (in UTC) and only go forward, except that a repeat is the same command, time and all.
    """
    scene = _ExpectedUsers(random.Random(seed), start)
    recent: deque[dict[str, Any]] = deque(maxlen=_REPEAT_WITHIN)
    status: Expectation
    for _ in range(count):
        kind = scene.rng.random()
        if kind < duplicates and recent:
            yield scene.rng.choice(recent), "duplicate"
            continue
        if kind < duplicates + rejected and scene.users:
            command = scene.refused()
            status = "rejected"
        else:
            command = scene.accepted()
            status = "accepted"
        # A "no" about a user who does not exist is not remembered: a repeat is decided again.
        if command["aggregateId"] in scene.ids:
            recent.append(command)
        yield command, status


def tally(planned: Iterable[tuple[dict[str, Any], Expectation]]) -> Expected:
    """Adds up what `plan` promises."""
    counts = {"accepted": 0, "rejected": 0, "duplicate": 0}
    documents = 0
    for command, status in planned:
        counts[status] += 1
        documents += status == "accepted" and command["type"] == "RegisterUser"
    return Expected(commands=sum(counts.values()), documents=documents, **counts)


def malformed(count: int, seed: int = 1) -> Iterator[tuple[bytes, bytes]]:
    """`count` records, key and value, of which every one has to end in the dead letters."""
    scene = _ExpectedUsers(random.Random(seed), START)
    for kind in islice(cycle(PLAIN.values()), count):
        bad = kind.spoil(scene.accepted(register=True))
        assert bad.key is not None
        assert bad.value is not None
        yield bad.key, bad.value


@dataclass(slots=True)
class _Person:
    """What is known of a user who was registered."""

    id: str
    email: str
    first: str
    last: str
    active: bool = True
    version: int = 1


class _ExpectedUsers:
    """Users as they have to be after the commands so far, told without the code under test."""

    def __init__(self, rng: random.Random, start: datetime) -> None:
        self.rng = rng
        self.now = start
        self.users: list[_Person] = []
        self.ids: set[str] = set()
        self.emails = 0

    def accepted(self, *, register: bool = False) -> dict[str, Any]:
        """A command that has to be accepted."""
        if register or not self.users or self.rng.random() < 0.6:
            return self._register()
        user = self.rng.choice(self.users)
        user.version += 1
        if self.rng.random() < 0.3:
            user.active = not user.active
            return self._command("ReactivateUser" if user.active else "DeactivateUser", user.id)
        if self.rng.random() < 0.5:
            user.email = self._email(user.first, user.last)
            return self._command("UpdateUserProfile", user.id, email=user.email)
        user.last = self.rng.choice([name for name in _LAST if name != user.last])
        return self._command("UpdateUserProfile", user.id, lastName=user.last)

    def refused(self) -> dict[str, Any]:
        """A command that is well formed and has to be rejected."""
        user = self.rng.choice(self.users)
        match self.rng.randrange(5):
            case 0:
                profile = self._profile(user.first, user.last)
                return self._command("RegisterUser", user.id, **profile)
            case 1:
                return self._command("UpdateUserProfile", self._id(), firstName="Nobody")
            case 2:
                same = {"email": user.email, "firstName": user.first}
                return self._command("UpdateUserProfile", user.id, **same)
            case 3:
                wrong = user.version + self.rng.randint(1, 3)
                return self._command("DeactivateUser", user.id, expectedVersion=wrong)
            case _:
                again = "ReactivateUser" if user.active else "DeactivateUser"
                return self._command(again, user.id)

    def _register(self) -> dict[str, Any]:
        profile = self._profile(self.rng.choice(_FIRST), self.rng.choice(_LAST))
        user = _Person(self._id(), profile["email"], profile["firstName"], profile["lastName"])
        self.users.append(user)
        self.ids.add(user.id)
        return self._command("RegisterUser", user.id, **profile)

    def _profile(self, first: str, last: str) -> dict[str, Any]:
        return {
            "email": self._email(first, last),
            "firstName": first,
            "lastName": last,
            "registrationSource": self.rng.choice(_SOURCES),
        }

    def _email(self, first: str, last: str) -> str:
        self.emails += 1
        local = f"{first}.{last}{self.emails}".replace(" ", "-")
        if self.rng.random() < 0.7:
            local = local.lower()
        if self.rng.random() < 0.1:
            local += "+news"
        return f"{local}@{self.rng.choice(_DOMAINS)}"

    def _id(self) -> str:
        return f"user-{self.rng.getrandbits(64):016x}"

    def _command(self, name: str, aggregate_id: str, **fields: Any) -> dict[str, Any]:
        self.now += timedelta(milliseconds=self.rng.randint(1, 50))
        return {
            "type": name,
            "id": str(UUID(int=self.rng.getrandbits(128), version=4)),
            "aggregateId": aggregate_id,
            "timestamp": self.now.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z",
            **fields,
        }
