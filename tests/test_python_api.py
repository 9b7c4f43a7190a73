"""What Python is offered: the examples of the pages run, and a field has the cells of a slide."""

from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import pytest

import her2core
from her2core import field
from her2core.lake.schema import CELLS, NUCLEI, Table
from her2core.params import PyramidParams
from her2core.phantom import PhantomSpec, render_field
from her2core.scoring.ihc import Verdict
from tests.helpers import chain

PAGE = Path(__file__).parent.parent / "docs" / "python.md"
DRAWN = PhantomSpec(seed=4, height_px=700, width_px=760, mix=(0.2, 0.2, 0.2, 0.2, 0.2), pattern="mosaic")


def test_the_examples_of_the_page_run() -> None:
    failed, run = doctest.testfile(str(PAGE), module_relative=False)
    assert (failed, run) == (0, 10)


def test_the_examples_of_the_functions_run() -> None:
    failed, run = doctest.testmod(field)
    assert failed == 0
    assert run >= 10


def test_a_field_has_the_cells_of_a_slide(tmp_path: Path) -> None:
    pixels = render_field(DRAWN)[0]
    of_field = her2core.score_field(pixels, 0.25)
    profile, rows, finished = chain.score(
        chain.memory_slide(pixels), tmp_path, PyramidParams(chunk=128, shard=256)
    )
    assert of_field.profile.stain == profile.stain
    named = [name for name in rows.column_names if name not in ("slide_id", "case_id")]
    assert of_field.cells.select(named).equals(rows.select(named))
    assert of_field.score == finished.outcome.score
    again = her2core.score_cells(rows, quality=profile.quality)
    assert again.counts == of_field.score.counts


def test_an_array_that_is_no_image_is_refused() -> None:
    with pytest.raises(ValueError, match="expected uint8"):
        her2core.score_field(np.zeros((20, 20, 4), np.uint8), 0.25)
    with pytest.raises(AttributeError, match="no_such"):
        her2core.no_such  # noqa: B018


@pytest.mark.parametrize("mpp", [0.0, -0.25, float("nan"), float("inf")])
def test_a_pixel_size_that_is_no_length_is_refused(mpp: float) -> None:
    with pytest.raises(ValueError, match="expected µm per pixel"):
        her2core.score_field(np.zeros((20, 20, 3), np.uint8), mpp)


@pytest.mark.parametrize(("assay", "table"), [("HER2-IHC", CELLS), ("HER2-DISH", NUCLEI)])
def test_a_field_without_a_cell_is_indeterminate(assay: str, table: Table) -> None:
    of_glass = her2core.score_field(np.full((300, 300, 3), 240, np.uint8), 0.1, assay)
    verdict = of_glass.score.verdict
    assert (verdict.score if isinstance(verdict, Verdict) else verdict.group) is None
    assert verdict.reasons
    assert of_glass.cells.equals(table.schema.empty_table())


def test_cells_without_a_column_that_the_score_needs_are_refused() -> None:
    cells = CELLS.schema.empty_table()
    assert her2core.score_cells(cells).verdict.score is None
    with pytest.raises(ValueError, match="no column evaluable_fraction, is_tumour;"):
        her2core.score_cells(cells.drop_columns(["is_tumour", "evaluable_fraction"]))
    with pytest.raises(ValueError, match="membrane_od_median"):
        her2core.score_cells({"y_um": [1.0]})


def test_the_version_is_that_of_the_package() -> None:
    assert her2core.__version__.count(".") == 2
