"""Work on a partition of the command topic by hand, in the place of the worker that owns it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from aiokafka.errors import KafkaError
from faust.types import TP
from tenacity import AsyncRetrying, retry_if_exception
from tenacity.stop import stop_after_attempt

from models.errors import Fatal
from streams.kafka.permissions import NOT_ALLOWED, not_allowed
from streams.kafka.transactions import Fenced, TransactionalProducer
from streams.logs import name_of
from streams.settings import Settings

T = TypeVar("T")


# A supervisor may keep starting workers, and each takes the partition over before it ends.
_MAX_ATTEMPTS = 5


class TakenOver(Fatal):
    """At every attempt a worker took the partition over before the work had ended."""


async def work_as_owner(
    settings: Settings,
    tp: TP,
    worker: str,
    work: Callable[[TransactionalProducer], Awaitable[T]],
    purpose: str,
) -> T:
    """Fence the owner of a partition, and work with the producer that owns it then.

    A worker that owned the partition takes it over again; the work is repeated if that happens
    before it has ended. Kafka does not always say so: a broker that is asked to end a transaction
    while it fences its producer may answer that it does not know what went wrong. So the work is
    also repeated after any other error of Kafka, but for a missing ACL.

    Args:
        settings: with the address of Kafka.
        tp: partition of the command topic.
        worker: app id of the command workers, without the namespace.
        work: reads what it needs again each time it is called.
        purpose: what was to be done, for the error: "its position was moved".

    Raises:
        NotAllowed: an ACL is missing.
        TakenOver: at every attempt a worker took the partition over.
        KafkaError: Kafka failed at the last attempt.
    """
    producer = TransactionalProducer(settings, settings.namespace + worker, tp)
    try:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(_may_be_fenced),
            stop=stop_after_attempt(_MAX_ATTEMPTS),
            reraise=True,
        ):
            with attempt:
                await producer.start()
                result = await work(producer)
    except NOT_ALLOWED as error:
        raise not_allowed(error, settings, "Write") from None
    except Fenced:
        raise TakenOver(
            f"{name_of(tp)} was taken over by a worker before {purpose}: stop the "
            "command workers and try again"
        ) from None
    finally:
        await producer.close()
    return result


def _may_be_fenced(error: BaseException) -> bool:
    return isinstance(error, Fenced | KafkaError) and not isinstance(error, NOT_ALLOWED)
