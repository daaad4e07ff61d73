"""Looks for the personal data of one aggregate in every place that may hold it.

Each place is read from its first offset to its end. What can be read has a date by which it is gone
if retention, compaction or the end of the keys removes it. `topic_search` has the topics.
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
from streams.kafka.topics import check_topics, describe_topics, topic_specs
from streams.settings import Settings

_INDEX_TIMEOUT = 120.0  # seconds; a merge takes its time


async def check_erasure(
    settings: Settings, aggregate: Aggregate[Any], index: IndexDefinition, aggregate_id: str
) -> ErasureReport:
    """Look everywhere, as far as the logs and the index go now.

    Raises:
        Fatal: a server does not answer, a topic is missing, or there is an encrypted key and no
            master key or another one.
        Transient: a server failed meanwhile.
    """
    names = TopicNames.of(settings, aggregate.name)
    specs = topic_specs(settings, names)
    await check_topics(settings, specs)
    partitions = [
        TopicPartition(spec.name, number) for spec in specs for number in range(spec.partitions)
    ]
    configs = await describe_topics(settings, specs)
    async with open_logs(settings, partitions) as logs:
        search = PersonalDataSearch(settings, aggregate, names, logs, configs, aggregate_id)
        proof = await search.run()
    if settings.state_dir is not None:
        [keys] = [place for place in proof.places if place.name == names.keys]
        proof.places.append(_in_local_stores(settings, keys))
    proof.places.append(await _look_into_index(settings, index, aggregate_id))
    return proof


def _in_local_stores(settings: Settings, keys: ErasureFinding) -> ErasureFinding:
    """What the workers' disks may hold: beside the last state, replaced ones of before.

    Nobody looks there; encrypted, they are of use as long as the key is.
    """
    place = ErasureFinding("CQRS_STATE_DIR of command workers", records=1)
    place.note = "not looked at: replaced states stay until RocksDB compacts its files"
    if settings.encrypt_personal_data:
        place.readable, place.expires_at = min(1, keys.readable), keys.expires_at
    else:
        place.readable = 1
        place.note += "; stop the worker and remove its folder"
    return place


async def _look_into_index(
    settings: Settings, index: IndexDefinition, aggregate_id: str
) -> ErasureFinding:
    """Let the view's indices drop their deleted documents, then look for the one of this id."""
    alias = settings.namespace + index.alias
    indices = f"{alias}-v*"  # also those that are not read by now
    async with connect(settings, timeout=_INDEX_TIMEOUT) as client:
        with translating(client):
            place = ErasureFinding(alias)
            setting = "index.merge.policy.expunge_deletes_allowed"  # percent of a segment
            try:
                await client.indices.put_settings(index=indices, settings={setting: 0})
                await client.indices.forcemerge(index=indices, only_expunge_deletes=True)
                await client.indices.put_settings(index=indices, settings={setting: None})
            except ApiError as error:
                if error.status_code not in (400, 404, 405, 410):
                    raise
                place.note = "this server does not let deleted documents be expunged"
            await client.indices.refresh(index=indices)
            stats = await client.indices.stats(index=indices, metric="docs")
            found = await client.search(index=indices, query={"ids": {"values": [aggregate_id]}})
        for hit in found["hits"]["hits"]:
            place.records += 1
            place.readable += not hit["_source"].keys() <= {"id", "version"}
        deleted = stats["_all"]["total"]["docs"]["deleted"]
        if deleted and not place.note:
            place.note = f"{deleted} replaced documents of any user await the next merge"
        return place
