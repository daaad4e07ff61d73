"""The rehearsal of `docs/deploy.md`: a deployment is made again from copies of three topics.

The copies are of different moments, as those of a mirror are. Nothing else is left: neither the
commands, nor the outcomes, nor the index, nor the disks of the workers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from deploy.embedded.stack import EmbeddedStack
from deploy.ephemeral import Deployment
from streams.encryption.keys import new_master_key
from streams.settings import Settings
from tests.harness.command_line import cqrs
from tests.harness.deployments import deployment

pytestmark = [pytest.mark.shipping, pytest.mark.timeout(600)]


def done(settings: Settings, *words: str, given: bytes = b"") -> str:
    """The output of a command that has to succeed."""
    ended = cqrs(settings, *words, given=given, timeout=180)
    assert ended.returncode == 0, (words, ended.stdout, ended.stderr)
    return ended.stdout


def send(settings: Settings, count: int, seed: int) -> None:
    generated = done(settings, "generate", str(count), "--seed", str(seed))
    done(settings, "send", "--from", "-", given=generated.encode())


def copy(source: Settings, topics: Iterable[tuple[str, str]]) -> None:
    """Copy what is committed, partition by partition, as a mirror does."""
    producer = Producer({"bootstrap.servers": source.bootstrap_servers, "acks": "all"})
    consumer = Consumer(
        {
            "bootstrap.servers": source.bootstrap_servers,
            "group.id": "mirror",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    try:
        for topic, copied in topics:
            consumer.assign([TopicPartition(topic, n, 0) for n in range(source.partitions)])
            ended = 0
            while ended < source.partitions:
                message = consumer.poll(60)
                assert message is not None
                if message.error():
                    ended += 1
                    continue
                producer.produce(
                    copied,
                    message.value(),
                    message.key(),
                    message.partition() or 0,
                    headers=message.headers(),
                )
                producer.poll(0)
        assert producer.flush(60) == 0
    finally:
        consumer.close()


def renamed(lost: Deployment, new: Deployment, *topics: str) -> Iterable[tuple[str, str]]:
    for topic in topics:
        yield getattr(lost.names, topic), getattr(new.names, topic)


def test_a_deployment_is_made_again_from_copies_of_three_topics(stack: EmbeddedStack) -> None:
    secret = {"master_key": new_master_key(), "encrypt_personal_data": True}
    with (
        deployment(stack, "commands", "views", **secret) as lost,
        deployment(stack, **secret) as new,
    ):
        done(
            lost.settings,
            *("send", "register", "--id", "anna", "--email", "anna@example.org"),
            *("--first-name", "Anna", "--last-name", "Li", "--wait"),
        )
        send(lost.settings, 300, seed=1)
        copy(lost.settings, renamed(lost, new, "events"))
        send(lost.settings, 100, seed=2)  # the other copies are ahead of the events
        done(lost.settings, "send", "update", "--id", "anna", "--email", "later@example.org")
        copy(lost.settings, renamed(lost, new, "keys", "changelog"))

        settings = new.settings
        done(settings, "topics", "adopt", "--all", "--yes")
        differs = cqrs(settings, "state", "verify", timeout=180)
        assert differs.returncode == 1, (differs.stdout, differs.stderr)
        done(settings, "state", "rebuild", "--all")
        done(settings, "state", "verify")

        for role in ("commands", "views"):
            new.start(role)
        updated = done(
            settings, *("send", "update", "--id", "anna", "--first-name", "Ann", "--wait", "--json")
        )
        assert json.loads(updated)["status"] == "accepted"
        found = done(settings, "search", "email", "anna@example", "--json")
        assert '"Ann"' in found
        assert "later" not in found
        done(settings, "verify")
        done(settings, "views", "status", "--check")
