"""Give the roles their rights on a secured stack: ACLs of Kafka, API keys of Elasticsearch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from aiokafka.errors import for_code
from aiokafka.protocol.admin import CreateAclsRequest

from deploy.embedded.secrets import Secrets
from deploy.rights import elasticsearch_rights, kafka_rights
from deploy.roles import ROLES, SecuredRole
from models.errors import Fatal
from streams.elasticsearch.connection import connect, translating
from streams.kafka.clients import admin_client
from streams.kafka.rights import Right
from streams.settings import Settings

# Codes of Kafka's protocol.
_RESOURCES: Mapping[str, int] = {"topic": 2, "group": 3, "transactional-id": 5}
_OPERATIONS: Mapping[str, int] = {
    "Read": 3,
    "Write": 4,
    "Create": 5,
    "Describe": 8,
    "DescribeConfigs": 10,
}
_LITERAL, _PREFIXED = 3, 4
_ALLOW = 3
_ANY_HOST = "*"

_REQUEST_TIMEOUT_S = 60.0


async def grant_roles(admin: Settings, secrets: Secrets) -> None:
    """Give every role its rights in the namespace of `admin`, the settings of the administrator.

    Raises:
        Fatal: a server refuses it.
    """
    for role in ROLES:
        await allow(admin, role, kafka_rights(role, admin))
        key = await new_api_key(admin, role)
        if key is not None:
            secrets.write_api_key(role, key)


async def allow(admin: Settings, user: str, rights: Iterable[Right]) -> None:
    """Create ACLs that allow a user these rights.

    Raises:
        Fatal: Kafka refuses it.
    """
    async with admin_client(admin) as client:
        for right in rights:
            for operation in right.operations:
                request = CreateAclsRequest(
                    _RESOURCES[right.resource],
                    right.name,
                    _PREFIXED if right.prefixed else _LITERAL,
                    f"User:{user}",
                    _ANY_HOST,
                    _OPERATIONS[operation],
                    _ALLOW,
                )
                response = await client._send_request(request)
                for code, message in response.creation_responses:
                    if code:
                        raise Fatal(f"cannot create an ACL: {message or for_code(code).__name__}")


async def new_api_key(admin: Settings, role: SecuredRole) -> str | None:
    """Create an API key with the rights of a role, and return it encoded; None if it has none.

    Raises:
        Fatal, Transient: Elasticsearch refuses it or does not answer.
    """
    rights = elasticsearch_rights(role, admin)
    if rights is None:
        return None
    async with connect(admin, timeout=_REQUEST_TIMEOUT_S) as client:
        with translating(client, starting=True):
            created = await client.security.create_api_key(
                name=f"{admin.namespace}{role}", role_descriptors={role: dict(rights)}
            )
    return str(created["encoded"])
