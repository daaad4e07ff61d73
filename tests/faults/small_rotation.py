"""`cqrs keys rotate` in many small transactions, so that it can be killed between them.

It runs without the protection that the environment names.
"""

from __future__ import annotations

from deploy.cli.main import main
from streams.commands import rotate_keys
from tests.faults.protections import take_away

rotate_keys.MAX_KEYS = 10
take_away()

if __name__ == "__main__":
    main(["keys", "rotate"])
