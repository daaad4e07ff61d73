"""The rehearsal of `docs/deploy.md`: a deployment is made again from copies of three topics.

The copies are of different moments, as those of a mirror are. Nothing else is left: neither the
commands, nor the outcomes, nor the index, nor the disks of the workers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from deploy.embedded.stack import EmbeddedStack
from deploy.waiting import wait_until
from streams.encryption.keys import new_master_key
from streams.settings import Settings
from tests.harness.command_line import cqrs
from tests.harness.deployments import deployment

pytestmark = [pytest.mark.shipping, pytest.mark.timeout(600)]


@contextmanager
def step(name: str) -> Iterator[None]:
    """Say how long a step of the rehearsal took; `pytest -rP` shows it."""
    begin = time.monotonic()
    yield
    print(f"{name}: {time.monotonic() - begin:.0f} s")


def done(settings: Settings, *words: str, given: bytes = b"") -> str:
    """The output of a command that has to succeed."""
    ended = cqrs(settings, *words, given=given, timeout=180)
    assert ended.returncode == 0, (words, ended.stdout, ended.stderr)
    return ended.stdout


def send(settings: Settings, count: int, seed: int) -> None:
    generated = done(settings, "generate", str(count), "--seed", str(seed))
    done(settings, "send", "--from", "-", given=generated.encode())


def copy(source: Settings, target: Settings, *topics: str) -> None:
    """Copy what is committed, partition by partition, as a mirror does. The names stay."""
    producer = Producer({"bootstrap.servers": target.bootstrap_servers, "acks": "all"})
    consumer = Consumer(
        {
            "bootstrap.servers": source.bootstrap_servers,
            "group.id": "mirror",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    try:
        for topic in topics:
            consumer.assign([TopicPartition(topic, n, 0) for n in range(source.partitions)])
            ended: set[int | None] = set()
            while len(ended) < source.partitions:
                message = consumer.poll(60)
                assert message is not None
                if message.topic() != topic:  # of the one before
                    continue
                if message.error():
                    ended.add(message.partition())
                    continue
                producer.produce(
                    topic,
                    message.value(),
                    message.key(),
                    message.partition() or 0,
                    headers=message.headers(),
                )
                producer.poll(0)
        assert producer.flush(60) == 0
    finally:
        consumer.close()


@pytest.fixture
def other_stack() -> Iterator[EmbeddedStack]:
    """The cluster that is there after the disaster."""
    with EmbeddedStack.temporary() as running:
        yield running


def view_adds_up(settings: Settings) -> bool:
    return cqrs(settings, "views", "status", "--check").returncode == 0


async def test_a_deployment_is_made_again_from_copies_of_three_topics(
    stack: EmbeddedStack, other_stack: EmbeddedStack
) -> None:
    secret = {"master_key": new_master_key(), "encrypt_personal_data": True}
    with (
        deployment(stack, "commands", "views", **secret) as lost,
        deployment(other_stack, namespace=lost.settings.namespace, **secret) as new,
    ):
        settings, names = new.settings, new.names
        done(
            lost.settings,
            *("send", "register", "--id", "anna", "--email", "anna@example.org"),
            *("--first-name", "Anna", "--last-name", "Li"),
        )
        send(lost.settings, 300, seed=1)
        copy(lost.settings, settings, names.changelog)
        send(lost.settings, 100, seed=2)  # the events are ahead of the states
        done(lost.settings, "send", "update", "--id", "anna", "--email", "later@example.org")
        copy(lost.settings, settings, names.events, names.keys)

        with step("topics adopt"):
            done(settings, "topics", "adopt", "--all", "--yes")
        with step("state verify"):
            differs = cqrs(settings, "state", "verify", timeout=180)
            assert differs.returncode == 1, (differs.stdout, differs.stderr)
        with step("state rebuild"):
            done(settings, "state", "rebuild", "--all")
        done(settings, "state", "verify")

        with step("until a worker decides"):
            new.start("commands")
            words = ["send", "update", "--id", "anna", "--first-name", "Ann", "--json"]
            outcome = json.loads(done(settings, *words))
            assert outcome["status"] == "accepted"
        with step("until the view is there"):
            new.start("views")
            await wait_until(lambda: view_adds_up(settings), timeout=120)
        search = ["search", "email", "later@example", "--at-least", outcome["token"], "--json"]
        found = done(settings, *search)
        assert '"Ann"' in found
        with step("verify"):
            done(settings, "verify")
