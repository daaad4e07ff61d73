"""Certificates and passwords of a secured stack, made on the fly and kept in its home.

One CA signs the certificate of both servers and one of each principal. All files are for their
owner only. They are as old as the stack's data, in which Kafka keeps the users.
"""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from deploy.embedded.ports import HOST, Ports
from deploy.embedded.shared_files import write_atomically
from deploy.roles import ROLES
from streams.private_folders import ensure_private

ADMIN = "admin"
"""May do everything, in both servers."""
SERVER = "server"
"""The servers themselves, by their certificate."""
PRINCIPALS = (ADMIN, *ROLES)
"""Users of Kafka: one per role, and `ADMIN`."""

FOLDER = "config/security"  # Elasticsearch reads files below its configuration only
_OWNER_ONLY = 0o600
_PASSWORD_BYTES = 18


class Secrets:
    """The files of one stack, in `folder`."""

    def __init__(self, home: Path) -> None:
        self.folder = home / FOLDER
        self.ca_file = self.folder / "ca.pem"
        self.server_file = self.folder / f"{SERVER}.pem"

    def ensure(self) -> None:
        """Make the files, unless they are there."""
        if self.ca_file.exists():
            return
        import trustme

        ensure_private(self.folder)
        ca = trustme.CA(organization_name="cqrs-streams, embedded stack")
        for name in (SERVER, *PRINCIPALS):
            hosts = (HOST, "localhost") if name == SERVER else (name,)
            certificate = ca.issue_cert(*hosts, common_name=name)
            key = load_pem_private_key(certificate.private_key_pem.bytes(), None).private_bytes(
                Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
            )
            chain = b"".join(part.bytes() for part in certificate.cert_chain_pems)
            self._write(f"{name}.pem", (key + chain).decode())
            if name == SERVER:  # Elasticsearch wants them apart
                self._write(f"{name}.key", key.decode())
                self._write(f"{name}.crt", chain.decode())
            self._write(f"{name}.password", secrets.token_urlsafe(_PASSWORD_BYTES))
        self._write("ca.pem", ca.cert_pem.bytes().decode())  # the last one: all are there

    def password(self, principal: str) -> str:
        """Return the password of a principal; `ADMIN`'s is also that of Elasticsearch's."""
        return (self.folder / f"{principal}.password").read_text()

    def api_key_file(self, principal: str) -> Path:
        """Return the file with the principal's API key for Elasticsearch."""
        return self.folder / f"{principal}.api-key"

    def write_api_key(self, principal: str, key: str) -> None:
        """Store the principal's API key."""
        self._write(self.api_key_file(principal).name, key)

    def settings(self, principal: str, ports: Ports) -> Mapping[str, object]:
        """Return the settings of a principal's connections, by name.

        `ADMIN` has a password for Elasticsearch, the others an API key if there is one.
        """
        password_file = self.folder / f"{principal}.password"
        elasticsearch: dict[str, object] = {}
        if principal == ADMIN:
            elasticsearch["elasticsearch_username"] = "elastic"
            elasticsearch["elasticsearch_password_file"] = password_file
        elif self.api_key_file(principal).exists():
            elasticsearch["elasticsearch_api_key_file"] = self.api_key_file(principal)
        return {
            "bootstrap_servers": ports.bootstrap_servers,
            "kafka_security": "sasl_ssl",
            "kafka_ca_file": self.ca_file,
            "kafka_username": principal,
            "kafka_password_file": password_file,
            "elasticsearch_url": ports.elasticsearch_url,
            "elasticsearch_ca_file": self.ca_file,
            **elasticsearch,
        }

    def write_environments(self, ports: Ports) -> None:
        """Write for each principal a file to source: `PRINCIPAL.env`."""
        for principal in PRINCIPALS:
            lines = (
                f"export CQRS_{name.upper()}={shlex.quote(str(value))}\n"
                for name, value in self.settings(principal, ports).items()
            )
            self._write(f"{principal}.env", "".join(lines))

    def _write(self, name: str, text: str) -> None:
        write_atomically(self.folder / name, text, mode=_OWNER_ONLY)
