"""`cqrs worker`: start worker processes and keep them running."""

from __future__ import annotations

import asyncio
import logging
from contextlib import nullcontext
from pathlib import Path

import click

from agents.users import USERS
from deploy.cli.terminal import examples
from deploy.environment import child_environment, load_settings
from deploy.rights import kafka_rights
from deploy.scraping import listed_targets, settings_of_each
from deploy.supervisor import (
    ROLES,
    SECURED_ROLES,
    SUPERVISOR,
    Child,
    Role,
    Supervisor,
    command_line,
)
from streams.aggregate import TopicNames
from streams.encryption.key_ring import check_master_key
from streams.kafka.topics import check_topics, topic_specs
from streams.settings import Settings
from streams.worker.logs import json_line


@click.command(
    epilog=examples(
        "cqrs worker commands --processes 2",
        "cqrs worker views",
        "cqrs worker registrations",
        "CQRS_HEALTH_PORT=9100 cqrs worker commands --processes 4 --targets /etc/prometheus/"
        "cqrs/commands.json",
    )
)
@click.argument("role", type=click.Choice(list(ROLES)))
@click.option(
    "--processes",
    default=1,
    show_default=True,
    type=click.IntRange(1, 256),
    help="Number of processes; those beyond the number of partitions are idle.",
)
@click.option(
    "--targets",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to list the processes in while they run, for Prometheus' file_sd_configs.",
)
@click.pass_context
def worker(ctx: click.Context, role: Role, processes: int, targets: Path | None) -> None:
    """Run workers that decide commands or keep a view up to date.

    `commands` decides commands; `views` and `registrations` each keep one view up to date. Each
    process is a plain `faust worker`; one that fails is started again. Ctrl-C or SIGTERM stops them
    cleanly; a second one kills them, which loses nothing.

    With CQRS_HEALTH_PORT=9100 the first process serves its metrics and health on port 9100, the
    second one on 9101, and so on.
    """
    settings = load_settings()
    # Check here what starting a worker again would not solve: one error instead of many.
    asyncio.run(_check(settings, role))
    each = settings_of_each(settings, processes)
    command = command_line(ROLES[role])
    supervisor = Supervisor(
        [
            Child(f"worker {number}", command, child_environment(one))
            for number, one in enumerate(each, 1)
        ],
        lambda line: click.echo(_line(settings, role, line), err=True),
    )
    with nullcontext() if targets is None else listed_targets(targets, role, each):
        code = asyncio.run(supervisor.run())
    ctx.exit(code)


def _line(settings: Settings, role: Role, restart: str) -> str:
    if settings.log_format == "text":
        return f"{SUPERVISOR} {role}: {restart}"
    return json_line(f"{role}: {restart}", "worker-restarting", logging.WARNING, SUPERVISOR)


async def _check(settings: Settings, role: Role) -> None:
    names = TopicNames.of(settings, USERS.name)
    specs = topic_specs(settings, names)
    await check_topics(settings, specs, kafka_rights(SECURED_ROLES[role], settings))
    await check_master_key(settings, names)
