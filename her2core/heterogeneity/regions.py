r"""Regions of a slide: hexagons at fixed places, and measures of the cells or nuclei inside each.

::

      / \ / \ / \      pointy-top hexagons, in axial coordinates (q, r): q counts to the right,
     |0,0|1,0|2,0|     r counts downwards, and each row is shifted by half a hexagon.
      \ / \ / \ / \    Hexagon (0, 0) is centred on the centre of the first pixel of level 0,
       |0,1|1,1|2,1|   so no layout of chunks or shards moves a region.
        \ / \ / \ /
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from her2core.guidelines.rules_ihc import SCORES, CellClass, ClassCounts, RuleSet
from her2core.guidelines.rules_ish import ISHRules
from her2core.params import ISHScoreParams
from her2core.points.order import by_group
from her2core.scoring.ihc import MeasuredCells
from her2core.scoring.ish_nuclei import MeasuredNuclei

Ints = NDArray[np.int64]
Reals = NDArray[np.float64]

OD_PERCENTS = (10, 50, 90)
"""Quantiles of membrane OD that a region gives, in percent."""
NEIGHBOURS = ((1, 0), (0, 1), (-1, 1), (-1, 0), (0, -1), (1, -1))
"""Axial steps ``(dq, dr)`` to the six neighbours: three, and then their opposites."""
UNSCORED = -1
"""Score of a region with too few cells for one."""


@dataclass(frozen=True, slots=True)
class HexGrid:
    """Hexagons over the plane; ``size_um`` is their width from flat side to flat side, in µm."""

    size_um: float

    def __post_init__(self) -> None:
        if not 0 < self.size_um < math.inf:
            raise ValueError(f"hexagons of {self.size_um} µm; expected a size above 0")

    @property
    def row_um(self) -> float:
        """Distance of one row of centres from the next, in µm."""
        return self.size_um * math.sqrt(3) / 2

    @property
    def area_um2(self) -> float:
        return self.size_um * self.row_um

    def of(self, y_um: Reals, x_um: Reals) -> tuple[Ints, Ints]:
        """Hexagons ``(q, r)`` of points, shape ``(n,)`` each: those of the nearest centre.

        A point on a border belongs to the upper of two rows, and within a row to the hexagon on the right.
        """
        above = np.floor(y_um / self.row_um)
        q0, distance0 = self._nearest(y_um, x_um, above)
        q1, distance1 = self._nearest(y_um, x_um, above + 1)
        lower = distance1 < distance0
        return np.where(lower, q1, q0).astype(np.int64), (above + lower).astype(np.int64)

    def _nearest(self, y_um: Reals, x_um: Reals, r: Reals) -> tuple[Reals, Reals]:
        """Nearest hexagon of a row, and the squared distance to its centre."""
        q = np.floor(x_um / self.size_um - r / 2 + 0.5)
        y0, x0 = self.centre(q, r)
        return q, (y_um - y0) ** 2 + (x_um - x0) ** 2

    def centre(self, q: NDArray[np.number], r: NDArray[np.number]) -> tuple[Reals, Reals]:
        """Centres ``(y_um, x_um)`` of hexagons."""
        return np.asarray(r * self.row_um, np.float64), np.asarray((q + r / 2) * self.size_um, np.float64)


def distance(q: Ints, r: Ints) -> Ints:
    """Steps from hexagon (0, 0) to others."""
    steps: Ints = (np.abs(q) + np.abs(r) + np.abs(q + r)) // 2
    return steps


@dataclass(frozen=True, slots=True)
class Hexes:
    """Some hexagons of a grid, sorted by ``(q, r)``, shape ``(m,)``."""

    grid: HexGrid
    q: Ints
    r: Ints

    def __len__(self) -> int:
        return len(self.q)

    @property
    def y_um(self) -> Reals:
        """Centres, µm below the centre of the first pixel."""
        return self.grid.centre(self.q, self.r)[0]

    @property
    def x_um(self) -> Reals:
        """Centres, µm right of the centre of the first pixel."""
        return self.grid.centre(self.q, self.r)[1]

    def rows_of(self, y_um: Reals, x_um: Reals) -> Ints:
        """Row of the hexagon that holds each point, shape ``(n,)``; -1 where it is none of these."""
        return self._find(*self.grid.of(y_um, x_um))

    def neighbours(self) -> Ints:
        """Rows of the six neighbours of each hexagon, shape ``(m, 6)``, as `NEIGHBOURS`; -1 if not here."""
        return np.stack([self._find(self.q + dq, self.r + dr) for dq, dr in NEIGHBOURS], axis=1)

    def _find(self, q: Ints, r: Ints) -> Ints:
        if len(self) == 0:
            return np.full(len(q), -1, np.int64)
        keys, sought = _key(self.q, self.r), _key(q, r)
        rows = np.minimum(np.searchsorted(keys, sought), len(keys) - 1)
        return np.where(keys[rows] == sought, rows, -1).astype(np.int64)


def _key(q: Ints, r: Ints) -> Ints:
    """One number a hexagon, ascending with ``(q, r)``."""
    return (q << 32) + r


def hexes_of(grid: HexGrid, y_um: Reals, x_um: Reals) -> tuple[Hexes, Ints]:
    """The hexagons that hold points, and the row of each point's."""
    q, r = grid.of(y_um, x_um)
    _, first, rows = np.unique(_key(q, r), return_index=True, return_inverse=True)
    return Hexes(grid, q[first], r[first]), rows.reshape(-1).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Regions(Hexes):
    """Evaluable tumour cells of an IHC slide by hexagon, ``m`` hexagons with at least one of them.

    Attributes
    ----------
    counts
        Cells of class 0, 1, 2, 2u, 3 (`CellClass`), shape ``(m, 5)``.
    od_mean, completeness_mean
        Mean over cells of the membrane OD and of the completeness at the detection cut-point.
    od_sd
        Standard deviation over cells of the membrane OD; 0 of one cell.
    od_quantiles
        Order statistics of membrane OD at `OD_PERCENTS`, shape ``(m, 3)``.
    score
        0 to 3 by the slide's rule set, `UNSCORED` where there are too few cells.
    """

    counts: Ints
    od_mean: Reals
    od_sd: Reals
    od_quantiles: Reals
    completeness_mean: Reals
    score: NDArray[np.int8]

    @property
    def n(self) -> Ints:
        """Evaluable tumour cells, shape ``(m,)``."""
        total: Ints = self.counts.sum(axis=1)
        return total


