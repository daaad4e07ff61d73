"""Logging of a worker: one line per event on stderr, ours from INFO on, libraries' warnings."""

from __future__ import annotations

import logging
from traceback import format_tb
from typing import Any

logger = logging.getLogger(__name__)

# The broker's check of a transaction's partitions answers "not enough replicas" until it has
# heard from its coordinator. aiokafka retries within milliseconds, and warns each time.
_EXPECTED = "NotEnoughReplicasError"


def log_defect(what: str, error: BaseException) -> None:
    """Say what failed, how and where, but not with which values: they may be personal."""
    frames = "".join(format_tb(error.__traceback__))
    logger.error("%s raised %s\n%s", what, type(error).__name__, frames)


def _is_news(record: logging.LogRecord) -> bool:
    return not (record.name.startswith("aiokafka.producer") and _EXPECTED in record.getMessage())


def logging_config(level: str) -> dict[str, Any]:
    """For ``logging.config.dictConfig``; ``level`` is for what this project logs."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {"format": "%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"}
        },
        "filters": {"news": {"()": lambda: _is_news}},
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
