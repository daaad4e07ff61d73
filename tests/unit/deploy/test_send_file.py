"""What `cqrs send --from` makes of a file: lines, and commands or reasons."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.client import check_typed
from deploy.cli.line_reader import LineSplitter, read_available
from deploy.cli.main import main
from deploy.cli.send_file import Summary
from deploy.samples.commands import generate, malformed
from models.commands import USER_COMMANDS, UpdateUserProfile
from models.errors import InvalidCommand, Transient
from streams.commands.bulk_sender import read_line
from streams.commands.client import check_size, encode_command
from streams.kafka.topics import COMMAND_BYTES
from tests.unit.samples import register, wire_register


def lines_of(*blocks: bytes, longest: int = 100) -> list[tuple[int, bytes | None]]:
    lines = LineSplitter(longest)
    found = [line for block in blocks for line in lines.feed(block)]
    return [*found, *lines.end()]


@given(st.lists(st.binary(max_size=30)), st.data())
def test_lines_are_the_same_however_they_are_read(wanted: list[bytes], data: st.DataObject) -> None:
    text = b"".join(line.replace(b"\n", b"") + b"\n" for line in wanted)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)))))
    blocks = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    expected = list(enumerate((line.replace(b"\n", b"") for line in wanted), 1))
    assert lines_of(*blocks) == expected


def test_the_last_line_needs_no_end() -> None:
    assert lines_of(b"one\ntw", b"o") == [(1, b"one"), (2, b"two")]


def test_a_line_that_is_too_long_is_passed_over_and_counted() -> None:
    blocks = [
        b"a\n" + b"x" * 80,
        b"x" * 80,
        b"x" * 80 + b"\nb\n",
        b"y" * 101 + b"\nc\n",
        b"z" * 101,
    ]
    assert lines_of(*blocks) == [(1, b"a"), (2, None), (3, b"b"), (4, None), (5, b"c"), (6, None)]


async def test_a_file_is_read_to_its_end(tmp_path: Path) -> None:
    text = b"line\n" * 500_000
    file = tmp_path / "commands"
    file.write_bytes(text)
    with file.open("rb") as source:
        blocks = [block async for block in read_available(source)]
    assert b"".join(blocks) == text
    assert len(blocks) > 1


async def test_a_stream_that_cannot_be_read_raises_its_error(tmp_path: Path) -> None:
    with (
        (tmp_path / "commands").open("wb") as source,
        pytest.raises(OSError, match="Bad file descriptor"),
    ):
        await anext(read_available(source))


async def test_a_slow_pipe_yields_empty_blocks_while_nothing_is_there() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as source:
        blocks = read_available(source)
        assert await anext(blocks) == b""
        os.write(writing, b"one\n")
        assert await first_text(blocks) == b"one\n"
        assert await anext(blocks) == b""
        os.write(writing, b"two\n")
        os.close(writing)
        assert [block async for block in blocks if block] == [b"two\n"]


async def first_text(blocks: AsyncIterator[bytes]) -> bytes:
    """The first block that is not empty."""
    return await anext(block async for block in blocks if block)


@pytest.mark.parametrize(
    ("ends", "code", "line"),
    [(KeyboardInterrupt(), 130, "interrupted"), (Transient("Kafka failed"), 75, "Kafka failed")],
    ids=lambda it: type(it).__name__,
)
def test_what_was_sent_is_said_also_if_it_is_interrupted(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    ends: BaseException,
    code: int,
    line: str,
) -> None:
    async def interrupted(*given: object) -> None:
        summary = given[-1]
        assert isinstance(summary, Summary)
        summary.lines, summary.sent, summary.refused, summary.seconds = 2000, 1024, 1, 2.0
        raise ends

    monkeypatch.setenv("CQRS_STACK_HOME", str(tmp_path))
    monkeypatch.setattr("deploy.cli.send_file._send", interrupted)
    assert run_send(tmp_path) == code
    shown = capsys.readouterr()
    assert shown.out == (
        "sent at least 1,024 commands, of the first 2,000 lines, in 2.0 s, 1 lines refused\n"
    )
    assert shown.err.strip() == f"cqrs: {line}"
    assert run_send(tmp_path, "--json") == code
    assert json.loads(capsys.readouterr().out) == {
        "lines": 2000,
        "sent": 1024,
        "refused": 1,
        "seconds": 2.0,
        "perSecond": 512,
    }


def test_there_is_no_summary_if_nothing_was_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def fails(*_: object) -> None:
        raise Transient("Kafka failed")

    monkeypatch.setenv("CQRS_STACK_HOME", str(tmp_path))
    monkeypatch.setattr("deploy.cli.send_file._send", fails)
    assert run_send(tmp_path, "--json") == 75
    assert capsys.readouterr().out == ""


def run_send(folder: Path, *options: str) -> object:
    """Send an empty file, and return the exit code."""
    file = folder / "commands"
    file.touch()
    with pytest.raises(SystemExit) as ended:
        main(["send", "--from", str(file), *options])
    return ended.value.code


def test_a_line_is_sent_unchanged() -> None:
    line = b' {"type":"DeactivateUserCommand", "aggregate_id":"\xc3\xa4nna"} \r\n'
    assert read_line(line, USER_COMMANDS) == ("änna".encode(), line.strip())


def test_generated_commands_are_accepted() -> None:
    for command in generate(300, seed=9):
        value = orjson.dumps(command)
        assert read_line(value, USER_COMMANDS) == (command["aggregateId"].encode(), value)


def test_malformed_commands_are_refused_but_for_their_keys() -> None:
    refused = 0
    for key, value in malformed(80):
        try:
            assert read_line(value, USER_COMMANDS)[0] != key
        except InvalidCommand:
            refused += 1
    assert refused == 70  # of eight kinds one has nothing wrong but its key, which is made here


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", r"^not JSON: .* \(column \d+\)$"),
        (b"\xff", r"^not JSON: "),
        (b"[1]", r"^the value must be a JSON object$"),
        (b"{}", r"^type: is missing$"),
        (b'{"type":"Fly"}', r"^No handler registered for command: Fly$"),
        (b'{"type":"DeactivateUser"}', r"^aggregateId: is missing$"),
        (
            orjson.dumps(wire_register(email="a", firstName="")),
            r"^email: must be an email address.*; firstName: must not be empty$",
        ),
    ],
)
def test_a_line_that_is_no_command_is_refused_with_its_reason(line: bytes, reason: str) -> None:
    with pytest.raises(InvalidCommand, match=reason):
        read_line(line, USER_COMMANDS)


def test_a_record_that_the_topic_does_not_take_is_refused_before_it_is_sent() -> None:
    check_size(b"key", b"x" * (COMMAND_BYTES - 200))
    with pytest.raises(InvalidCommand, match=rf"^a command may take {COMMAND_BYTES} bytes"):
        check_size(b"key", b"x" * COMMAND_BYTES)


def test_a_command_as_a_record() -> None:
    command = register(aggregate_id="änna")
    key, value = encode_command(command)
    assert key == "änna".encode()
    assert read_line(value, USER_COMMANDS) == (key, value)


@pytest.mark.parametrize("email", ["a@localhost.test", "a@ab--c.com", "a@☃.com"])
def test_the_librarys_check_of_email_goes_further_than_the_workers(email: str) -> None:
    with pytest.raises(InvalidCommand, match=r"^email: "):
        check_typed(register(email=email))
    with pytest.raises(InvalidCommand, match=r"^email: "):
        check_typed(UpdateUserProfile(aggregate_id="user-1", email=email))


def test_a_command_without_an_email_passes_the_check() -> None:
    check_typed(UpdateUserProfile(aggregate_id="user-1", first_name="Anna"))
    check_typed(register())
