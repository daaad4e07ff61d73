"""Every way in which a secured server refuses a client has its line, also for a worker."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import trustme
from pydantic import SecretStr

from agents.user_views import USER_VIEWS
from deploy.embedded.stack import EmbeddedStack
from deploy.ephemeral import WorkerProcess
from deploy.waiting import wait_until
from models.errors import CqrsError, Fatal, Transient
from streams.elasticsearch.connection import connect
from streams.kafka.clients import admin_client, new_producer, started
from streams.settings import Settings
from streams.views.indices import ViewIndices
from tests.harness.command_line import cqrs
from tests.harness.read_side import serve
from tests.harness.secured import Secured

WRONG = SecretStr("wrong")


@pytest.fixture(autouse=True)
def what_is_left_of_connections() -> Iterator[None]:
    """Collect them here: closing TLS waits for the other side, and a test's loop ends before."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A CA that nobody trusts, and a client certificate of it."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    ca.issue_cert("client", common_name="client").private_key_and_cert_chain_pem.write_to_path(
        tmp_path / "client.pem"
    )
    return tmp_path


def kafka_settings(stack: EmbeddedStack, case: str, foreign: Path) -> tuple[Settings, str]:
    """The settings of a case, and what its line has to contain."""
    own = {
        name: value
        for name, value in stack.settings("client").items()
        if not name.startswith("elasticsearch")
    }
    password = {**own, "kafka_password_file": None}
    no_sasl = {name: own[name] for name in ("bootstrap_servers", "kafka_ca_file")}
    no_tls = {name: value for name, value in own.items() if name != "kafka_ca_file"}
    port = stack.certificates_address
    with_certificate = {**no_sasl, "bootstrap_servers": port, "kafka_security": "ssl"}
    check = "check CQRS_KAFKA_SECURITY="
    cases: Mapping[str, tuple[Mapping[str, Any], str]] = {
        "another CA": ({**own, "kafka_ca_file": foreign / "ca.pem"}, "is not accepted: "),
        "wrong password": (
            {**password, "kafka_password": WRONG},
            "refuses user client with SCRAM-SHA-512: wrong user, password or mechanism",
        ),
        "wrong password, PLAIN": (
            {**password, "kafka_password": WRONG, "kafka_sasl_mechanism": "PLAIN"},
            "refuses user client with PLAIN: wrong user, password or mechanism",
        ),
        "unknown user": ({**own, "kafka_username": "nobody"}, "refuses user nobody with SCRAM-SHA"),
        "another mechanism": (
            {**own, "kafka_sasl_mechanism": "SCRAM-SHA-256"},
            "does not offer SCRAM-SHA-256: check CQRS_KAFKA_SASL_MECHANISM",
        ),
        "plaintext to TLS": (
            {"bootstrap_servers": own["bootstrap_servers"]},
            f"wants TLS: {check}plaintext",
        ),
        "SASL without TLS": (
            {**no_tls, "kafka_security": "sasl_plaintext"},
            f"wants TLS: {check}sasl_plaintext",
        ),
        "TLS without SASL": ({**no_sasl, "kafka_security": "ssl"}, f"{check}ssl"),
        "SASL where there is none": (
            {
                **own,
                "bootstrap_servers": port,
                "kafka_cert_file": stack.secrets.folder / "client.pem",
            },
            f"has no SASL: {check}sasl_ssl",
        ),
        "no certificate": (with_certificate, "CQRS_KAFKA_CERT_FILE"),
        "a foreign certificate": (
            {**with_certificate, "kafka_cert_file": foreign / "client.pem"},
            "CQRS_KAFKA_CERT_FILE",
        ),
        "a port of Elasticsearch": (
            {**own, "bootstrap_servers": stack.elasticsearch_url.removeprefix("https://")},
            "is a web server, not Kafka: check CQRS_BOOTSTRAP_SERVERS",
        ),
    }
    settings, line = cases[case]
    return Settings.model_validate(settings), line


@pytest.mark.parametrize(
    "case",
    [
        "another CA",
        "wrong password",
        "wrong password, PLAIN",
        "unknown user",
        "another mechanism",
        "plaintext to TLS",
        "SASL without TLS",
        "TLS without SASL",
        "SASL where there is none",
        "no certificate",
        "a foreign certificate",
        "a port of Elasticsearch",
    ],
)
async def test_kafka_refuses_a_client(
    secured_servers: EmbeddedStack, foreign: Path, case: str
) -> None:
    settings, expected = kafka_settings(secured_servers, case, foreign)
    with pytest.raises(Fatal) as of_admin:
        async with admin_client(settings):
            pass
    with pytest.raises(Fatal) as of_producer:
        async with started(new_producer(settings), settings):
            pass
    for refused in (of_admin, of_producer):
        line = str(refused.value)
        assert expected in line
        assert "\n" not in line
        assert "wrong" not in line.replace("wrong user", "")


@pytest.mark.parametrize(
    "changes",
    [{}, {"kafka_sasl_mechanism": "PLAIN"}, {"kafka_security": "ssl"}],
    ids=["SCRAM", "PLAIN", "certificate"],
)
async def test_every_way_in(secured_servers: EmbeddedStack, changes: Mapping[str, Any]) -> None:
    own: dict[str, Any] = {**secured_servers.settings("admin"), **changes}
    if "kafka_security" in changes:
        own["bootstrap_servers"] = secured_servers.certificates_address
        own["kafka_cert_file"] = secured_servers.secrets.folder / "admin.pem"
        del own["kafka_username"], own["kafka_password_file"]
    async with admin_client(Settings.model_validate(own)) as admin:
        assert await admin.list_topics() is not None


