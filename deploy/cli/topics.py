"""`cqrs topics`: create the topics, and move positions that only a person may move."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Literal

import click

from agents.users import COMMAND_WORKER, USERS
from deploy.cli.acls import FORMS
from deploy.cli.acls import Form as RightsForm
from deploy.cli.acls import acls as format_acls
from deploy.cli.output import Form, Output, print_table
from deploy.cli.terminal import confirm, examples, waiting
from deploy.cli.topic_manifests import topic_manifests
from deploy.environment import load_settings
from deploy.roles import ROLES, SecuredRole
from streams.aggregate import TopicNames
from streams.commands import adopt_topic as adopting
from streams.commands import skip_expired as expired
from streams.kafka.rights import command_worker
from streams.kafka.topics import check_topics, create_topics, topic_specs
from streams.logs import name_of
from streams.settings import Settings, read_settings


@dataclass(frozen=True)
class Topic:
    """A topic that is there now."""

    topic: str
    partitions: int
    cleanup: str
    """Its `cleanup.policy`: `delete` or `compact`."""
    state: Literal["created", "exists"]
    """Whether this command created it."""


@dataclass(frozen=True)
class Skipped:
    """Commands of a partition that were given up."""

    topic: str
    partition: int
    given_up: int
    """Number of commands that expired undecided; 0 if there are none."""
    position: int
    """Offset at which workers continue."""


@dataclass(frozen=True)
class Adopted:
    """Whether a partition's position was moved to the new topic."""

    topic: str
    partition: int
    adopted: bool
    """False if there was nothing to adopt."""
    position: int | None
    """Offset at which workers continue; null if nothing was adopted."""


_CREATED = Output(list[Topic], columns=("topic", "partitions", "cleanup", "state"))
_SKIPPED = Output(Skipped, columns=("topic", "partition", "givenUp", "position"))
_ADOPTED = Output(list[Adopted], columns=("topic", "partition", "adopted", "position"))

_CLUSTER = click.option(
    "--cluster", default="kafka", show_default=True, help="Name of the Kafka resource of Strimzi."
)


@click.group()
def topics() -> None:
    """Create or print the topics, and who needs which rights; skip expired commands; adopt."""


@topics.command(
    epilog=examples(
        "cqrs topics create", "CQRS_PARTITIONS=12 CQRS_REPLICATION_FACTOR=3 cqrs topics create"
    )
)
@_CREATED.option
def create(form: Form) -> None:
    """Create missing topics, and check the existing ones.

    If an existing topic has other settings, the error says what to do. The number of partitions
    (CQRS_PARTITIONS) is fixed for the life of the topics.
    """
    settings = load_settings()
    specs = topic_specs(settings, TopicNames.of(settings, USERS.name))
    with waiting("Creating topics"):
        created = asyncio.run(create_topics(settings, specs))
    found = [
        Topic(
            spec.name,
            spec.partitions,
            spec.configs["cleanup.policy"],
            "created" if spec.name in created else "exists",
        )
        for spec in specs
    ]
    _CREATED.write(
        form,
        found,
        lambda: print_table(
            _CREATED.columns,
            [(one.topic, one.partitions, one.cleanup, one.state) for one in found],
            right=("partitions",),
            droppable=("cleanup",),
        ),
    )
    for line in asyncio.run(check_topics(settings, specs)):
        click.echo(f"warning: {line}", err=True)


@topics.command(
    epilog=examples(
        "cqrs topics acls --role command-worker --principal User:commands",
        "cqrs topics acls --role view-worker --principal User:views --format json",
    )
)
@click.option("--role", required=True, type=click.Choice(ROLES), help="Whose rights.")
@click.option(
    "--principal", required=True, help="Principal that gets them, as Kafka names it: User:NAME."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMS),
    default="kafka-acls",
    show_default=True,
    help="Commands, a KafkaUser of Strimzi, or JSON with the role of Elasticsearch.",
)
@_CLUSTER
def acls(role: SecuredRole, principal: str, form: RightsForm, cluster: str) -> None:
    """Print the rights that a role needs, and no more."""
    if not principal.startswith("User:"):
        raise click.UsageError("a principal begins with User:")
    click.echo(format_acls(role, principal, form, read_settings(), cluster))


