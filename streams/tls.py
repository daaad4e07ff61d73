"""TLS contexts for clients, from PEM files."""

from __future__ import annotations

import ssl
from pathlib import Path

from models.errors import Fatal


def tls_context(
    prefix: str,
    ca_file: Path | None,
    cert_file: Path | None,
    key_file: Path | None,
    key_password: str | None = None,
) -> ssl.SSLContext:
    """Create a context that checks the server's certificate and its host name.

    Args:
        prefix: of the variables that name the files, for errors: ``CQRS_KAFKA``.
        ca_file: CAs to trust; None: those of the system.
        cert_file: client certificate with its chain, and its key if there is no `key_file`.
        key_file: key of that certificate.
        key_password: password of the key, if it has one.

    Raises:
        Fatal: a file cannot be read or used; the line names the variable.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # an SSLError is one
        raise Fatal(f"{prefix}_CA_FILE ({ca_file}) {_reason(error, 'certificate')}") from None
    if cert_file is None:
        return context
    password = (key_password or "").encode()
    try:
        # With the password as a function OpenSSL never asks for it on the terminal.
        context.load_cert_chain(cert_file, key_file, password=lambda: password)
    except OSError as error:
        files = ", ".join(
            f"{prefix}_{name} ({path})"
            for name, path in (("CERT_FILE", cert_file), ("KEY_FILE", key_file))
            if path is not None
        )
        raise Fatal(f"{files} {_reason(error, 'certificate with its key')}") from None
    return context


def _reason(error: OSError, wanted: str) -> str:
    if not isinstance(error, ssl.SSLError):
        return f"cannot be read: {error.strerror}"
    if error.reason == "KEY_VALUES_MISMATCH":
        return "do not belong together: the key is of another certificate"
    return f"cannot be used as a {wanted} in PEM: {error.reason or 'wrong format or password'}"
