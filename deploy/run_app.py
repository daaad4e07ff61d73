"""Run the Faust app of a module: `python deploy/run_app.py agents.user_commands worker`.

It does what `faust -A agents.user_commands worker` does, but never imports from the current folder.
Faust's lookup of an app and `python -m` both put that folder first in `sys.path`: packages in it
with names like `models` or `agents` would be imported instead of ours. So this file is run by its
path, and its own folder, which Python puts first for a script, is taken out again.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

_ROOT = str(Path(__file__).parents[1])  # a checkout, or where the package is installed


def main() -> None:
    """Import the module that the first argument names, and hand the others to its app."""
    if not getattr(sys.flags, "safe_path", False):  # with it (Python 3.11) nothing was put there
        del sys.path[0]
    if _ROOT not in sys.path:  # a checkout that is not installed
        sys.path.insert(0, _ROOT)
    import_module(sys.argv.pop(1)).app.main()


if __name__ == "__main__":
    main()