@topics.command(
    epilog=examples(
        "CQRS_PARTITIONS=12 CQRS_REPLICATION_FACTOR=3 cqrs topics manifest --cluster kafka"
    )
)
@_CLUSTER
def manifest(cluster: str) -> None:
    """Print the topics as KafkaTopics of Strimzi.

    They are for `kubectl apply`, on clusters whose topics Strimzi manages; `cqrs topics create`
    creates the same.
    """
    click.echo(topic_manifests(read_settings(), cluster))


@topics.command(
    epilog=examples("cqrs topics skip-expired 2", "cqrs topics skip-expired 2 --yes --json")
)
@click.argument("partition", type=click.IntRange(min=0))
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@_SKIPPED.option
def skip_expired(partition: int, yes: bool, form: Form) -> None:
    """Give up commands of PARTITION that expired undecided.

    A worker that finds such a gap stops: those commands are lost, and only a person can decide to
    give them up. This moves its position to the first command that still exists.
    """
    settings, names = _checked(partition)
    found = asyncio.run(expired.find_expired(settings, names, partition))
    where = f"{names.commands}[{partition}]"
    line = f"{where}: nothing expired undecided (position {found.position})"
    if found.count:
        click.echo(
            f"{where}: {found.count} commands expired before they were decided "
            f"(offsets {found.position} to {found.begin - 1})",
            err=True,
        )
        if not yes:
            confirm("Give them up?")
        found = asyncio.run(expired.skip_expired(settings, names, partition, COMMAND_WORKER))
        line = f"{where}: {found.count} commands given up; it continues at {found.begin}"
    position = found.begin if found.count else found.position
    done = Skipped(names.commands, partition, found.count, position)
    _SKIPPED.write(form, done, lambda: click.echo(line))


@topics.command(epilog=examples("cqrs topics adopt 2", "cqrs topics adopt --all --yes --json"))
@click.argument("partition", type=click.IntRange(min=0), required=False)
@click.option("--all", "all_", is_flag=True, help="Adopt all partitions.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@_ADOPTED.option
def adopt(partition: int | None, all_: bool, yes: bool, form: Form) -> None:
    """Decide the commands of a topic that was created again.

    A worker whose command topic was deleted and created again stops: commands of the former topic
    that were not decided are lost, and only a person can accept that. This moves the position of
    PARTITION to the beginning of the new topic.
    """
    if (partition is None) != all_:
        raise click.UsageError("give either a PARTITION or --all")
    settings, names = _checked(partition)
    numbers = range(settings.partitions) if partition is None else [partition]
    found = {
        number: asyncio.run(adopting.find_adoption(settings, names, number)) for number in numbers
    }
    for number, former in found.items():
        if former is not None:
            click.echo(
                f"{names.commands}[{number}]: the position {former.position} refers to a former "
                f"topic, the new one begins at {former.begin}",
                err=True,
            )
    if any(found.values()) and not yes:
        confirm("Decide the new commands from there?")
    adopted = []
    for number, former in found.items():
        done = former and asyncio.run(adopting.adopt_topic(settings, names, number, COMMAND_WORKER))
        position = None if done is None else done.begin
        adopted.append(Adopted(names.commands, number, done is not None, position))
    lines = [
        f"{name_of(one)}: "
        + (
            f"it continues at {one.position}"
            if one.adopted
            else "its position refers to this topic; there is nothing to adopt"
        )
        for one in adopted
    ]
    _ADOPTED.write(form, adopted, lambda: click.echo("\n".join(lines)))


def _checked(partition: int | None) -> tuple[Settings, TopicNames]:
    """Return settings and names, after checking the topics and the number of a partition."""
    settings = load_settings()
    if partition is not None and partition >= settings.partitions:
        raise click.UsageError(f"the partitions are 0 to {settings.partitions - 1}")
    names = TopicNames.of(settings, USERS.name)
    rights = command_worker(names, settings.namespace + COMMAND_WORKER)
    asyncio.run(check_topics(settings, topic_specs(settings, names), rights))
    return settings, names
