"""`cqrs faults`: break things under load, and run `cqrs verify`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import click

from deploy.cli.output import Form, Output, echo_rendered
from deploy.cli.terminal import examples, progress_bar
from deploy.colour import new_console
from deploy.embedded.processes import Compiler
from deploy.embedded.stack import EmbeddedStack
from deploy.embedded.start_progress import TerminalProgress
from tests.faults.catalogue import SCENARIOS, SECURED
from tests.faults.report import Results, markdown_of, tables_of
from tests.faults.scenario import Result, Scale, Scenario, play

_OUTPUT = Output(list[Result], columns=("scenario", "scale", "seed", "ok", "failure"))
_LIST = "\b\nScenarios:\n" + "\n".join(f"  {one.name:4}{one.title}" for one in SCENARIOS.values())


@click.command(
    epilog=_LIST
    + "\n\n"
    + examples(
        "cqrs faults --scenario F1",
        "cqrs faults --scenario F1 --local-store",
        "cqrs faults --secure",
        "cqrs faults --scale full --resume results.json --report report.md",
    )
)
@click.option(
    "--scenario",
    "names",
    multiple=True,
    type=click.Choice(list(SCENARIOS), case_sensitive=False),
    help="Run this one; may be given several times.  [default: all]",
)
@click.option("--seed", default=1, show_default=True, help="Determines every random choice.")
@click.option(
    "--scale",
    default="small",
    show_default=True,
    type=click.Choice(["small", "full"]),
    help="A quarter of an hour in all, or up to three hours.",
)
@click.option("--local-store", is_flag=True, help="Let command workers keep their state on disk.")
@click.option(
    "--secure",
    is_flag=True,
    help=f"On servers with TLS, SCRAM and ACLs, one principal per role: {', '.join(SECURED)}.",
)
@click.option(
    "--resume",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keep results in this file, and skip scenarios that have passed according to it.",
)
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a page in Markdown there.",
)
@_OUTPUT.option
@click.pass_context
def faults(
    ctx: click.Context,
    names: tuple[str, ...],
    seed: int,
    scale: Scale,
    local_store: bool,
    secure: bool,
    resume: Path | None,
    report: Path | None,
    form: Form,
) -> None:
    """Kill, suspend and starve workers and servers under load, and check that nothing was lost.

    Each scenario starts its own Kafka and Elasticsearch, breaks something under load, lets the
    system recover by itself, and then runs `cqrs verify`. Exit code 1 if a guarantee did not hold.
    """
    possible = SECURED if secure else tuple(SCENARIOS)
    for name in names:
        if name not in possible:
            raise click.UsageError(f"--secure plays {', '.join(SECURED)} only, not {name}")
    results = Results(resume)
    played = [
        _play(SCENARIOS[name], scale, seed, local_store, secure, results)
        for name in names or possible
    ]
    if report is not None:
        report.write_text(markdown_of([one for one in results.all if one.scale == scale]))
    _OUTPUT.write(form, played, lambda: _print(played))
    for result in played:
        if not result.ok:
            click.echo(f"cqrs: {result.scenario} failed: {result.failure}", err=True)
            ctx.exit(1)


def _print(played: Sequence[Result]) -> None:
    echo_rendered(new_console(), *tables_of(played))


def _play(
    scenario: Scenario,
    scale: Scale,
    seed: int,
    local_store: bool,
    secure: bool,
    results: Results,
) -> Result:
    """Run a scenario that has not passed yet; print the workers' logs if it fails."""
    earlier = results.passed(scenario.name, scale, seed, local_store, secure)
    if earlier is not None:
        return earlier
    # In a short run the servers would spend most of it compiling.
    compiler: Compiler = "optimising" if scale == "full" else "quick"
    with (
        EmbeddedStack.temporary(TerminalProgress(), secure=secure, compiler=compiler) as stack,
        progress_bar() as progress,
    ):
        playing = play(
            scenario,
            stack,
            scale=scale,
            seed=seed,
            progress=progress,
            local_store=local_store,
            secure=secure,
        )
        result = asyncio.run(playing)
    results.add(result)
    for title, lines in result.logs.items():
        click.echo(f"--- {title}\n{lines}", err=True)
    return result
