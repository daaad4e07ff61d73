"""Searches every place that may contain the personal data of one aggregate.

Topics are read from their first offset to their end, by `erasure_search.py`. Personal data that can
still be read has a date by which it is gone, if retention, compaction or the destruction of its key
removes it.
"""

from __future__ import annotations

from typing import Any

from aiokafka.structs import TopicPartition
from elasticsearch import ApiError

from streams.aggregate import Aggregate, TopicNames
from streams.audit.erasure_report import ErasureFinding, ErasureReport
from streams.audit.erasure_search import PersonalDataSearch
from streams.elasticsearch.connection import connect, translating
from streams.elasticsearch.index import IndexDefinition
from streams.kafka.log_reader import open_logs
from streams.kafka.rights import reader
from streams.kafka.topics import check_topics, describe_topics, topic_specs
from streams.settings import Settings

_INDEX_TIMEOUT_S = 120.0  # long, because it waits for a merge


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
    partitions = [
        TopicPartition(spec.name, number) for spec in specs for number in range(spec.partitions)
    ]
    configs = await describe_topics(settings, specs)
    async with open_logs(settings, partitions) as logs:
        search = PersonalDataSearch(settings, aggregate, names, logs, configs, aggregate_id)
        report = await search.run()
    if settings.state_dir is not None:
        [keys] = [finding for finding in report.findings if finding.name == names.keys]
        report.findings.append(_local_stores(settings, keys))
    report.findings.append(await _check_indices(settings, index, aggregate_id))
    return report


def _local_stores(settings: Settings, keys: ErasureFinding) -> ErasureFinding:
    """Return what the workers' local stores may contain: the last state and replaced ones.

    They are not read. If they are encrypted, they are readable as long as the key is.
    """
    finding = ErasureFinding("CQRS_STATE_DIR of command workers", records=1)
    finding.note = "not checked: replaced states stay until RocksDB compacts its files"
    if settings.encrypt_personal_data:
        finding.readable, finding.expires_at = min(1, keys.readable), keys.expires_at
    else:
        finding.readable = 1
        finding.note += "; stop the worker and remove its folder"
    return finding


async def _check_indices(
    settings: Settings, index: IndexDefinition, aggregate_id: str
) -> ErasureFinding:
    """Let the view's indices drop their deleted documents, and then search for the aggregate's."""
    alias = settings.namespace + index.alias
    indices = f"{alias}-v*"  # also those that do not serve queries
    async with connect(settings, timeout=_INDEX_TIMEOUT_S) as client:
        with translating(client):
            finding = ErasureFinding(alias)
            setting = "index.merge.policy.expunge_deletes_allowed"  # in percent of a segment
            try:
                await client.indices.put_settings(index=indices, settings={setting: 0})
                await client.indices.forcemerge(index=indices, only_expunge_deletes=True)
                await client.indices.put_settings(index=indices, settings={setting: None})
            except ApiError as error:
                if error.status_code not in (400, 404, 405, 410):
                    raise
                finding.note = "this server does not let deleted documents be expunged"
            await client.indices.refresh(index=indices)
            stats = await client.indices.stats(index=indices, metric="docs")
            found = await client.search(index=indices, query={"ids": {"values": [aggregate_id]}})
        for hit in found["hits"]["hits"]:
            finding.records += 1
            finding.readable += not hit["_source"].keys() <= {"id", "version"}
        deleted = stats["_all"]["total"]["docs"]["deleted"]
        if deleted and not finding.note:
            finding.note = f"{deleted} replaced documents of any user stay until the next merge"
        return finding
