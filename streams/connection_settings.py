"""Settings of the connections to Kafka and Elasticsearch: addresses, TLS, credentials.

Every secret is a variable, or a file that a variable with the ending ``_FILE`` names. A file is
read whenever a client is created, so a worker that starts again uses the new content.

What cannot be meant is an error: half of a credential, or one that the protocol does not use, would
leave a connection less protected than somebody believes.

The description of a setting is its meaning in the README's table (`deploy/cli/config.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, SecretStr, field_validator, model_validator
from typing_extensions import Self

from models.errors import Fatal
from streams.setting_values import Values

PREFIX = "CQRS_"

Security = Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "GSSAPI"]

_SERVERS = Values("host:port[,host:port]")
_URLS = Values("a scheme, a host and a port for each node, as in https://es1:9200,https://es2:9200")
_FUNCTION = Values("module:function")
_BOOTSTRAP_SERVER = re.compile(r"([\w.-]+|\[[0-9a-fA-F:.]+\]):(\d{1,5})", re.ASCII)
# What only one kind of protocol uses.
_FOR_TLS = (
    "kafka_ca_file",
    "kafka_cert_file",
    "kafka_key_file",
    "kafka_key_password",
    "kafka_key_password_file",
)
_FOR_PASSWORDS = ("kafka_username", "kafka_password", "kafka_password_file")
_FOR_TOKENS = ("kafka_token_provider",)


@dataclass(frozen=True)
class Contradiction:
    """What cannot be meant, though each setting is valid for itself."""

    line: str
    about: tuple[str, ...]
    """Names of the settings that it follows from."""


class ContradictionError(ValueError):
    """All contradictions of some settings: `found`."""

    def __init__(self, found: list[Contradiction]) -> None:
        super().__init__("; ".join(one.line for one in found))
        self.found = found


class ConnectionSettings(BaseModel):
    """Where the servers are, and how this process shows who it is."""

    bootstrap_servers: Annotated[str, _SERVERS] = Field(
        "127.0.0.1:9092", description="Kafka brokers"
    )
    kafka_security: Security = Field("plaintext", description="protocol of the brokers' listener")
    kafka_sasl_mechanism: Mechanism = Field("SCRAM-SHA-512", description="how SASL authenticates")
    kafka_username: str | None = Field(None, description="user for SASL")
    kafka_password: SecretStr | None = Field(None, description="the user's password")
    kafka_password_file: Path | None = Field(None, description="file with it")
    kafka_token_provider: Annotated[str | None, _FUNCTION] = Field(
        None,
        description="for OAUTHBEARER: a function without parameters, to be awaited, that returns a "
        "token",
        pattern=r"^[\w.]+:\w+$",
    )
    kafka_ca_file: Path | None = Field(
        None, description="PEM file of the CAs to trust; without it, those of the system"
    )
    kafka_cert_file: Path | None = Field(
        None, description="PEM file of the client certificate and its chain"
    )
    kafka_key_file: Path | None = Field(
        None, description="PEM file of its key, unless that is in the same file"
    )
    kafka_key_password: SecretStr | None = Field(
        None, description="password of that key, if it has one"
    )
    kafka_key_password_file: Path | None = Field(None, description="file with it")

    elasticsearch_url: Annotated[str, _URLS] = Field(
        "http://127.0.0.1:9200", description="nodes of one Elasticsearch cluster"
    )
    elasticsearch_api_key: SecretStr | None = Field(
        None, description="an API key, encoded as Elasticsearch returns it"
    )
    elasticsearch_api_key_file: Path | None = Field(None, description="file with it")
    elasticsearch_username: str | None = Field(
        None, description="a user, where there is no API key"
    )
    elasticsearch_password: SecretStr | None = Field(None, description="the user's password")
    elasticsearch_password_file: Path | None = Field(None, description="file with it")
    elasticsearch_ca_file: Path | None = Field(
        None, description="PEM file of the CAs to trust; without it, those of the system"
    )
    elasticsearch_cert_file: Path | None = Field(
        None, description="PEM file of the client certificate and its chain"
    )
    elasticsearch_key_file: Path | None = Field(
        None, description="PEM file of its key, unless that is in the same file"
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
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise Fatal(f"{variable(f'{name}_file')} cannot be read: {reason}") from None
        if not content:
            raise Fatal(f"{variable(f'{name}_file')} is empty")
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
            raise ValueError(f"it must be {_SERVERS.text}")
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
                raise ValueError(f"it must be {_URLS.text}")
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
        found = list(self.contradictions())
        if found:
            raise ContradictionError(found)
        return self

    def contradictions(self) -> Iterator[Contradiction]:
        """Yield what cannot be meant: half of a credential, or one that nothing uses."""
        for name in self.secrets():
            yield from self._check_secret(name)
        yield from self._check_kafka()
        yield from self._check_elasticsearch()

    def _check_secret(self, name: str) -> Iterator[Contradiction]:
        file = f"{name}_file"
        if self._has(name) and self._has(file):
            line = f"{variable(name)} and {variable(file)} are both set"
            yield Contradiction(line, (name, file))
            return
        try:
            secret = self.secret(name)
        except Fatal as error:
            yield Contradiction(str(error), (file,))
            return
        if secret is not None and not secret.isprintable():
            given = name if self._has(name) else file
            line = f"{variable(given)} is not valid: it is more than one line"
            yield Contradiction(line, (given,))

    def _check_kafka(self) -> Iterator[Contradiction]:
        has_tls = self.kafka_security in {"ssl", "sasl_ssl"}
        has_sasl = self.kafka_security.startswith("sasl_")
        yield from self._unused("kafka_security", () if has_tls else _FOR_TLS)
        if has_sasl:
            yield from self._check_sasl()
        else:
            sasl = (*_FOR_PASSWORDS, *_FOR_TOKENS, "kafka_sasl_mechanism")
            yield from self._unused("kafka_security", sasl)
        if has_tls and self.kafka_cert_file is None:
            for name in ("kafka_key_file", "kafka_key_password", "kafka_key_password_file"):
                if self._has(name):
                    line = f"{variable(name)} needs CQRS_KAFKA_CERT_FILE"
                    yield Contradiction(line, (name, "kafka_cert_file"))

    def _check_sasl(self) -> Iterator[Contradiction]:
        mechanism = self.kafka_sasl_mechanism
        has_password = mechanism not in {"OAUTHBEARER", "GSSAPI"}
        yield from self._unused("kafka_sasl_mechanism", () if has_password else _FOR_PASSWORDS)
        if mechanism != "OAUTHBEARER":
            yield from self._unused("kafka_sasl_mechanism", _FOR_TOKENS)
        elif self.kafka_token_provider is None:
            yield Contradiction(
                "CQRS_KAFKA_SASL_MECHANISM=OAUTHBEARER needs CQRS_KAFKA_TOKEN_PROVIDER",
                ("kafka_sasl_mechanism", "kafka_token_provider"),
            )
        if has_password and not (self.kafka_username and self._has_secret("kafka_password")):
            yield Contradiction(
                f"CQRS_KAFKA_SECURITY={self.kafka_security} needs CQRS_KAFKA_USERNAME and "
                "CQRS_KAFKA_PASSWORD_FILE (or CQRS_KAFKA_PASSWORD)",
                ("kafka_security", "kafka_username", "kafka_password", "kafka_password_file"),
            )

    def _unused(self, by: str, names: Iterable[str]) -> Iterator[Contradiction]:
        """Yield those of these settings that are set, though `by` makes no use of them."""
        for name in names:
            if getattr(self, name) != type(self).model_fields[name].default:
                yield Contradiction(
                    f"{variable(name)} is set and {variable(by)}={getattr(self, by)} does not use "
                    "it: one of the two is wrong",
                    (name, by),
                )

    def _check_elasticsearch(self) -> Iterator[Contradiction]:
        user = ("elasticsearch_username", "elasticsearch_password", "elasticsearch_password_file")
        if (self.elasticsearch_username is None) == self._has_secret("elasticsearch_password"):
            yield Contradiction(
                "CQRS_ELASTICSEARCH_USERNAME and CQRS_ELASTICSEARCH_PASSWORD_FILE (or "
                "CQRS_ELASTICSEARCH_PASSWORD) need each other",
                user,
            )
        if self.elasticsearch_username is not None and self._has_secret("elasticsearch_api_key"):
            yield Contradiction(
                "CQRS_ELASTICSEARCH_USERNAME and CQRS_ELASTICSEARCH_API_KEY are both set: take one",
                ("elasticsearch_username", "elasticsearch_api_key", "elasticsearch_api_key_file"),
            )
        if self.elasticsearch_key_file is not None and self.elasticsearch_cert_file is None:
            yield Contradiction(
                "CQRS_ELASTICSEARCH_KEY_FILE needs CQRS_ELASTICSEARCH_CERT_FILE",
                ("elasticsearch_key_file", "elasticsearch_cert_file"),
            )
        if not self.elasticsearch_url.startswith("https:"):
            for name in ("elasticsearch_ca_file", "elasticsearch_cert_file"):
                if self._has(name):
                    yield Contradiction(
                        f"{variable(name)} is set and CQRS_ELASTICSEARCH_URL is not https",
                        (name, "elasticsearch_url"),
                    )

    def _has(self, name: str) -> bool:
        return getattr(self, name) is not None

    def _has_secret(self, name: str) -> bool:
        return self._has(name) or self._has(f"{name}_file")


def variable(name: str) -> str:
    """Return the variable of a setting."""
    return f"{PREFIX}{name.upper()}"
