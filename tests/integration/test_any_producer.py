"""Any Kafka client can send commands: a JSON value, the aggregate id as key, murmur2.

The client here is librdkafka's (`confluent-kafka`), which by default puts keys elsewhere. Whatever
is no command ends in the dead letters, with the reason, where it came from and its original bytes.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import MessageSizeTooLargeError
from aiokafka.structs import TopicPartition
from confluent_kafka import Message, Producer

from agents.user_audit import verify_users
from deploy.embedded.stack import EmbeddedStack
from deploy.ephemeral import Deployment
from deploy.waiting import wait_until
from models.messages import Source, command_id_at
from models.outcomes import Accepted, DeadLettered, Duplicate, Outcome, Rejection, parse_outcome
from streams.kafka.clients import new_consumer, new_producer, started
from streams.kafka.partitioner import partition_of
from streams.kafka.topics import COMMAND_BYTES
from tests.harness.deployments import deployment
from tests.unit.samples import wire_register

MURMUR2 = "murmur2_random"
YEAR_2100 = 4_102_444_800_000  # milliseconds since 1970


@pytest.fixture(scope="module")
def deployed(stack: EmbeddedStack) -> Iterator[Deployment]:
    with deployment(stack, "commands", "views", partitions=3) as running:
        yield running


class Place(NamedTuple):
    """Where a record was put."""

    partition: int
    offset: int


class Letter(NamedTuple):
    """A dead letter; of headers with the same name the last one."""

    key: bytes | None
    value: bytes | None
    headers: dict[str, bytes]


def produce(
    deployed: Deployment,
    value: bytes | None,
    key: str | None,
    *,
    partitioner: str = MURMUR2,
    **options: Any,
) -> Place:
    """Put one record on the command topic with librdkafka."""
    producer = Producer(
        {
            "bootstrap.servers": deployed.settings.bootstrap_servers,
            "partitioner": partitioner,
            "message.max.bytes": 10_000_000,
        }
    )
    places: list[Place] = []

    def delivered(error: object, message: Message) -> None:
        assert error is None, error
        partition, offset = message.partition(), message.offset()
        assert partition is not None
        assert offset is not None
        places.append(Place(partition, offset))

    producer.produce(deployed.names.commands, value, key, on_delivery=delivered, **options)
    assert producer.flush(30) == 0
    return places[0]


class Outcomes:
    """Reads the outcomes and the dead letters of a deployment from their beginning."""

    def __init__(self, deployed: Deployment, consumer: AIOKafkaConsumer) -> None:
        self._deployed = deployed
        self._consumer = consumer
        self._outcomes: dict[Place, Outcome] = {}
        self._letters: dict[Place, Letter] = {}

    async def of(self, place: Place) -> Outcome:
        """The outcome of the command at this place."""
        await wait_until(lambda: self._has(place, self._outcomes), what=f"an outcome of {place}")
        return self._outcomes[place]

    async def letter_of(self, place: Place) -> Letter:
        """The dead letter of the command at this place."""
        await wait_until(lambda: self._has(place, self._letters), what=f"a dead letter of {place}")
        return self._letters[place]

    async def _has(self, place: Place, found: dict[Place, Any]) -> bool:
        for records in (await self._consumer.getmany(timeout_ms=50)).values():
            for record in records:
                if record.topic == self._deployed.names.outcomes:
                    outcome = parse_outcome(record.value)
                    source = outcome.source
                    self._outcomes[Place(source.partition, source.offset)] = outcome
                else:
                    headers = dict(record.headers)
                    partition = int(headers["cqrs-source-partition"])
                    at = Place(partition, int(headers["cqrs-source-offset"]))
                    self._letters[at] = Letter(record.key, record.value, headers)
        return place in found


@pytest.fixture
async def outcomes(deployed: Deployment) -> AsyncIterator[Outcomes]:
    async with started(new_consumer(deployed.settings), deployed.settings) as consumer:
        consumer.assign(
            [
                TopicPartition(topic, number)
                for topic in (deployed.names.outcomes, deployed.names.dead_commands)
                for number in range(deployed.settings.partitions)
            ]
        )
        yield Outcomes(deployed, consumer)


def register(**fields: Any) -> dict[str, Any]:
    return wire_register(id=str(uuid4()), aggregateId=f"user-{uuid4()}", **fields)


def encode(command: dict[str, Any]) -> bytes:
    return json.dumps(command, ensure_ascii=False).encode()


async def test_librdkafka_with_murmur2_is_understood(
    deployed: Deployment, outcomes: Outcomes
) -> None:
    command = register()
    outcome = await outcomes.of(produce(deployed, encode(command), command["aggregateId"]))
    assert isinstance(outcome, Accepted)
    assert outcome.command_id == UUID(command["id"])
    assert outcome.aggregate_id == command["aggregateId"]


async def test_a_command_with_only_the_required_fields(
    deployed: Deployment, outcomes: Outcomes
) -> None:
    """Without id and time; other spellings; the specification's name; headers that agree."""
    user = f"user-{uuid4()}"
    value = encode(
        {
            "type": "RegisterUserCommand",
            "aggregate_id": user,
            "email": "anna@example.org",
            "first_name": "Anna",
            "lastName": "Müller",
            "registrationSource": "web",
        }
    )
    headers = {"type": b"RegisterUser", "aggregateId": user.encode(), "trace": b"1"}
    place = produce(deployed, value, user, headers=headers)
    outcome = await outcomes.of(place)
    assert isinstance(outcome, Accepted)
    assert outcome.command_id == command_id_at(Source(deployed.names.commands, *place))


