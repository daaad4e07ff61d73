"""The state table: one Faust table per kind of aggregate, changed by committed transactions only.

It is a Faust `Table` to read from, partitioned like the command topic. It is not registered with
Faust's table manager: its recovery is in `streams/state/recovery.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from faust.stores import memory
from faust.tables.table import Table

from streams.state.store import StateStore


class _Partitions(memory.Store[bytes, bytes]):
    """Store behind the table: the states of all partitions that this worker owns."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.owned: dict[int, StateStore] = {}

    def __getitem__(self, key: bytes) -> bytes:
        for state in self.owned.values():
            value = state.get(key)
            if value is not None:
                return value
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, bytes) and any(
            state.get(key) is not None for state in self.owned.values()
        )

    def __iter__(self) -> Iterator[bytes]:
        for state in self.owned.values():
            yield from state

    def __len__(self) -> int:
        return sum(len(state) for state in self.owned.values())

    def __setitem__(self, key: bytes, value: bytes) -> None:
        raise TypeError("the state table changes by transactions only")

    def __delitem__(self, key: bytes) -> None:
        raise TypeError("the state table changes by transactions only")


class StateTable(Table[bytes, bytes]):
    """Table from aggregate id to encoded snapshot, for the partitions that this worker owns.

    It contains only what was committed.
    """

    def __init__(self, app: Any, name: str, changelog: str) -> None:
        super().__init__(app, name=name, key_type=bytes, value_type=bytes)
        self.changelog = changelog

    def _new_store(self) -> _Partitions:
        return _Partitions("memory://", self.app, self, table_name=self.name)

    @property
    def owned(self) -> dict[int, StateStore]:
        """State of each owned partition, by its number."""
        return self.data.owned  # type: ignore[no-any-return, attr-defined]

    def on_key_set(self, key: bytes, value: bytes) -> None:
        """Refuse: only transactions change the table."""
        raise TypeError("the state table changes by transactions only")

    def on_key_del(self, key: bytes) -> None:
        """Refuse: only transactions change the table."""
        raise TypeError("the state table changes by transactions only")
