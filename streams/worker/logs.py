"""Logging of a worker to stderr: this project's lines from a given level on, others' warnings.

A warning that is repeated within a minute is not written again, but counted: a later line says how
often it came. With `CQRS_LOG_FORMAT=json` each line is an object with the fields of
`streams/logs.py`.
"""

from __future__ import annotations

import logging
import sys
import threading
from datetime import datetime, timezone
from math import inf
from traceback import format_tb
from typing import Any, Literal

import orjson

from streams.kafka.aiokafka_patches import refusal_is_news
from streams.logs import Event, Partition, about

logger = logging.getLogger(__name__)

LogFormat = Literal["text", "json"]

# The broker's check of a transaction's partitions returns "not enough replicas" until it has heard
# from its coordinator. aiokafka retries within milliseconds, and warns each time. Later in a
# transaction it means what it says.
_EXPECTED = "NotEnoughReplicasError"

# A broker that has just started has no coordinator for a group until it has made its topic of
# offsets. aiokafka asks again, and logs an error each time. If it lasts it means what it says.
_NO_COORDINATOR = "Group Coordinator Request failed"
_NO_COORDINATOR_S = 30.0

# For how long a line is counted instead of repeated: while a broker is down, every attempt of every
# client logs one, and a defect may concern every command.
_REPEAT_INTERVAL_S = 60.0
_MAX_REMEMBERED_LINES = 1000

# What every record of Python's logging has; whatever else one has is a field.
_ORDINARY = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def log_defect(
    what: str,
    error: BaseException,
    where: Partition | None = None,
    *,
    offset: int | None = None,
    command: object = None,
) -> None:
    """Log what failed, the error's type and where; not its text: it may contain personal data."""
    name, frames = type(error).__name__, "".join(format_tb(error.__traceback__))
    fields = about(
        "defect", where, offset=offset, command=command, error=name, traceback=frames.rstrip()
    )
    logger.error("%s raised %s", what, name, extra=fields)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return what was passed as ``extra``."""
    return {name: value for name, value in vars(record).items() if name not in _ORDINARY}


class TextFormatter(logging.Formatter):
    """Lines for people; where a single record is concerned, they end with its place."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - as in `logging`
        """Return the line; a traceback follows it."""
        fields = fields_of(record)
        place = []
        if "offset" in fields:
            place.append(f"{fields['topic']}[{fields['partition']}] at offset {fields['offset']}")
        if "command" in fields:
            place.append(f"command {fields['command']}")
        line = super().formatMessage(record)
        if place:
            line += f" ({', '.join(place)})"
        return f"{line}\n{fields['traceback']}" if fields.get("traceback") else line


class JsonFormatter(logging.Formatter):
    """Lines for programs: an object each, with the same fields for the same event."""

    def __init__(self, worker: str) -> None:
        """Name this ``worker`` (its consumer group) in each line."""
        super().__init__()
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        """Return the object in one line."""
        fields = fields_of(record)
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        line = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(
                timespec="milliseconds"
            ),
            "level": record.levelname,
            "event": "library",
            "worker": self._worker,
            "process": record.process,
            "logger": record.name,
            "message": record.getMessage(),
            **fields,
        }
        return orjson.dumps(line, default=str).decode()


