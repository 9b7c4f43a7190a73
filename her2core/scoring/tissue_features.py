"""What separates tumour from other tissue, cell by cell: numbers made from the kernel's rows of a slide.

Size, shape and stain of a nucleus, the same averaged over the cells around it, and how all this stands to
the slide's own cells. None of it measures DAB, since what a cell's membrane shows must not decide whether it
counts; but where no place beside a nucleus is bare, it is of no account which stain colours it. Stain so
moves a stained cell's features; where such cells are the fewer, they do not move the range of the others.

Averages are taken over squares of `SQUARE_UM` whose centres lie within a distance of the centre of the cell's
own, and summed as whole numbers: the order of the cells and how the slide was cut make no difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from her2core.records import StainProfile

SQUARE_UM: Final = 8.0
"""About half of a cell: finer squares find the same neighbours. Ours."""
AROUND_UM: Final = (25.0, 50.0, 100.0)
"""Distances over which cells are averaged: next neighbours, a gland's wall, a nest."""
FINENESS: Final = 4096
"""Steps of a unit in which averaged numbers are summed."""
WIDEST: Final = 8.0
"""Numbers of a cell are kept within this of 0, so that one odd cell does not rule an average."""
ENDS: Final = (0.03, 0.97)
"""Quantiles between which the slide's own range lies. The middle of the range depends less on how much of a
slide is tumour than the median of its cells does. On cores left out the best feature has 0.77 so and
0.74 by the median (mean of sensitivity and specificity); ours."""
UNSTAINED: Final = (0.4, 0.6)
"""Share of unstained cells up to which all cells set the range, and from which these alone do; between, both
in proportion. Where most cells are stained, the others are hardly tumour. Ours: by unstained cells alone from
a share of 0.3, cores left out have 0.84 for 0.85."""

LEAST_RANGE_OD: Final = 1e-3
"""A narrower range of hematoxylin is taken as this; a slide with so little is indeterminate anyway. Ours."""
MEASURED: Final = (
    "nucleus_area_um2",
    "nucleus_elongation",
    "nucleus_od",
    "nucleus_contrast",
    "cell_area_um2",
    "evaluable_fraction",
    "nucleus_texture_od",
    "clear_rim_fraction",
    "clear_around_fraction",
    "fibre_alignment",
    "bare_fraction",
)
"""Columns of the kernel's rows, besides their places, that features are made of."""

OWN: Final = (
    "area",
    "elongation",
    "density",
    "contrast",
    "surroundings",
    "cell_area",
    "evaluable",
    "texture",
    "clear_rim",
    "clear_around",
    "alignment",
    "bare",
)
"""Numbers of a cell: area and elongation of its nucleus; hematoxylin of that, above what surrounds it, and of
what surrounds it, in units of the slide's range; area inside its contour, and how much of this is evaluable;
spread of hematoxylin inside the nucleus, in units of that range; what is clear next to the nucleus and
farther out; how far the nucleus lies along fibres; what beside it neither stain colours."""

