"""Logging of a worker to stderr: this project's lines from a given level on, others' warnings."""

from __future__ import annotations

import logging
from traceback import format_tb
from typing import Any

from streams.kafka.aiokafka_patches import refusal_is_news

logger = logging.getLogger(__name__)

# The broker's check of a transaction's partitions returns "not enough replicas" until it has heard
# from its coordinator. aiokafka retries within milliseconds, and warns each time. Later in a
# transaction it means what it says.
_EXPECTED = "NotEnoughReplicasError"

# How often the same line of aiokafka is logged: while a broker is down, every attempt of every
# client logs one.
_REPEAT_INTERVAL_S = 10.0
_MAX_REMEMBERED_LINES = 1000


def log_defect(what: str, error: BaseException) -> None:
    """Log what failed, the error's type and where; not its text: it may contain personal data."""
    frames = "".join(format_tb(error.__traceback__))
    logger.error("%s raised %s\n%s", what, type(error).__name__, frames)


class _RepeatFilter(logging.Filter):
    """A filter that drops lines aiokafka repeats within 10 s, and a warning as long as expected."""

    def __init__(self) -> None:
        super().__init__()
        self._logged_at: dict[str, float] = {}  # by line, in seconds since the epoch

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written."""
        if not record.name.startswith("aiokafka"):
            return True
        text = record.getMessage()
        expected = _EXPECTED in text and record.name.startswith("aiokafka.producer")
        if expected and not refusal_is_news.get():
            return False
        if record.created - self._logged_at.get(text, -_REPEAT_INTERVAL_S) < _REPEAT_INTERVAL_S:
            return False
        if len(self._logged_at) >= _MAX_REMEMBERED_LINES:
            self._logged_at.clear()
        self._logged_at[text] = record.created
        return True


def logging_config(level: str) -> dict[str, Any]:
    """Return a configuration for ``logging.config.dictConfig``; ``level`` is for this project."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {"format": "%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"}
        },
        "filters": {"repeats": {"()": _RepeatFilter}},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "formatter": "line",
                "filters": ["repeats"],
            }
        },
        "root": {"level": "WARNING", "handlers": ["stderr"]},
        "loggers": {package: {"level": level} for package in ("agents", "models", "streams")},
    }
