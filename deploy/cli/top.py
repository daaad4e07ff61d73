"""`cqrs top`: what the workers are doing now, from their metrics."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import NamedTuple

import aiohttp
import click

from deploy.cli.exit_codes import ExitCode
from deploy.cli.output import Form, Output, echo_rendered
from deploy.cli.terminal import NumberRange, examples
from deploy.colour import new_console
from deploy.environment import load_settings, workers_of_dev
from deploy.scraping import read_targets
from deploy.top.overview import Overview, overview
from deploy.top.scrapes import Scrape, parse

_TIMEOUT_S = 2.0  # of one worker's answer: a worker whose event loop is blocked gives none

_OUTPUT = Output(
    Overview,
    columns=(
        *("group", "topic", "partition", "worker", "state"),
        *("position", "end", "lagRecords", "lagSeconds", "perSecond"),
    ),
)


@click.command(
    epilog=examples(
        "cqrs top",
        "cqrs top 127.0.0.1:9100 127.0.0.1:9110",
        "cqrs top --targets commands.json --targets views.json",
        "cqrs top 127.0.0.1:9100 --once --json",
    )
)
@click.argument(
    "workers",
    nargs=-1,
    metavar="[HOST:PORT]...",
    callback=lambda _ctx, _argument, value: tuple(map(_checked, value)),
)
@click.option(
    "--targets",
    "lists",
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="List of workers that `cqrs worker --targets` keeps; may be given several times.",
)
@click.option(
    "--interval",
    default=2.0,
    show_default=True,
    type=NumberRange(0.2, 3600),
    help="Seconds between two looks; rates and times are of what happens between them.",
)
@click.option("--once", is_flag=True, help="Look twice, print what is seen, and end.")
@_OUTPUT.option
@click.pass_context
def top(
    ctx: click.Context,
    workers: tuple[str, ...],
    lists: tuple[Path, ...],
    interval: float,
    once: bool,
    form: Form,
) -> None:
    """Show rates, lag, times, partitions and rebuilds, from the metrics of the workers.

    A worker serves its metrics if it has CQRS_HEALTH_PORT. Name each one, or the lists that
    `cqrs worker --targets` keeps; without names it shows the workers of `cqrs dev`. Workers that do
    not answer are shown, too.
    Nothing but the workers is asked: it works while Kafka or Elasticsearch is away. Ctrl-C ends it.

    With --once the exit code is 75 if a worker does not answer. JSON is one object for each look,
    TSV the partitions of each.
    """
    if not workers and not lists:
        lists = tuple(workers_of_dev(load_settings()))
    if not workers and not lists:
        raise click.UsageError(
            "`cqrs dev` does not run: say which workers: HOST:PORT for each, or --targets FILE"
        )
    looks = _looks(workers, lists, interval)
    if once:
        ctx.exit(asyncio.run(_once(looks, form)))
    asyncio.run(_live(looks, form))


def _checked(target: str) -> str:
    if not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+):\d{1,5}", target):
        raise click.BadParameter(f"{target}: write a worker as HOST:PORT, without http://")
    return target


async def _once(looks: AsyncIterator[Overview], form: Form) -> ExitCode:
    await anext(looks)
    found = await anext(looks)
    _print(found, form)
    return ExitCode.UNKNOWN if found.silent else ExitCode.OK


async def _live(looks: AsyncIterator[Overview], form: Form) -> None:
    from rich.live import Live

    from deploy.top.screen import screen

    console = new_console()
    if form != "table" or not console.is_terminal:
        async for found in looks:
            _print(found, form, is_part=True)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        async for found in looks:
            live.update(screen(found, console.width, console.height), refresh=True)


def _print(found: Overview, form: Form, *, is_part: bool = False) -> None:
    """Print one look, the only one or one of many."""

    def table() -> None:
        from deploy.top.screen import screen

        console = new_console()
        echo_rendered(console, screen(found, console.width))

    lines = found.partitions if form == "tsv" else None
    _OUTPUT.write(form, found, table, lines=lines, is_part=is_part)


async def _looks(
    workers: Sequence[str], lists: Sequence[Path], interval: float
) -> AsyncIterator[Overview]:
    """Yield what is seen every `interval` seconds; the first one has no rates."""
    before: list[Scrape] = []
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as client:
        while True:
            began = time.monotonic()
            targets = [*workers]
            now = []
            for path in lists:
                found, problem = read_targets(path)
                targets += found
                if problem:
                    now.append(Scrape(str(path), time.time(), None, problem))
            asked = list(dict.fromkeys(targets))
            answers = await asyncio.gather(*(_ask(client, one) for one in asked))
            # Parsed when all have answered: it takes long enough to make others seem late.
            now += [_read(*one) for one in zip(asked, answers, strict=True)]
            yield overview(before, now)
            before = now
            await asyncio.sleep(max(0.0, began + interval - time.monotonic()))


class _Answer(NamedTuple):
    at: float
    text: str = ""
    problem: str = ""


async def _ask(client: aiohttp.ClientSession, target: str) -> _Answer:
    try:
        async with client.get(f"http://{target}/metrics") as response:
            text = await response.text()
            if response.status != 200:
                return _Answer(time.time(), problem=f"answers {response.status}: no worker?")
            return _Answer(time.time(), text)
    except asyncio.TimeoutError:
        return _Answer(time.time(), problem=f"does not answer within {_TIMEOUT_S:g} s")
    except (aiohttp.ClientError, OSError) as error:
        return _Answer(time.time(), problem=f"does not answer: {_reason(error)}")


def _read(target: str, answer: _Answer) -> Scrape:
    if answer.problem:
        return Scrape(target, answer.at, None, answer.problem)
    try:
        return Scrape(target, answer.at, parse(answer.text))
    except ValueError:
        return Scrape(target, answer.at, None, "answers, but not with metrics: no worker?")


def _reason(error: Exception) -> str:
    """Return why a connection failed; asyncio's own text repeats the address."""
    number = getattr(error, "errno", None)
    if number is not None and number > 0:
        return os.strerror(number)
    return getattr(error, "strerror", None) or type(error).__name__
