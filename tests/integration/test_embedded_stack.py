"""The embedded stack: what it serves, what it survives, and that nothing of it stays behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil  # type: ignore[import-untyped]
import pytest
from confluent_kafka import Consumer, KafkaError, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from elasticsearch import Elasticsearch

from deploy.embedded import temporary_homes as temporary
from deploy.embedded.aot_caches import ensure_aot_caches
from deploy.embedded.processes import ServerProcess
from deploy.embedded.stack import EmbeddedStack, StackAddress, running_address
from deploy.embedded.start_progress import Progress
from models.errors import Fatal
from tests.harness.outputs import misfits
from tests.integration.server_processes import eventually, python, servers_of

OFFLINE = {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}


def create_topic(address: StackAddress | EmbeddedStack, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": address.bootstrap_servers})
    admin.create_topics([NewTopic(topic, 1)])[topic].result(30)


def produce(address: StackAddress | EmbeddedStack, topic: str, value: bytes) -> None:
    producer = Producer({"bootstrap.servers": address.bootstrap_servers})
    producer.produce(topic, value)
    assert producer.flush(30) == 0


def first_record(address: StackAddress | EmbeddedStack, topic: str) -> bytes:
    settings = {
        "bootstrap.servers": address.bootstrap_servers,
        "group.id": f"group-{uuid4()}",
        "auto.offset.reset": "earliest",
        "session.timeout.ms": 3000,  # shorter than Kafka's default minimum
    }
    consumer = Consumer(settings)
    try:
        consumer.subscribe([topic])
        message = consumer.poll(30)
        assert message is not None
        assert message.error() is None
        return bytes(message.value() or b"")
    finally:
        consumer.close()


def index(address: StackAddress | EmbeddedStack, name: str, document: dict[str, Any]) -> None:
    with Elasticsearch(address.elasticsearch_url) as client:
        client.index(index=name, id="1", document=document)


def document(address: StackAddress | EmbeddedStack, name: str) -> dict[str, Any]:
    with Elasticsearch(address.elasticsearch_url) as client:
        source: dict[str, Any] = client.get(index=name, id="1")["_source"]
        return source


def snapshot(address: StackAddress | EmbeddedStack, name: str) -> None:
    with Elasticsearch(address.elasticsearch_url) as client:
        client.snapshot.create_repository(
            name="r", repository={"type": "fs", "settings": {"location": "r"}}
        )
        client.snapshot.create(repository="r", snapshot="s", indices=name, wait_for_completion=True)


def cqrs(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, without a network."""
    return subprocess.run(
        [sys.executable, "-m", "deploy.cli", *arguments],
        env={**os.environ, **OFFLINE, "CQRS_STACK_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_both_servers_listen_on_this_machine_only(stack: EmbeddedStack) -> None:
    for server in (stack.kafka, stack.elasticsearch):
        listening = [
            connection.laddr.ip
            for connection in psutil.Process(server.pid).net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert listening
        assert {address.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}


def test_kafka_creates_no_topic_by_itself(stack: EmbeddedStack) -> None:
    topic = f"unknown-{uuid4()}"
    found = Producer({"bootstrap.servers": stack.bootstrap_servers}).list_topics(topic, 10)
    assert found.topics[topic].error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_kafka_keeps_its_records_over_a_kill(stack: EmbeddedStack) -> None:
    topic = f"kept-{uuid4()}"
    create_topic(stack, topic)
    produce(stack, topic, b"before")
    address, pid = stack.bootstrap_servers, stack.kafka.pid
    stack.kafka.kill()
    assert not stack.is_running
    assert running_address(stack.home) == stack.address  # Elasticsearch can still be used
    stack.kafka.start()
    assert stack.is_running
    assert stack.kafka.pid != pid
    assert stack.bootstrap_servers == address
    assert first_record(stack, topic) == b"before"


def is_mapped(file: Path, server: ServerProcess) -> bool:
    assert server.process is not None
    return str(file.resolve()) in {part.path for part in server.process.memory_maps()}


def test_a_start_uses_the_aot_cache(stack: EmbeddedStack) -> None:
    ensure_aot_caches(Progress())
    stack.kafka.kill()
    stack.kafka.start()
    assert is_mapped(stack.kafka.aot_cache, stack.kafka)


@pytest.mark.parametrize("cache", ["damaged", "of another class path"])
def test_an_aot_cache_that_does_not_fit_is_not_used(
    stack: EmbeddedStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str
) -> None:
    ensure_aot_caches(Progress())
    other = stack.kafka.aot_cache
    if cache == "damaged":
        other = tmp_path / "damaged.aot"
        other.write_bytes(stack.elasticsearch.aot_cache.read_bytes()[: 1 << 20])
    monkeypatch.setattr(ServerProcess, "aot_cache", other)
    stack.elasticsearch.kill()
    stack.elasticsearch.start()
    assert stack.is_running
    assert not is_mapped(other, stack.elasticsearch)


def test_elasticsearch_keeps_its_documents_over_a_kill(stack: EmbeddedStack) -> None:
    name = f"kept-{uuid4()}"
    index(stack, name, {"said": "before"})
    stack.elasticsearch.kill()
    stack.elasticsearch.start()
    assert document(stack, name) == {"said": "before"}


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A stack's home with a name that no configuration file takes unescaped; empty afterwards."""
    folder = tmp_path / "my stack = à la carte: $1 #2"
    yield folder
    EmbeddedStack(folder).down()


def test_a_stack_lives_on_its_own_keeps_its_data_and_goes_with_purge(home: Path) -> None:
    assert cqrs(home, "status").returncode == 3

    # Without a network, as the session's stack has the jars already; two starts make one stack.
    with ThreadPoolExecutor(2) as pool:
        started = list(pool.map(lambda _: cqrs(home, "up", "--json"), range(2)))
    assert [start.returncode for start in started] == [0, 0], started[0].stderr + started[1].stderr
    before = servers_of(home)
    assert len(before) == 2
    address = running_address(home)
    assert address is not None
    for start in started:
        assert misfits("up", "json", start.stdout) == []
        assert address.bootstrap_servers in start.stdout
        assert address.elasticsearch_url in start.stdout
    create_topic(address, "kept")
    produce(address, "kept", b"a record")
    index(address, "kept", {"a": "document"})

    shown = cqrs(home, "status", "--json")
    assert shown.returncode == 0
    status = json.loads(shown.stdout)
    assert [server["state"] for server in status["servers"]] == ["running", "running"]
    assert {server["pid"] for server in status["servers"]} == {server.pid for server in before}
    assert cqrs(home, "status").stdout.count("running") == 2
    assert "Kafka Server started" in cqrs(home, "logs", "kafka", "--lines", "1000").stdout
    assert len(cqrs(home, "logs", "--lines", "2").stdout.splitlines()) == 4

    other = cqrs(home, "up", "--kafka-port", "9")
    assert other.returncode == 75
    assert other.stderr.startswith("cqrs: kafka runs already, on port ")

    down = cqrs(home, "down", "--json")
    assert (down.returncode, misfits("down", "json", down.stdout)) == (0, [])
    assert servers_of(home) == []
    assert running_address(home) is None
    assert cqrs(home, "status").returncode == 3

    assert EmbeddedStack(home).up() == address
    assert first_record(address, "kept") == b"a record"
    assert document(address, "kept") == {"a": "document"}

    snapshot(address, "kept")
    assert (home / "snapshots").is_dir()
    assert cqrs(home, "down", "--purge").returncode == 0
    assert servers_of(home) == []
    assert [path.name for path in home.iterdir()] == [".lock"]


def test_an_interrupted_start_leaves_nothing_running(home: Path) -> None:
    start = python("from deploy.embedded.stack import EmbeddedStack; EmbeddedStack().up()", home)
    eventually(lambda: len(servers_of(home)) == 2)
    start.send_signal(signal.SIGINT)  # as Ctrl-C does
    start.communicate()
    assert start.returncode != 0
    # An interrupt while `spawn` returns leaves a server that it does not know: its pipe ends it.
    eventually(lambda: servers_of(home) == [], within=10)


def test_a_start_that_is_killed_leaves_nothing_running(home: Path) -> None:
    start = python("from deploy.embedded.stack import EmbeddedStack; EmbeddedStack().up()", home)
    eventually(lambda: len(servers_of(home)) == 2)
    start.kill()
    start.communicate()
    eventually(lambda: servers_of(home) == [], within=10)


TEMPORARY = """
import sys
from deploy.embedded.stack import EmbeddedStack
with EmbeddedStack.temporary() as stack:
    print(stack.home, flush=True)
    sys.stdin.read()
"""
NOT_WAITING = """
from deploy.embedded.processes import ServerProcess
ServerProcess.wait_ready = lambda *_: None
"""


def test_a_temporary_stack_ends_with_its_owner_however_that_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whoever else makes a temporary stack ends the servers of killed owners in the same folder.
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    owner = python(TEMPORARY)
    assert owner.stdout is not None
    home = Path(owner.stdout.readline().decode().strip())
    servers = servers_of(home)
    assert len(servers) == 2
    suspended = servers[0]
    suspended.suspend()  # cannot notice the end of its owner
    owner.kill()
    owner.communicate()
    eventually(lambda: servers_of(home) == [suspended], within=10)
    with temporary.home():
        assert servers_of(home) == []
        assert not home.exists()


def test_an_exception_in_the_block_ends_a_temporary_stack() -> None:
    failing = TEMPORARY.replace("sys.stdin.read()", "raise RuntimeError")
    owner = python(NOT_WAITING + failing)
    output, errors = owner.communicate()
    home = Path(output.decode().strip())
    assert b"RuntimeError" in errors
    assert servers_of(home) == []
    assert not home.exists()


def test_a_process_with_a_recycled_id_is_not_stopped(home: Path) -> None:
    bystander = python("input()")
    home.mkdir()
    EmbeddedStack(home).down()
    record = {"pid": bystander.pid, "token": "of a server that is long gone", "phase": "ready"}
    (home / "kafka.json").write_text(json.dumps(record))
    assert not EmbeddedStack(home).is_running
    EmbeddedStack(home).down()
    assert bystander.poll() is None
    bystander.communicate(b"\n")
    assert bystander.returncode == 0


def test_a_server_that_cannot_start_is_an_error_and_stops_the_other(home: Path) -> None:
    with pytest.raises(Fatal, match=r"^Kafka did not start: Too small maximum heap$"):
        EmbeddedStack(home, kafka_heap_mb=1).up()
    assert servers_of(home) == []


def test_too_little_memory_is_one_line(home: Path) -> None:
    with pytest.raises(
        Fatal, match=r"^too little memory: the stack needs \d+ MB, \d+ MB are free$"
    ):
        EmbeddedStack(home, elasticsearch_heap_mb=1 << 30).up()


def test_too_little_disk_space_is_one_line(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = shutil.disk_usage(home.parent)._replace(free=3 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(Fatal, match=r"^too little disk space: .* 3 MB are free$"):
        EmbeddedStack(home).up()


def test_a_home_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Fatal, match=r"^cannot keep the stack in "):
        EmbeddedStack(tmp_path / "file" / "home").up()


def test_a_home_that_elasticsearch_would_misread_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(Fatal, match=r"^Elasticsearch takes a path with a comma for two: "):
        EmbeddedStack(tmp_path / "one,two").up()


def test_logs_can_be_followed(stack: EmbeddedStack) -> None:
    topic = f"followed-{uuid4()}"
    command = [sys.executable, "-m", "deploy.cli", "logs", "kafka", "--lines", "1", "--follow"]
    environment = {**os.environ, "CQRS_STACK_HOME": str(stack.home)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as logs:
        assert logs.stdout is not None
        try:
            assert logs.stdout.readline()  # it has begun
            create_topic(stack, topic)
            assert any(topic.encode() in line for line in logs.stdout)
        finally:
            logs.terminate()


def test_logs_without_any_is_one_line(home: Path) -> None:
    shown = cqrs(home, "logs", "kafka")
    assert shown.returncode == 75
    assert shown.stderr.startswith("cqrs: nothing was logged yet in ")
