from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from deploy.ephemeral import Servers
from streams.settings import Settings
from streams.views.store import ViewStore
from tests.harness.read_side import namespace, user_views


@pytest.fixture
async def settings(stack: Servers) -> AsyncIterator[Settings]:
    """Settings of a namespace for views, whose indices are deleted afterwards."""
    async with namespace(stack) as settings:
        yield settings


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[ViewStore]:
    """The first index of the user view, which serves queries."""
    async with user_views(settings) as store:
        yield store
