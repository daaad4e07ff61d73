"""`cqrs keys rotate` in many small transactions, so that it can be killed between them."""

from __future__ import annotations

from deploy.cli.main import main
from streams.commands import rotate_keys

rotate_keys.MAX_KEYS = 10

if __name__ == "__main__":
    main(["keys", "rotate"])
