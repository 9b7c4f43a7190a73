"""Every reference to the specification has its paragraph, in the one form that can be checked."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "specification.md").read_text()
REFERENCE = re.compile(r"[Ss]pec §(\d+(?:\.\d+)*)")
STRAY = re.compile(r"her2-spec|[Ss]pec(?:ification)?,? (?:section )?\d|§\d", re.ASCII)
ANCHORS = Counter(re.findall(r'<a id="s([\d.]+)"></a>', PAGE))
FOLDERS = ("her2core", "her2cli", "flows", "tests", "benchmarks", "docs", "deploy")
SUFFIXES = {".py", ".md", ".yaml", ".json", ".toml"}
FILES = [
    path
    for folder in FOLDERS
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in SUFFIXES and path != Path(__file__) and path.name != "specification.md"
] + [ROOT / "CONTRIBUTING.md", ROOT / "README.md"]


def test_every_reference_has_its_paragraph() -> None:
    missing = [
        f"{path.relative_to(ROOT)}: §{number}"
        for path in FILES
        for number in REFERENCE.findall(path.read_text())
        if number not in ANCHORS
    ]
    assert not missing
    assert sum(len(REFERENCE.findall(path.read_text())) for path in FILES) > 60


def test_references_have_one_form() -> None:
    """``spec §4.3.5``, each number with its own sign: what is written otherwise is not checked above."""
    for path in FILES:
        rest = REFERENCE.sub("", path.read_text())
        assert not STRAY.findall(rest), path


def test_every_numbered_paragraph_has_one_anchor_and_refers_to_what_exists() -> None:
    titles = re.findall(r"(?:^### |^\*\*)§([\d.]*\d)", PAGE, re.MULTILINE)
    assert set(titles) <= set(ANCHORS)
    assert max(ANCHORS.values()) == 1
    inside = re.findall(r"(?<!id=\"s)§([\d.]*\d)", PAGE)
    assert set(inside) <= set(ANCHORS)


@pytest.mark.parametrize(
    ("text", "stray"),
    [
        ("spec 4.3, step 5", True),
        ("specification 7", True),
        ("spec §2.2 and §2.3", True),
        ("spec §7.2", False),
    ],
)
def test_other_forms_are_found(text: str, stray: bool) -> None:
    assert bool(STRAY.findall(REFERENCE.sub("", text))) == stray