def regions_of_cells(
    cells: MeasuredCells, classes: NDArray[np.int8], size_um: float, rules: RuleSet, score_cells: int
) -> Regions:
    """Gather the evaluable tumour cells of a slide by hexagon.

    Parameters
    ----------
    cells, classes
        All cells of a slide in any order, and their classes as `scoring.ihc.classify` finds them.
    size_um
        Width of a hexagon from flat side to flat side, in µm.
    rules, score_cells
        Rule set of regional scores, and the least number of cells for one.
    """
    counted = np.flatnonzero(cells.tumour & (classes >= CellClass.C0))
    y, x = cells.y_um[counted], cells.x_um[counted]
    hexes, row = hexes_of(HexGrid(size_um), y, x)
    m, k = len(hexes), len(CellClass) - 1
    kinds = classes[counted].astype(np.int64)
    counts = np.bincount(row * k + kinds, minlength=m * k).reshape(m, k).astype(np.int64)
    n = counts.sum(axis=1)
    od, completeness = (v[counted].astype(np.float64) for v in (cells.membrane_od, cells.completeness))
    od = od[by_group(od, row)]  # sorted, so that sums do not depend on the order of the cells
    starts = np.cumsum(n) - n
    mean = _sums(od, starts) / n
    ranks = np.stack([starts - (-percent * n // 100) - 1 for percent in OD_PERCENTS], axis=1)
    completeness = completeness[by_group(completeness, row)]
    return Regions(
        hexes.grid,
        hexes.q,
        hexes.r,
        counts,
        od_mean=mean,
        od_sd=np.sqrt(_sums((od - np.repeat(mean, n)) ** 2, starts) / np.maximum(n - 1, 1)),
        od_quantiles=od[ranks],
        completeness_mean=_sums(completeness, starts) / n,
        score=_scores(counts, row, kinds, y, x, rules, score_cells),
    )


def _sums(values: Reals, starts: Ints) -> Reals:
    """Sum of each run of values."""
    return np.add.reduceat(values, starts) if len(starts) else np.zeros(0)


def _scores(
    counts: Ints, row: Ints, kinds: Ints, y: Reals, x: Reals, rules: RuleSet, least: int
) -> NDArray[np.int8]:
    """Score of every hexagon with cells enough."""
    scores = np.full(len(counts), UNSCORED, np.int8)
    clusters = any(step.cluster is not None for step in rules.steps)
    order = np.argsort(row, kind="stable") if clusters else row
    ends = np.cumsum(counts.sum(axis=1))
    for i in np.flatnonzero(counts.sum(axis=1) >= least).tolist():
        found = ClassCounts(*counts[i].tolist())
        if clusters:
            here = order[ends[i] - counts[i].sum() : ends[i]]
            found += ClassCounts(**_clusters(kinds[here], y[here], x[here], rules.link_um))
        scores[i] = SCORES.index(next((step.score for step in rules.steps if step.holds(found)), "0"))
    return scores


def _clusters(kinds: Ints, y: Reals, x: Reals, link_um: float) -> dict[str, int]:
    """Largest connected groups inside one hexagon."""
    from her2core.points.components import largest_component  # compiled code: not where a run is only driven

    floors = {"cluster_any": CellClass.C1, "cluster_2": CellClass.C2, "cluster_3": CellClass.C3}
    return {
        name: largest_component(y[kinds >= lowest], x[kinds >= lowest], link_um)
        for name, lowest in floors.items()
    }


@dataclass(frozen=True, slots=True)
class NucleusRegions(Hexes):
    """Evaluable nuclei of an ISH slide by hexagon, shape ``(m,)`` a column.

    Attributes
    ----------
    n
        Nuclei.
    her2, cep17
        Signals of all of them, as the category counts them; ``cep17`` is None for a single probe.
    her2_squares
        Sum of the squared HER2 signals of its nuclei: their variance follows from it.
    amplified
        Nuclei beyond the CAP 2009 cut-off of the assay: ratio above 2.2, or more than 6 copies.
    """

    n: Ints
    her2: Ints
    her2_squares: Ints
    cep17: Ints | None
    amplified: Ints

    @property
    def copies_mean(self) -> Reals:
        """Mean HER2 signals a nucleus."""
        return self.her2 / self.n

    @property
    def ratio(self) -> Reals | None:
        """HER2 over CEP17 signals: a ratio of sums."""
        return None if self.cep17 is None else self.her2 / self.cep17

    @property
    def amplified_fraction(self) -> Reals:
        return self.amplified / self.n


def regions_of_nuclei(
    nuclei: MeasuredNuclei, size_um: float, params: ISHScoreParams, rules: ISHRules
) -> NucleusRegions:
    """Gather the evaluable nuclei of a slide by hexagon, in any order of the nuclei the same."""
    counted = nuclei.evaluable(params)
    her2, cep17 = nuclei.counted(params)
    hexes, row = hexes_of(HexGrid(size_um), nuclei.y_um[counted], nuclei.x_um[counted])

    def sums(values: NDArray[np.int64]) -> Ints:
        total = np.zeros(len(hexes), np.int64)
        np.add.at(total, row, values[counted])
        return total

    amplified = beyond(her2, cep17, rules).astype(np.int64)
    return NucleusRegions(
        hexes.grid,
        hexes.q,
        hexes.r,
        n=sums(np.ones(len(counted), np.int64)),
        her2=sums(her2),
        her2_squares=sums(her2**2),
        cep17=None if cep17 is None else sums(cep17),
        amplified=sums(amplified),
    )


def beyond(her2: Ints, cep17: Ints | None, rules: ISHRules) -> NDArray[np.bool_]:
    """Nuclei beyond the CAP 2009 cut-off of the assay, compared as integers."""
    rule = rules.heterogeneity
    numerator, denominator = rule.copies_above if cep17 is None else rule.ratio_above
    passed: NDArray[np.bool_] = denominator * her2 > numerator * (1 if cep17 is None else cep17)
    return passed
