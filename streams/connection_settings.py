"""Settings of the connections to Kafka and Elasticsearch: addresses, TLS, credentials.

Every secret is a variable, or a file that a variable with the ending ``_FILE`` names. A file is
read whenever a client is created, so a worker that starts again uses the new content.

What cannot be meant is an error: half of a credential, or one that the protocol does not use, would
leave a connection less protected than somebody believes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, SecretStr, field_validator, model_validator
from typing_extensions import Self

from models.errors import Fatal

PREFIX = "CQRS_"

Security = Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]

_BOOTSTRAP_SERVER = re.compile(r"([\w.-]+|\[[0-9a-fA-F:.]+\]):(\d{1,5})", re.ASCII)
# What only one kind of protocol uses.
_FOR_TLS = (
    "kafka_ca_file",
    "kafka_cert_file",
    "kafka_key_file",
    "kafka_key_password",
    "kafka_key_password_file",
)
_FOR_SASL = ("kafka_username", "kafka_password", "kafka_password_file", "kafka_sasl_mechanism")


class ConnectionSettings(BaseModel):
    """Where the servers are, and how this process shows who it is."""

    bootstrap_servers: str = Field(
        "127.0.0.1:9092", description="Kafka brokers, host:port, separated by commas"
    )
    kafka_security: Security = Field("plaintext", description="protocol of the brokers' listener")
    kafka_sasl_mechanism: Mechanism = Field("SCRAM-SHA-512", description="how SASL authenticates")
    kafka_username: str | None = Field(None, description="user for SASL")
    kafka_password: SecretStr | None = Field(None, description="the user's password")
    kafka_password_file: Path | None = Field(None, description="file with that password")
    kafka_ca_file: Path | None = Field(
        None, description="PEM file of the CAs to trust; without it, those of the system"
    )
    kafka_cert_file: Path | None = Field(None, description="PEM file of the client certificate")
    kafka_key_file: Path | None = Field(
        None, description="PEM file of its key, unless the certificate's file contains it"
    )
    kafka_key_password: SecretStr | None = Field(None, description="password of that key")
    kafka_key_password_file: Path | None = Field(None, description="file with that password")

    elasticsearch_url: str = Field(
        "http://127.0.0.1:9200", description="URLs of Elasticsearch nodes, separated by commas"
    )
    elasticsearch_api_key: SecretStr | None = Field(None, description="encoded API key")
    elasticsearch_api_key_file: Path | None = Field(None, description="file with that API key")
    elasticsearch_username: str | None = Field(None, description="user, if there is no API key")
    elasticsearch_password: SecretStr | None = Field(None, description="the user's password")
    elasticsearch_password_file: Path | None = Field(None, description="file with that password")
    elasticsearch_ca_file: Path | None = Field(
        None, description="PEM file of the CAs to trust; without it, those of the system"
    )
    elasticsearch_cert_file: Path | None = Field(
        None, description="PEM file of the client certificate"
    )
    elasticsearch_key_file: Path | None = Field(
        None, description="PEM file of its key, unless the certificate's file contains it"
    )

    def secret(self, name: str) -> str | None:
        """Return this secret, from its variable or now from its file; None if there is neither.

        Raises:
            Fatal: the file cannot be read or is empty.
        """
        value: SecretStr | None = getattr(self, name)
        if value is not None:
            return value.get_secret_value()
        path: Path | None = getattr(self, f"{name}_file")
        if path is None:
            return None
        try:
            content = path.read_text().rstrip("\r\n")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise Fatal(f"{_variable(f'{name}_file')} cannot be read: {reason}") from None
        if not content:
            raise Fatal(f"{_variable(f'{name}_file')} is empty")
        return content

    @property
    def elasticsearch_urls(self) -> list[str]:
        """The URL of each node."""
        return self.elasticsearch_url.split(",")

    @classmethod
    def secrets(cls) -> list[str]:
        """Return the names of all secrets; each may come from a file."""
        return [name for name in cls.model_fields if f"{name}_file" in cls.model_fields]

    @field_validator("bootstrap_servers")
    @classmethod
    def _check_bootstrap_servers(cls, servers: str) -> str:
        found = [_BOOTSTRAP_SERVER.fullmatch(server.strip()) for server in servers.split(",")]
        if not all(match and 0 < int(match[2]) < 2**16 for match in found):
            raise ValueError("it must be host:port[,host:port]")
        return ",".join(match[0] for match in found if match)

    @field_validator("elasticsearch_url")
    @classmethod
    def _check_elasticsearch_url(cls, urls: str) -> str:
        found = [url.strip() for url in urls.split(",")]
        schemes = set()
        for url in found:
            try:
                parts = urlsplit(url)
                complete = parts.scheme in {"http", "https"} and parts.hostname and parts.port
            except ValueError:
                complete = False
            if not complete or any(not char.isprintable() or char.isspace() for char in url):
                raise ValueError(
                    "it must be a scheme, a host and a port for each node, as in "
                    "https://es1:9200,https://es2:9200"
                )
            if parts.username is not None or parts.password is not None:
                raise ValueError(
                    "it contains a user or a password, which would be shown: use "
                    "CQRS_ELASTICSEARCH_USERNAME and CQRS_ELASTICSEARCH_PASSWORD_FILE"
                )
            schemes.add(parts.scheme)
        if len(schemes) > 1:
            raise ValueError("either all URLs are https, or none")
        return ",".join(found)

    @field_validator("*")
    @classmethod
    def _expand_path(cls, path: object) -> object:
        # Absolute, since Faust changes the current folder for FAUST_WORKDIR or `--workdir`.
        try:
            return path.expanduser().absolute() if isinstance(path, Path) else path
        except RuntimeError as error:
            raise ValueError(str(error)) from None

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        for name in self.secrets():
            if self._has(name) and self._has(f"{name}_file"):
                raise ValueError(f"{_variable(name)} and {_variable(f'{name}_file')} are both set")
            if not (self.secret(name) or "x").isprintable():
                given = name if self._has(name) else f"{name}_file"
                raise ValueError(f"{_variable(given)} is not valid: it is more than one line")
        self._check_kafka()
        self._check_elasticsearch()
        return self

    def _check_kafka(self) -> None:
        has_tls = self.kafka_security in {"ssl", "sasl_ssl"}
        has_sasl = self.kafka_security.startswith("sasl_")
        unused = (() if has_tls else _FOR_TLS) + (() if has_sasl else _FOR_SASL)
        for name in unused:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"{_variable(name)} is set and CQRS_KAFKA_SECURITY={self.kafka_security} does "
                    "not use it: one of the two is wrong"
                )
        if has_sasl and not (self.kafka_username and self._has_secret("kafka_password")):
            raise ValueError(
                f"CQRS_KAFKA_SECURITY={self.kafka_security} needs CQRS_KAFKA_USERNAME and "
                "CQRS_KAFKA_PASSWORD_FILE (or CQRS_KAFKA_PASSWORD)"
            )
        if self.kafka_cert_file is None:
            for name in ("kafka_key_file", "kafka_key_password", "kafka_key_password_file"):
                if self._has(name):
                    raise ValueError(f"{_variable(name)} needs CQRS_KAFKA_CERT_FILE")

    def _check_elasticsearch(self) -> None:
        if (self.elasticsearch_username is None) == self._has_secret("elasticsearch_password"):
            raise ValueError(
                "CQRS_ELASTICSEARCH_USERNAME and CQRS_ELASTICSEARCH_PASSWORD_FILE (or "
                "CQRS_ELASTICSEARCH_PASSWORD) need each other"
            )
        if self.elasticsearch_username is not None and self._has_secret("elasticsearch_api_key"):
            raise ValueError(
                "CQRS_ELASTICSEARCH_USERNAME and CQRS_ELASTICSEARCH_API_KEY are both set: take one"
            )
        if self.elasticsearch_key_file is not None and self.elasticsearch_cert_file is None:
            raise ValueError("CQRS_ELASTICSEARCH_KEY_FILE needs CQRS_ELASTICSEARCH_CERT_FILE")
        if not self.elasticsearch_url.startswith("https:"):
            for name in ("elasticsearch_ca_file", "elasticsearch_cert_file"):
                if self._has(name):
                    raise ValueError(
                        f"{_variable(name)} is set and CQRS_ELASTICSEARCH_URL is not https"
                    )

    def _has(self, name: str) -> bool:
        return getattr(self, name) is not None

    def _has_secret(self, name: str) -> bool:
        return self._has(name) or self._has(f"{name}_file")


def _variable(name: str) -> str:
    return f"{PREFIX}{name.upper()}"
