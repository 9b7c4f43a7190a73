"""Kernel rows as rows of ``nuclei``: what is not accepted counts for nothing, in any cut the same."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from her2core.columns import NUCLEUS_DTYPE, SPOT_DTYPE
from her2core.lake.rows_nuclei import SingleSignals, Spots, kernel_table, nucleus_rows
from her2core.records import Assay, SlideRow

MPP = 0.1
ROW = SlideRow("s", "c", "s.tif", Assay.FISH)


def measured(nuclei: int = 40) -> pa.Table:
    """Nuclei of two HER2 and two CEP17 signals, and a dim bead of either channel; the last two empty."""
    cells = np.zeros(nuclei + 2, NUCLEUS_DTYPE)
    cells["y_px0"] = 100.0 * np.arange(nuclei + 2)
    spots = np.zeros(6 * nuclei, SPOT_DTYPE)
    spots["nucleus"] = np.repeat(np.arange(nuclei), 6)
    spots["probe"] = np.tile([0, 0, 0, 1, 1, 1], nuclei)
    spots["y_px0"] = np.tile(np.arange(6) * 10.0, nuclei) + cells["y_px0"][spots["nucleus"]]
    spots["contrast"] = np.tile([80, 90, 20, 150, 160, 30], nuclei)
    spots["integrated"] = np.tile([8, 9, 1, 15, 16, 2], nuclei)
    spots["diameter_um"] = 0.5
    for probe, name in enumerate(("her2", "cep17")):
        cells[f"{name}_spots"] = np.bincount(spots["nucleus"][spots["probe"] == probe], minlength=nuclei + 2)
    return kernel_table(cells, spots, np.ones(len(cells), np.bool_))


def test_spots_that_are_not_accepted_stay_and_count_for_nothing() -> None:
    table = measured()
    rows = nucleus_rows(
        table, ROW, MPP, None, SingleSignals.of([Spots.of(table)], MPP, bright_field=False), dual=True
    )
    assert rows["her2_spots"].to_pylist() == rows["cep17_spots"].to_pylist() == [2] * 40 + [0, 0]
    assert rows["her2_signals"].to_pylist() == [2] * 40 + [0, 0]
    assert rows["her2_integrated"].to_pylist() == [17.0] * 40 + [0.0, 0.0]
    spots = rows["spots"].to_pylist()
    assert [spot["copies"] for spot in spots[7]] == [1, 1, 0, 1, 1, 0]
    assert spots[-1] == []


@pytest.mark.parametrize("cut", [1, 13, 41])
def test_cut_into_bands_the_rows_are_the_same(cut: int) -> None:
    table = measured()
    whole = SingleSignals.of([Spots.of(table)], MPP, bright_field=False)
    bands = [table.slice(0, cut), table.slice(cut)]
    single = SingleSignals.of([Spots.of(band) for band in bands], MPP, bright_field=False)
    assert single == whole
    rows = [nucleus_rows(band, ROW, MPP, None, single, dual=True) for band in bands]
    assert pa.concat_tables(rows).equals(nucleus_rows(table, ROW, MPP, None, whole, dual=True))


def test_a_slide_without_spots() -> None:
    table = measured(0)
    single = SingleSignals.of([Spots.of(table)], MPP, bright_field=False)
    rows = nucleus_rows(table, ROW, MPP, None, single, dual=False)
    assert rows["her2_signals"].to_pylist() == [0, 0]
    assert rows["cep17_signals"].null_count == 2
    assert len(SingleSignals.of([], MPP, bright_field=False).copies(Spots.of(table))) == 0
