"""How a feed takes the events for an index."""

from __future__ import annotations

from typing import Any

import pytest

from agents.user_views import USER_VIEWS
from deploy.embedded.stack import EmbeddedStack
from streams.progress import no_progress
from streams.views.feed import MAX_CHUNK_RECORDS, Feed
from streams.views.rebuild import rebuild
from streams.views.writer import PartitionWriter
from tests.conftest import Deploy
from tests.harness.read_side import encoded, registered, send_events
from tests.harness.view_position import open_view_positions


async def test_a_rebuild_takes_a_bounded_number_of_events_at_a_time(
    deploy: Deploy, stack: EmbeddedStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many a compressed fetch contains."""
    deployed = deploy("views", partitions=1)
    await send_events(
        deployed,
        *(
            (f"u-{n}", encoded(deployed, f"u-{n}", 1, registered(f"u-{n}@example.org")))
            for n in range(MAX_CHUNK_RECORDS + 2000)
        ),
    )
    async with open_view_positions(deployed, stack) as view:
        await view.catch_up()  # so that the worker does not load the index of the rebuild
    sizes: list[int] = []
    project = Feed._project

    async def noting(self: Feed[Any], writer: PartitionWriter[Any], records: list[Any]) -> None:
        sizes.append(len(records))
        await project(self, writer, records)

    monkeypatch.setattr(Feed, "_project", noting)
    await rebuild(deployed.settings, USER_VIEWS, timeout=60, progress=no_progress)
    assert sum(sizes) == MAX_CHUNK_RECORDS + 2000
    assert max(sizes) <= MAX_CHUNK_RECORDS