Column = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TissueFeatures:
    """Features of all cells of a slide, computed when they are used.

    Names are those of `OWN`; with ``_25``, ``_50`` or ``_100`` behind them their means around the cell,
    with ``spread_`` in front the standard deviation there; ``crowd_25`` and so on is the logarithm of the
    number of cells there. ``own_`` in front of any of them is its place in the range of the slide's own
    cells: 0 in the middle, and 1 from the 3rd to the 97th percentile.

    Attributes
    ----------
    unstained
        Which cells are, bool ``(n,)``: that range is theirs where they are most of the cells.
    """

    own: Mapping[str, Column]
    row: NDArray[np.int64]
    column: NDArray[np.int64]
    unstained: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        cells: Mapping[str, NDArray[np.generic]],
        mpp: float,
        stain: StainProfile,
        stained: NDArray[np.bool_] | None = None,
    ) -> TissueFeatures:
        """Take the numbers of each cell.

        Parameters
        ----------
        cells
            `MEASURED`, ``y_px0`` and ``x_px0``, shape ``(n,)`` each.
        mpp
            Level-0 µm/px.
        stain
            The slide's colour: hematoxylin is in units of its range.
        stained
            Which cells are of class 1 or higher; none if not given.
        """
        number = {name: np.asarray(cells[name], np.float64) for name in MEASURED}
        low, high = stain.hematoxylin_low_od, stain.hematoxylin_high_od
        range_od = max(high - low, LEAST_RANGE_OD)
        dense = (number["nucleus_od"] - low) / range_od
        contrast = number["nucleus_contrast"] / range_od
        own = {
            "area": np.log(np.maximum(number["nucleus_area_um2"], 1.0)),
            "elongation": np.log(np.maximum(number["nucleus_elongation"], 1.0)),
            "density": dense,
            "contrast": contrast,
            "surroundings": dense - contrast,
            "cell_area": np.log(np.maximum(number["cell_area_um2"], 1.0)),
            "evaluable": number["evaluable_fraction"],
            "texture": number["nucleus_texture_od"] / range_od,
            "clear_rim": number["clear_rim_fraction"],
            "clear_around": number["clear_around_fraction"],
            "alignment": number["fibre_alignment"],
            "bare": number["bare_fraction"],
        }
        place = [np.asarray(cells[axis], np.float64) * mpp for axis in ("y_px0", "x_px0")]
        squares = [np.floor(axis / SQUARE_UM).astype(np.int64) for axis in place]
        row, column = (axis - axis.min(initial=0) for axis in squares)
        unstained = np.ones(len(row), np.bool_) if stained is None else ~stained
        own = {name: np.clip(values, -WIDEST, WIDEST) for name, values in own.items()}
        return cls(own, row, column, unstained)

    @staticmethod
    def knows(name: str) -> bool:
        """Whether there is a feature of this name."""
        base, _, reach = name.removeprefix("own_").rpartition("_")
        if reach not in {f"{um:.0f}" for um in AROUND_UM}:
            return name.removeprefix("own_") in OWN
        return base == "crowd" or base.removeprefix("spread_") in OWN

    def table(self, names: tuple[str, ...]) -> NDArray[np.float64]:
        """Features by name, shape ``(n, len(names))``."""
        n = len(self.row)
        if n == 0:
            return np.zeros((0, len(names)))
        made: dict[tuple[str, float], NDArray[np.int64]] = {}
        return np.stack([self._feature(name, made) for name in names], axis=1)

    def sum_around(self, values: NDArray[np.float64], um: float) -> NDArray[np.float64]:
        """Sum of any number over the cells around every cell, itself included, shape ``(n,)``."""
        if len(values) == 0:
            return np.zeros(0)
        whole = np.rint(values * FINENESS).astype(np.int64)
        return np.asarray(_disc_sums(self.row, self.column, whole, um / SQUARE_UM) / FINENESS)

    def mean_around(self, values: NDArray[np.float64], um: float) -> NDArray[np.float64]:
        """Mean of any number over the cells around every cell, itself included, shape ``(n,)``."""
        return self.sum_around(values, um) / self.sum_around(np.ones(len(values)), um)

    def _feature(self, name: str, made: dict[tuple[str, float], NDArray[np.int64]]) -> Column:
        if name.startswith("own_"):
            return _against(self._feature(name.removeprefix("own_"), made), self.unstained)
        base, _, reach = name.rpartition("_")
        if not reach.isdigit():
            return self.own[name]
        radius = float(reach)
        count = self._sum("", radius, made)
        if base == "crowd":
            return np.log(count.astype(np.float64))
        plain = base.removeprefix("spread_")
        mean = self._sum(plain, radius, made) / count / FINENESS
        if plain == base:
            return np.asarray(mean)
        square = self._sum(f"{plain} squared", radius, made) / count / FINENESS
        return np.asarray(np.sqrt(np.maximum(square - mean * mean, 0.0)))

    def _sum(
        self, name: str, radius: float, made: dict[tuple[str, float], NDArray[np.int64]]
    ) -> NDArray[np.int64]:
        """Sum of a number over the cells around, in steps of ``1 / FINENESS``; of ``""`` their count."""
        if (name, radius) not in made:
            if not name:
                whole = np.ones(len(self.row), np.int64)
            else:
                plain = self.own[name.removesuffix(" squared")]
                values = plain * plain if name.endswith(" squared") else plain
                whole = np.rint(values * FINENESS).astype(np.int64)
            made[name, radius] = _disc_sums(self.row, self.column, whole, radius / SQUARE_UM)
        return made[name, radius]


def _disc_sums(
    row: NDArray[np.int64], column: NDArray[np.int64], whole: NDArray[np.int64], radius: float
) -> NDArray[np.int64]:
    """Sums over the squares whose centres lie within ``radius`` squares of the cell's own."""
    reach = int(radius)
    height, width = int(row.max()) + 1 + 2 * reach, int(column.max()) + 2 + 2 * reach
    flat = (row + reach) * width + column + reach + 1  # a column of nothing in front
    grid = np.zeros(height * width, np.int64)
    np.add.at(grid, flat, whole)
    before = np.cumsum(grid.reshape(height, width), axis=1).ravel()
    total = np.zeros(len(row), np.int64)
    for dy in range(-reach, reach + 1):
        half = int(np.sqrt(radius * radius - dy * dy))
        at = flat + dy * width
        total += before[at + half] - before[at - half - 1]
    return total


def _against(values: Column, unstained: NDArray[np.bool_]) -> Column:
    """Place in the range of the slide's own values: 0 in the middle, 1 apart from end to end."""
    none, alone = UNSTAINED
    part = float(np.clip((unstained.mean() - none) / (alone - none), 0.0, 1.0))
    low, high = np.quantile(values, ENDS)
    if part > 0:
        of_unstained = np.quantile(values[unstained], ENDS)
        low, high = np.array([low, high]) * (1 - part) + of_unstained * part
    return np.asarray(np.clip((values - (low + high) / 2) / max(high - low, 1e-6), -WIDEST, WIDEST))
