"""A namespace on a secured stack, in which each role has exactly its rights, or one less."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from confluent_kafka.admin import (
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from pydantic import SecretStr

from deploy.embedded.grants import allow, new_api_key
from deploy.embedded.stack import EmbeddedStack
from deploy.ephemeral import WorkerProcess, create_user_topics, new_settings
from deploy.rights import kafka_rights
from deploy.roles import ROLES, SecuredRole
from deploy.supervisor import Role
from streams.kafka.rights import Operation, Right
from streams.settings import Settings

_RESOURCES: Mapping[str, Any] = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional-id": ResourceType.TRANSACTIONAL_ID,
}
_OPERATIONS: Mapping[Operation, str] = {
    "Read": "READ",
    "Write": "WRITE",
    "Create": "CREATE",
    "Describe": "DESCRIBE",
    "DescribeConfigs": "DESCRIBE_CONFIGS",
}


@dataclass
class Secured:
    """A namespace with its topics; nobody but the administrator has a right there at first."""

    stack: EmbeddedStack
    admin: Settings
    """Of the administrator, who may do everything."""
    folder: Path

    @classmethod
    async def create(cls, stack: EmbeddedStack, folder: Path, **changes: Any) -> Secured:
        """Create a namespace with one partition; `changes` are other settings."""
        admin = new_settings(stack, **{**stack.settings("admin"), "partitions": 1, **changes})
        await create_user_topics(admin)
        return cls(stack, admin, folder)

    def user(self, name: str, **changes: Any) -> Settings:
        """Return the settings of a user of Kafka in this namespace."""
        kafka = {
            key: value
            for key, value in self.stack.settings(name).items()
            if key.startswith("kafka_")
        }
        inherited = {
            key: value
            for key, value in self.admin.model_dump().items()
            if key in self.admin.model_fields_set
            and key not in {"elasticsearch_username", "elasticsearch_password_file"}
        }
        return Settings.model_validate({**inherited, **kafka, **changes})

    async def role(self, role: SecuredRole, rights: Sequence[Right] | None = None) -> Settings:
        """Give a role these rights on Kafka, or all of its own, and return its settings."""
        await allow(self.admin, role, kafka_rights(role, self.admin) if rights is None else rights)
        key = await new_api_key(self.admin, role)
        credentials = {} if key is None else {"elasticsearch_api_key": SecretStr(key)}
        return self.user(role, **credentials)

    async def roles(self) -> dict[SecuredRole, Settings]:
        """Give every role its rights, and return the settings of each."""
        return {role: await self.role(role) for role in ROLES}

    @cached_property
    def kafka_admin(self) -> AdminClient:
        """A client that can do what this project's own cannot: delete ACLs, change passwords."""
        admin = self.admin
        return AdminClient(
            {
                "bootstrap.servers": admin.bootstrap_servers,
                "security.protocol": "SASL_SSL",
                "sasl.mechanism": "SCRAM-SHA-512",
                "sasl.username": admin.kafka_username,
                "sasl.password": admin.secret("kafka_password"),
                "ssl.ca.location": str(admin.kafka_ca_file),
            }
        )

    def revoke(self, user: str, right: Right, operation: Operation) -> None:
        """Delete one ACL of a user."""
        acl = AclBindingFilter(
            _RESOURCES[right.resource],
            right.name,
            ResourcePatternType.PREFIXED if right.prefixed else ResourcePatternType.LITERAL,
            f"User:{user}",
            None,
            getattr(AclOperation, _OPERATIONS[operation]),
            AclPermissionType.ALLOW,
        )
        (deleted,) = self.kafka_admin.delete_acls([acl]).values()
        assert deleted.result(30)

    def change_password(self, user: str, password: str) -> None:
        """Give a user another password for SCRAM-SHA-512; the file keeps the old one."""
        change = UserScramCredentialUpsertion(
            user, ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096), password.encode()
        )
        (changed,) = self.kafka_admin.alter_user_scram_credentials([change]).values()
        changed.result(30)

    @contextmanager
    def worker(self, role: Role, settings: Settings) -> Iterator[WorkerProcess]:
        """Run a worker of this role for the block."""
        with WorkerProcess(role, settings, self.folder) as worker:
            yield worker
