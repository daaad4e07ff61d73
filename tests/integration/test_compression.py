"""What this program writes is compressed as its settings say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.embedded.stack import EmbeddedStack
from deploy.samples.commands import generate
from streams.kafka.clients import new_producer
from tests.conftest import Deploy
from tests.harness.traffic import counting, send

_HEAD_BYTES = 12  # offset and length of a batch; the length does not count them
_CODEC_MASK, _CONTROL = 0b111, 0b100000  # of a batch's attributes (KIP-98)


@pytest.mark.parametrize(("compression", "codec"), [("none", 0), ("gzip", 1), ("zstd", 4)])
async def test_batches_on_disk(
    deploy: Deploy, stack: EmbeddedStack, compression: str, codec: int
) -> None:
    deployed = deploy("commands", partitions=1, compression=compression)
    async with counting(deployed) as outcomes, new_producer(deployed.settings) as producer:
        await outcomes.reach(await send(producer, deployed, generate(50)))
    names = deployed.names
    for topic in (names.commands, names.events, names.outcomes, names.changelog):
        (segment,) = (stack.home / "data" / "kafka" / f"{topic}-0").glob("*.log")
        assert set(codecs(segment)) == {codec}, topic


def codecs(segment: Path) -> Iterator[int]:
    """The codec of each batch in a log segment, without those that brokers write."""
    data = segment.read_bytes()
    while data:
        length = int.from_bytes(data[8:_HEAD_BYTES], "big")
        attributes = int.from_bytes(data[21:23], "big")
        if length and not attributes & _CONTROL:
            yield attributes & _CODEC_MASK
        data = data[_HEAD_BYTES + length :] if length else b""
