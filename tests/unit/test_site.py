"""The site is built without a warning, and every link in it leads to something."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.harness.site import build


class _Page(HTMLParser):
    """The links of a page, and what they can lead to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.ids: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.add(value)
            elif name == "id" and value:
                self.ids.add(value)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, _Page]:
    folder = tmp_path_factory.mktemp("site")
    build(folder)
    return {path: _Page(path.read_text()) for path in folder.rglob("*.html")}


def test_every_link_leads_to_something(pages: dict[Path, _Page]) -> None:
    broken = []
    for path, page in pages.items():
        if path.name == "404.html":
            continue
        for link in page.links:
            file, _, anchor = unquote(link).partition("#")
            target = (path.parent / file).resolve() if file else path
            if "://" in file or file.startswith(("data:", "mailto:")):
                continue
            if not target.exists() or (anchor and anchor not in pages[target].ids):
                broken.append(f"{path.name}: {link}")
    assert broken == []


def test_it_loads_nothing_from_other_hosts(pages: dict[Path, _Page]) -> None:
    for page in pages.values():
        assert not {link for link in page.links if link.endswith((".js", ".css")) and "//" in link}
