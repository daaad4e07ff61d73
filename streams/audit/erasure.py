"""Searches every place that may contain the personal data of one aggregate.

Topics are read from their first offset to their end, by `erasure_search.py`. Personal data that can
still be read has a date by which it is gone, if retention, compaction or the destruction of its key
removes it. It fails closed: what could not be looked at is not called gone. It changes nothing in
the index: no setting, and no segment is rewritten to look at one user.
"""

from __future__ import annotations

from typing import Any

from aiokafka.structs import TopicPartition
from elasticsearch import AsyncElasticsearch

from models.errors import Transient
from streams.aggregate import Aggregate, TopicNames
from streams.audit.erasure_report import ErasureFinding, ErasureReport
from streams.audit.erasure_search import PersonalDataSearch
from streams.elasticsearch.connection import connected, translating
from streams.elasticsearch.index import IndexDefinition
from streams.encryption.key_ring import check_master_key
from streams.kafka.log_reader import open_logs
from streams.kafka.rights import reader
from streams.kafka.topics import check_topics, describe_topics, topic_specs
from streams.settings import Settings

_REQUEST_TIMEOUT_S = 30.0


async def check_erasure(
    settings: Settings, aggregate: Aggregate[Any], index: IndexDefinition, aggregate_id: str
) -> ErasureReport:
    """Search all topics and the view's indices, up to their current ends.

    Raises:
        Fatal: Kafka does not answer, a topic is missing, a server refuses a request, or the master
            key is missing or wrong.
        Transient, KafkaError: A server failed meanwhile.
    """
    names = TopicNames.of(settings, aggregate.name)
    specs = topic_specs(settings, names)
    await check_topics(settings, specs, reader(names))
    await check_master_key(settings, names)
    partitions = [
        TopicPartition(spec.name, number) for spec in specs for number in range(spec.partitions)
    ]
    configs = await describe_topics(settings, specs)
    async with open_logs(settings, partitions) as logs:
        search = PersonalDataSearch(settings, aggregate, names, logs, configs, aggregate_id)
        report = await search.run()
    [keys] = [finding for finding in report.findings if finding.name == names.keys]
    report.findings.append(_local_stores(settings, keys))
    report.findings += await _check_indices(settings, index, aggregate_id)
    return report


def _local_stores(settings: Settings, keys: ErasureFinding) -> ErasureFinding:
    """Return what the workers' local stores may contain: the last state and replaced ones.

    They are not read, and whether there are any is known on the workers' hosts only. If they are
    encrypted, they are readable as long as the key is.
    """
    finding = ErasureFinding("CQRS_STATE_DIR of command workers", records=1)
    finding.note = "not checked; if set, replaced states stay until RocksDB compacts its files"
    if settings.encrypt_personal_data:
        finding.readable, finding.expires_at = min(1, keys.readable), keys.expires_at
        finding.unseen = min(1, keys.unseen)
    else:
        finding.readable = 1
        finding.note += "; stop the worker and remove its folder"
    return finding


async def _check_indices(
    settings: Settings, index: IndexDefinition, aggregate_id: str
) -> list[ErasureFinding]:
    """Look for the aggregate's document in every index of the view, serving or not.

    Copies under another name count as well, as long as they have one of the view's aliases.
    """
    alias = settings.namespace + index.alias
    async with connected(settings, timeout=_REQUEST_TIMEOUT_S) as client:
        with translating(client):
            found = await client.indices.get(
                index=[alias, f"{alias}-v*"],
                expand_wildcards="all",  # also closed ones
                ignore_unavailable=True,
                filter_path="*.settings.index.uuid",
            )
        names = sorted(found.body)
        return [await _check_index(client, name, aggregate_id) for name in names] or [
            ErasureFinding(alias, note="there is no index")
        ]


async def _check_index(client: AsyncElasticsearch, name: str, aggregate_id: str) -> ErasureFinding:
    """Look at the newest document of the aggregate in one index, before any refresh.

    It is asked for by its id. A search would leave out a shard that does not answer.
    """
    finding = ErasureFinding(name)
    try:
        with translating(client):
            document = await client.options(ignore_status=404).get(index=name, id=aggregate_id)
            if "error" in document.body:  # the index was deleted meanwhile
                finding.note = "it was deleted meanwhile"
                return finding
            stats = await client.indices.stats(index=name, metric="docs")
    except Transient as error:
        finding.unseen = 1
        finding.note = f"{error}; if nobody needs this index, delete it (`cqrs views prune`)"
        return finding
    if document["found"]:
        finding.records = 1
        finding.readable = int(not document["_source"].keys() <= {"id", "version"})
    if finding.readable:
        finding.note = "if no worker follows this index, delete it (`cqrs views prune`)"
        return finding
    deleted = stats["_all"]["total"].get("docs", {}).get("deleted", 0)
    if stats["_shards"]["failed"]:
        finding.note = "how many replaced documents its files hold is not known"
    elif deleted:
        finding.note = f"its files hold {deleted:,} replaced documents of any user until a merge"
    return finding
