"""The documentation site: every page has its place, and none loads anything from elsewhere."""

from __future__ import annotations

import re

import pytest
import yaml

from tests.conftest import ROOT

DOCS = ROOT / "docs"
SITE = ROOT / "mkdocs.yml"


def _pages(nav: list[object]) -> list[str]:
    """Files of a navigation, in order."""
    found: list[str] = []
    for entry in nav:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            found += _pages(value) if isinstance(value, list) else [str(value)]
    return found


def test_every_page_stands_in_the_navigation_once() -> None:
    pages = _pages(yaml.safe_load(SITE.read_text())["nav"])
    assert sorted(pages) == sorted(path.name for path in DOCS.glob("*.md"))


def test_nothing_is_fetched_from_elsewhere() -> None:
    settings = yaml.safe_load(SITE.read_text())
    assert settings["theme"]["font"] is False
    assert not {"offline", "mermaid2"} & {
        p if isinstance(p, str) else next(iter(p)) for p in settings["plugins"]
    }
    for page in DOCS.glob("*.md"):
        assert not re.search(
            r"(!\[[^]]*\]\(|<(?:img|script|link)[^>]*(?:src|href)=.)https?:", page.read_text()
        ), page


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_links_between_pages_lead_somewhere(page: object) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)  # type: ignore[attr-defined]
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if not target.startswith(("http", "mailto:")):
            assert (DOCS / target).exists(), (page, target)
