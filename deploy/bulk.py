"""Sending a file of commands, with a progress bar on a terminal."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import BinaryIO

import click

from agents.users import USERS
from deploy.connect import connect
from deploy.lines import Lines, read_available
from models.errors import InvalidCommand
from streams.aggregate import Names
from streams.bulk import BulkSender, read_line
from streams.kafka import new_producer, started
from streams.settings import Settings
from streams.topics import COMMAND_BYTES, check_topics, topic_specs


@dataclass
class Sent:
    """What became of the lines."""

    lines: int = 0
    sent: int = 0
    refused: int = 0
    seconds: float = 0.0

    @property
    def per_second(self) -> int:
        """Commands sent."""
        return round(self.sent / self.seconds) if self.seconds else 0


def send_lines(source: BinaryIO, as_json: bool) -> int:
    """Send the lines of a file and say how many; the exit code."""
    with _progress(source) as (advance, say):
        total = asyncio.run(_send(connect(), source, advance, say))
    if as_json:
        click.echo(json.dumps({**asdict(total), "perSecond": total.per_second}))
    else:
        refused = f", {total.refused:,} lines refused" if total.refused else ""
        click.echo(
            f"sent {total.sent:,} commands in {total.seconds:.1f} s "
            f"({total.per_second:,}/s){refused}"
        )
    return 1 if total.refused else 0


async def _send(
    settings: Settings,
    source: BinaryIO,
    advance: Callable[[int, int], None],
    say: Callable[[str], None],
) -> Sent:
    names = Names(settings.namespace, USERS.name)
    await check_topics(
        settings, [spec for spec in topic_specs(settings, names) if spec.name == names.commands]
    )
    total = Sent()
    lines = Lines(COMMAND_BYTES)
    async with started(new_producer(settings), settings) as producer:
        begun = time.monotonic()
        sender = BulkSender(producer, names.commands, settings.partitions)

        async def add(number: int, line: bytes | None) -> None:
            total.lines = number
            try:
                if line is None:
                    raise InvalidCommand([f"a command may take {COMMAND_BYTES} bytes"])
                if line.strip():
                    await sender.add(*read_line(line, USERS.commands))
            except InvalidCommand as error:
                total.refused += 1
                say(f"line {number}: {error}")

        async for data in read_available(source):
            if not data:
                await sender.hand_over()  # the pipe is slow: do not hold back what there is
            for number, line in lines.feed(data):
                await add(number, line)
            advance(len(data), total.lines)
        for number, line in lines.end():
            await add(number, line)
        await sender.flush()
        total.sent = sender.sent
        total.seconds = time.monotonic() - begun
    return total


@contextmanager
def _progress(
    source: BinaryIO,
) -> Iterator[tuple[Callable[[int, int], None], Callable[[str], None]]]:
    """What to tell of bytes and lines that were read, and what to say a line with."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    if not console.is_terminal:
        yield (lambda _size, _lines: None), (lambda line: click.echo(line, err=True))
        return
    columns = TextColumn("Sending {task.fields[lines]:,} commands"), BarColumn()
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bars:
        task = bars.add_task("", total=_size_of(source), lines=0)
        yield (
            lambda size, lines: bars.update(task, advance=size, lines=lines),
            lambda line: console.print(line),
        )


def _size_of(source: BinaryIO) -> int | None:
    """Of a file; a pipe has none."""
    try:
        return os.fstat(source.fileno()).st_size or None
    except OSError:
        return None
