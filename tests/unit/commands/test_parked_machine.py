"""Commands, defective programs, replays, drops and restarts in any order, against a naive model.

The model keeps lists, and decides one command after the other.
"""

from __future__ import annotations

import base64
from collections import defaultdict
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid5

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from pydantic import SecretStr

from models.commands import USER_COMMANDS
from models.errors import Rejected
from models.messages import Command
from models.user import User, decide, evolve
from streams.commands.control import Control, DropParked, ReplayParked, encode_control
from streams.state.snapshot import DEDUPE_WINDOW
from tests.unit.commands.deciding import NAMES, Deciding
from tests.unit.samples import COMMAND_ID, NOON, wire_register

USERS = ["u", "v"]
KINDS = ["RegisterUser", "UpdateUserProfile", "DeactivateUser", "ReactivateUser", "EraseUser"]
KEY = bytes(32)

pytestmark = pytest.mark.usefixtures("without_servers")


class Model:
    """Every user has a state, the ids that were answered, and the commands that wait."""

    def __init__(self) -> None:
        self.users: dict[str, User | None] = defaultdict(lambda: None)
        self.answered: dict[str, list[UUID]] = defaultdict(list)
        self.waiting: dict[str, list[tuple[int, Command]]] = defaultdict(list)
        self.finals: dict[int, str] = {}
        self.broken: set[str] = set()

    def command(self, offset: int, command: Command) -> None:
        user, erases = command.aggregate_id, type(command).__name__ == "EraseUser"
        if self.waiting[user] and not erases:
            waiting = [one.id for _, one in self.waiting[user]]
            if command.id in self._window(user) or command.id in waiting:
                self.finals[offset] = "duplicate"
            else:
                self.waiting[user].append((offset, command))
            return
        status = self._decide(offset, command)
        if status is not None:
            self.finals[offset] = status
        elif erases:
            self.finals[offset] = "dead-lettered"
        else:
            self.waiting[user].append((offset, command))
        is_nobody = status == "rejected" and self.users[user] is None
        if erases and (status == "accepted" or is_nobody):
            for late, waiting_ in self.waiting.pop(user, []):
                self.finals[late] = "rejected"
                if not is_nobody:
                    self.answered[user].append(waiting_.id)

    def replay(self, user: str) -> None:
        while self.waiting[user]:
            offset, command = self.waiting[user][0]
            status = self._decide(offset, command)
            if status is None:
                return
            self.finals[offset] = status
            del self.waiting[user][0]

    def drop(self, user: str, number: int) -> None:
        for offset, _ in self.waiting[user][:number]:
            self.finals[offset] = "dead-lettered"
        del self.waiting[user][:number]

    def _window(self, user: str) -> list[UUID]:
        return self.answered[user][-DEDUPE_WINDOW:]

    def _decide(self, offset: int, command: Command) -> str | None:
        """The status; None if the program fails."""
        user = command.aggregate_id
        if command.id in self._window(user):
            return "duplicate"
        before = self.users[user]
        try:
            events = decide(before, command)
        except Rejected:
            if before is not None:
                self.answered[user].append(command.id)
            return "rejected"
        if type(command).__name__ in self.broken:
            return None
        for event in events:
            self.users[user] = evolve(self.users[user], event, command.timestamp)
        self.answered[user].append(command.id)
        return "accepted"


