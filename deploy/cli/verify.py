"""`cqrs verify`: check that all invariants hold."""

from __future__ import annotations

import asyncio

import click

from agents.user_audit import verify_users
from deploy.cli.exit_codes import ExitCode
from deploy.cli.output import Form, Output, print_table
from deploy.cli.terminal import NumberRange, examples, progress_bar
from deploy.cli.views import print_indices
from deploy.colour import Verdict, marked
from deploy.environment import load_settings
from streams.audit.report import InvariantResult, Report

_OUTPUT = Output(Report, line=InvariantResult, columns=("name", "checked", "violations"))


@click.command(epilog=examples("cqrs verify", "cqrs verify --json | jq .findings.I4"))
@_OUTPUT.option
@click.option(
    "--timeout",
    default=60.0,
    show_default=True,
    type=NumberRange(min=0),
    help="Seconds to wait until the workers have processed what exists at the start.",
)
@click.pass_context
def verify(ctx: click.Context, form: Form, timeout: float) -> None:
    """Check from the topics and the index alone that nothing was lost, doubled or mixed up.

    It checks everything that exists at the start, as soon as the workers have processed it; new
    commands may arrive meanwhile. Exit code 1 if an invariant is broken, and 75 if something could
    not be read, as an index that is closed.
    """
    with progress_bar() as progress:
        report = asyncio.run(verify_users(load_settings(), timeout=timeout, progress=progress))
    _OUTPUT.write(form, report, lambda: print_report(report), lines=report.findings.values())
    if report.first_violation:
        click.echo(f"cqrs: {marked(report.first_violation, 'bad', err=True)}", err=True)
        ctx.exit(ExitCode.NO)
    if report.unread:
        click.echo(
            f"cqrs: {', '.join(report.unread)} could not be read, so I4 is not known there: mend "
            "or prune it (`cqrs views status` says why), and run this again",
            err=True,
        )
        ctx.exit(ExitCode.UNKNOWN)


def print_report(report: Report) -> None:
    """Print the invariants as a table, then the counts and the indices."""
    rows = [
        (
            finding.name,
            finding.says,
            f"{finding.checked:,}",
            Verdict("yes", "good") if finding.ok else Verdict(f"NO ({finding.violations})", "bad"),
        )
        for finding in report.findings.values()
    ]
    print_table(
        ("invariant", "says", "checked", "holds"), rows, right=("checked",), prose=("says",)
    )
    click.echo(
        f"{report.commands:,} commands: {report.accepted:,} accepted, {report.rejected:,} "
        f"rejected, {report.duplicate:,} duplicate, {report.dead:,} dead-lettered"
        + (f", {report.parked:,} parked" if report.parked else "")
        + (f", {report.controls:,} control records" if report.controls else "")
        + ";\n"
        f"{report.events:,} events of {report.aggregates:,} aggregates, "
        f"{report.documents or 0:,} documents; checked in {report.seconds:,.0f} s"
    )
    print_indices(report.indices)
    if report.known_missing:
        click.echo(f"{report.known_missing:,} documents are refused or cannot exist (dead letters)")
    if report.expired:
        ranges = ", ".join(f"[{part.partition}] from {part.start}" for part in report.ranges)
        click.echo(f"retention has left the commands of partitions {ranges}")
