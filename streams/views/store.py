"""The documents of one index of a view in Elasticsearch.

Documents are dicts with an `id` and a `version`, which every event of the document raises. They are
always written whole, with that version as Elasticsearch's external version: an older document never
replaces a newer one, however often and by which process it is sent. The same one is written again.

For a document that Elasticsearch refuses for good, a stand-in is stored: its id, its version, and
the document itself in the field `refused`, which is not indexed. Queries do not find it, and later
events can still be folded into the document.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from elasticsearch import AsyncElasticsearch

from models.errors import Transient
from streams import tracing
from streams.elasticsearch.bulk_writer import BulkWriter, WriteResult, WriteStatus
from streams.elasticsearch.connection import translating
from streams.elasticsearch.index import Document, IndexDefinition, writes_alias
from streams.views.checkpoint import Checkpoint, IndexChanged, Revision, checkpoint_id
from streams.views.reader import ViewReader


class ViewStore(ViewReader):
    """Reads and writes the documents of one index; writing raises what reading does."""

    def __init__(
        self,
        client: AsyncElasticsearch,
        index: IndexDefinition,
        *,
        name: str,
        bulk_documents: int = 2000,
    ) -> None:
        """Create a store for the index `name`."""
        super().__init__(client, name, is_alias=False)
        self._target = writes_alias(name)
        self._writer = BulkWriter(client, index, self._target, max_documents=bulk_documents)

    async def bulk_index(self, documents: Sequence[Document]) -> list[WriteResult]:
        """Write whole documents.

        If this raises or is cancelled, any of them may have been written, on some copies of the
        index only: send them again. WRITTEN is a document that all copies have.

        Returns:
            One result per document, in the same order.
        """
        with tracing.bulk(self.name):
            return await self._writer.write(documents)

    async def refuses(self, documents: Sequence[Document]) -> str | None:
        """Return why Elasticsearch would refuse one of these documents for good; None if none.

        Nothing is written.

        Raises:
            Transient: It did not say so of all of them.
        """
        results = await self._writer.write(documents, only_try=True)
        reasons = {one.status: one.reason for one in results}
        if WriteStatus.RETRY in reasons:
            raise Transient(
                f"Elasticsearch does not accept all documents: {reasons[WriteStatus.RETRY]}"
            )
        return reasons.get(WriteStatus.REFUSED)

    async def save_checkpoint(self, partition: int, checkpoint: Checkpoint) -> Checkpoint:
        """Store a checkpoint, after Elasticsearch has acknowledged all documents before it.

        If this raises `Transient`, it may have been stored: save the same one again.

        Returns:
            The checkpoint with its new revision.

        Raises:
            IndexChanged: The stored checkpoint has another revision than `checkpoint.revision`.
        """
        revision = checkpoint.revision
        condition: dict[str, Any] = {"op_type": "create"}
        if revision is not None:
            condition = {
                "if_seq_no": revision.seq_no,
                "if_primary_term": revision.primary_term,
            }
        with translating(self._client):
            response = await self._client.options(ignore_status=[400, 409]).index(
                index=self._target,
                id=checkpoint_id(partition),
                document=checkpoint.to_source(),
                require_alias=True,
                **condition,
            )
        if response.meta.status == 409:
            stored = (await self.checkpoints([partition])).checkpoints[partition]
            if replace(stored, revision=revision) == checkpoint:  # the answer to that was lost
                return stored
            raise IndexChanged(f"another process has changed the checkpoint of {self.name}")
        if response.meta.status == 400:  # a closed index, a missing pipeline: a person mends it
            kind = response.body.get("error", {}).get("type", "no reason given")
            raise Transient(f"Elasticsearch does not save how far {self.name} is: {kind}")
        saved = Revision(response["_seq_no"], response["_primary_term"])
        return replace(checkpoint, revision=saved)
