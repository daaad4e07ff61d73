"""The view agent: projects the events of users into the view `user-views`.

Run it with ``faust -A agents.user_views_worker worker`` or ``cqrs worker views``.
"""

from __future__ import annotations

from faust.types import StreamT

from agents.user_views import USER_VIEWS
from streams.views.wiring import add_view
from streams.worker.app import StreamApp
from streams.worker.chunks import Chunk
from streams.worker.process import worker_settings

app = StreamApp(USER_VIEWS.app_id, worker_settings(), group=USER_VIEWS.group)
user_events = add_view(app, USER_VIEWS)


@app.agent(user_events)
async def project_user_views(chunks: StreamT[Chunk]) -> None:
    """Hand each chunk of events to its partition."""
    async for chunk in chunks:
        app.partitions.submit(chunk)
