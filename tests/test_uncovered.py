"""Stained tissue in which no cells were found."""

from __future__ import annotations

import numpy as np
import pytest

from her2core.kernels.stain import reference_stain
from her2core.profile.uncovered import stained_without_cells

STAIN = reference_stain((240.0, 240.0, 240.0))


def slide() -> np.ndarray:
    """1024 x 1024 um at 8 um/px; the left half is a nest of 0.5 OD, the right half glass."""
    od = np.zeros((128, 128, 1))
    od[:, :64] = 0.5
    return np.rint(240 * 10 ** (-od * np.array(STAIN.dab))).astype(np.uint8)


def lattice(wide_um: float) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[6.0:1024:12, 6.0:wide_um:12]
    return y.ravel(), x.ravel()


@pytest.mark.parametrize(("wide_um", "bare_mm2"), [(512.0, 0.0), (256.0, 0.262144), (0.0, 0.524288)])
def test_stained_squares_without_cells_are_summed(wide_um: float, bare_mm2: float) -> None:
    y, x = lattice(wide_um)
    found = stained_without_cells(slide(), 8.0, STAIN, y, x, np.full(len(y), 120.0, np.float32))
    assert found == pytest.approx((bare_mm2, 0.524288), abs=1e-6)


def test_unstained_tissue_needs_no_cells() -> None:
    white = np.full((128, 128, 3), 225, np.uint8)
    none = np.zeros(0)
    assert stained_without_cells(white, 8.0, STAIN, none, none, none.astype(np.float32)) == (0.0, 0.0)
