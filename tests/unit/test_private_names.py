"""The private names of other libraries: all that are used are listed, and are still there."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest
from faust.transport.drivers import aiokafka as driver

from tests.unit.private_name_checks import (
    Use,
    all_uses,
    missing,
    not_used,
    uses_by_inheritance,
    uses_in_text,
)
from tests.unit.private_names import LIBRARIES, PRIVATE_NAMES, Library, PrivateName

PYPROJECT = (Path(__file__).parents[2] / "pyproject.toml").read_text()


def test_no_upgrade_has_taken_a_name_away() -> None:
    lines = [line for line in map(missing, PRIVATE_NAMES) if line is not None]
    assert not lines, "\n".join(lines)


def test_every_private_name_that_is_used_is_listed() -> None:
    lines = [
        str(use)
        for use in all_uses()
        if not any(use.is_listed_as(entry) for entry in PRIVATE_NAMES)
    ]
    assert not lines, "\n".join(lines)


def test_every_name_that_is_listed_is_used() -> None:
    lines = [line for line in map(not_used, PRIVATE_NAMES) if line is not None]
    assert not lines, "\n".join(lines)


@pytest.mark.parametrize("library", LIBRARIES.values(), ids=lambda library: library.distribution)
def test_the_list_is_for_the_versions_that_are_installed(library: Library) -> None:
    assert f'"{library.distribution}{library.versions}"' in PYPROJECT


AIOKAFKA = f"aiokafka {version('aiokafka')}"
FAUST = f"faust-streaming {version('faust-streaming')}"


@pytest.mark.parametrize(
    ("name", "library"),
    [
        ("aiokafka.fetching", AIOKAFKA),
        ("aiokafka.fetching:Fetcher", AIOKAFKA),
        ("aiokafka.producer.sender:NO_BACKOFF", AIOKAFKA),
        ("aiokafka.consumer.fetcher:Fetcher._chunks", AIOKAFKA),
        ("aiokafka.consumer.fetcher:Puller._records", AIOKAFKA),
        ("aiokafka.producer.sender:AddPartitionsToTxnHandler(sender, partitions)", AIOKAFKA),
        ("aiokafka.producer.sender:AddPartitionsToTxnHandler(topic_partitions, sender)", AIOKAFKA),
        ("faust.app.base:App.consumer_generation_id", FAUST),  # only its interface has it
    ],
)
def test_a_name_that_is_gone_has_one_line_which_says_what_it_was_for(
    name: str, library: str
) -> None:
    entry = PrivateName(name, "streams/worker/fetcher.py", "takes chunks out of it")
    assert missing(entry) == (
        f"{library}: {name} is gone; streams/worker/fetcher.py takes chunks out of it"
    )


@pytest.mark.parametrize(
    "name",
    [
        "aiokafka.producer",
        "aiokafka.producer.sender:BACKOFF_OVERRIDE",
        "aiokafka.consumer.fetcher:Fetcher._notify",  # of the class
        "aiokafka.consumer.fetcher:Fetcher._records",  # of its instances
        "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread.call_thread",  # of a base
        "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread.thread_loop",  # of its instances
        "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread(consumer, loop, beacon)",
    ],
)
def test_a_name_is_found_wherever_its_library_has_it(name: str) -> None:
    assert missing(PrivateName(name, "streams/worker/fetcher.py", "uses it")) is None


@pytest.mark.parametrize("used_in", ["streams/settings.py", "streams/no_such_file.py"])
def test_an_entry_that_its_file_does_not_use_has_a_line(used_in: str) -> None:
    name = "aiokafka.consumer.fetcher:Fetcher._records"
    assert not_used(PrivateName(name, used_in, "takes chunks out of it")) == (
        f"{name} is listed and {used_in} does not use it"
    )


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("from aiokafka import AIOKafkaProducer", set()),
        ("import aiokafka.util", {"aiokafka.util"}),
        ("from aiokafka.util import wait_for", {"aiokafka.util:wait_for"}),
        (
            "from aiokafka.producer import sender\nsender.log.name",
            {"aiokafka.producer.sender", "aiokafka.producer.sender:log"},
        ),
        ("from rich._loop import loop_first", {"rich._loop:loop_first"}),
        ("from rich.table import _Cell", {"rich.table:_Cell"}),
        ("from streams.kafka.clients import _stop", set()),
        ("def f(producer):\n    producer._sender", {"_sender"}),
        ("def f(producer):\n    producer._sender = None", {"_sender"}),
        (
            "def f(producer):\n    return producer._sender.client.close()",
            {"_sender", "client", "close"},
        ),
        ("def f(consumer):\n    it = consumer._fetcher\n    it.close()", {"_fetcher", "close"}),
        ("def f(a):\n    b, c = a._b, a.c\n    b.x()\n    c.y()", {"_b", "x"}),
        ("def f(a):\n    a._task.cancel()", {"_task"}),
        ("class A:\n    def f(self):\n        self._a.b()", set()),
        ("class A:\n    def _f(self, other):\n        other._f()", set()),
        ("import os\nos._exit(1)", set()),
    ],
)
def test_private_names_are_found_in_code(text: str, names: set[str]) -> None:
    assert {name for _, name in uses_in_text(text)} == names


class Derived(driver.Consumer):
    """Overrides an attribute and a method, and uses one of each kind."""

    flow_active = False

    async def perform_seek(self) -> None:
        self.log.info("as in any service of mode's, which is public")
        self.positions = 0
        await self.seek_wait({})
        self._active_partitions.clear()


def test_private_names_are_found_in_classes() -> None:
    found = list(uses_by_inheritance(Derived))
    assert {use.name for use in found} == {
        "flow_active",
        "perform_seek",
        "seek_wait",
        "_active_partitions",
    }
    assert {use.owner for use in found} == {Derived}


def test_a_use_is_listed_by_file_and_name_and_class() -> None:
    entry = PrivateName("faust.transport.consumer:Consumer.flow_active", "here.py", "sets it")
    assert Use("here.py", 1, "flow_active").is_listed_as(entry)
    assert Use("here.py", 1, "flow_active", Derived).is_listed_as(entry)
    assert Use("here.py", 1, "faust.transport.consumer:Consumer").is_listed_as(entry)
    assert not Use("there.py", 1, "flow_active").is_listed_as(entry)
    assert not Use("here.py", 1, "flow_active", Use).is_listed_as(entry)
    assert not Use("here.py", 1, "active").is_listed_as(entry)
    assert not Use("here.py", 1, "faust.transport.consumer:Cons").is_listed_as(entry)
    assert str(Use("here.py", 7, "flow_active", Derived)) == (
        "here.py:7 uses flow_active of Derived, which is not listed"
    )
