"""The limit of whatever writes documents: bytes that are ready-made, by `client.bulk` alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice

import orjson
from elasticsearch import AsyncElasticsearch

from agents.user_views import USER_VIEWS
from benchmarks.rig.backlog import PARTITIONS
from benchmarks.rig.sample_users import registrations
from models.errors import Fatal
from models.user_view import project
from streams.elasticsearch.index import Document, writes_alias

BULK = 2000  # documents, as ours: 0.8 MB; from 1 MiB on the HTTP client warns


def sources(count: int, seed: int) -> Iterator[Document]:
    """What is sent: the documents of so many users with what their search needs."""
    events = registrations(count, seed)
    return (USER_VIEWS.index.to_source(project(None, event)) for event in events)


@lru_cache(maxsize=1)
def bodies(count: int, seed: int) -> Sequence[bytes]:
    """The same as bodies of bulk requests."""
    lines = map(_lines, sources(count, seed))
    return [b"".join(some) for some in iter(lambda: list(islice(lines, BULK)), [])]


def _lines(source: Document) -> bytes:
    action = {"_id": source["id"], "version": source["version"], "version_type": "external"}
    return b"%b\n%b\n" % (orjson.dumps({"index": action}), orjson.dumps(source))


async def send_bodies(client: AsyncElasticsearch, index: str, bodies: Sequence[bytes]) -> None:
    """Send them, one request at a time for each partition.

    Raises:
        Fatal: Elasticsearch did not take some document.
    """
    rest = iter(bodies)

    async def send_some() -> None:
        for body in rest:
            answer = await client.bulk(
                operations=body,  # type: ignore[arg-type]  # bytes are passed on as they are
                index=writes_alias(index),
                filter_path="errors",
            )
            if answer["errors"]:
                raise Fatal("Elasticsearch did not take all documents")

    await asyncio.gather(*(send_some() for _ in range(PARTITIONS)))
