"""Neighbours of cells, computed from the rows of a slide's parts once all of them are known.

Neighbours reach across the seams between parts. To find them here, and not where pixels are measured, lets
the kernel look no farther than a single cell needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from her2core.params import IHCParams
from her2core.points.neighbour_fraction import marked_fraction

TOUCH_UM: Final = 18.0
"""Centres of cells that touch are no farther apart. Ours; tumour cells are 12 to 20 µm wide (spec §4.3.3)."""

STRONG_CONTOUR: Final = 0.5
"""Fraction of a contour at the strong cut-point from which a neighbour is strong. Ours."""

COLUMN: Final = "neighbour_strong_fraction"

Places = NDArray[np.float64]


def with_strong_neighbours(bands: Iterable[pa.Table], params: IHCParams, mpp: float) -> Iterator[pa.Table]:
    """Append `COLUMN` to the kernel rows of a slide: the fraction of a cell's neighbours that are strong.

    A band is passed on once the rows below it are known as far as a neighbour may lie, so at most a few
    bands are held at a time.

    Parameters
    ----------
    bands
        Kernel rows with ``y_px0`` and ``x_px0``; every band lies below the one before, as wide as the slide.
    params
        What the rows were measured with: which cut-point of the ladder is strong.
    mpp
        Level-0 µm/px.
    """
    reach = TOUCH_UM / mpp
    strong = f"completeness_{params.ladder_od.index(params.strong_od):02d}"
    above = np.zeros((0, 3))  # places of rows passed on
    held: list[tuple[pa.Table, Places]] = []
    for band in bands:
        if len(band):
            held.append((band, _places(band, strong)))
        while held and held[-1][1][:, 0].max() >= held[0][1][:, 0].max() + reach:
            yield _with_fraction(held, above, reach)
            above = _last_rows(above, held.pop(0)[1], reach)
    while held:
        yield _with_fraction(held, above, reach)
        above = _last_rows(above, held.pop(0)[1], reach)


def _places(band: pa.Table, strong: str) -> Places:
    """Centroid y and x, and 1 where the contour is strong, shape ``(n, 3)``."""
    marked = band[strong].to_numpy() >= STRONG_CONTOUR
    return np.stack([band["y_px0"].to_numpy(), band["x_px0"].to_numpy(), marked], axis=1)


def _last_rows(above: Places, here: Places, reach: float) -> Places:
    """Those that may have neighbours below ``here``."""
    both = np.concatenate([above, here])
    kept: Places = both[both[:, 0] >= here[:, 0].max() - reach]
    return kept


def _with_fraction(held: list[tuple[pa.Table, Places]], above: Places, reach: float) -> pa.Table:
    """The first band that is held, with its column."""
    band, here = held[0]
    top, bottom = here[:, 0].min() - reach, here[:, 0].max() + reach
    around = np.concatenate([here, above, *(places for _, places in held[1:])])
    around = around[(around[:, 0] >= top) & (around[:, 0] <= bottom)]  # all of `here` stays in front
    fraction = marked_fraction(around[:, 0], around[:, 1], around[:, 2] > 0, reach)[: len(here)]
    return band.append_column(COLUMN, pa.array(fraction))
