"""`cqrs bench`: measure how fast the system is, compared with its peers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from benchmarks.catalogue import BENCHMARKS
from benchmarks.peers.extra import need
from benchmarks.plot import write_plot
from benchmarks.report import comparison_of, markdown_of, plot_name, table_of
from benchmarks.rig.result import Result
from benchmarks.rig.runner import Benchmark, SizeName, run
from deploy.cli.output import echo_rendered
from deploy.cli.terminal import examples, progress_bar
from deploy.colour import new_console
from deploy.embedded.stack import EmbeddedStack
from deploy.embedded.start_progress import TerminalProgress

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_NEW_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group(
    epilog=examples(
        "cqrs bench deciding --size full --output deciding.json",
        "cqrs bench compare before.json deciding.json",
        "cqrs bench report deciding.json --output performance.md",
    )
)
def bench() -> None:
    """Measure how fast the system is, compared with its peers.

    A benchmark starts its own servers, then runs its contestants in turn, round after round. Do not
    use the machine for anything else meanwhile. Missing jars are downloaded once.
    """


def _command(benchmark: Benchmark) -> click.Command:
    @click.option(
        "--rounds",
        default=3,
        show_default=True,
        type=click.IntRange(1, 100),
        help="How often each contestant is measured.",
    )
    @click.option(
        "--size",
        default="small",
        show_default=True,
        type=click.Choice(list(benchmark.sizes)),
        help="Amount of data; small is for a first look.",
    )
    @click.option("--seed", default=1, show_default=True, help="Seed of all random choices.")
    @click.option(
        "--output", "file", type=_NEW_FILE, help="Also write all figures to this file, as JSON."
    )
    def measure(rounds: int, size: SizeName, seed: int, file: Path | None) -> None:
        need(*benchmark.needs)
        with (
            EmbeddedStack.temporary(TerminalProgress(), compiler="optimising") as stack,
            progress_bar() as progress,
        ):
            measuring = run(
                benchmark,
                stack,
                rounds=rounds,
                size_name=size,
                seed=seed,
                progress=progress,
            )
            result = asyncio.run(measuring)
        if file is not None:
            result.write(file)
        _print(table_of(result))

    return click.command(
        benchmark.name,
        help=benchmark.about,
        epilog=examples(
            f"cqrs bench {benchmark.name}",
            f"cqrs bench {benchmark.name} --size full --output {benchmark.name}.json",
        ),
    )(measure)


for _benchmark in BENCHMARKS.values():
    bench.add_command(_command(_benchmark))


@bench.command(epilog=examples("cqrs bench compare before.json after.json"))
@click.argument("before", type=_FILE)
@click.argument("after", type=_FILE)
def compare(before: Path, after: Path) -> None:
    """Show what changed between two runs of a benchmark.

    BEFORE and AFTER are files that --output wrote. A change is clear if the spreads of the two
    runs, from the lowest to the highest round, do not overlap.
    """
    _print(comparison_of(Result.read(before), Result.read(after)))


@bench.command(epilog=examples("cqrs bench report deciding.json --output performance.md"))
@click.argument("results", nargs=-1, required=True, type=_FILE)
@click.option("--output", type=_NEW_FILE, help="Write the page to this file, and plots beside it.")
def report(results: tuple[Path, ...], output: Path | None) -> None:
    """Write a Markdown page about the results of benchmarks.

    RESULTS are files that a benchmark's --output wrote. Without --output the page is printed,
    without plots.
    """
    found = [Result.read(one) for one in results]
    if output is None:
        click.echo(markdown_of(found), nl=False)
        return
    for one in found:
        write_plot(one, output.with_name(plot_name(output.stem, one)))
    output.write_text(markdown_of(found, plots=output.stem))


def _print(table: object) -> None:
    echo_rendered(new_console(), table)
