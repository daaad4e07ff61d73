"""`cqrs topics`: create the topics, and the way out when commands expired undecided."""

from __future__ import annotations

import asyncio

import click

from agents.users import COMMAND_WORKER, USERS
from deploy.cli.terminal import examples
from deploy.environment import load_settings
from streams.aggregate import TopicNames
from streams.commands import skip_expired as expired
from streams.kafka.topics import check_topics, create_topics, topic_specs


@click.group()
def topics() -> None:
    """Create the topics; go on after commands expired undecided."""


@topics.command(
    epilog=examples(
        "cqrs topics create", "CQRS_PARTITIONS=12 CQRS_REPLICATION_FACTOR=3 cqrs topics create"
    )
)
def create() -> None:
    """Create the topics that are missing, and check those that exist.

    One that exists and differs is an error that says what to do. The number of partitions
    (CQRS_PARTITIONS) is for the topics' life.
    """
    from rich.console import Console
    from rich.table import Table

    settings = load_settings()
    specs = topic_specs(settings, TopicNames.of(settings, USERS.name))
    created = asyncio.run(create_topics(settings, specs))
    table = Table("topic", "partitions", "cleanup", "")
    for spec in specs:
        state = "created" if spec.name in created else "exists"
        table.add_row(spec.name, str(spec.partitions), spec.configs["cleanup.policy"], state)
    Console(soft_wrap=True, highlight=False).print(table)


@topics.command(epilog=examples("cqrs topics skip-expired 2"))
@click.argument("partition", type=click.IntRange(min=0))
@click.option("--yes", is_flag=True, help="Do not ask.")
def skip_expired(partition: int, yes: bool) -> None:
    """Give up the commands of a PARTITION that expired before they were decided.

    A worker that finds such a gap stops, for nobody will ever know what those commands were. This
    lets it go on at the first command that is left.
    """
    settings = load_settings()
    if partition >= settings.partitions:
        raise click.UsageError(f"the partitions are 0 to {settings.partitions - 1}")
    names = TopicNames.of(settings, USERS.name)
    asyncio.run(check_topics(settings, topic_specs(settings, names)))
    found = asyncio.run(expired.find_expired(settings, names, partition))
    where = f"{names.commands}[{partition}]"
    if not found.count:
        click.echo(f"{where}: nothing expired undecided (position {found.position})")
        return
    click.echo(
        f"{where}: {found.count} commands expired before they were decided "
        f"(offsets {found.position} to {found.begin - 1})"
    )
    if not yes:
        click.confirm("Give them up?", abort=True)
    skipped = asyncio.run(expired.skip_expired(settings, names, partition, COMMAND_WORKER))
    click.echo(f"{where}: {skipped.count} commands given up; it goes on at {skipped.begin}")
