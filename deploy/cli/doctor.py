"""`cqrs doctor`: what is wrong with a deployment, and what to do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from deploy.cli.exit_codes import ExitCode
from deploy.cli.output import Form, Output, echo_rendered
from deploy.cli.terminal import NumberRange, examples
from deploy.colour import COLOURS, Meaning, marked, new_console
from deploy.doctor.findings import Finding, count
from deploy.environment import load_settings, workers_of_dev
from deploy.roles import ROLES, SecuredRole

_OUTPUT = Output(list[Finding], columns=("group", "subject", "status", "line"))
# With the start of this program it stays below 10 s.
_TIMEOUT_S = 6.0
_WORDS = {"ok": "ok", "problem": "PROBLEM", "unknown": "unknown", "skipped": "-"}
_SERVERS = (("Kafka", "brokers"), ("Elasticsearch", "nodes"))
_STYLES = {
    "ok": COLOURS["good"],
    "problem": COLOURS["bad"],
    "unknown": COLOURS["late"],
    "skipped": "dim",
}


@click.command(
    epilog=examples(
        "cqrs doctor",
        "cqrs doctor --targets commands.json --targets views.json",
        "cqrs doctor --role command-worker --json",
    )
)
@click.option(
    "--targets",
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file of `cqrs worker --targets`: ask these workers what is parked or waits.",
)
@click.option(
    "--role",
    type=click.Choice(ROLES),
    default="operator",
    show_default=True,
    help="Whose rights these credentials should have.",
)
@click.option(
    "--timeout",
    default=_TIMEOUT_S,
    show_default=True,
    type=NumberRange(min=0, min_open=True),
    help="Seconds after which what was not answered is reported as unknown.",
)
@_OUTPUT.option
@click.pass_context
def doctor(
    ctx: click.Context,
    targets: tuple[Path, ...],
    role: SecuredRole,
    timeout: float,
    form: Form,
) -> None:
    """Say what is wrong with this deployment, and what to do. It only reads.

    It checks settings, servers, versions, topics, views, workers, progress, open transactions,
    rights, certificates, clocks and disks. Everything is asked at the same time, and what does not
    answer in time is reported as unknown. The workers of `cqrs dev` are asked, too.

    Exit code 0 if all is well, 1 if there is a problem, 75 if there is none as far as is known, and
    something could not be found out.
    """
    settings = load_settings()
    from deploy.doctor.collect import collect
    from deploy.doctor.diagnosis import diagnose

    lists = targets or workers_of_dev(settings)
    facts = asyncio.run(collect(settings, role, lists, timeout=timeout))
    findings = diagnose(facts, role)
    _OUTPUT.write(form, findings, lambda: _print(findings))
    ctx.exit(exit_code(findings))


def exit_code(findings: Iterable[Finding]) -> ExitCode:
    """Return what a program can conclude from these findings."""
    found = {one.status for one in findings}
    if "problem" in found:
        return ExitCode.NO
    return ExitCode.OK if found.isdisjoint({"unknown", "unasked"}) else ExitCode.UNKNOWN


def _print(findings: Sequence[Finding]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold", max_width=24)
    table.add_column(overflow="fold")
    group = None
    for one in findings:
        if one.status == "unasked":
            continue  # the conclusion says it once
        if one.group != group:
            group = one.group
            table.add_row(Text(group, style="bold"), "", "")
        style = _STYLES[one.status]
        state = Text(f"  {_WORDS[one.status]}", style=style)
        of_line = "" if one.status == "ok" else style
        table.add_row(state, Text(one.subject), Text(one.line, style=of_line))
    echo_rendered(new_console(), table)
    meanings: dict[ExitCode, Meaning] = {ExitCode.OK: "good", ExitCode.NO: "bad"}
    meaning = meanings.get(exit_code(findings), "late")
    click.echo(marked(conclusion(findings), meaning))


def conclusion(findings: Sequence[Finding]) -> str:
    """Return the whole in one line."""
    problems, unknown, unasked = (
        sum(one.status == status for one in findings)
        for status in ("problem", "unknown", "unasked")
    )
    silent = [
        name
        for name, subject in _SERVERS
        if any(
            (one.group, one.subject, one.status) == (name, subject, "unknown") for one in findings
        )
    ]
    said = [
        *([count(problems, "problem")] if problems else ()),
        *([f"{unknown} unknown"] if unknown else ()),
        *([f"{unasked} not asked"] if unasked else ()),
    ]
    because = f": {' and '.join(silent)} did not answer" if silent else ""
    return f"{', '.join(said)}{because}" if said else "nothing is wrong"