class _ExpectedFilter(logging.Filter):
    """A filter that drops warnings of aiokafka as long as they are expected."""

    def __init__(self) -> None:
        super().__init__()
        self._coordinator_gone_at = self._coordinator_missed_at = -inf

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written."""
        if record.name.startswith("aiokafka") and _NO_COORDINATOR in record.getMessage():
            if record.created - self._coordinator_missed_at > _NO_COORDINATOR_S:
                self._coordinator_gone_at = record.created  # it was there in between
            self._coordinator_missed_at = record.created
            return record.created - self._coordinator_gone_at > _NO_COORDINATOR_S
        is_of_sender = record.name.startswith("aiokafka.producer")
        return not (is_of_sender and not refusal_is_news.get() and _EXPECTED in record.getMessage())


class _Repeated:
    """A line that was written, and how often it has come since."""

    def __init__(self, record: logging.LogRecord) -> None:
        self.since = record.created  # seconds since the epoch
        self.last = record
        self.times = 0


class CountingHandler(logging.StreamHandler):  # type: ignore[type-arg]  # not before 3.11
    """A handler that writes a repeated warning once a minute, with the number of times."""

    def __init__(self) -> None:
        """Write to stderr."""
        super().__init__()
        self._remembered: dict[tuple[str, int, str], _Repeated] = {}  # the oldest first
        self._timer: threading.Timer | None = None
        self._is_closed = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line, or count it; called with the handler's lock.

        After `close` every line is written: the interpreter may be ending, which lets no new thread
        run, and whoever starts a timer then waits for it for ever.
        """
        is_news = record.levelno < logging.WARNING and not record.name.startswith("aiokafka")
        if is_news or self._is_closed:
            super().emit(record)
            return
        key = (record.name, record.levelno, record.getMessage())
        before = self._remembered.get(key)
        if before is not None and record.created - before.since < _REPEAT_INTERVAL_S:
            before.times += 1
            before.last = record
            self._wait()
            return
        self._write_due(record.created, but=key)
        before = self._remembered.pop(key, None)
        if len(self._remembered) >= _MAX_REMEMBERED_LINES:
            self._write_due(float("inf"))
        self._remembered[key] = _Repeated(record)
        super().emit(record if before is None else _with_count(record, before.times))

    def close(self) -> None:
        """Write what was only counted so far."""
        with self._guard():
            self._is_closed = True
            if self._timer is not None:
                self._timer.cancel()
            self._write_due(float("inf"))
        super().close()

    def _write_due(self, now: float, but: object = None) -> None:
        """Write the lines whose time is over and that came again, but this one; forget all."""
        for key, one in list(self._remembered.items()):
            if now - one.since < _REPEAT_INTERVAL_S:
                return
            if key != but:
                del self._remembered[key]
                if one.times:
                    super().emit(_with_count(one.last, one.times - 1))

    def _wait(self) -> None:
        """Write counts also if nothing is logged any more."""
        if self._timer is None:
            self._timer = threading.Timer(_REPEAT_INTERVAL_S, self._on_timer)
            self._timer.daemon = True
            self._timer.start()

    def _on_timer(self) -> None:
        with self._guard():
            self._timer = None
            self._write_due(datetime.now(timezone.utc).timestamp())
            if any(one.times for one in self._remembered.values()):
                self._wait()

    def _guard(self) -> threading.RLock:
        assert self.lock is not None
        return self.lock


def _with_count(record: logging.LogRecord, times: int) -> logging.LogRecord:
    """Return the line with the number of times that it came and was not written."""
    if not times:
        return record
    counted = logging.makeLogRecord(vars(record))
    counted.msg, counted.args = f"{record.getMessage()} (and {times} times before)", ()
    counted.repeated = times
    return counted


def last_line(text: str, log_format: LogFormat, worker: str) -> str:
    """Return the line with which a worker that cannot continue ends."""
    if log_format == "text":
        return f"error: {text}"
    return json_line(text, "worker-failed", logging.CRITICAL, worker)


def json_line(text: str, event: Event, level: int, worker: str) -> str:
    """Return the object of a line that is written without a logger."""
    record = logging.LogRecord(__name__, level, __file__, 0, text, (), None)
    vars(record).update(about(event))
    return JsonFormatter(worker).format(record)


def end_log(line: str) -> None:
    """Write what was only counted so far, and then this line, which is the last one."""
    logging.shutdown()
    print(line, file=sys.stderr)


def logging_config(level: str, log_format: LogFormat = "text", worker: str = "") -> dict[str, Any]:
    """Return a configuration for ``logging.config.dictConfig``; ``level`` is for this project."""
    formatter = {"()": TextFormatter} if log_format == "text" else {"()": JsonFormatter}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": formatter if log_format == "text" else {**formatter, "worker": worker}
        },
        "filters": {"expected": {"()": _ExpectedFilter}},
        "handlers": {
            "stderr": {"()": CountingHandler, "formatter": "line", "filters": ["expected"]}
        },
        "root": {"level": "WARNING", "handlers": ["stderr"]},
        "loggers": {package: {"level": level} for package in ("agents", "models", "streams")},
    }
