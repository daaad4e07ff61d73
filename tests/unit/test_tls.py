"""A TLS context checks certificate and host name; a file that is no use is one line."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from models.errors import Fatal
from streams.kafka.clients import connection_options
from streams.settings import Settings
from streams.tls import tls_context


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA, a client certificate with key, the key with a password, another key, and no PEM."""
    folder = tmp_path_factory.mktemp("tls")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.pem")
    client = ca.issue_cert("client.example.org")
    client.private_key_and_cert_chain_pem.write_to_path(folder / "both.pem")
    client.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    key = client.private_key_pem.bytes()
    (folder / "key.pem").write_bytes(key)
    locked = load_pem_private_key(key, None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"hunter2")
    )
    (folder / "locked.pem").write_bytes(locked)
    ca.issue_cert("other.example.org").private_key_pem.write_to_path(folder / "other.pem")
    (folder / "none.pem").write_text("no PEM")
    return folder


@pytest.mark.parametrize(
    ("names", "password"),
    [
        (["ca.pem", None, None], None),
        ([None, None, None], None),
        (["ca.pem", "both.pem", None], None),
        (["ca.pem", "cert.pem", "key.pem"], None),
        (["ca.pem", "cert.pem", "locked.pem"], "hunter2"),
    ],
)
def test_files_that_belong_together(
    files: Path, names: Sequence[str | None], password: str | None
) -> None:
    context = tls_context("CQRS_KAFKA", *_paths(files, names), password)
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize(
    ("names", "password", "line"),
    [
        (["gone.pem", None, None], None, "CQRS_KAFKA_CA_FILE ({0}) cannot be read: No such file"),
        (
            ["none.pem", None, None],
            None,
            "CQRS_KAFKA_CA_FILE ({0}) cannot be used as a certificate",
        ),
        (["ca.pem", "gone.pem", None], None, "CQRS_KAFKA_CERT_FILE ({1}) cannot be read: No such"),
        (["ca.pem", "none.pem", None], None, "CQRS_KAFKA_CERT_FILE ({1}) cannot be used as a cert"),
        (
            ["ca.pem", "cert.pem", "other.pem"],
            None,
            "CQRS_KAFKA_CERT_FILE ({1}), CQRS_KAFKA_KEY_FILE ({2}) do not belong together",
        ),
        (
            ["ca.pem", "cert.pem", "locked.pem"],
            "wrong",
            "CQRS_KAFKA_CERT_FILE ({1}), CQRS_KAFKA_KEY_FILE ({2}) cannot be used as a certificate",
        ),
        (  # without a password OpenSSL would ask on the terminal
            ["ca.pem", "cert.pem", "locked.pem"],
            None,
            "CQRS_KAFKA_CERT_FILE ({1}), CQRS_KAFKA_KEY_FILE ({2}) cannot be used as a certificate",
        ),
    ],
)
def test_files_that_are_no_use(
    files: Path, names: Sequence[str | None], password: str | None, line: str
) -> None:
    paths = _paths(files, names)
    with pytest.raises(Fatal) as refused:
        tls_context("CQRS_KAFKA", *paths, password)
    assert str(refused.value).startswith(line.format(*paths))
    assert "\n" not in str(refused.value)


def test_kafka_gets_the_context(files: Path) -> None:
    options = connection_options(
        Settings(
            kafka_security="ssl", kafka_ca_file=files / "ca.pem", kafka_cert_file=files / "both.pem"
        )
    )
    assert options["security_protocol"] == "SSL"
    assert options["ssl_context"].get_ca_certs()


def _paths(
    folder: Path, names: Sequence[str | None]
) -> tuple[Path | None, Path | None, Path | None]:
    ca, cert, key = (None if name is None else folder / name for name in names)
    return ca, cert, key
