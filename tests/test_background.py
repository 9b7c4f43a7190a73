"""Background of slides without glass, proposed from their batch: within 4 grey levels, or refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from her2cli import app
from her2core.analysis.background import MOST_OFF, Proposal, propose
from her2core.intake.manifest import read_manifest
from her2core.lake.schema import SLIDES
from her2core.lake.tables import commit_rows
from her2core.storage.store import Store
from tests.helpers.report_run import blank

GLASS = ((235.1, 234.3, 242.9), (233.1, 232.3, 239.7), (234.2, 233.5, 241.1), (234.9, 234.1, 242.6),
         (234.6, 233.8, 242.5), (234.8, 233.8, 242.6), (234.7, 233.8, 242.2))  # fmt: skip
"""Measured on the glass of seven real cores."""


def slides(scanner: str | None, glass: Any, guesses: Any, **more: Any) -> list[dict[str, Any]]:
    found = [(f"{scanner}-g{i}", list(i0), "glass") for i, i0 in enumerate(glass)]
    found += [(f"{scanner}-t{i}", list(i0), "bright_end") for i, i0 in enumerate(guesses)]
    return [
        blank(SLIDES, slide_id=name, case_id="c", assay="HER2-IHC", uri=f"{name}.tif", state="scored",
            scanner=scanner, i0=i0, i0_source=source, **more)
        for name, i0, source in found
    ]  # fmt: skip


def proposals(folder: Path, rows: list[dict[str, Any]]) -> tuple[Proposal, ...]:
    commit_rows(Store(folder), SLIDES, rows)
    return propose(Store(folder))


def test_of_a_batch_that_agrees_the_median_is_proposed(tmp_path: Path) -> None:
    """Each real core, as a slide without glass among the other six: within 4 grey levels of its own."""
    for k, own in enumerate(GLASS):
        others = [one for i, one in enumerate(GLASS) if i != k]
        [found] = proposals(tmp_path / str(k), slides("AT2", others, [(228, 226, 231)]))
        assert (found.refused, found.lacking) == ("", ("AT2-t0",))
        assert found.background is not None
        assert np.abs(np.array(found.background) - own).max() <= MOST_OFF
        assert found.text == ";".join(f"{level:g}" for level in found.background)


@pytest.mark.parametrize(
    ("scanner", "glass", "why"),
    [
        ("AT2", GLASS[:4], "glass on 4 slides; expected 5 or more"),
        ("AT2", [*GLASS, (178.5, 178.5, 176.7)], "glass differs by 65.8 grey levels from slide to slide"),
        ("AT2", [], "glass on 0 slides"),
        (None, GLASS, "no scanner in the manifest"),
    ],
)
def test_a_batch_that_does_not_tell_is_refused(
    tmp_path: Path, scanner: str | None, glass: Any, why: str
) -> None:
    [found] = proposals(tmp_path, slides(scanner, glass, [(228, 226, 231)]))
    assert why in found.refused
    assert found.text == ""


def test_batches_are_apart_and_brighter_slides_get_nothing(tmp_path: Path) -> None:
    """Scanners and laboratories have their own light; patches brighter than glass are of another one."""
    dark = [(210.0, 211.0, 212.0 + i / 10) for i in range(5)]
    rows = slides("AT2", GLASS, [(228, 226, 231), (251, 250, 252)], laboratory="A")
    rows += slides("P1000", dark, [(200, 190, 180)], laboratory="A")
    rows += [one | {"slide_id": f"B{one['slide_id']}"} for one in slides("AT2", dark, [], laboratory="B")]
    rows.append(blank(SLIDES, slide_id="failed", case_id="c", assay="HER2-IHC", uri="x", state="failed"))
    first, other, third = proposals(tmp_path, rows)
    assert (first.scanner, first.laboratory, first.text) == ("AT2", "A", "234.7;233.8;242.5")
    assert (first.lacking, first.outshone) == (("AT2-t0",), ("AT2-t1",))
    assert (other.laboratory, other.text, other.lacking) == ("B", "210;211;212.2", ())
    assert (third.scanner, third.text, third.lacking) == ("P1000", "210;211;212.2", ("P1000-t0",))


def test_the_verb_completes_a_manifest(tmp_path: Path) -> None:
    """Only slides without glass, that state none; every other cell stays, those of other programs too."""
    commit_rows(Store(tmp_path / "run"), SLIDES, slides("AT2", GLASS, [(228, 226, 231)] * 2))
    header = "slide_id;case_id;uri;assay;scanner;background;x_note\n"
    lines = [
        f"AT2-{k};c;{k}.tif;HER2-IHC;AT2;{'240' if k == 't1' else ''};a,b {k}\n" for k in ("g0", "t0", "t1")
    ]
    manifest = tmp_path / "m.csv"
    manifest.write_text(header + "".join(lines))
    words = ["background", str(tmp_path / "run"), "--manifest", str(manifest), "--out"]
    result = CliRunner().invoke(app, [*words, str(tmp_path / "full.csv"), "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["filled"], told["batches"][0]["proposed"]) == (1, "234.7;233.8;242.5")
    with (tmp_path / "full.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    assert [one["background"] for one in written] == ["", "234.7;233.8;242.5", "240"]
    assert [one["x_note"] for one in written] == ["a,b g0", "a,b t0", "a,b t1"]
    assert read_manifest(str(tmp_path / "full.csv"))[1].background == (234.7, 233.8, 242.5)
    again = CliRunner().invoke(app, [*words, str(tmp_path / "full.csv")])
    assert "there is a file already" in str(again.exception)
    elsewhere = CliRunner().invoke(app, [*words, str(tmp_path / "run" / "full.csv")])
    assert "expected a file beside" in str(elsewhere.exception)
    shown = CliRunner().invoke(app, ["background", str(tmp_path / "run")])
    assert "234.7;233.8;242.5" in shown.output
