"""The compose file: settings, files and versions that there are."""

from __future__ import annotations

import runpy
import ssl
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.embedded.lockfile import ELASTICSEARCH_VERSION, KAFKA_VERSION
from deploy.rights import elasticsearch_rights
from deploy.supervisor import ROLES
from streams.settings import Settings
from tests.harness.shipped import DEPLOY, documents, image_environment, settings_of

FILE = DEPLOY / "compose.yaml"
SECRETS = "compose/secrets/"
PUBLIC = {"kafka-acls", "users_roles"}


def services() -> dict[str, dict[str, Any]]:
    (found,) = documents(FILE)
    return dict(found["services"])


def ours() -> list[str]:
    """The services of our image that connect to the servers."""
    return [
        name
        for name, service in services().items()
        if service["image"] == "cqrs-streams" and "environment" in service
    ]


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compose") / "secrets"
    make(folder)
    return folder


def make(folder: Path) -> None:
    runpy.run_path(str(DEPLOY / "compose" / "make_secrets.py"))["make_secrets"](folder)


@pytest.mark.parametrize("name", ours())
def test_the_environment_of_a_service_is_valid(name: str, secrets: Path) -> None:
    """And each secret that it names is a file that it gets."""
    service = services()[name]
    variables = {key: str(value) for key, value in service["environment"].items()}
    settings_of({**image_environment(), **variables})
    files = {value for value in variables.values() if value.startswith("/run/secrets/")}
    assert files == {f"/run/secrets/{secret}" for secret in service["secrets"]}


def test_there_is_a_worker_of_each_role() -> None:
    words = [service.get("command", []) for service in services().values()]
    assert sorted(command[1] for command in words if command[:1] == ["worker"]) == sorted(ROLES)


@pytest.mark.parametrize("name", ours())
def test_our_containers_have_no_privileges(name: str) -> None:
    service = services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_the_servers_are_those_that_are_tested() -> None:
    images = {service["image"] for service in services().values()}
    assert f"apache/kafka:{KAFKA_VERSION}" in images
    assert f"elasticsearch:{ELASTICSEARCH_VERSION}" in images
    assert not [image for image in images if image.endswith(":latest")]


def test_what_is_published_is_so_on_this_host_alone() -> None:
    published = [port for one in services().values() for port in one.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_mounted_files_exist_and_secrets_are_made(secrets: Path) -> None:
    (compose,) = documents(FILE)
    made = {f"{SECRETS}{path.name}" for path in secrets.iterdir()}
    for service in services().values():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith("./"):
                path = source.removeprefix("./")
                assert path in made or (DEPLOY / path).exists(), path
            else:
                assert source in compose["volumes"]
    assert {one["file"] for one in compose["secrets"].values()} <= made
    given = {
        secret if isinstance(secret, str) else secret["source"]
        for service in services().values()
        for secret in service.get("secrets", [])
    }
    assert given == set(compose["secrets"])


def test_only_their_owner_reaches_the_secrets(secrets: Path) -> None:
    assert secrets.stat().st_mode & 0o777 == 0o700
    ignored = (DEPLOY.parent / ".gitignore").read_text().splitlines()
    assert f"/deploy/{SECRETS}" in ignored
    assert f"deploy/{SECRETS.rstrip('/')}" in (DEPLOY.parent / ".dockerignore").read_text()


def test_secrets_that_are_there_stay(secrets: Path) -> None:
    before = {path: path.read_bytes() for path in secrets.iterdir()}
    make(secrets)
    assert {path: path.read_bytes() for path in secrets.iterdir()} == before


def test_a_secret_that_an_older_version_did_not_make_is_added(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("of the older version")
    make(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ca.pem", "control-key"]
    assert (tmp_path / "ca.pem").read_text() == "of the older version"


def test_certificates_and_passwords_are_renewed_and_keys_stay(tmp_path: Path) -> None:
    """A new master key would make the personal data unreadable."""
    make(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / "ca.pem").unlink()
    make(tmp_path)
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert after.keys() == before.keys()
    same = {name for name, content in after.items() if content == before[name]}
    assert same == {"control-key", "grafana-password", "master-key", "roles.yml", *PUBLIC}


def test_who_obeys_control_records_has_their_key_and_who_may_sign_them() -> None:
    having = {name for name in ours() if "control-key" in services()[name]["secrets"]}
    assert having == {"command-worker", "topics", "operator"}  # `topics` is of the operator, too


def test_the_certificate_is_for_the_names_of_the_servers(secrets: Path) -> None:
    context = ssl.create_default_context(cafile=secrets / "ca.pem")
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # the default since Python 3.13
    context.load_cert_chain(secrets / "server.pem")  # that key and certificate belong together
    servers = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    servers.load_cert_chain(secrets / "server.crt", secrets / "server.key")
    for host in ("kafka", "elasticsearch"):
        handshake(context, servers, host)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(context, servers, "other")


def handshake(context: ssl.SSLContext, servers: ssl.SSLContext, host: str) -> None:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(to_client, to_server, server_hostname=host)
    server = servers.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, server, client):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue


def test_users_have_the_rights_of_their_roles(secrets: Path) -> None:
    acls = (secrets / "kafka-acls").read_text()
    for role in ("command-worker", "view-worker", "client", "operator"):
        assert f"--allow-principal User:cqrs-{role} " in acls
    roles = yaml.safe_load((secrets / "roles.yml").read_text())
    assert roles["cqrs-client"] == elasticsearch_rights("client", Settings())
    users = dict(line.split(":") for line in (secrets / "users").read_text().splitlines())
    assert set(roles) == set(users) == {"cqrs-view-worker", "cqrs-client", "cqrs-operator"}


def test_prometheus_scrapes_every_worker() -> None:
    (config,) = documents(DEPLOY / "compose" / "prometheus.yaml")
    (job,) = config["scrape_configs"]
    assert job["job_name"] == "cqrs"
    (found,) = job["dns_sd_configs"]
    assert found["names"] == [
        name for name, one in services().items() if one.get("command", [""])[0] == "worker"
    ]
    assert str(found["port"]) == image_environment()["CQRS_HEALTH_PORT"]
