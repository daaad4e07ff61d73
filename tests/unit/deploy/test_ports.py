import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.embedded.ports import HOST, Ports, choose_ports, is_free
from deploy.embedded.stack import EmbeddedStack
from models.errors import Fatal

LAST = Ports(kafka=20_001, controller=20_002, elasticsearch=20_003)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as server:
        server.bind((HOST, 0))
        server.listen()
        yield server.getsockname()[1]


def test_ports_are_free_different_and_not_among_those_of_outgoing_connections() -> None:
    ports = choose_ports(None, None, None)
    chosen = {ports.kafka, ports.controller, ports.elasticsearch}
    assert len(chosen) == 3
    assert all(is_free(port) and port < 32_768 for port in chosen)


def test_ports_stay_the_same_unless_named() -> None:
    ports = choose_ports(LAST, None, None)
    assert (ports.kafka, ports.elasticsearch) == (LAST.kafka, LAST.elasticsearch)
    named = choose_ports(LAST, 9092, None)
    assert (named.kafka, named.elasticsearch) == (9092, LAST.elasticsearch)
    assert choose_ports(LAST, None, 0).elasticsearch != LAST.elasticsearch


def test_only_the_controllers_port_is_changed_automatically(taken: int) -> None:
    last = Ports(kafka=taken, controller=taken, elasticsearch=taken)
    ports = choose_ports(last, None, None)
    assert ports.kafka == ports.elasticsearch == taken
    assert ports.controller != taken


def test_ports_are_remembered_with_the_addresses(tmp_path: Path) -> None:
    path = tmp_path / "stack.json"
    assert Ports.read(path) is None
    LAST.write(path)
    assert Ports.read(path) == LAST
    assert f'"bootstrap_servers": "{LAST.bootstrap_servers}"' in path.read_text()


@pytest.mark.parametrize("text", ["", "{}", '{"ports": {"kafka": 1}}', "[]"])
def test_a_damaged_file_says_what_to_do(tmp_path: Path, text: str) -> None:
    path = tmp_path / "stack.json"
    path.write_text(text)
    with pytest.raises(Fatal, match="is damaged: remove it"):
        Ports.read(path)


def test_a_port_in_use_is_named_with_its_option(tmp_path: Path, taken: int) -> None:
    with pytest.raises(Fatal, match=f"port {taken} .* is in use; choose another with --kafka-port"):
        EmbeddedStack(tmp_path, kafka_port=taken).up()
    with pytest.raises(Fatal, match=f"port {taken} .*--elasticsearch-port"):
        EmbeddedStack(tmp_path, elasticsearch_port=taken).up()


def test_a_stack_stays_secured_or_not() -> None:
    assert not choose_ports(None, None, None).secure
    secured = choose_ports(None, None, None, secure=True)
    assert secured.secure
    assert secured.elasticsearch_url == f"https://127.0.0.1:{secured.elasticsearch}"
    assert choose_ports(secured, None, None).kafka_certificates == secured.kafka_certificates
    assert not choose_ports(LAST, None, None, secure=True).secure
