"""`cqrs send --from`: send a file of commands, with a progress bar on a terminal."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from typing import BinaryIO, ClassVar

import click

from agents.users import USERS
from deploy.cli.line_reader import LineSplitter, read_available
from deploy.cli.output import Form, Output
from deploy.cli.terminal import progress_bar
from deploy.environment import load_settings
from models.errors import CqrsError, InvalidCommand
from streams.aggregate import TopicNames
from streams.commands.bulk_sender import BulkSender, read_line
from streams.kafka.clients import new_producer, started
from streams.kafka.rights import client
from streams.kafka.topics import COMMAND_BYTES, check_topics, topic_specs
from streams.progress import ProgressCallback
from streams.settings import Settings


@dataclass
class Summary:
    """Counts of the lines of a file."""

    json_properties: ClassVar[tuple[str, ...]] = ("per_second",)

    lines: int = 0
    """Number of lines that were read."""
    sent: int = 0
    """Commands that Kafka has: at least these, if it was interrupted."""
    refused: int = 0
    """Lines that are not valid commands: they were not sent."""
    seconds: float = 0.0
    """How long it took."""

    @property
    def per_second(self) -> int:
        """Commands sent per second."""
        return round(self.sent / self.seconds) if self.seconds else 0


SENT = Output(Summary, columns=("lines", "sent", "refused", "seconds", "perSecond"))


def send_lines(source: BinaryIO, form: Form) -> int:
    """Send the lines of a file, print a summary and return the exit code: 1 if any was refused.

    If it is interrupted, or Kafka fails, the summary says how far it came.
    """
    summary = Summary()
    try:
        with progress_bar() as progress:
            asyncio.run(_send(load_settings(), source, progress, summary))
    except (KeyboardInterrupt, CqrsError):
        if summary.lines:
            _print(
                form,
                summary,
                f"sent at least {summary.sent:,} commands, of the first {summary.lines:,} lines, "
                f"in {summary.seconds:.1f} s",
            )
        raise
    _print(
        form,
        summary,
        f"sent {summary.sent:,} commands in {summary.seconds:.1f} s ({summary.per_second:,}/s)",
    )
    return 1 if summary.refused else 0


def _print(form: Form, summary: Summary, line: str) -> None:
    refused = f", {summary.refused:,} lines refused" if summary.refused else ""
    SENT.write(form, summary, lambda: click.echo(line + refused))


async def _send(
    settings: Settings, source: BinaryIO, progress: ProgressCallback, summary: Summary
) -> None:
    """Send the lines, and count in `summary`, also if it is interrupted."""
    names = TopicNames.of(settings, USERS.name)
    await check_topics(
        settings,
        [spec for spec in topic_specs(settings, names) if spec.name == names.commands],
        [right for right in client(names) if right.name == names.commands],
    )
    lines = LineSplitter(COMMAND_BYTES)
    read, size = 0, _size_of(source)
    async with started(new_producer(settings), settings) as producer:
        begun = time.monotonic()
        sender = BulkSender(producer, names.commands, settings.partitions)

        async def add(number: int, line: bytes | None) -> None:
            summary.lines = number
            try:
                if line is None:
                    raise InvalidCommand([f"a command may take {COMMAND_BYTES} bytes"])
                if line.strip():
                    await sender.add(*read_line(line, USERS.commands))
            except InvalidCommand as error:
                summary.refused += 1
                click.echo(f"line {number}: {error}", err=True)

        try:
            async for data in read_available(source):
                if not data:
                    await sender.hand_over()  # the pipe is slow: send what was read so far
                for number, line in lines.feed(data):
                    await add(number, line)
                read += len(data)
                total = summary.lines * size // read if read else 0
                progress("Sending commands", summary.lines, total)
            for number, line in lines.end():
                await add(number, line)
            await sender.flush()
        finally:
            summary.sent = sender.sent
            summary.seconds = time.monotonic() - begun


def _size_of(source: BinaryIO) -> int:
    """Return the size of a file in bytes, 0 for a pipe."""
    try:
        return os.fstat(source.fileno()).st_size
    except OSError:
        return 0
