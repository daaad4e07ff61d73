"""All findings that follow from the facts, in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Iterator

from deploy.doctor import elasticsearch_findings as elasticsearch
from deploy.doctor import host_findings as host
from deploy.doctor import kafka_findings as kafka
from deploy.doctor.facts import Facts, NotKnown, ViewFacts
from deploy.doctor.findings import Finding
from deploy.roles import SecuredRole

GROUPS = (
    "Settings",
    "Kafka",
    "Topics",
    "Elasticsearch",
    "Views",
    "Workers",
    "Progress",
    "Rights",
    "Certificates",
    "Clocks",
    "Disks",
)


def diagnose(facts: Facts, role: SecuredRole) -> list[Finding]:
    """Return the findings, by group; `role` is whose rights were asked for."""
    return sorted(_all(facts, role), key=lambda one: GROUPS.index(one.group))


def _all(facts: Facts, role: SecuredRole) -> Iterator[Finding]:
    settings, unused = facts.settings, unused_roles(facts)
    yield from host.judge_settings(settings, facts.brokers, facts.nodes)
    yield from host.judge_master_key(settings, facts.master_key)
    yield from kafka.judge_brokers(facts.brokers)
    yield from kafka.judge_topics(facts)
    yield from elasticsearch.judge_nodes(facts.nodes)
    for name, view in facts.views.items():
        yield from elasticsearch.judge_view(name, view, facts.nodes, unused)
    yield from kafka.judge_groups(settings, facts.topics, facts.groups, unused)
    yield from host.judge_workers(facts.workers)
    yield from kafka.judge_logs(settings, facts.now, facts.logs, facts.groups, unused)
    yield from host.judge_parked_commands(facts.workers)
    yield from kafka.judge_rights(facts.rights, role)
    yield from elasticsearch.judge_privileges(facts.privileges, role)
    yield from host.judge_certificates(facts.now, facts.certificates)
    yield from host.judge_state(settings, facts.state)


def unused_roles(facts: Facts) -> frozenset[str]:
    """Return the roles of views that this deployment does not use, if it uses another one.

    Such a view has no index and no worker.
    """
    if isinstance(facts.groups, NotKnown):
        return frozenset()
    working = {group.role for group in facts.groups if group.members}
    views = [one for one in facts.views.values() if isinstance(one, ViewFacts)]
    used = {one.role for one in views if one.situation.indices or one.role in working}
    return frozenset(one.role for one in views if used) - used
