"""A server whose certificate is not its own, or that has none, gets no credentials."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import trustme

from agents.user_views import USER_VIEWS
from deploy.embedded.ports import HOST
from deploy.embedded.stack import EmbeddedStack
from models.errors import Fatal
from streams.elasticsearch.connection import connect
from streams.kafka.clients import admin_client
from streams.settings import Settings
from streams.views.indices import ViewIndices
from tests.harness.tls_front import tls_front


async def answer_of_kafka(settings: Settings) -> str:
    """The line with which a client does not start; empty if it does."""
    try:
        async with admin_client(settings) as admin:
            await admin.list_topics()
    except Fatal as error:
        return str(error)
    return ""


async def answer_of_elasticsearch(settings: Settings) -> str:
    """The line of a first request; empty if it is answered."""
    try:
        async with connect(settings, timeout=30) as client:
            await ViewIndices.from_settings(settings, client, USER_VIEWS).all()
    except Fatal as error:
        return str(error)
    return ""


def port_of(address: object) -> int:
    return int(str(address).rpartition(":")[2])


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("expired", "certificate has expired"),
        ("of another host", "certificate is not valid for '127.0.0.1'"),
        ("its own", ""),
    ],
)
async def test_a_certificate(
    secured_servers: EmbeddedStack, tmp_path: Path, kind: str, reason: str
) -> None:
    ca, ca_file = trustme.CA(), tmp_path / "ca.pem"
    now = datetime.now(timezone.utc)
    certificate = {
        "expired": lambda: ca.issue_cert(HOST, not_after=now - timedelta(minutes=1)),
        "of another host": lambda: ca.issue_cert("kafka.example.org"),
        "its own": lambda: ca.issue_cert(HOST),
    }[kind]()
    # Clients learn the broker's own address through the front, and connect to that.
    stack_ca = secured_servers.secrets.ca_file
    ca_file.write_bytes(stack_ca.read_bytes() + ca.cert_pem.bytes())
    own: Mapping[str, Any] = {
        **secured_servers.settings("operator"),
        "kafka_ca_file": ca_file,
        "elasticsearch_ca_file": ca_file,
    }
    ports = port_of(own["bootstrap_servers"]), port_of(own["elasticsearch_url"])
    async with (
        tls_front(ports[0], certificate, stack_ca) as kafka,
        tls_front(ports[1], certificate, stack_ca) as elasticsearch,
    ):
        there = Settings.model_validate(
            {
                **own,
                "bootstrap_servers": f"{HOST}:{kafka}",
                "elasticsearch_url": f"https://{HOST}:{elasticsearch}",
            }
        )
        of_kafka = await answer_of_kafka(there)
        of_elasticsearch = await answer_of_elasticsearch(there)
    if not reason:
        assert (of_kafka, of_elasticsearch) == ("", "")
        return
    assert of_kafka.startswith(f"the certificate of Kafka at {there.bootstrap_servers} is not acc")
    assert of_elasticsearch.startswith(f"No TLS with Elasticsearch at {there.elasticsearch_url}: ")
    for line in (of_kafka, of_elasticsearch):
        assert reason in line
        assert "\n" not in line


async def test_tls_where_there_is_none(
    servers: EmbeddedStack, secured_servers: EmbeddedStack
) -> None:
    ca_file = secured_servers.secrets.ca_file
    settings = Settings(
        bootstrap_servers=servers.bootstrap_servers,
        kafka_security="ssl",
        kafka_ca_file=ca_file,
        elasticsearch_url=servers.elasticsearch_url.replace("http:", "https:"),
        elasticsearch_ca_file=ca_file,
    )
    assert "check CQRS_KAFKA_SECURITY=ssl" in await answer_of_kafka(settings)
    line = await answer_of_elasticsearch(settings)
    assert line.startswith(f"No TLS with Elasticsearch at {settings.elasticsearch_url}: ")
