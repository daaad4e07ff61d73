"""The view worker of a changed program: it writes last names in capitals."""

from __future__ import annotations

from dataclasses import replace

from faust.types import StreamT

from agents.user_views import USER_VIEWS, UserProjection
from models.events import UserEvent
from models.messages import EventRecord
from streams.elasticsearch.index import Document
from streams.views.wiring import add_view
from streams.worker.app import StreamApp
from streams.worker.chunks import Chunk
from streams.worker.process import worker_settings


class LouderProjection(UserProjection):
    def fold(self, document: Document | None, record: EventRecord[UserEvent]) -> Document:
        folded = super().fold(document, record)
        return {**folded, "lastName": folded.get("lastName", "").upper()}


LOUDER_VIEWS = replace(USER_VIEWS, projection=LouderProjection())

app = StreamApp(LOUDER_VIEWS.app_id, worker_settings(), group=LOUDER_VIEWS.group)
user_events = add_view(app, LOUDER_VIEWS)


@app.agent(user_events)
async def project_louder_views(chunks: StreamT[Chunk]) -> None:
    async for chunk in chunks:
        app.partitions.submit(chunk)
