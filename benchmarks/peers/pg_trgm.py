"""Users in PostgreSQL, found by a fragment of their email with pg_trgm."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import psycopg

from benchmarks.peers.postgres import postgres
from deploy.waiting import wait_until

_COLUMNS = ("id", "email", "firstName", "lastName", "isActive", "registeredAt", "lastUpdated")
_TABLE = """
CREATE EXTENSION pg_trgm;
CREATE TABLE users (
    id text, email text, first_name text, last_name text, is_active boolean,
    registered_at timestamptz, last_updated timestamptz
);
"""
# The second one serves pages of what most users match: they are found in the order of the list
_INDICES = """
ALTER TABLE users ADD PRIMARY KEY (id);
CREATE INDEX ON users USING gin (email gin_trgm_ops);
CREATE INDEX ON users (registered_at, id);
"""
_QUERY = "SELECT * FROM users WHERE email ILIKE %s ORDER BY registered_at, id LIMIT %s"


class Users:
    """The table; `open_users` makes it."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection

    async def find(self, fragment: str, limit: int) -> Sequence[str]:
        """The ids of the first users whose email contains the fragment."""
        literal = "".join(f"\\{one}" if one in "%_\\" else one for one in fragment)
        found = await self._connection.execute(_QUERY, (f"%{literal}%", limit))
        return [row[0] for row in await found.fetchall()]

    async def size(self) -> int:
        """Bytes on disk, indices included."""
        found = await self._connection.execute("SELECT pg_total_relation_size('users')")
        row = await found.fetchone()
        assert row is not None
        return int(row[0])


@asynccontextmanager
async def open_users(documents: Iterable[dict[str, Any]]) -> AsyncIterator[Users]:
    """A server with these users."""
    with postgres() as address:

        async def connected() -> psycopg.AsyncConnection[Any] | None:
            try:
                return await psycopg.AsyncConnection.connect(address, autocommit=True)
            except psycopg.OperationalError:  # it is starting
                return None

        async with await wait_until(connected, what="PostgreSQL answers") as connection:
            connection.prepare_threshold = None  # each fragment deserves a plan of its own
            await connection.execute(_TABLE)
            async with (
                connection.cursor() as cursor,
                cursor.copy("COPY users FROM STDIN") as copy,
            ):
                for document in documents:
                    await copy.write_row([document[name] for name in _COLUMNS])
            for statement in (_INDICES, "VACUUM ANALYZE users"):
                await connection.execute(statement)
            yield Users(connection)