async def test_a_producers_clock_decides_nothing(deployed: Deployment, outcomes: Outcomes) -> None:
    """Retention counts from the arrival, which is also the time of a command without one."""
    start = datetime.now(timezone.utc) - timedelta(seconds=1)
    for milliseconds in (1, YEAR_2100):
        command = register()
        del command["timestamp"]
        place = produce(deployed, encode(command), command["aggregateId"], timestamp=milliseconds)
        outcome = await outcomes.of(place)
        assert start < outcome.timestamp < datetime.now(timezone.utc) + timedelta(seconds=1)


async def test_a_rejection_and_a_duplicate_are_outcomes_too(
    deployed: Deployment, outcomes: Outcomes
) -> None:
    command = register()
    user = command["aggregateId"]
    places = [produce(deployed, encode(command), user) for _ in range(2)]
    places.append(produce(deployed, encode({**command, "id": str(uuid4())}), user))
    kinds = [type(await outcomes.of(place)) for place in places]
    assert kinds == [Accepted, Duplicate, Rejection]


def key_that_crc32_puts_elsewhere(partitions: int) -> str:
    """librdkafka's default partitioner is CRC32 of the key."""
    for number in range(1000):
        key = f"user-{uuid4()}-{number}"
        if zlib.crc32(key.encode()) % partitions != partition_of(key.encode(), partitions):
            return key
    raise AssertionError("there are plenty")


async def test_librdkafkas_default_partitioner_is_refused_with_what_to_do(
    deployed: Deployment, outcomes: Outcomes
) -> None:
    user = key_that_crc32_puts_elsewhere(deployed.settings.partitions)
    value = encode({**register(), "aggregateId": user})
    place = produce(deployed, value, user, partitioner="consistent_random")
    outcome = await outcomes.of(place)
    assert isinstance(outcome, DeadLettered)
    assert outcome.code == "wrong-partition"
    assert "partitioner=murmur2_random" in outcome.reason
    assert outcome.aggregate_id == user
    letter = await outcomes.letter_of(place)
    assert (letter.key, letter.value) == (user.encode(), value)


async def test_an_explicit_wrong_partition_is_refused(
    deployed: Deployment, outcomes: Outcomes
) -> None:
    command = register()
    user = command["aggregateId"]
    partitions = deployed.settings.partitions
    wrong = (partition_of(user.encode(), partitions) + 1) % partitions
    outcome = await outcomes.of(produce(deployed, encode(command), user, partition=wrong))
    assert isinstance(outcome, DeadLettered)
    assert outcome.code == "wrong-partition"


def without(command: dict[str, Any], field: str) -> dict[str, Any]:
    return {name: value for name, value in command.items() if name != field}


# what is wrong -> (the value, the key if not the user's id, headers, code, part of the reason)
Bad = tuple[Callable[[dict[str, Any]], bytes | None], str | None, dict[str, bytes], str, str]

