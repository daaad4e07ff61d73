"""Sample commands that resemble real traffic, with the outcomes that they must get.

The same seed generates the same commands. All persons and domains are made up (`example.org` and
the like are reserved for this), and no two users share an email. The expected outcomes hold for a
whole stream, sent in order to topics without these commands: sent a second time, commands are
duplicates or rejected.
"""

import random
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import cycle, islice
from typing import Any, Literal
from uuid import UUID

from deploy.samples.poison import COMMON_KINDS

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
# Only the last 8 new commands can be repeated. A user's dedupe window is the last 16 commands, so
# every repeat is well inside it.
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

ExpectedStatus = Literal["accepted", "rejected", "duplicate"]


@dataclass(frozen=True, slots=True)
class Expected:
    """Numbers that a stream of commands must lead to, once all of it is decided and projected."""

    commands: int
    accepted: int
    rejected: int
    duplicate: int
    documents: int

    @property
    def events(self) -> int:
        """Number of events: one for each accepted command."""
        return self.accepted


def generate(
    count: int,
    seed: int = 1,
    *,
    start: datetime = START,
    rejected: float = 0.05,
    duplicates: float = 0.02,
) -> Iterator[dict[str, Any]]:
    """Yield `count` commands as JSON-ready objects; see `plan`."""
    for command, _ in plan(count, seed, start=start, rejected=rejected, duplicates=duplicates):
        yield command


def plan(
    count: int,
    seed: int = 1,
    *,
    start: datetime = START,
    rejected: float = 0.05,
    duplicates: float = 0.02,
) -> Iterator[tuple[dict[str, Any], ExpectedStatus]]:
    """Yield `count` commands, each with the status of the outcome that it must get.

    Args:
        count: of commands.
        seed: of all random choices.
        start: in UTC; timestamps begin here and only increase, except that a repeat is the same
            command with the same timestamp.
        rejected: share of commands that must be rejected, on average.
        duplicates: share of repeats, on average.
    """
    users = _ExpectedUsers(random.Random(seed), start)
    recent: deque[dict[str, Any]] = deque(maxlen=_REPEAT_WITHIN)
    status: ExpectedStatus
    for _ in range(count):
        kind = users.rng.random()
        if kind < duplicates and recent:
            yield users.rng.choice(recent), "duplicate"
            continue
        if kind < duplicates + rejected and users.persons:
            command = users.rejected_command()
            status = "rejected"
        else:
            command = users.accepted_command()
            status = "accepted"
        # A rejection for a user who does not exist is not remembered: a repeat is decided again.
        if command["aggregateId"] in users.ids:
            recent.append(command)
        yield command, status


def tally(planned: Iterable[tuple[dict[str, Any], ExpectedStatus]]) -> Expected:
    """Add up the expected statuses of `plan`."""
    counts = {"accepted": 0, "rejected": 0, "duplicate": 0}
    documents = 0
    for command, status in planned:
        counts[status] += 1
        documents += status == "accepted" and command["type"] == "RegisterUser"
    return Expected(commands=sum(counts.values()), documents=documents, **counts)


def malformed(count: int, seed: int = 1) -> Iterator[tuple[bytes, bytes]]:
    """Yield keys and values of `count` records that must all become dead letters."""
    users = _ExpectedUsers(random.Random(seed), START)
    for kind in islice(cycle(COMMON_KINDS.values()), count):
        bad = kind.spoil(users.accepted_command(register=True))
        assert bad.key is not None
        assert bad.value is not None
        yield bad.key, bad.value


@dataclass(slots=True)
class _Person:
    """Expected state of a registered user."""

    id: str
    email: str
    first: str
    last: str
    active: bool = True
    version: int = 1


class _ExpectedUsers:
    """Users as they must be after the commands so far; does not use the code under test."""

    def __init__(self, rng: random.Random, start: datetime) -> None:
        self.rng = rng
        self.now = start
        self.persons: list[_Person] = []
        self.ids: set[str] = set()
        self.emails = 0

    def accepted_command(self, *, register: bool = False) -> dict[str, Any]:
        """Return a new command that must be accepted, and apply it."""
        if register or not self.persons or self.rng.random() < 0.6:
            return self._register()
        user = self.rng.choice(self.persons)
        user.version += 1
        if self.rng.random() < 0.3:
            user.active = not user.active
            return self._command("ReactivateUser" if user.active else "DeactivateUser", user.id)
        if self.rng.random() < 0.5:
            user.email = self._email(user.first, user.last)
            return self._command("UpdateUserProfile", user.id, email=user.email)
        user.last = self.rng.choice([name for name in _LAST if name != user.last])
        return self._command("UpdateUserProfile", user.id, lastName=user.last)

    def rejected_command(self) -> dict[str, Any]:
        """Return a new command that is well formed and must be rejected."""
        user = self.rng.choice(self.persons)
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
                no_change = "ReactivateUser" if user.active else "DeactivateUser"
                return self._command(no_change, user.id)

    def _register(self) -> dict[str, Any]:
        profile = self._profile(self.rng.choice(_FIRST), self.rng.choice(_LAST))
        user = _Person(self._id(), profile["email"], profile["firstName"], profile["lastName"])
        self.persons.append(user)
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
