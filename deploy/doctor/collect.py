"""Asks for all facts at once, and waits for none of them beyond a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import async_timeout
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from agents.users import USERS
from agents.views import VIEWS
from deploy.doctor import ask_elasticsearch, ask_host, ask_kafka
from deploy.doctor.facts import Facts, Logs, Nodes, NotKnown, ViewFacts, WorkerGroup
from deploy.rights import elasticsearch_rights, kafka_rights
from deploy.roles import SecuredRole
from deploy.scraping import read_targets
from models.errors import Fatal, Transient
from streams.aggregate import TopicNames
from streams.encryption.key_ring import check_master_key
from streams.encryption.keys import master_keys
from streams.kafka.brokers import Brokers, describe_brokers
from streams.kafka.refusal import Unreachable
from streams.kafka.topic_ids import topic_id
from streams.kafka.topics import TopicSpec, describe_topics, topic_specs
from streams.settings import Settings
from streams.views.projection import View
from streams.views.situation import EventLog

T = TypeVar("T")

_NO_KAFKA = NotKnown("not asked: there is no connection to Kafka", "unasked")
_NO_ELASTICSEARCH = NotKnown("not asked: there is no connection to Elasticsearch", "unasked")
_NOT_NEEDED = NotKnown("not needed by this role", "hidden")
_Topics = Mapping[str, TopicSpec]


async def collect(
    settings: Settings, role: SecuredRole, targets: Sequence[Path], *, timeout: float
) -> Facts:
    """Return all facts about a deployment; what is not known after `timeout` seconds stays so.

    Args:
        settings: of the deployment.
        role: whose rights are asked for.
        targets: files of `cqrs worker --targets`, with the workers to ask.
        timeout: for everything together.
    """
    return await _Collector(settings, role, targets, timeout).collect()


def _said_once(what: T | NotKnown, nodes: Nodes | NotKnown) -> T | NotKnown:
    """Return what is known, without the reason that is said of the nodes already."""
    if isinstance(what, NotKnown) and isinstance(nodes, NotKnown) and what.kind == nodes.kind:
        return what if what.kind == "hidden" else _NO_ELASTICSEARCH
    return what


class _Collector:
    def __init__(
        self, settings: Settings, role: SecuredRole, targets: Sequence[Path], timeout: float
    ) -> None:
        self._settings = settings
        self._role: SecuredRole = role
        self._workers: list[str] = []
        self._missing_lists: dict[str, NotKnown] = {}
        for file in targets:
            addresses, why_none = read_targets(file)
            self._workers += addresses
            if why_none:
                self._missing_lists[str(file)] = NotKnown(why_none)
        self._timeout = timeout
        self._deadline = asyncio.get_running_loop().time() + timeout
        self._names = TopicNames.of(settings, USERS.name)
        self._rights = kafka_rights(role, settings)
        self._specs = [
            spec for spec in topic_specs(settings, self._names) if self._may("topic", spec.name)
        ]
        self._now = time.time()
        groups = ask_kafka.groups_of(settings)
        self._groups = [one for one in groups if self._may("group", one[1])]

    def _may(self, resource: str, name: str) -> bool:
        """Return whether the role has rights on a resource; nothing else is asked for."""
        return any(
            right.resource == resource
            and (name.startswith(right.name) if right.prefixed else name == right.name)
            for right in self._rights
        )

    async def collect(self) -> Facts:
        settings, servers = self._settings, ask_host.tls_servers(self._settings)
        brokers = asyncio.create_task(self._brokers())
        topics = asyncio.create_task(self._topics(brokers))
        kafka, nodes, privileges, views, certificates, workers = await asyncio.gather(
            self._kafka(brokers, topics),
            self._nodes(),
            self._within(
                ask_elasticsearch.ask_privileges(
                    settings, elasticsearch_rights(self._role, settings), timeout=self._timeout
                )
            ),
            asyncio.gather(*(self._view(view, brokers, topics) for view in VIEWS.values())),
            asyncio.gather(
                *(
                    self._within(ask_host.ask_certificate(of, host, port))
                    for of, (host, port) in servers.items()
                )
            ),
            asyncio.gather(
                *(self._within(ask_host.ask_worker(address)) for address in self._workers)
            ),
        )
        rights, groups, logs, key = kafka
        return Facts(
            settings=settings,
            now=self._now,
            specs=self._specs,
            brokers=await brokers,
            topics=await topics,
            rights=rights,
            groups=groups,
            logs=logs,
            master_key=key,
            nodes=nodes,
            privileges=_said_once(privileges, nodes),
            views={name: _said_once(view, nodes) for name, view in zip(VIEWS, views, strict=True)},
            certificates={
                **dict(zip(servers, certificates, strict=True)),
                **dict(ask_host.certificates_in_files(settings)),
            },
            state=ask_host.disk_of(settings.state_dir),
            workers={**dict(zip(self._workers, workers, strict=True)), **self._missing_lists},
        )

    async def _brokers(self) -> Brokers | NotKnown:
        """Return who the brokers are, in half of the time: the rest is for what depends on it."""
        return await self._within(
            describe_brokers(self._settings), self._deadline - self._timeout / 2
        )

    async def _topics(self, brokers: Awaitable[Brokers | NotKnown]) -> _Topics | NotKnown:
        if isinstance(await brokers, NotKnown):
            return _NO_KAFKA
        return await self._within(describe_topics(self._settings, self._specs))

    async def _kafka(
        self, brokers: Awaitable[Brokers | NotKnown], topics: Awaitable[_Topics | NotKnown]
    ) -> tuple[
        Sequence[str] | NotKnown,
        Sequence[WorkerGroup] | NotKnown,
        Logs | NotKnown,
        bool | NotKnown,
    ]:
        settings, groups = self._settings, self._groups
        if isinstance(await brokers, NotKnown):
            return _NO_KAFKA, _NO_KAFKA, _NO_KAFKA, _NO_KAFKA
        return await asyncio.gather(
            self._within(
                ask_kafka.ask_rights(
                    settings, self._rights, self._names.all, [name for _, name, _ in groups]
                )
            ),
            self._within(ask_kafka.ask_groups(settings, groups)),
            self._logs(topics),
            self._within(self._master_key()),
        )

    async def _logs(self, topics: Awaitable[_Topics | NotKnown]) -> Logs | NotKnown:
        existing = await topics
        if isinstance(existing, NotKnown):
            return NotKnown("not asked: the topics are not known", "unasked")
        partitions = [
            TopicPartition(topic.name, number)
            for topic in existing.values()
            if not topic.leaderless
            for number in range(topic.partitions)
        ]
        if not partitions:
            return NotKnown("not asked: there are no topics", "unasked")
        return await self._within(
            ask_kafka.ask_logs(
                self._settings,
                partitions,
                (self._names.dead_commands, self._names.dead_views),
                self._groups,
                self._now,
            )
        )

    async def _master_key(self) -> bool:
        await check_master_key(self._settings, self._names)
        return master_keys(self._settings) is not None

    async def _nodes(self) -> Nodes | NotKnown:
        if elasticsearch_rights(self._role, self._settings) is None:
            return _NOT_NEEDED
        return await self._within(
            ask_elasticsearch.ask_nodes(self._settings, timeout=self._timeout)
        )

    async def _view(
        self,
        view: View[Any],
        brokers: Awaitable[Brokers | NotKnown],
        topics: Awaitable[_Topics | NotKnown],
    ) -> ViewFacts | NotKnown:
        if elasticsearch_rights(self._role, self._settings) is None:
            return _NOT_NEEDED
        return await self._within(self._ask_view(view, await brokers, await topics))

    async def _ask_view(
        self, view: View[Any], brokers: Brokers | NotKnown, topics: _Topics | NotKnown
    ) -> ViewFacts:
        log = None
        if isinstance(brokers, Brokers):
            events = self._names.events
            partitions = self._settings.partitions
            if not isinstance(topics, NotKnown) and events in topics:
                # If the settings name more than there are, they are wrong, and not the index.
                partitions = min(partitions, topics[events].partitions)
            try:
                topic = await topic_id(self._settings, events)
                log = EventLog(brokers.cluster, topic, partitions)
            except KafkaError:
                pass  # there is no such topic, or Kafka fails now: other facts say so
        return await ask_elasticsearch.ask_view(self._settings, view, log, timeout=self._timeout)

    async def _within(
        self, work: Awaitable[T | NotKnown], deadline: float | None = None
    ) -> T | NotKnown:
        """Return the result of one question, or why there is none."""
        try:
            async with async_timeout.timeout_at(deadline or self._deadline):
                return await work
        except asyncio.TimeoutError:
            return NotKnown(f"no answer within {self._timeout:g} s")
        except (Unreachable, Transient) as error:
            return NotKnown(str(error))
        except Fatal as error:
            return NotKnown(str(error), "refused")
        except (KafkaError, OSError) as error:
            return NotKnown(f"failed: {type(error).__name__}: {error}")
