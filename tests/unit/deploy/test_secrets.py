"""The files of a secured stack: complete, for their owner only, and kept."""

from __future__ import annotations

import ssl
from pathlib import Path

from deploy.embedded.ports import Ports
from deploy.embedded.secrets import ADMIN, PRINCIPALS, Secrets
from streams.kafka.clients import connection_options
from streams.settings import Settings

PORTS = Ports(kafka=20_001, controller=20_002, elasticsearch=20_003, kafka_certificates=20_004)


def test_the_files(tmp_path: Path) -> None:
    secrets = Secrets(tmp_path)
    secrets.ensure()
    secrets.write_api_key("client", "abc")
    secrets.write_environments(PORTS)
    assert secrets.folder.stat().st_mode & 0o777 == 0o700
    before = {path: path.read_text() for path in secrets.folder.iterdir()}
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in before)
    secrets.ensure()
    assert {path: path.read_text() for path in secrets.folder.iterdir()} == before
    assert len({secrets.password(principal) for principal in PRINCIPALS}) == len(PRINCIPALS)


def test_what_a_principal_connects_with(tmp_path: Path) -> None:
    secrets = Secrets(tmp_path)
    secrets.ensure()
    secrets.write_api_key("client", "abc")
    secrets.write_environments(PORTS)
    for principal in PRINCIPALS:
        settings = Settings.model_validate(secrets.settings(principal, PORTS))
        options = connection_options(settings)
        assert isinstance(options["ssl_context"], ssl.SSLContext)
        assert options["sasl_plain_username"] == principal
        assert options["sasl_plain_password"] == secrets.password(principal)
        written = (secrets.folder / f"{principal}.env").read_text()
        assert secrets.password(principal) not in written
        assert f"export CQRS_KAFKA_USERNAME={principal}\n" in written
    client = Settings.model_validate(secrets.settings("client", PORTS))
    assert client.secret("elasticsearch_api_key") == "abc"
    admin = Settings.model_validate(secrets.settings(ADMIN, PORTS))
    assert admin.elasticsearch_username == "elastic"
