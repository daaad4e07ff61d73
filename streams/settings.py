"""Settings of every process, read from the environment (prefix ``CQRS_``).

Security settings (TLS, SASL, API keys) belong here, beside the addresses that they protect.
"""

from __future__ import annotations

import base64
import binascii
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Settings of workers, clients and the CLI."""

    model_config = SettingsConfigDict(
        env_prefix="CQRS_", frozen=True, extra="ignore", hide_input_in_errors=True
    )

    # Where the servers are
    bootstrap_servers: str = Field(
        "127.0.0.1:9092", description="Kafka brokers, host:port, separated by commas"
    )
    elasticsearch_url: str = Field("http://127.0.0.1:9200", description="Elasticsearch, a URL")

    # Prefix of everything that a deployment owns on shared servers: topics, consumer groups,
    # transactional ids, indices. It never changes while the deployment lives.
    namespace: str = Field("", pattern=r"^[a-z0-9._-]*$", description="prefix of all names")

    # Kafka
    partitions: int = Field(4, ge=1, le=1024, description="partitions of new topics, for life")
    replication_factor: int = Field(1, ge=1, description="replicas of new topics; 3 in production")
    session_timeout: float = Field(
        10.0, ge=3.0, le=60.0, description="seconds until a dead worker's partitions move"
    )
    transaction_timeout: float = Field(
        15.0, ge=2.0, description="seconds until the broker aborts a dead worker's transaction"
    )
    outcome_timeout: float = Field(30.0, gt=0, description="seconds a client waits for an outcome")
    stall_timeout: float = Field(
        60.0,
        ge=1.0,
        description="seconds without progress after which a worker with records to process ends",
    )
    health_port: int | None = Field(
        None, ge=0, le=65535, description="port of a worker's /health; 0: any free one"
    )
    max_chunk_records: int = Field(
        4000, ge=1, le=100_000, description="most records decided in one transaction"
    )

    # State
    state_dir: Path | None = Field(
        None, description="folder of the command worker's state; without it, in memory"
    )

    # Elasticsearch
    view_cache_documents: int = Field(
        200_000, ge=0, description="documents a view worker keeps in memory per process"
    )
    bulk_documents: int = Field(2000, ge=1, description="most documents in one bulk request")

    # Personal data
    encrypt_personal_data: bool = Field(
        False, description="whether personal data in events, states and dead letters is encrypted"
    )
    master_key: SecretStr | None = Field(
        None, description="base64 of the 32 bytes that wrap the data keys of aggregates"
    )

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="lowest level of this project's log lines in workers"
    )

    @field_validator("master_key")
    @classmethod
    def _check_master_key(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None:
            try:
                raw = base64.b64decode(key.get_secret_value(), validate=True)
            except (binascii.Error, ValueError):
                raw = b""
            if len(raw) != 32:
                raise ValueError("it must be base64 of 32 bytes; `cqrs keys new` makes one")
        return key


@lru_cache(maxsize=1)
def settings() -> Settings:
    """Return the settings of this process, which are read once."""
    return Settings()
