"""Make the certificates, passwords and keys of `deploy/compose.yaml`, each in a file of its own.

`docker compose run --rm secrets` runs it once, in the image. A second run adds what an older
version did not make. To renew certificates and passwords, remove `ca.pem` before it. Keys always
stay: what is stored cannot be read without them. The folder is for its owner alone; the files in it
can be read by any user id, because those of the containers differ.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import ipaddress
import json
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from deploy.cli.acls import acls
from deploy.rights import elasticsearch_rights
from deploy.roles import ROLES
from streams.encryption.keys import new_master_key
from streams.settings import Settings, read_settings

_TEMPLATE = Path(__file__).with_name("kafka.properties")
_ADMIN = "admin"
_HOSTS = ("kafka", "elasticsearch", "localhost")
_VALID_FOR = datetime.timedelta(days=825)
_ITERATIONS = 10_000  # of the hash that Elasticsearch calls pbkdf2
_SIGNS_CERTIFICATES = x509.KeyUsage(
    key_cert_sign=True,
    crl_sign=True,
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


def make_secrets(folder: Path) -> None:
    """Write all files into this folder; without `ca.pem` all are new, except keys."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _keep(folder, "control-key", new_master_key())  # a folder that an older version made lacks it
    if (folder / "ca.pem").exists():
        return
    _keep(folder, "master-key", new_master_key())
    _keep(folder, "grafana-password", secrets.token_urlsafe(24))  # Grafana's database has it
    principals = {f"cqrs-{role}": secrets.token_urlsafe(24) for role in ROLES}
    files = {
        **_certificates(),
        **{f"{name}-password": password for name, password in principals.items()},
        **_kafka(principals),
        **_elasticsearch(principals),
    }
    for name, content in sorted(files.items(), key=lambda file: file[0] == "ca.pem"):  # it is last
        _write(folder, name, content)


def _keep(folder: Path, name: str, content: str) -> None:
    """Write a file that is not there."""
    if not (folder / name).exists():
        _write(folder, name, content)


def _write(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content)
    (folder / name).chmod(0o644)


def _kafka(principals: Mapping[str, str]) -> Mapping[str, str]:
    """Return the broker's configuration, that of its administrator, and the ACLs as commands."""
    admin = secrets.token_urlsafe(24)
    module = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    login = f'username="{_ADMIN}" password="{admin}"'
    users = " ".join(
        f'user_{name}="{word}"' for name, word in {**principals, _ADMIN: admin}.items()
    )
    settings = Settings.model_validate(
        {"bootstrap_servers": "kafka:9093", "namespace": read_settings().namespace}
    )
    return {
        "server.properties": (
            f"{_TEMPLATE.read_text()}"
            f"listener.name.sasl_ssl.plain.sasl.jaas.config={module} {login} {users};\n"
        ),
        "admin.properties": (
            "security.protocol=SASL_SSL\nsasl.mechanism=PLAIN\n"
            f"sasl.jaas.config={module} {login};\n"
            "ssl.truststore.type=PEM\nssl.truststore.location=/etc/kafka/secrets/ca.pem\n"
        ),
        "kafka-acls": "set -e\n"
        + "".join(f"{acls(role, f'User:cqrs-{role}', 'kafka-acls', settings)}\n" for role in ROLES),
    }


def _elasticsearch(principals: Mapping[str, str]) -> Mapping[str, str]:
    """Return users and roles in the form of Elasticsearch's file realm."""
    rights = {f"cqrs-{role}": elasticsearch_rights(role, read_settings()) for role in ROLES}
    names = [name for name, granted in rights.items() if granted is not None]
    return {
        "users": "".join(f"{name}:{_hashed(principals[name])}\n" for name in names),
        "users_roles": "".join(f"{name}:{name}\n" for name in names),
        # Elasticsearch cuts the file into roles at each line that begins without white space.
        "roles.yml": "".join(f"{name}: {json.dumps(rights[name])}\n" for name in names),
    }


def _hashed(password: str) -> str:
    salt = os.urandom(32)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ITERATIONS, 32)
    salted, hashed = (base64.b64encode(part).decode() for part in (salt, digest))
    return f"{{PBKDF2}}{_ITERATIONS}${salted}${hashed}"


def _certificates() -> Mapping[str, str]:
    """Return a CA's certificate, and certificate and key of the servers, which it has signed.

    Its own key is nowhere: to renew one, both are made again.
    """
    ca_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name, server_name = _name("cqrs-streams CA"), _name("server")
    ca = (
        _certificate(ca_name, ca_key.public_key(), ca_name, ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_SIGNS_CERTIFICATES, critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    addresses = [*map(x509.DNSName, _HOSTS), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    server = (
        _certificate(server_name, server_key.public_key(), ca_name, ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    key = server_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    certificate, of_ca = (
        one.public_bytes(serialization.Encoding.PEM).decode() for one in (server, ca)
    )
    return {
        "ca.pem": of_ca,
        "server.key": key,
        "server.crt": certificate,
        "server.pem": key + certificate + of_ca,
    }


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _certificate(
    subject: x509.Name,
    key: ec.EllipticCurvePublicKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePublicKey,
) -> x509.CertificateBuilder:
    """Return what all certificates have; since 3.13 Python insists on the ids of both keys."""
    now = datetime.datetime.now(datetime.timezone.utc)
    id_of_key = x509.SubjectKeyIdentifier.from_public_key(key)
    id_of_issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .add_extension(id_of_key, critical=False)
        .add_extension(id_of_issuer, critical=False)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + _VALID_FOR)
    )


if __name__ == "__main__":
    make_secrets(Path(sys.argv[1]))
