"""Build the site of the pages, as they are, with mkdocs: `python -m tests.harness.site FOLDER`.

Pages link to each other by their paths in the checkout, so mkdocs gets a folder with the same
paths: links to `docs/` and to the pages beside it. Any warning fails.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from tests.harness.command_line import ROOT

_CONFIG = ROOT / "docs" / "mkdocs.yml"


def build(folder: Path) -> None:
    """Write the site into a folder, in place of what is there.

    Raises:
        CalledProcessError: a page has a broken link, or is not in the navigation; mkdocs has said
            which.
    """
    with tempfile.TemporaryDirectory(prefix="cqrs-site-") as name:
        pages = Path(name) / "pages"
        pages.mkdir()
        for path in (*ROOT.glob("*.md"), ROOT / "docs"):
            (pages / path.name).symlink_to(path)
        config = Path(name) / "mkdocs.yml"
        own = {"INHERIT": str(_CONFIG), "docs_dir": str(pages), "site_dir": str(folder)}
        config.write_text(yaml.safe_dump(own))
        subprocess.run(
            [sys.executable, "-m", "mkdocs", "build", "--strict", "--clean", "-f", str(config)],
            env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
            check=True,
        )


if __name__ == "__main__":
    build(Path(sys.argv[1]).resolve())
