"""The handler of the query about registrations: it reads the view `daily-registrations`."""

from __future__ import annotations

from typing import Any

from models.daily_registrations import DailyRegistrations, day_at
from models.queries import GetDailyRegistrations
from streams.buses import QueryBus
from streams.views.read_your_writes import ReadYourWrites
from streams.views.reader import ViewReader


class RegistrationQueryHandler:
    """The handler of `GetDailyRegistrations`.

    It counts a registration within a second of its projection; with a token it waits for that.
    """

    def __init__(self, view: ViewReader) -> None:
        self._view = view

    def register_at(self, queries: QueryBus, waiting: ReadYourWrites) -> None:
        """Register this handler at the bus."""
        queries.register(GetDailyRegistrations, self.get_daily, after=waiting.once_searchable)

    async def get_daily(self, query: GetDailyRegistrations) -> tuple[DailyRegistrations, ...]:
        """Return the counts by day, then by source, without those that are 0."""
        days = {"gte": query.first_day.isoformat(), "lte": query.last_day.isoformat()}
        wanted: list[dict[str, Any]] = [{"range": {"day": days}}]
        if query.source is not None:
            wanted.append({"term": {"source": query.source}})
        sums = await self._view.sums(
            {"bool": {"filter": wanted}}, by=("day", "source"), of="registrations"
        )
        return tuple(
            DailyRegistrations(
                day=day_at(group["day"]), source=group["source"], registrations=registrations
            )
            for group, registrations in sums
        )
