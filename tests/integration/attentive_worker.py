"""The command worker, which hears within half a second that topics have changed."""

from __future__ import annotations

from agents.user_commands import app

app.conf.consumer_metadata_max_age_ms = 500
