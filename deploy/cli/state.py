"""`cqrs state`: compare the states of users with their events, or rebuild them from these."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import click

from agents.users import COMMAND_WORKER, USERS
from deploy.cli.exit_codes import ExitCode
from deploy.cli.output import Form, Output
from deploy.cli.terminal import examples, progress_bar
from deploy.colour import marked
from deploy.environment import load_settings
from streams.aggregate import TopicNames
from streams.audit.states import verify_states
from streams.commands.rebuild_state import RebuiltStates, rebuild_partition
from streams.kafka.rights import command_worker
from streams.kafka.topics import check_topics, topic_specs
from streams.settings import Settings
from streams.worker.process import tune_gc


@dataclass(frozen=True)
class StateCheck:
    """Whether the states are the fold of their events."""

    ok: bool
    aggregates: int
    """Number of users whose state was compared."""
    events: int
    violations: int
    """Number of states that differ, and of other faults."""
    first: str | None
    """The first of these, in one line; null if there is none."""


_CHECKED = Output(StateCheck, columns=("ok", "aggregates", "events", "violations", "first"))
_REBUILT = Output(list[RebuiltStates], columns=("partition", "aggregates", "events", "changed"))


@click.group()
def state() -> None:
    """Check or rebuild the state that commands are decided against.

    The state of a user is the fold of the user's events. It has a version; a worker rebuilds a
    state of an older version when it starts.
    """


@state.command(epilog=examples("cqrs state verify", "cqrs state verify --partition 2 --json"))
@click.option("--partition", type=click.IntRange(min=0), help="Check only this partition.")
@_CHECKED.option
@click.pass_context
def verify(ctx: click.Context, partition: int | None, form: Form) -> None:
    """Fold the events and compare the result with the state.

    Nothing is written, and workers may run meanwhile. Exit code 1 if a state differs; the first one
    is named.
    """
    settings = load_settings()
    numbers = _numbers(settings, partition)
    tune_gc()
    with progress_bar() as progress:
        report = asyncio.run(verify_states(settings, USERS, numbers, progress))
    violations = sum(finding.violations for finding in report.findings.values())
    result = StateCheck(
        report.ok, report.aggregates, report.events, violations, report.first_violation
    )
    shown = "all states are the fold of their events" if report.ok else f"{violations} differ"
    line = f"{report.aggregates:,} aggregates, {report.events:,} events: {shown}"
    told = marked(line, "good" if report.ok else "bad")
    _CHECKED.write(form, result, lambda: click.echo(told))
    if not report.ok:
        click.echo(f"cqrs: {report.first_violation}", err=True)
        ctx.exit(ExitCode.NO)


@state.command(epilog=examples("cqrs state rebuild 2", "cqrs state rebuild --all --json"))
@click.argument("partition", type=click.IntRange(min=0), required=False)
@click.option("--all", "all_", is_flag=True, help="Rebuild all partitions, one after the other.")
@_REBUILT.option
def rebuild(partition: int | None, all_: bool, form: Form) -> None:
    """Rebuild the state of PARTITION from its events.

    Needed after damage only: a worker does it by itself when its program has a higher state
    version. Positions and the outcomes of the last commands of each user stay. A worker that has
    the partition loses it for a moment, and takes it over again; if it does so before the end, stop
    it. If this is interrupted, a worker completes it at its next start.
    """
    if (partition is None) != all_:
        raise click.UsageError("give either a PARTITION or --all")
    settings = load_settings()
    numbers = _numbers(settings, partition)
    names = TopicNames.of(settings, USERS.name)
    rights = command_worker(names, settings.namespace + COMMAND_WORKER)
    asyncio.run(check_topics(settings, topic_specs(settings, names), rights))
    tune_gc()
    rebuilt = []
    with progress_bar() as progress:
        for number in numbers:
            done = asyncio.run(rebuild_partition(settings, USERS, number, COMMAND_WORKER, progress))
            rebuilt.append(done)
    lines = [
        f"{names.commands}[{one.partition}]: {one.aggregates:,} aggregates rebuilt from "
        f"{one.events:,} events, {one.changed:,} were different"
        for one in rebuilt
    ]
    _REBUILT.write(form, rebuilt, lambda: click.echo("\n".join(lines)))


def _numbers(settings: Settings, partition: int | None) -> range:
    """Return the number of this partition, or of all partitions."""
    if partition is None:
        return range(settings.partitions)
    if partition >= settings.partitions:
        raise click.UsageError(f"the partitions are 0 to {settings.partitions - 1}")
    return range(partition, partition + 1)
