"""docs/cli.md is what the program says of itself."""

from __future__ import annotations

from her2cli.document import page
from tests.conftest import ROOT


def test_the_page_is_current() -> None:
    """Else: python -m her2cli.document > docs/cli.md"""
    assert (ROOT / "docs" / "cli.md").read_text() == page()


def test_every_verb_stands_in_it_with_its_whole_first_sentence() -> None:
    rows = [line for line in page().splitlines() if line.startswith("| [`")]
    assert len(rows) >= 10
    assert all(row.endswith((". |", ") |")) for row in rows), rows
