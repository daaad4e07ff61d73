"""Answers the query about registrations from the view `daily-registrations`."""

from __future__ import annotations

from typing import Any

from models.daily_registrations import DailyRegistrations
from models.queries import GetDailyRegistrations
from streams.buses import QueryBus
from streams.views.read_your_writes import ReadYourWrites
from streams.views.store import ViewStore


class RegistrationQueryHandler:
    """The handler of `GetDailyRegistrations`.

    It sees a registration within a second, and waits for that of a token.
    """

    def __init__(self, store: ViewStore) -> None:
        self._store = store

    def register_at(self, queries: QueryBus, freshness: ReadYourWrites) -> None:
        """Make this the handler."""
        queries.register(GetDailyRegistrations, self.get_daily, after=freshness.once_searchable)

    async def get_daily(self, query: GetDailyRegistrations) -> tuple[DailyRegistrations, ...]:
        """By day, then by source; days and sources without registrations are left out."""
        days = {"gte": query.first_day.isoformat(), "lte": query.last_day.isoformat()}
        wanted: list[dict[str, Any]] = [{"range": {"day": days}}]
        if query.source is not None:
            wanted.append({"term": {"source": query.source}})
        sums = await self._store.sums(
            {"bool": {"filter": wanted}}, by=("day", "source"), of="registrations"
        )
        return tuple(
            DailyRegistrations(**group, registrations=registrations)
            for group, registrations in sums
        )
