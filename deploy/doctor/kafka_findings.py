"""What facts about Kafka mean: pure functions of facts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from agents.users import USERS
from deploy.doctor.facts import Facts, Logs, NotKnown, WorkerGroup
from deploy.doctor.findings import Finding, count, not_known
from streams.aggregate import TopicNames
from streams.kafka.brokers import Brokers
from streams.kafka.topics import DAY_MS, TopicSpec, topic_faults, weaknesses
from streams.logs import name_of
from streams.settings import Settings

# Keys of requests, and the version of one that this project uses (topic ids, KIP-516).
_FETCH, _METADATA = 1, 3
_TOPIC_IDS = 10
_FETCH_OF_KAFKA_4 = 4  # older versions of this request were removed (KIP-896)

_TOO_LATE_S = 30.0  # as the alert CqrsBehind
_CLOCKS_DIFFER_S = 5.0


def judge_brokers(brokers: Brokers | NotKnown) -> Iterator[Finding]:
    """Yield whether the brokers answer, and are new enough."""
    if isinstance(brokers, NotKnown):
        yield not_known("Kafka", "brokers", brokers)
        return
    _, metadata = brokers.versions.get(_METADATA, (0, 0))
    if metadata < _TOPIC_IDS:
        line = "older than Kafka 2.8, which this program needs: upgrade the brokers"
        yield Finding("Kafka", "version", "problem", line)
    else:
        lowest, _ = brokers.versions.get(_FETCH, (0, 0))
        version = "4.0" if lowest >= _FETCH_OF_KAFKA_4 else "2.8"
        yield Finding("Kafka", "version", "ok", f"{version} or newer")
    line = f"{count(brokers.count, 'broker')}, cluster {brokers.cluster}"
    yield Finding("Kafka", "brokers", "ok", line)


def judge_topics(facts: Facts) -> Iterator[Finding]:
    """Yield what is wrong with the topics, and how each is configured."""
    if isinstance(facts.topics, NotKnown):
        yield not_known("Topics", "all", facts.topics)
        return
    existing = facts.topics
    for fault in topic_faults(facts.settings, facts.specs, existing):
        yield Finding("Topics", "settings", "problem", str(fault))
    brokers = 1 if isinstance(facts.brokers, NotKnown) else facts.brokers.count
    for line in weaknesses(facts.specs, existing, brokers):
        yield Finding("Topics", "settings", "problem", line)
    for spec in facts.specs:
        if spec.name in existing:
            yield _judge_topic(spec, existing[spec.name])


def _judge_topic(spec: TopicSpec, found: TopicSpec) -> Finding:
    if found.leaderless:
        line = f"{found.leaderless} partitions have no leader: start the brokers that have them"
        return Finding("Topics", found.name, "problem", line)
    if found.out_of_sync:
        line = (
            f"{found.out_of_sync} partitions have a replica that is down or behind: look at the "
            "brokers; below min.insync.replicas nothing can be written"
        )
        return Finding("Topics", found.name, "problem", line)
    changed = [
        f"{key}={found.configs.get(key)} (created with {value})"
        for key, value in spec.configs.items()
        if found.configs.get(key) != value
    ]
    line = (
        f"{count(found.partitions, 'partition')}, {count(found.replicas, 'replica')} "
        f"({found.configs['min.insync.replicas']} in sync to write), {_kept(found.configs)}, "
        f"{found.configs['message.timestamp.type']}"
    )
    return Finding("Topics", found.name, "ok", "; ".join([line, *changed]))


def _kept(configs: Mapping[str, str]) -> str:
    policy, retention_ms = configs["cleanup.policy"], configs.get("retention.ms")
    if policy != "delete":
        return policy
    if retention_ms in (None, "-1"):
        return "kept for ever"
    return f"kept for {int(retention_ms or 0) / DAY_MS:g} days"


def judge_rights(rights: Sequence[str] | NotKnown, role: str) -> Iterator[Finding]:
    """Yield which rights of a role are missing on Kafka."""
    if isinstance(rights, NotKnown):
        yield not_known("Rights", "Kafka", rights)
    elif not rights:
        yield Finding("Rights", "Kafka", "ok", f"those of {role}")
    else:
        for line in rights:
            yield Finding("Rights", "Kafka", "problem", line)


def judge_groups(
    settings: Settings,
    topics: Mapping[str, TopicSpec] | NotKnown,
    groups: Sequence[WorkerGroup] | NotKnown,
    unused: frozenset[str],
) -> Iterator[Finding]:
    """Yield which workers are missing; those of the roles `unused` are not needed.

    A topic that has not as many partitions as the settings say is a problem of its own.
    """
    if isinstance(groups, NotKnown):
        yield not_known("Workers", "groups", groups)
        return
    for group in groups:
        partitions = settings.partitions
        if not isinstance(topics, NotKnown) and group.topic in topics:
            partitions = min(partitions, topics[group.topic].partitions)
        missing = sorted(set(range(partitions)) - group.owned)
        start = f"start one with `cqrs worker {group.role}`"
        if not group.members:
            if group.role in unused:
                yield Finding("Workers", group.role, "skipped", "this view is not in use")
                continue
            yield Finding("Workers", group.role, "problem", f"no worker: {start}")
        elif group.is_rebalancing:
            line = f"{count(group.members, 'worker')}, the group shares its partitions out"
            yield Finding("Workers", group.role, "ok", line)
        elif missing:
            line = (
                f"partitions {missing} belong to no worker: the log of each says whether it "
                f"can join its group; {start}"
            )
            yield Finding("Workers", group.role, "problem", line)
        else:
            yield Finding("Workers", group.role, "ok", count(group.members, "worker"))


def judge_logs(
    settings: Settings,
    now: float,
    logs: Logs | NotKnown,
    groups: Sequence[WorkerGroup] | NotKnown,
    unused: frozenset[str],
) -> Iterator[Finding]:
    """Yield open transactions, what is behind, and whether the brokers' clocks are ahead.

    The roles `unused` may be behind.
    """
    if isinstance(logs, NotKnown):
        yield not_known("Progress", "topics", logs)
        return
    yield from _judge_transactions(settings, now, logs)
    if not isinstance(groups, NotKnown):
        for group in groups:
            if group.name in logs.backlogs and group.role not in unused:
                yield _judge_backlog(now, logs, group)
    yield from _judge_dead_letters(now, logs)
    yield _judge_clock(logs)


def _judge_transactions(settings: Settings, now: float, logs: Logs) -> Iterator[Finding]:
    held = [one for one in logs.open_transactions if now - one.since > settings.transaction_timeout]
    for one in held:
        line = (
            f"a transaction is open at offset {one.offset} since {now - one.since:.0f} s, and "
            "hides what follows from every reader: end the program that began it; "
            "`kafka-transactions.sh find-hanging` finds one that nothing will end"
        )
        yield Finding("Progress", name_of(one), "problem", line)
    if not held:
        yield Finding("Progress", "transactions", "ok", "none holds readers back")


def _judge_backlog(now: float, logs: Logs, group: WorkerGroup) -> Finding:
    found = logs.backlogs[group.name]
    waiting = {number: one for number, one in found.items() if one.since is not None}
    if not waiting:
        return Finding("Progress", group.role, "ok", "everything is processed")
    oldest = max(now - (one.since or now) for one in waiting.values())
    records = sum(one.records for one in waiting.values())
    what = f"{records} records to process, the oldest {max(0.0, oldest):.0f} s old"
    if oldest <= _TOO_LATE_S:
        return Finding("Progress", group.role, "ok", what)
    line = (
        f"{what}, in partitions {sorted(waiting)}: start workers, up to the number of partitions; "
        "if some run, `/ready` and their logs say what they wait for"
    )
    return Finding("Progress", group.role, "problem", line)


def dead_letters_command(topic: str) -> str:
    """Return the command that shows the dead letters on this topic, in backticks."""
    if topic.endswith(TopicNames("", USERS.name).dead_views):
        return "`cqrs tail dead-views --from-beginning` (until Ctrl-C)"
    return "`cqrs dead list`"


def _judge_dead_letters(now: float, logs: Logs) -> Iterator[Finding]:
    for topic, since in logs.dead_letters.items():
        line = (
            f"new dead letters, the first of this hour {(now - since) / 60:.0f} min ago: "
            f"{dead_letters_command(topic)} shows them with their reasons; stop the producer or "
            "the release that they are from"
        )
        yield Finding("Progress", topic, "problem", line)
    if not logs.dead_letters:
        yield Finding("Progress", "dead letters", "ok", "none in the last hour")


def _judge_clock(logs: Logs) -> Finding:
    if logs.ahead <= _CLOCKS_DIFFER_S:
        return Finding("Clocks", "Kafka", "ok", "no record is ahead of this host's clock")
    line = (
        f"records are {logs.ahead:.0f} s ahead of this host's clock: set this clock, or those of "
        "the brokers, by NTP"
    )
    return Finding("Clocks", "Kafka", "problem", line)
