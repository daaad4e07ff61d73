"""Quix Streams' Elasticsearch sink, used as its documentation teaches, with ready-made documents.

Run it as `python -m benchmarks.peers.quix_projecting TOPIC INDEX DOCUMENTS FOLDER`. The values of
the topic are the documents, the keys are their ids; DOCUMENTS go into one request.
"""

from __future__ import annotations

import sys

from elasticsearch import Elasticsearch
from quixstreams import Application
from quixstreams.sinks.community.elasticsearch import ElasticsearchSink

from streams.settings import Settings
from streams.settings import settings as read_settings


class _Sink(ElasticsearchSink):  # type: ignore[misc]  # mypy does not read its module
    def setup(self) -> None:
        """Connect, without the sink's `client.info()` and without creating an index.

        The embedded Elasticsearch does not support the first, and the index exists.
        """
        self._client = Elasticsearch(**self._client_kwargs)


def run(settings: Settings, topic: str, index: str, documents: int, folder: str) -> None:
    """Write documents until the process is stopped."""
    app = Application(
        broker_address=settings.bootstrap_servers,
        consumer_group=f"{settings.namespace}quixstreams-sink",
        auto_offset_reset="earliest",
        state_dir=folder,  # it has no state but needs the folder
        loglevel="WARNING",
    )
    source = app.topic(topic, value_deserializer="json")
    app.dataframe(source).sink(_Sink(settings.elasticsearch_url, index, batch_size=documents))
    app.run()


if __name__ == "__main__":
    run(read_settings(), sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
