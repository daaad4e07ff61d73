"""What a worker's log leaves out of what aiokafka says."""

from __future__ import annotations

import logging

import pytest

from streams.worker.logs import logging_config

AWAY = "Unable connect to node with id 1: [Errno 111] Connection refused"


@pytest.fixture
def news() -> logging.Filter:
    made: logging.Filter = logging_config("INFO")["filters"]["repeats"]["()"]()
    return made


def is_written(news: logging.Filter, text: str, *, at: float, name: str = "aiokafka") -> bool:
    record = logging.LogRecord(name, logging.ERROR, __file__, 1, text, None, None)
    record.created = at
    return bool(news.filter(record))


def test_a_repeated_line_is_logged_again_after_ten_seconds(news: logging.Filter) -> None:
    said = [at / 10 for at in range(250) if is_written(news, AWAY, at=at / 10)]
    assert said == [0.0, 10.0, 20.0]


def test_another_line_is_logged_at_once(news: logging.Filter) -> None:
    assert is_written(news, AWAY, at=0.0)
    assert is_written(news, AWAY.replace("id 1", "id 2"), at=0.0)


def test_repeated_lines_of_other_loggers_are_kept(news: logging.Filter) -> None:
    for name in ("streams.worker.driver", "faust.transport"):
        assert all(is_written(news, AWAY, at=0.0, name=name) for _ in range(3))


def test_expected_refusals_are_not_logged(news: logging.Filter) -> None:
    text = "retrying. Error: <class 'aiokafka.errors.NotEnoughReplicasError'>"
    assert not is_written(news, text, at=0.0, name="aiokafka.producer.sender")


def test_memory_is_bounded(news: logging.Filter) -> None:
    assert all(is_written(news, f"{AWAY} {number}", at=0.0) for number in range(5000))
    assert len(vars(news)["_logged_at"]) <= 1000
