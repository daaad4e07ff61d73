"""Quix Streams' Elasticsearch sink, as its documentation teaches, with ready-made documents.

Run as `python -m benchmarks.peers.quix_projecting TOPIC INDEX DOCUMENTS FOLDER`: the values of
the topic are the documents, their keys the ids.
"""

from __future__ import annotations

import sys

from elasticsearch import Elasticsearch
from quixstreams import Application
from quixstreams.sinks.community.elasticsearch import ElasticsearchSink

from streams.settings import Settings, settings


class _Sink(ElasticsearchSink):  # type: ignore[misc]  # its module is not read
    def setup(self) -> None:
        """Without `client.info()` and making an index.

        The embedded Elasticsearch does not answer the first, and the index is there.
        """
        self._client = Elasticsearch(**self._client_kwargs)


def run(where: Settings, topic: str, index: str, documents: int, folder: str) -> None:
    """Write documents until the process is ended."""
    app = Application(
        broker_address=where.bootstrap_servers,
        consumer_group=f"{where.namespace}quixstreams-sink",
        auto_offset_reset="earliest",
        state_dir=folder,  # it has no state, but a folder for it
        loglevel="WARNING",
    )
    source = app.topic(topic, value_deserializer="json")
    app.dataframe(source).sink(_Sink(where.elasticsearch_url, index, batch_size=documents))
    app.run()


if __name__ == "__main__":
    run(settings(), sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
