"""What the tutorial changes fits the code as it is now: the quick half of its test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.harness.command_line import ROOT
from tests.harness.followed_pages import apply_changes, blocks, copy_checkout


def test_the_changes_fit_and_their_own_test_passes(tmp_path: Path) -> None:
    checkout = copy_checkout(tmp_path)
    apply_changes(blocks(ROOT / "docs" / "tutorial.md"), checkout)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "tests/unit/models/test_confirm_email.py"],
        cwd=checkout,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
