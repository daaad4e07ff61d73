"""The partitioner of Kafka's Java client (murmur2): an aggregate's id determines its partition."""

from __future__ import annotations

from murmurhash2 import murmurhash2

from models.errors import Poison
from streams.kafka.records import Record

_SEED = 0x9747B28C  # of Kafka's murmur2


def check_partition(record: Record, partitions: int) -> None:
    """Check that the record is in the partition that murmur2 assigns to its key.

    Raises:
        Poison: the aggregate belongs to another partition.
    """
    assert record.key is not None
    partition = partition_of(record.key, partitions)
    if partition != record.partition:
        raise Poison(
            "wrong-partition",
            f"the key belongs to partition {partition}, the record was sent to "
            f"{record.partition}: set the producer's partitioner to murmur2 "
            "(librdkafka: partitioner=murmur2_random)",
        )


def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition of a key on a topic with this number of partitions."""
    return (murmurhash2(key, _SEED) & 0x7FFFFFFF) % partitions
