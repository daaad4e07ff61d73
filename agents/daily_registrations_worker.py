"""The second view agent: projects the events of users into the view `daily-registrations`.

Run it with ``faust -A agents.daily_registrations_worker worker`` or ``cqrs worker registrations``.
"""

from __future__ import annotations

from faust.types import StreamT

from agents.daily_registrations import DAILY_REGISTRATIONS
from streams.views.wiring import add_view
from streams.worker.app import StreamApp
from streams.worker.chunks import Chunk
from streams.worker.process import worker_settings

app = StreamApp(DAILY_REGISTRATIONS.app_id, worker_settings(), group=DAILY_REGISTRATIONS.group)
user_events = add_view(app, DAILY_REGISTRATIONS)


@app.agent(user_events)
async def count_registrations(chunks: StreamT[Chunk]) -> None:
    """Hand each chunk of events to its partition."""
    async for chunk in chunks:
        app.partitions.submit(chunk)
