"""What settings, certificates, this host's disk and the workers' health mean: pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from deploy.doctor.facts import (
    Certificate,
    Disk,
    Nodes,
    NotKnown,
    WorkerPartition,
    WorkerState,
)
from deploy.doctor.findings import Finding, count, not_known
from streams.kafka.brokers import Brokers
from streams.settings import Settings
from streams.worker.app import REBALANCE_TIMEOUT_S

_DAY_S = 24 * 3600.0
_RENEW_DAYS = 30
_FREE_SHARE = 0.05
_FREE_BYTES = 1 << 30


def judge_settings(
    settings: Settings, brokers: Brokers | NotKnown, nodes: Nodes | NotKnown
) -> Iterator[Finding]:
    """Yield settings that contradict each other, or what the servers are set to."""
    lines = list(_contradictions(settings))
    if isinstance(brokers, Brokers):
        lines += _beyond_brokers(settings, brokers)
    if isinstance(nodes, Nodes) and (settings.view_replicas or 0) >= max(1, len(nodes.nodes)):
        lines.append(
            f"CQRS_VIEW_REPLICAS={settings.view_replicas} needs more nodes than the "
            f"{len(nodes.nodes)} of Elasticsearch: lower it, or add nodes"
        )
    for line in lines:
        yield Finding("Settings", "contradiction", "problem", line)
    if not lines:
        yield Finding("Settings", "all", "ok", "they fit together")


def _contradictions(settings: Settings) -> Iterator[str]:
    if settings.stall_timeout <= REBALANCE_TIMEOUT_S:
        yield (
            f"CQRS_STALL_TIMEOUT={settings.stall_timeout:g} is not longer than a rebalance may "
            f"take ({REBALANCE_TIMEOUT_S:g} s), so a worker may end during one: raise it"
        )
    if settings.stall_timeout <= settings.transaction_timeout:
        yield (
            f"CQRS_STALL_TIMEOUT={settings.stall_timeout:g} is not longer than "
            f"CQRS_TRANSACTION_TIMEOUT={settings.transaction_timeout:g}, so a worker may end while "
            "it waits for a commit: raise the first one"
        )
    if settings.outcome_timeout <= settings.session_timeout:
        yield (
            f"CQRS_OUTCOME_TIMEOUT={settings.outcome_timeout:g} is not longer than "
            f"CQRS_SESSION_TIMEOUT={settings.session_timeout:g}: clients give up before the "
            "partitions of a dead worker have moved; raise the first one"
        )


def _beyond_brokers(settings: Settings, brokers: Brokers) -> Iterator[str]:
    if settings.replication_factor > brokers.count:
        yield (
            f"CQRS_REPLICATION_FACTOR={settings.replication_factor} needs more brokers than the "
            f"{brokers.count} that there are: no topic can be created"
        )
    configs = brokers.configs or {}
    session_ms = settings.session_timeout * 1000
    limits = (
        ("group.min.session.timeout.ms", session_ms, 1, "CQRS_SESSION_TIMEOUT"),
        ("group.max.session.timeout.ms", session_ms, -1, "CQRS_SESSION_TIMEOUT"),
        (
            "transaction.max.timeout.ms",
            settings.transaction_timeout * 1000,
            -1,
            "CQRS_TRANSACTION_TIMEOUT",
        ),
    )
    for config, ours_ms, direction, variable in limits:
        limit = configs.get(config)
        if limit is not None and (ours_ms - float(limit)) * direction < 0:
            yield (
                f"{variable}={ours_ms / 1000:g} is beyond {config}={limit} of the brokers, which "
                "refuse it: change one of the two"
            )


def judge_master_key(settings: Settings, found: bool | NotKnown) -> Iterator[Finding]:
    """Yield whether the master key is there, and the right one."""
    if isinstance(found, NotKnown):
        yield not_known("Settings", "master key", found)
    elif found:
        yield Finding("Settings", "master key", "ok", "it is that of the existing keys")
    else:
        line = "none, and personal data is not to be encrypted"
        yield Finding("Settings", "master key", "ok", line)


def judge_certificates(
    now: float, certificates: Mapping[str, Certificate | NotKnown]
) -> Iterator[Finding]:
    """Yield how long each certificate is valid."""
    for of, found in certificates.items():
        if isinstance(found, NotKnown):
            yield not_known("Certificates", of, found)
            continue
        days = (found.expires - now) / _DAY_S
        if days < 0:
            line = f"expired {-days:.0f} days ago: replace it"
        elif days < _RENEW_DAYS:
            line = f"expires in {days:.0f} days: replace it"
        else:
            yield Finding("Certificates", of, "ok", f"valid for {days:.0f} days")
            continue
        yield Finding("Certificates", of, "problem", line)


def judge_state(settings: Settings, disk: Disk | None) -> Iterator[Finding]:
    """Yield whether the local state of command workers has room on this host."""
    if disk is None:
        if settings.state_dir is not None:
            line = f"{settings.state_dir} is not on this host"
            yield Finding("Disks", "CQRS_STATE_DIR", "skipped", line)
        return
    free = f"{disk.free_bytes / (1 << 30):.1f} GiB free in {disk.folder}"
    if not disk.is_writable:
        line = f"{disk.folder} cannot be written by this user: workers need it"
    elif disk.free_bytes < max(_FREE_BYTES, disk.size_bytes * _FREE_SHARE):
        line = f"{free}: make room, or workers cannot keep their state there"
    else:
        yield Finding("Disks", "CQRS_STATE_DIR", "ok", free)
        return
    yield Finding("Disks", "CQRS_STATE_DIR", "problem", line)


def judge_workers(
    workers: Mapping[str, WorkerState | NotKnown],
) -> Iterator[Finding]:
    """Yield what is parked or waiting in the workers that were asked."""
    if not workers:
        line = (
            "not asked for parked partitions and commands: name the files of "
            "`cqrs worker --targets`"
        )
        yield Finding("Workers", "health", "skipped", line)
    for address, found in workers.items():
        if isinstance(found, NotKnown):
            yield Finding("Workers", address, "problem", found.why)
            continue
        lines = [line for partition in found.partitions for line in _wrong_with(partition)]
        for line in lines:
            yield Finding("Workers", address, "problem", line)
        if not lines:
            yield Finding("Workers", address, "ok", f"{len(found.partitions)} partitions run")


def judge_parked_commands(workers: Mapping[str, WorkerState | NotKnown]) -> Iterator[Finding]:
    """Yield how many commands wait behind one that failed, in the workers that were asked."""
    known = [found.parked for found in workers.values() if isinstance(found, WorkerState)]
    commands = sum(one.commands for one in known)
    if commands:
        oldest = max(one.oldest_seconds or 0.0 for one in known)
        users = sum(one.aggregates for one in known)
        line = (
            f"{count(commands, 'command')} of {count(users, 'user')}, a failed one and those "
            f"behind it, the oldest for {oldest / 60:.0f} min: `cqrs dead list` shows why; start a "
            "mended program, then `cqrs dead replay`"
        )
        yield Finding("Progress", "parked commands", "problem", line)
    elif known:
        yield Finding("Progress", "parked commands", "ok", "none")


def _wrong_with(partition: WorkerPartition) -> Iterator[str]:
    if partition.state == "parked":
        yield f"{partition.name} is parked: {partition.parked}"
    elif partition.state == "waiting":
        yield f"{partition.name} waits for a server: the worker's log says for which, and why"
