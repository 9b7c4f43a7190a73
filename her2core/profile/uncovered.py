"""Stained tissue in which no cells were found: what a table of cells cannot show by itself."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from her2core.kernels.stain import unmix
from her2core.records import StainProfile

BLOCK_UM: Final = 64.0
"""Edge of the squares in which stain and cells are compared: some dozens of cells. Ours."""
STAINED_OD: Final = 0.25
"""Mean DAB OD of a coarse pixel from which tissue is stained: nests of 3+ have 0.4 and more. Ours."""
STAINED_SHARE: Final = 0.5
"""Share of a square that is stained from which cells are to be expected. Ours."""
COVERED_SHARE: Final = 0.2
"""... and share of the stained area that cells cover, below which they are missing. Ours."""


def stained_without_cells(
    rgb: NDArray[np.uint8],
    um_px: float,
    stain: StainProfile,
    y_um: NDArray[np.float64],
    x_um: NDArray[np.float64],
    cell_um2: NDArray[np.float32],
) -> tuple[float, float]:
    """Compare where a coarse picture is stained with where cells lie.

    Parameters
    ----------
    rgb
        (h, w, 3) uint8 of the whole slide at ``um_px``.
    y_um, x_um, cell_um2
        (n,) places and areas of all cells, tumour or not.

    Returns
    -------
    bare_mm2, stained_mm2
        Stained area of squares that hold too few cells, and of all squares that are stained at all.
    """
    edge = max(1, round(BLOCK_UM / um_px))
    stained = unmix(rgb, stain)[..., 1] >= STAINED_OD
    height, width = stained.shape
    rows, columns = -(-height // edge), -(-width // edge)
    padded = np.zeros((rows * edge, columns * edge), np.bool_)
    padded[:height, :width] = stained
    area = padded.reshape(rows, edge, columns, edge).sum((1, 3)) * um_px**2
    covered = np.zeros((rows, columns))
    side = edge * um_px
    row, column = (np.floor(v / side).astype(np.int64) for v in (y_um, x_um))
    inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    np.add.at(covered, (row[inside], column[inside]), cell_um2[inside])
    expected = area >= STAINED_SHARE * side**2
    bare = expected & (covered < COVERED_SHARE * area)
    return float(area[bare].sum()) / 1e6, float(area[expected].sum()) / 1e6
