"""Failures of a partition: which are tried again, how soon, and which end it."""

from __future__ import annotations

import asyncio
import logging
import random

from aiokafka.errors import KafkaError
from faust.types import TP

from models.errors import PartitionFatal, Transient
from streams import metrics
from streams.logs import about, name_of
from streams.worker.logs import log_defect

logger = logging.getLogger(__name__)

# Errors of an outage are retried for ever, unless only an operator can fix their cause, which
# `PartitionConsumer.refusal` finds out. Any other error is a defect: it parks the partition after
# this many in a row.
_RETRYABLE = (KafkaError, Transient, OSError, asyncio.TimeoutError)
_MAX_DEFECTS = 5

# The bound of the wait after a failure doubles with each one: 0.4 s, 0.8 s ... up to 10 s.
_BACKOFF_S = 0.2
_MAX_BACKOFF_S = 10.0
_MAX_DOUBLINGS = 6


class Failures:
    """The failures of one partition in a row: those of its starts, or those of its chunks."""

    def __init__(self, tp: TP) -> None:
        self._tp = tp
        self._partition = name_of(tp)
        self._counter = metrics.PARTITION_FAILURES.labels(tp.topic, tp.partition)
        self.count = 0
        self._defects = 0

    def add(self, what: str, error: Exception) -> None:
        """Count and log a failure.

        Raises:
            PartitionFatal: it was the last one of too many defects.
        """
        self.count += 1
        self._counter.inc()
        if isinstance(error, _RETRYABLE):
            logger.warning(
                "%s: %s, trying again: %r",
                self._partition,
                what,
                error,
                extra=about("partition-failed", self._tp, error=type(error).__name__),
            )
            return
        self._defects += 1
        log_defect(f"{self._partition}: {what}, trying again: it", error, self._tp)
        if self._defects >= _MAX_DEFECTS:
            raise PartitionFatal(
                f"{self._partition}: {what} {self._defects} times: {type(error).__name__}; this is "
                "a defect, the log says where"
            ) from error

    def clear(self) -> None:
        """Forget them: a start succeeded, or a chunk was processed."""
        self.count = self._defects = 0


def backoff(failures: int) -> float:
    """Return seconds to wait: random, up to a bound that doubles with each failure."""
    doublings = min(failures, _MAX_DOUBLINGS)
    return random.uniform(0, min(_MAX_BACKOFF_S, _BACKOFF_S * 2**doublings))
