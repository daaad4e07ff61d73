"""Asks for certificates, the workers' health, and the disk of this host. It only reads."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from cryptography import x509

from deploy.doctor.facts import Certificate, Disk, NotKnown, WorkerPartition, WorkerState
from deploy.top.overview import parked_commands
from deploy.top.scrapes import parse
from streams.settings import Settings

# A worker answers at once, unless its event loop does not turn.
_WORKER_TIMEOUT_S = 2.0

_FILES = ("kafka_ca_file", "kafka_cert_file", "elasticsearch_ca_file", "elasticsearch_cert_file")


def tls_servers(settings: Settings) -> Mapping[str, tuple[str, int]]:
    """Return host and port of each server that is connected to with TLS, by how it is shown."""
    addresses: list[str] = []
    if settings.kafka_security in {"ssl", "sasl_ssl"}:
        addresses += [f"kafka://{server}" for server in settings.bootstrap_servers.split(",")]
    addresses += [url for url in settings.elasticsearch_urls if url.startswith("https:")]
    found = {}
    for address in addresses:
        parts = urlsplit(address)
        found[parts.netloc] = (parts.hostname or "", parts.port or 0)
    return found


async def ask_certificate(of: str, host: str, port: int) -> Certificate:
    """Return the certificate that a server shows, whether or not it is trusted.

    Raises:
        OSError: it does not answer, or not with TLS.
    """
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    _, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.transport.abort()
    return Certificate(of, x509.load_der_x509_certificate(shown).not_valid_after_utc.timestamp())


def certificates_in_files(settings: Settings) -> Iterator[tuple[str, Certificate | NotKnown]]:
    """Yield for each PEM file of the settings the certificate in it that expires first."""
    for path in sorted({getattr(settings, name) for name in _FILES} - {None}):
        yield str(path), _read(path)


def _read(path: Path) -> Certificate | NotKnown:
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        return NotKnown(f"cannot be read: {error.strerror}", "refused")
    except ValueError:
        return NotKnown("contains no certificate in PEM", "refused")
    return Certificate(str(path), min(one.not_valid_after_utc.timestamp() for one in found))


def disk_of(folder: Path | None) -> Disk | None:
    """Return the disk of a folder; None if it is not there."""
    if folder is None or not folder.is_dir():
        return None
    usage = shutil.disk_usage(folder)
    return Disk(folder, usage.total, usage.free, os.access(folder, os.W_OK | os.X_OK))


async def ask_worker(address: str) -> WorkerState | NotKnown:
    """Return what a worker says of its partitions, by `/ready` and `/metrics`."""
    timeout = aiohttp.ClientTimeout(_WORKER_TIMEOUT_S)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session:
            async with session.get(f"http://{address}/ready") as response:
                body = await response.json(content_type=None)
            async with session.get(f"http://{address}/metrics") as response:
                samples = parse(await response.text())
        return WorkerState(
            [
                WorkerPartition(f"{one['topic']}[{one['partition']}]", one["state"], one["parked"])
                for one in body["partitions"]
            ],
            parked_commands([samples], time.time()),
        )
    except asyncio.TimeoutError:
        return NotKnown(
            "takes connections and does not answer: it is suspended, or its event loop is blocked; "
            "kill it, which loses nothing"
        )
    except (aiohttp.ClientError, OSError):
        return NotKnown("nobody answers: is its process there? The end of its log says why not")
    except (ValueError, KeyError, TypeError):
        return NotKnown("a worker of this project does not answer there: something else does")