@pytest.mark.parametrize("role", ["commands", "views"])
async def test_a_worker_and_the_command_line_say_it(
    secured_servers: EmbeddedStack, foreign: Path, tmp_path: Path, role: Any
) -> None:
    settings, expected = kafka_settings(secured_servers, "wrong password", foreign)
    with WorkerProcess(role, settings, tmp_path) as worker:
        assert worker.wait(timeout=60) == 1
        last = worker.log_text.splitlines()[-1]
        assert last.startswith("error: ")
        assert expected in last
        assert "Traceback" not in worker.log_text
    done = cqrs(settings, "worker", role)
    assert done.returncode not in (0, 70)
    assert done.stderr.startswith("cqrs: ")
    assert expected in done.stderr


async def failure(settings: Settings) -> CqrsError:
    """What a first request to Elasticsearch raises."""
    async with connect(settings, timeout=30) as client:
        with pytest.raises(CqrsError) as refused:
            await ViewIndices.from_settings(settings, client, USER_VIEWS).all()
    line = str(refused.value)
    assert "\n" not in line
    return refused.value


async def test_elasticsearch_refuses_a_client(
    secured_servers: EmbeddedStack, foreign: Path
) -> None:
    url = secured_servers.elasticsearch_url
    own = {
        "elasticsearch_url": url,
        "elasticsearch_ca_file": secured_servers.secrets.ca_file,
    }
    nobody = await failure(Settings.model_validate(own))
    key = await failure(Settings.model_validate({**own, "elasticsearch_api_key": WRONG}))
    user = await failure(
        Settings.model_validate(
            {**own, "elasticsearch_username": "elastic", "elasticsearch_password": WRONG}
        )
    )
    for error in (nobody, key, user):
        assert isinstance(error, Fatal)
        assert str(error).startswith(f"Elasticsearch at {url} refuses the credentials (401)")
    other = await failure(
        Settings.model_validate({**own, "elasticsearch_ca_file": foreign / "ca.pem"})
    )
    assert isinstance(other, Fatal)
    assert str(other).startswith(f"No TLS with Elasticsearch at {url}: ")
    plain = url.replace("https:", "http:")
    without_tls = await failure(Settings(elasticsearch_url=plain))
    assert isinstance(without_tls, Transient)  # a server that hangs up may be starting
    assert "does it want https?" in str(without_tls)


async def test_privileges_that_are_missing(secured_servers: EmbeddedStack, tmp_path: Path) -> None:
    secured = await Secured.create(secured_servers, tmp_path)
    reader = await secured.role("client")
    async with connect(secured.admin, timeout=30) as client:
        admin = ViewIndices.from_settings(secured.admin, client, USER_VIEWS)
        await admin.create(1, {}, followed=True)
        await serve(admin, 1)
        name = f"{admin.alias}-v1"
    async with connect(reader, timeout=30) as client:
        indices = ViewIndices.from_settings(reader, client, USER_VIEWS)
        with pytest.raises(Fatal, match=r"\(403\), a privilege is missing: .*`cqrs topics acls`"):
            await indices.create(2, {}, followed=True)
        with pytest.raises(Fatal, match=r"\(403\), a privilege is missing"):
            await indices.store(name).bulk_index([DOCUMENT])
    # Who may write somewhere may send the request; then each document is refused.
    somewhere = {"indices": [{"names": ["somewhere"], "privileges": ["write"]}]}
    async with connect(secured.admin, timeout=30) as client:
        key = await client.security.create_api_key(
            name="somewhere", role_descriptors={"role": somewhere}
        )
    elsewhere = reader.model_copy(update={"elasticsearch_api_key": SecretStr(key["encoded"])})
    async with connect(elsewhere, timeout=30) as client:
        store = ViewIndices.from_settings(elsewhere, client, USER_VIEWS).store(name)
        with pytest.raises(Fatal, match="refuses to write to .*, a privilege is missing"):
            await store.bulk_index([DOCUMENT])


async def test_an_api_key_that_expires(secured_servers: EmbeddedStack, tmp_path: Path) -> None:
    secured = await Secured.create(secured_servers, tmp_path)
    async with connect(secured.admin, timeout=30) as client:
        made = await client.security.create_api_key(name="short", expiration="1s")
    settings = Settings.model_validate(
        {
            "elasticsearch_url": secured.admin.elasticsearch_url,
            "elasticsearch_ca_file": secured.admin.elasticsearch_ca_file,
            "elasticsearch_api_key": SecretStr(made["encoded"]),
        }
    )

    async def expired() -> bool:
        try:
            async with connect(settings, timeout=30) as client:
                await ViewIndices.from_settings(settings, client, USER_VIEWS).all()
        except Fatal as error:
            return "(401)" in str(error) and "expired" in str(error)
        return False

    await wait_until(expired)


DOCUMENT = {
    "id": "anna",
    "email": "anna@example.org",
    "firstName": "Anna",
    "lastName": "Muster",
    "isActive": True,
    "registeredAt": "2026-11-23T12:00:00.000Z",
    "lastUpdated": "2026-11-23T12:00:00.000Z",
    "version": 1,
}
