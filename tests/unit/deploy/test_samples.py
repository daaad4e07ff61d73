import json
from collections import Counter, defaultdict, deque
from datetime import datetime, timezone
from itertools import islice

import pytest
from email_validator import validate_email

from deploy.samples.commands import Expected, generate, malformed, plan, tally
from models.commands import USER_COMMANDS, RegisterUser, UpdateUserProfile
from models.errors import Poison, Rejected
from models.messages import check_expected_version, parse_command
from models.user import User, decide, evolve

WINDOW = 16  # design.md: the last command ids of an aggregate that a repeat is answered from


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_command_gets_the_outcome_that_was_promised(seed: int) -> None:
    users: dict[str, User] = {}
    versions: Counter[str] = Counter()
    windows: defaultdict[str, deque[object]] = defaultdict(lambda: deque(maxlen=WINDOW))
    got: Counter[str] = Counter()
    planned = list(plan(4000, seed, rejected=0.2, duplicates=0.1))
    for wire, promised in planned:
        command = parse_command(json.loads(json.dumps(wire)), USER_COMMANDS)
        key = command.aggregate_id
        if command.id in windows[key]:
            status = "duplicate"
        else:
            try:
                check_expected_version(command, versions[key])
                events = decide(users.get(key), command)
                status = "accepted"
            except Rejected:
                events, status = (), "rejected"
            for event in events:
                users[key] = evolve(users.get(key), event, command.timestamp)
                versions[key] += 1
            if key in users:
                windows[key].append(command.id)
        assert status == promised
        got[status] += 1
    assert min(got.values()) > 100
    assert tally(planned) == Expected(commands=4000, documents=len(users), **got)
    assert tally(planned).events == versions.total()
    assert len({user.email.casefold() for user in users.values()}) == len(users)


def test_the_same_seed_gives_the_same_commands() -> None:
    assert list(generate(300, seed=7)) == list(generate(300, seed=7))
    assert list(generate(300, seed=7)) == [command for command, _ in plan(300, seed=7)]
    assert list(generate(300, seed=7)) != list(generate(300, seed=8))


def test_it_is_an_iterator_that_ends() -> None:
    assert len(list(generate(0))) == 0
    assert len(list(generate(25))) == 25
    assert len(list(islice(generate(10**12), 25))) == 25


def test_shares_of_zero_and_one() -> None:
    assert tally(plan(500, rejected=0, duplicates=0)).accepted == 500
    counts = tally(plan(500, rejected=0.5, duplicates=0.5))
    assert counts.accepted == 1  # somebody has to be there to be refused


def test_times_go_forward_from_the_start() -> None:
    start = datetime(2030, 5, 6, tzinfo=timezone.utc)
    times = [
        parse_command(command, USER_COMMANDS).timestamp
        for command in generate(200, start=start, duplicates=0)
    ]
    assert times == sorted(times)
    assert times[0] > start


def test_emails_are_valid() -> None:
    seen = set()
    for wire in generate(2000):
        command = parse_command(wire, USER_COMMANDS)
        if isinstance(command, RegisterUser | UpdateUserProfile) and command.email:
            validate_email(command.email, check_deliverability=False)
            seen.add(command.email)
    assert any("+" in email for email in seen)
    assert any(not email.split("@")[1].isascii() for email in seen)
    assert any(not email.split("@")[0].isascii() for email in seen)


def why_dead(key: bytes, value: bytes) -> str:
    try:
        command = parse_command(json.loads(value), USER_COMMANDS)
    except ValueError:
        return "malformed-json"
    except Poison as error:
        return error.code
    assert command.aggregate_id.encode() != key
    return "key-mismatch"


def test_malformed_commands_all_become_dead_letters() -> None:
    codes = [why_dead(key, value) for key, value in malformed(16)]
    assert len(codes) == 16
    assert set(codes) == {
        "malformed-json",
        "not-an-object",
        "unknown-type",
        "missing-field",
        "invalid-field",
        "unknown-version",
        "key-mismatch",
    }
    assert list(malformed(16)) == list(malformed(16))
