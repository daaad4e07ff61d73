"""All views, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agents.daily_registrations import DAILY_REGISTRATIONS
from agents.user_views import USER_VIEWS
from streams.views.projection import View

VIEWS: Mapping[str, View[Any]] = {
    view.name: view
    for view in (
        USER_VIEWS,
        DAILY_REGISTRATIONS,
    )
}
