"""What a worker's log says, how often, and in which form."""

from __future__ import annotations

import ast
import io
import json
import logging
import logging.config
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args
from uuid import UUID

import pytest
from faust.types import TP

from streams import logs
from streams.kafka.aiokafka_patches import refusal_is_news
from streams.logs import about
from streams.worker.logs import CountingHandler, last_line, log_defect, logging_config

AWAY = "Unable connect to node with id 1: [Errno 111] Connection refused"
ROOT = Path(__file__).parents[3]
PARTITION = TP("users.commands.v1", 3)
COMMAND = UUID(int=7)


class Written:
    """A configured handler, and the lines that it writes."""

    def __init__(self, **config: Any) -> None:
        configured = logging_config("INFO", **config)
        configurator = logging.config.DictConfigurator(configured)
        formatter = configurator.configure_formatter(configured["formatters"]["line"])
        self._filter = configured["filters"]["expected"]["()"]()
        self._stream = io.StringIO()
        self.handler = CountingHandler()
        self.handler.setStream(self._stream)
        self.handler.setFormatter(formatter)
        self.handler.addFilter(self._filter)

    def log(
        self,
        text: str,
        *,
        at: float = 0.0,
        name: str = "aiokafka",
        level: int = logging.WARNING,
        **fields: Any,
    ) -> list[str]:
        """Log a line at this time; return what is written then."""
        before = len(self.lines)
        record = logging.LogRecord(name, level, __file__, 1, text, None, None)
        record.created = at
        vars(record).update(fields)
        self.handler.handle(record)
        return self.lines[before:]

    @property
    def lines(self) -> list[str]:
        return self._stream.getvalue().splitlines()


@pytest.fixture
def written() -> Iterator[Written]:
    one = Written()
    yield one
    one.handler.close()


def messages(lines: list[str]) -> list[str]:
    return [re.split(r"\w: ", line, maxsplit=1)[1] for line in lines]


@pytest.mark.parametrize("name", ["aiokafka", "streams.worker.failures", "faust.transport"])
def test_a_repeated_warning_is_counted_for_a_minute(written: Written, name: str) -> None:
    for at in range(250):
        written.log("it fails", at=at * 0.6, name=name)
    assert messages(written.lines) == [
        "it fails",
        "it fails (and 99 times before)",
        "it fails (and 99 times before)",
    ]
    written.handler.close()
    assert messages(written.lines[3:]) == ["it fails (and 48 times before)"]


def test_another_line_is_logged_at_once(written: Written) -> None:
    assert written.log(AWAY)
    assert written.log(AWAY.replace("id 1", "id 2"))
    assert written.log(AWAY, level=logging.ERROR)
    assert written.log(AWAY, name="aiokafka.conn")


def test_what_is_not_repeated_any_more_is_said_with_the_next_line(written: Written) -> None:
    for _ in range(5):
        written.log("it fails")
    assert messages(written.log("all is well", at=61.0, level=logging.WARNING)) == [
        "it fails (and 3 times before)",
        "all is well",
    ]


