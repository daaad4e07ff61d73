"""Users in PostgreSQL, which are found by a fragment of their email with pg_trgm."""

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
# The last one serves fragments that most users match: it finds them in the order of the list
_INDICES = """
ALTER TABLE users ADD PRIMARY KEY (id);
CREATE INDEX ON users USING gin (email gin_trgm_ops);
CREATE INDEX ON users (registered_at, id);
"""
_QUERY = "SELECT * FROM users WHERE email ILIKE %s ORDER BY registered_at, id LIMIT %s"


class Users:
    """The table of users; `open_users` creates it."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection

    async def find(self, fragment: str, limit: int) -> Sequence[str]:
        """Return the ids of the first users whose email contains the fragment."""
        literal = "".join(f"\\{one}" if one in "%_\\" else one for one in fragment)
        found = await self._connection.execute(_QUERY, (f"%{literal}%", limit))
        return [row[0] for row in await found.fetchall()]

    async def size(self) -> int:
        """Return the bytes on disk, indices included."""
        found = await self._connection.execute("SELECT pg_total_relation_size('users')")
        row = await found.fetchone()
        assert row is not None
        return int(row[0])


@asynccontextmanager
async def open_users(documents: Iterable[dict[str, Any]]) -> AsyncIterator[Users]:
    """Start a server with these users; stop it at the end of the block."""
    with postgres() as address:

        async def connected() -> psycopg.AsyncConnection[Any] | None:
            try:
                return await psycopg.AsyncConnection.connect(address, autocommit=True)
            except psycopg.OperationalError:  # it has not started yet
                return None

        async with await wait_until(connected, what="PostgreSQL accepts connections") as connection:
            connection.prepare_threshold = None  # plan every query for its own fragment
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
