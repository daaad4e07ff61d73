"""The command worker with small write buffers: its stores write to their disk all the time."""

from agents.user_commands import app
from streams.state import rocksdb

__all__ = ["app"]

rocksdb._WRITE_BUFFER_PER_STORE_BYTES = 64 << 10