def test_without_a_next_line_it_is_said_by_a_timer(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(5):
        written.log("it fails")
    timer = written.handler._timer
    assert timer is not None
    timer.cancel()
    timer.function()
    assert messages(written.lines) == ["it fails", "it fails (and 3 times before)"]
    assert written.handler._timer is None


def test_information_is_news_each_time(written: Written) -> None:
    """A partition that starts again at the same position, for instance."""
    name = "streams.worker.driver"
    assert all(written.log("going on", level=logging.INFO, name=name) for _ in range(3))


def test_a_defect_of_every_command_is_one_line_with_its_traceback(written: Written) -> None:
    logger = logging.getLogger("streams.worker.logs")
    logger.addHandler(written.handler)
    try:
        for offset in range(1000):
            try:
                raise KeyError("anna@example.org")
            except KeyError as error:
                log_defect(
                    "deciding RegisterUser", error, PARTITION, offset=offset, command=COMMAND
                )
    finally:
        logger.removeHandler(written.handler)
    first, *traceback = written.lines
    place = f"users.commands.v1[3] at offset 0, command {COMMAND}"
    assert first.endswith(f": deciding RegisterUser raised KeyError ({place})")
    assert len(traceback) == 2  # where, and the line of code
    assert "anna" not in "".join(written.lines).replace('raise KeyError("anna@example.org")', "")
    written.handler.close()
    assert written.lines[3].endswith(
        f"(and 998 times before) ({place.replace('offset 0', 'offset 999')})"
    )


def test_a_group_without_coordinator_is_an_error_only_if_that_lasts(written: Written) -> None:
    line = "Group Coordinator Request failed: [Error 15] GroupCoordinatorNotAvailableError"
    name = "aiokafka.consumer.group_coordinator"
    for start in (5.0, 500.0):  # each time that a broker starts
        assert [
            len(written.log(line, at=start + after, name=name, level=logging.ERROR))
            for after in (0.0, 29.0, 31.0)
        ] == [0, 0, 1]


def test_expected_refusals_are_not_logged(written: Written) -> None:
    text = "retrying. Error: <class 'aiokafka.errors.NotEnoughReplicasError'>"
    assert not written.log(text, name="aiokafka.producer.sender")


def test_a_refusal_late_in_a_transaction_is_logged(written: Written) -> None:
    text = "retrying. Error: <class 'aiokafka.errors.NotEnoughReplicasError'>"
    token = refusal_is_news.set(True)
    try:
        assert written.log(text, name="aiokafka.producer.sender")
        assert not written.log(text, at=1.0, name="aiokafka.producer.sender")
    finally:
        refusal_is_news.reset(token)


def test_memory_is_bounded(written: Written) -> None:
    assert all(written.log(f"{AWAY} {number}") for number in range(5000))
    assert len(written.handler._remembered) <= 1000


def test_as_json_a_line_is_an_object_with_stable_fields() -> None:
    written = Written(log_format="json", worker="users-commands")
    fields: Any = about("partition-parked", PARTITION, offset=5, command=COMMAND)
    (line,) = written.log("it is\nparked", at=1.5, name="streams.worker.driver", **fields)
    found = json.loads(line)
    assert found.pop("process") > 0
    assert found == {
        "time": "1970-01-01T00:00:01.500+00:00",
        "level": "WARNING",
        "event": "partition-parked",
        "worker": "users-commands",
        "logger": "streams.worker.driver",
        "message": "it is\nparked",
        "topic": "users.commands.v1",
        "partition": 3,
        "offset": 5,
        "command": str(COMMAND),
    }
    (line,) = written.log("of a library")
    assert json.loads(line)["event"] == "library"
    written.log("of a library", at=1.0)
    (line,) = written.log("of a library", at=70.0)
    assert json.loads(line)["repeated"] == 1
    written.handler.close()


def test_the_last_line_has_the_form_of_the_others() -> None:
    assert last_line("do this", "text", "users-commands") == "error: do this"
    found = json.loads(last_line("do this", "json", "users-commands"))
    assert (found["event"], found["message"]) == ("worker-failed", "do this")
    assert (found["level"], found["worker"]) == ("CRITICAL", "users-commands")


def test_what_is_counted_does_not_come_after_the_last_line() -> None:
    script = """
import logging.config
from streams.worker.logs import end_log, logging_config
logging.config.dictConfig(logging_config("INFO"))
for _ in range(3):
    logging.getLogger("aiokafka").warning("it fails")
end_log("error: do this")
"""
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    first, counted, last = ran.stderr.splitlines()
    assert messages([first, counted]) == ["it fails", "it fails (and 1 times before)"]
    assert last == "error: do this"


def calls() -> Iterator[tuple[str, ast.Call]]:
    """The calls that log, in the rooms that workers consist of."""
    for path in [*ROOT.glob("streams/**/*.py"), *ROOT.glob("agents/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("debug", "info", "warning", "error", "critical", "exception")
                and ast.unparse(node.func.value) in ("logger", "self.log")
            ):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node


_AT_THE_END = """
import logging
import logging.config

from streams.worker.logs import logging_config

logging.config.dictConfig(logging_config("INFO"))


class Late:
    def __del__(self, log=logging.getLogger("asyncio")):
        log.error("nobody looked")


late = [Late(), Late()]
"""


def test_what_is_repeated_while_the_interpreter_ends_does_not_hold_it_up() -> None:
    """It lets no new thread run, so whoever starts one waits for ever."""
    done = subprocess.run(
        [sys.executable, "-c", _AT_THE_END],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr.count("nobody looked") == 2


def test_every_line_has_an_event_and_every_event_is_documented() -> None:
    used = {"defect", "worker-failed", "worker-restarting"}
    for where, call in calls():
        extra = next((one.value for one in call.keywords if one.arg == "extra"), None)
        if where.startswith("streams/worker/logs.py"):
            continue  # `log_defect`
        assert isinstance(extra, ast.Call), where
        assert ast.unparse(extra.func) == "about", where
        (event, *_) = extra.args
        assert isinstance(event, ast.Constant), where
        used.add(str(event.value))
    assert used == set(get_args(logs.Event))
    page = (ROOT / "docs" / "operating.md").read_text()
    section = page.partition("| event | meaning |")[2]
    assert used == set(re.findall(r"^\| `([\w-]+)` \|", section, re.MULTILINE))