class ParkedMachine(RuleBasedStateMachine):
    @initialize(encrypted=st.booleans())
    def begin(self, encrypted: bool) -> None:
        self.deciding = Deciding(
            dead_letter_order="aggregate",
            control_key=SecretStr(base64.b64encode(KEY).decode()),
            encrypt_personal_data=encrypted,
            master_key=SecretStr(base64.b64encode(bytes(32)).decode()),
        )
        self.model = Model()
        self.deciding.breaks = lambda command: type(command).__name__ in self.model.broken
        self.sent: list[dict[str, Any]] = []

    @rule(user=st.sampled_from(USERS), kind=st.sampled_from(KINDS), name=st.sampled_from("ABC"))
    def send(self, user: str, kind: str, name: str) -> None:
        number = len(self.sent)
        time = (NOON + timedelta(seconds=number)).isoformat().replace("+00:00", "Z")
        wire = {
            "type": kind,
            "id": str(uuid5(COMMAND_ID, str(number))),
            "aggregateId": user,
            "timestamp": time,
        }
        if kind == "RegisterUser":
            wire = wire_register(**wire)
        if kind == "UpdateUserProfile":
            wire["firstName"] = name
        self._send(wire)

    @rule(back=st.integers(1, 5))
    def send_again(self, back: int) -> None:
        if len(self.sent) >= back:
            self._send(self.sent[-back])

    def _send(self, wire: dict[str, Any]) -> None:
        self.sent.append(wire)
        offset = self.deciding.send(wire["aggregateId"].encode(), wire)
        fields = {name: value for name, value in wire.items() if name != "type"}
        self.model.command(offset, USER_COMMANDS[wire["type"]](**fields))

    @rule(kinds=st.sets(st.sampled_from(KINDS)), at_a_time=st.integers(1, 100))
    def start_another_program(self, kinds: set[str], at_a_time: int) -> None:
        self.deciding.decide(at_a_time=at_a_time)
        self.model.broken = kinds

    @rule(user=st.sampled_from(USERS))
    def replay(self, user: str) -> None:
        waiting = self.model.waiting[user]
        first = waiting[0][0] if waiting else 0
        self._control(ReplayParked(id=COMMAND_ID, aggregate_id=user, first=first))
        self.model.replay(user)

    @rule(user=st.sampled_from(USERS), number=st.integers(1, 3))
    def drop(self, user: str, number: int) -> None:
        waiting = self.model.waiting[user]
        if not waiting:
            return
        first, through = waiting[0][0], waiting[:number][-1][0]
        self._control(DropParked(id=COMMAND_ID, aggregate_id=user, first=first, through=through))
        self.model.drop(user, number)

    @rule(user=st.sampled_from(USERS))
    def use_an_old_control_again(self, user: str) -> None:
        waiting = self.model.waiting[user]
        stale = waiting[0][0] - 1 if waiting else 0
        self._control(DropParked(id=COMMAND_ID, aggregate_id=user, first=stale, through=10**6))

    def _control(self, control: Control) -> None:
        signed = encode_control(control, NAMES.commands, KEY)
        offset = self.deciding.send(signed.key or b"", signed.value or b"", *signed.headers)
        self.model.finals[offset] = "unparked"

    @invariant()
    def agrees_with_the_model(self) -> None:
        if not hasattr(self, "deciding") or len(self.deciding.log) % 3:
            return  # so that some chunks are longer
        self.deciding.decide()
        finals: dict[int, list[str]] = defaultdict(list)
        interim: dict[int, int] = defaultdict(int)
        for one in self.deciding.outcomes():
            if one["status"] == "parked":
                interim[one["source"]["offset"]] += 1
            else:
                finals[one["source"]["offset"]].append(one["status"])
        assert finals == {offset: [status] for offset, status in self.model.finals.items()}
        waiting = {
            user.encode(): [offset for offset, _ in found]
            for user, found in self.model.waiting.items()
            if found
        }
        assert waiting == {
            user: [one.offset for one in parked.commands]
            for user, parked in self.deciding.parked().items()
        }
        report = self.deciding.audit()
        assert report.first_violation is None
        assert report.parked == sum(map(len, waiting.values()))
        assert set(interim.values()) <= {1}
        assert {offset for found in waiting.values() for offset in found} <= interim.keys()
        for user, state in self.model.users.items():
            events = [one for one in self.deciding.events() if one["aggregateId"] == user]
            assert [one["sequence"] for one in events] == list(range(1, len(events) + 1))
            assert bool(events) == (state is not None)
            sources = [one["source"]["offset"] for one in self.deciding.events()]
            assert sources == sorted(sources)


TestParked = ParkedMachine.TestCase
TestParked.settings = hypothesis_settings(max_examples=30, stateful_step_count=40, deadline=None)
