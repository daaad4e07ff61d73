"""How often Python collects garbage in a process that handles chunks."""

from __future__ import annotations

import gc


def collect_seldom() -> None:
    """Collect seldom, and never what there is by now; for the whole process, when it has started.

    A chunk makes and drops tens of thousands of small objects without a cycle among them, and a
    view keeps its documents: collecting as often as usual is 7% of what a command worker does, and
    a quarter of what making a view anew does.
    """
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)
