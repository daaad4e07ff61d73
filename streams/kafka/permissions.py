"""Check what this client may do on Kafka before it starts.

Without a right aiokafka may hang in a busy loop, and Faust stays up and does nothing. So a worker
asks for its rights first: brokers return what they allow (KIP-430). Rights on transactional ids
cannot be asked for; starting a producer says whether they are there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)

from models.errors import Fatal
from streams.kafka.clients import admin_client
from streams.kafka.groups import COORDINATOR_COMES, coordinated
from streams.kafka.metadata import group_rights, topic_metadata
from streams.kafka.rights import Operation, Right
from streams.settings import Settings

NOT_ALLOWED = (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)
"""What aiokafka raises where an ACL is missing. It does not pass by itself."""

# Codes of operations in Kafka's protocol; what is allowed has a bit for each.
_CODES: Mapping[Operation, int] = {
    "Read": 3,
    "Write": 4,
    "Create": 5,
    "Describe": 8,
    "DescribeConfigs": 10,
}
_UNKNOWN = -(1 << 31)  # the broker was not asked, or is too old


class NotAllowed(Fatal):
    """An ACL is missing."""

    def __init__(self, settings: Settings, operations: Sequence[str], resource: str) -> None:
        super().__init__(
            f"{principal(settings)} lacks {' and '.join(operations)} on {resource}: allow it; "
            "`cqrs topics acls` prints what each role needs"
        )


def not_allowed(error: Exception, settings: Settings, operation: Operation) -> NotAllowed:
    """Return the line for one of `NOT_ALLOWED`; `operation` is what was done with the topic."""
    args = error.args[0] if error.args else ""
    names = ", ".join(sorted(args)) if isinstance(args, set) else str(args)
    if isinstance(error, TransactionalIdAuthorizationFailed):
        return NotAllowed(settings, ["Write"], f"transactional-id {names}")
    if isinstance(error, GroupAuthorizationFailedError):
        return NotAllowed(settings, ["Read"], f"group {names}")
    if isinstance(error, TopicAuthorizationFailedError):
        return NotAllowed(settings, [operation], f"topic {names}")
    return NotAllowed(settings, ["Write"], "any topic")


def principal(settings: Settings) -> str:
    """Return who Kafka takes this client for, as far as the settings say it."""
    if settings.kafka_username is not None:
        return f"User:{settings.kafka_username}"
    if settings.kafka_security.startswith("sasl_"):
        return f"the user of {settings.kafka_sasl_mechanism}"
    if settings.kafka_cert_file is not None:
        return f"the user of the certificate {settings.kafka_cert_file}"
    return "User:ANONYMOUS"


async def check_rights(settings: Settings, rights: Iterable[Right]) -> None:
    """Check the rights on topics and groups; those with a prefix cannot be asked for.

    Raises:
        NotAllowed: one is missing.
        Fatal: no broker answers.
    """
    for missing in await missing_rights(settings, rights):
        raise missing


async def missing_rights(settings: Settings, rights: Iterable[Right]) -> Sequence[NotAllowed]:
    """Return a line for each right that is missing, of those that `check_rights` checks.

    Raises:
        Fatal: no broker answers.
    """
    literal = [right for right in rights if not right.prefixed]
    async with admin_client(settings) as admin:
        of_topics = [one for one in literal if one.resource == "topic"]
        missing = await _missing_on_topics(admin, settings, of_topics)
        for right in literal:
            if right.resource == "group":
                missing += await _missing_on_group(admin, settings, right)
    return missing


async def _missing_on_topics(
    admin: AIOKafkaAdminClient, settings: Settings, rights: Sequence[Right]
) -> list[NotAllowed]:
    if not rights:
        return []
    client = admin._client
    topics = {right.name for right in rights}
    found = await topic_metadata(client, topics, client.get_random_node(), with_rights=True)
    missing = []
    for right in rights:
        topic = found[right.name]
        if topic.error == TopicAuthorizationFailedError.errno:  # it may not even be described
            described_by = [name for name in right.operations if name != "DescribeConfigs"]
            missing.append(NotAllowed(settings, described_by, f"topic {right.name}"))
        elif topic.error == 0:
            missing += _missing_of(settings, right, topic.allowed)
    return missing


async def _missing_on_group(
    admin: AIOKafkaAdminClient, settings: Settings, right: Right
) -> list[NotAllowed]:
    denied = NotAllowed(settings, right.operations, f"group {right.name}")
    try:
        error, allowed = await coordinated(lambda: group_rights(admin._client, right.name))
    except COORDINATOR_COMES:
        return []  # the worker itself waits for it, and logs that
    except GroupAuthorizationFailedError:
        return [denied]
    if error == GroupAuthorizationFailedError.errno:
        return [denied]
    return [] if error else _missing_of(settings, right, allowed)


def _missing_of(settings: Settings, right: Right, allowed: int) -> list[NotAllowed]:
    missing = [name for name in right.operations if not allowed >> _CODES[name] & 1]
    if not missing or allowed == _UNKNOWN:
        return []
    return [NotAllowed(settings, missing, f"{right.resource} {right.name}")]