BAD: dict[str, Bad] = {
    "malformed JSON": (lambda it: encode(it)[:-5], None, {}, "malformed-json", "not JSON: line 1"),
    "no text": (lambda _it: b"\xff\xfe\x00", None, {}, "malformed-json", "not JSON"),
    "no value": (lambda _it: None, None, {}, "malformed-json", "no value"),
    "an array": (lambda it: b"[%b]" % encode(it), None, {}, "not-an-object", "object"),
    "an unknown type": (
        lambda it: encode({**it, "type": "PromoteUser"}),
        None,
        {},
        "unknown-type",
        "No handler registered for command: PromoteUser",
    ),
    "no type": (lambda it: encode(without(it, "type")), None, {}, "missing-field", "type: is miss"),
    "no email": (
        lambda it: encode(without(it, "email")),
        None,
        {},
        "missing-field",
        "email: is missing",
    ),
    "an email that is none": (
        lambda it: encode({**it, "email": "anna"}),
        None,
        {},
        "invalid-field",
        "email: must be an email address",
    ),
    "a time without a zone": (
        lambda it: encode({**it, "timestamp": "2026-11-23T12:00:00"}),
        None,
        {},
        "invalid-field",
        "timestamp: must be",
    ),
    "another version": (
        lambda it: encode({**it, "schemaVersion": 2}),
        None,
        {},
        "unknown-version",
        "schemaVersion: must be 1",
    ),
    "another key": (encode, "another", {}, "key-mismatch", "the record's key must be"),
    "a header that contradicts": (
        encode,
        None,
        {"type": b"DeactivateUser"},
        "header-mismatch",
        "the header type contradicts the value",
    ),
}


@pytest.mark.parametrize("what", BAD)
async def test_what_is_no_command_is_a_dead_letter(
    deployed: Deployment, outcomes: Outcomes, what: str
) -> None:
    make, key, headers, code, reason = BAD[what]
    command = register()
    value = make(command)
    key = key or command["aggregateId"]
    given = {**headers, "trace": b"42"}
    place = produce(deployed, value, key, headers=given)

    outcome = await outcomes.of(place)
    assert isinstance(outcome, DeadLettered)
    assert outcome.code == code
    assert reason in outcome.reason
    assert "anna@" not in outcome.reason.lower()

    letter = await outcomes.letter_of(place)
    assert (letter.key, letter.value) == (key.encode(), value)
    for name, header in given.items():
        assert letter.headers[name] == header
    assert letter.headers["cqrs-dead-code"].decode() == code
    assert letter.headers["cqrs-dead-reason"].decode() == outcome.reason
    assert letter.headers["cqrs-source-topic"].decode() == deployed.names.commands
    assert letter.headers["cqrs-source-timestamp"].isdigit()


async def test_no_key_is_a_dead_letter(deployed: Deployment, outcomes: Outcomes) -> None:
    outcome = await outcomes.of(produce(deployed, encode(register()), None))
    assert isinstance(outcome, DeadLettered)
    assert outcome.code == "key-mismatch"


async def test_a_record_of_exactly_the_limit_is_a_dead_letter(
    deployed: Deployment, outcomes: Outcomes
) -> None:
    """One byte more and the broker would not take it; its dead letter is larger than that."""
    command = register()
    key = command["aggregateId"]
    envelope = len(encode({**command, "firstName": ""}))

    async def place_of(size: int) -> Place:
        name = "x" * (size - envelope)
        async with started(new_producer(deployed.settings), deployed.settings) as producer:
            sent = await producer.send_and_wait(
                deployed.names.commands,
                encode({**command, "firstName": name}),
                key.encode(),
                partition=partition_of(key.encode(), deployed.settings.partitions),
            )
        return Place(sent.partition, sent.offset)

    low, high = COMMAND_BYTES - 200, COMMAND_BYTES
    while high - low > 1:  # the largest that the broker takes
        middle = (low + high) // 2
        try:
            place = await place_of(middle)
            low = middle
        except MessageSizeTooLargeError:
            high = middle
    place = await place_of(low)
    outcome = await outcomes.of(place)
    assert isinstance(outcome, DeadLettered)
    assert outcome.code == "invalid-field"
    letter = await outcomes.letter_of(place)
    assert letter.value is not None
    assert len(letter.value) == low


async def test_the_invariants_hold_after_all_kinds_of_records(
    deployed: Deployment, outcomes: Outcomes
) -> None:
    for make, key, headers, code, _ in BAD.values():
        command = register()
        place = produce(deployed, make(command), key or command["aggregateId"], headers=headers)
        outcome = await outcomes.of(place)
        assert isinstance(outcome, DeadLettered)
        assert outcome.code == code
    report = await verify_users(deployed.settings)
    assert report.first_violation is None
    assert report.dead >= len(BAD)
