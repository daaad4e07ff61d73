"""Logging of a worker: one line per event on stderr, ours from INFO on, libraries' warnings."""

from __future__ import annotations

import logging
from traceback import format_tb
from typing import Any

logger = logging.getLogger(__name__)

# The broker's check of a transaction's partitions answers "not enough replicas" until it has
# heard from its coordinator. aiokafka retries within milliseconds, and warns each time.
_EXPECTED = "NotEnoughReplicasError"

# Seconds for which aiokafka does not say the same again: while a broker is away, it says so at
# every attempt of every client.
_NO_NEWS = 10.0
_REMEMBERED = 1000  # most lines to compare with


def log_defect(what: str, error: BaseException) -> None:
    """Say what failed, how and where, but not with which values: they may be personal."""
    frames = "".join(format_tb(error.__traceback__))
    logger.error("%s raised %s\n%s", what, type(error).__name__, frames)


class _RepeatFilter(logging.Filter):
    """Keeps what a person can use of what aiokafka says."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}  # what, and when

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is to be written."""
        if not record.name.startswith("aiokafka"):
            return True
        text = record.getMessage()
        if _EXPECTED in text and record.name.startswith("aiokafka.producer"):
            return False
        if record.created - self._said.get(text, -_NO_NEWS) < _NO_NEWS:
            return False
        if len(self._said) >= _REMEMBERED:
            self._said.clear()
        self._said[text] = record.created
        return True


def logging_config(level: str) -> dict[str, Any]:
    """For ``logging.config.dictConfig``; ``level`` is for what this project logs."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {"format": "%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"}
        },
        "filters": {"news": {"()": _RepeatFilter}},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "formatter": "line",
                "filters": ["news"],
            }
        },
        "root": {"level": "WARNING", "handlers": ["stderr"]},
        "loggers": {room: {"level": level} for room in ("agents", "models", "streams")},
    }
