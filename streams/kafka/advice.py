"""What to do about errors of Kafka that no retry cures and that say so by their type alone.

Other ones need a look at the cluster first: who refuses a client is found by
`streams/kafka/refusal.py`, which right it lacks by `streams/kafka/permissions.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

from aiokafka.errors import (
    InconsistentGroupProtocolError,
    InvalidGroupIdError,
    InvalidSessionTimeoutError,
    InvalidTransactionTimeout,
    KafkaError,
    MessageSizeTooLargeError,
    UnsupportedCodecError,
)

_ADVICE: Mapping[type[KafkaError], str] = {
    InconsistentGroupProtocolError: (
        "another program, or an incompatible version of this one, is a member of the worker's "
        "consumer group: `kafka-consumer-groups.sh --describe --members --group {group}` lists "
        "them; stop those, or use another CQRS_NAMESPACE"
    ),
    InvalidGroupIdError: (
        "the brokers accept no consumer group named {group}: use another CQRS_NAMESPACE"
    ),
    InvalidSessionTimeoutError: (
        "the brokers do not allow the session timeout: set CQRS_SESSION_TIMEOUT to what is between "
        "their group.min.session.timeout.ms and group.max.session.timeout.ms"
    ),
    InvalidTransactionTimeout: (
        "the brokers do not allow transactions of that length: set CQRS_TRANSACTION_TIMEOUT to at "
        "most their transaction.max.timeout.ms"
    ),
    MessageSizeTooLargeError: (
        "a record is larger than its topic allows: set max.message.bytes of the topics to what "
        "`cqrs topics create` sets (4 MiB of all but the command topic)"
    ),
    UnsupportedCodecError: (
        "a record is compressed in a way that this worker cannot read: install the library for it"
    ),
}


def advice(error: BaseException, group: str) -> str | None:
    """Return what a person has to do about an error; None if its type does not say it.

    Args:
        error: what a client of Kafka raised.
        group: the consumer group of the worker.
    """
    texts = (text for kind, text in _ADVICE.items() if isinstance(error, kind))
    found = next(texts, None)
    return None if found is None else found.format(group=group)
