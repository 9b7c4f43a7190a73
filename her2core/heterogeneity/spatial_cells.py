"""How the positive cells of a tumour lie among the others: clustering, and how far their reach goes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from her2core.guidelines.rules_ihc import CellClass
from her2core.heterogeneity.blocks import Cuts
from her2core.heterogeneity.jackknife import sums_by
from her2core.heterogeneity.metrics import Metric, insufficient, measured
from her2core.params import HeterogeneityParams
from her2core.points.nearest import nearest
from her2core.points.neighbour_counts import neighbour_counts

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Reals = NDArray[np.float64]

POSITIVE = {"3": CellClass.C3, "2up": CellClass.C2}
"""What a positive cell is, by the word in the metric's name: class 3; class 2, 2u or 3."""
MIN_PAIRS = 10
"""Fewer pairs of positive cells expected by chance: L of so few is biased low. Ours."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """How many other cells lie around every cell.

    Attributes
    ----------
    reaches_um
        Ascending.
    counts
        Cells within each reach of every cell, shape ``(n, reaches)``.
    """

    reaches_um: tuple[float, ...]
    counts: Ints

    @classmethod
    def of(
        cls, y_um: Reals, x_um: Reals, classes: NDArray[np.int8], params: HeterogeneityParams
    ) -> Neighbours:
        """Counted once for all metrics: within a link and, where any `label_l` is computed, its reaches."""
        positives = [int(np.count_nonzero(classes >= lowest)) for lowest in POSITIVE.values()]
        enough = any(min(many, len(classes) - many) >= params.min_positive for many in positives)
        reaches = tuple(sorted({params.link_um, *(params.reach_um if enough else ())}))
        return cls(reaches, neighbour_counts(y_um, x_um, reaches))

    def within(self, *reaches_um: float) -> Ints:
        """Cells within some of the reaches, shape ``(n, len(reaches_um))``."""
        return self.counts[:, [self.reaches_um.index(reach) for reach in reaches_um]]


def label_l(positive: Bools, all_near: Ints, positive_near: Ints, area_um2: float) -> Reals:
    """Ripley's L of the positive cells less its mean under random labels, in µm, shape ``(reaches,)``.

    Labels are shuffled over the cells that are there, so that gaps between nests and the tissue's edge are
    no clustering. The mean of K under random labels is known exactly: K of all cells. No edge correction
    is needed, both being cut by the same edge.

    Parameters
    ----------
    positive
        Shape ``(n,)``, at least two of them.
    all_near
        Cells within each reach of every cell, shape ``(n, reaches)``.
    positive_near
        Positive cells within each reach of every positive cell, shape ``(n_positive, reaches)``.
    area_um2
        Area that the cells lie in.

    References
    ----------
    Ripley BD. Modelling spatial patterns. J R Stat Soc B 1977;39:172-212. Diggle PJ, Chetwynd AG.
    Second-order analysis of spatial clustering for inhomogeneous populations. Biometrics 1991;47:1155-1163.
    """
    n, many = len(positive), int(np.count_nonzero(positive))
    k_positive = area_um2 * positive_near.sum(axis=0) / (many * (many - 1))
    k_null = area_um2 * all_near.sum(axis=0) / (n * (n - 1))
    difference: Reals = np.sqrt(k_positive / np.pi) - np.sqrt(k_null / np.pi)
    return difference


def clustering_metrics(
    y_um: Reals,
    x_um: Reals,
    classes: NDArray[np.int8],
    rows: Ints,
    cuts: Cuts,
    around: Neighbours,
    area_um2: float,
    params: HeterogeneityParams,
) -> Iterator[Metric]:
    """`label_l` at every reach, for both meanings of positive.

    The interval leaves blocks of hexagons out, and each cell keeps its own neighbours (Loh, Astrophys J
    2008;681:726-734): no pair is made or cut.

    Parameters
    ----------
    rows
        Hexagon of every cell, from 0.
    cuts
        The blocks that these hexagons make.
    around
        `Neighbours` of these cells.
    area_um2
        Area of all hexagons that hold cells.
    """
    n = len(classes)
    for word, lowest in POSITIVE.items():
        name = f"label_l_{word}"
        positive = classes >= lowest
        many = int(np.count_nonzero(positive))
        few = min(many, n - many)
        if few < params.min_positive:
            yield from (insufficient(name, few, scale_um=reach) for reach in params.reach_um)
            continue
        all_near = around.within(*params.reach_um)
        near = neighbour_counts(y_um[positive], x_um[positive], params.reach_um)
        values = label_l(positive, all_near, near, area_um2)
        expected = many * (many - 1) / (n * (n - 1)) * all_near.sum(axis=0) / 2
        for k, reach in enumerate(params.reach_um):
            if expected[k] < MIN_PAIRS:
                yield insufficient(name, many, scale_um=reach)
                continue
            of_positive = sums_by(rows[positive], cuts.hexagons, np.ones(many), near[:, k])
            of_all = sums_by(rows, cuts.hexagons, np.ones(n), all_near[:, k])
            blocks = cuts.blocks(np.concatenate([of_positive, of_all], axis=1))
            value = float(values[k])
            interval = blocks.interval(value, _l_of_sums(many, n, area_um2))
            yield measured(name, value, many, scale_um=reach, interval=interval)


def _l_of_sums(many: int, n: int, area_um2: float) -> Callable[[Reals], Reals]:
    """`label_l` of sums: positive cells, their pairs, cells, their pairs. Density stays the slide's."""

    def difference(sums: Reals) -> Reals:
        positives, pairs, cells, all_pairs = sums.T
        of_positive = pairs / np.maximum(positives, 1) / (many - 1)
        of_all = all_pairs / np.maximum(cells, 1) / (n - 1)
        out: Reals = math.sqrt(area_um2 / math.pi) * (np.sqrt(of_positive) - np.sqrt(of_all))
        return out

    return difference


def proximity_metrics(
    y_um: Reals, x_um: Reals, od: Reals, rows: Ints, cuts: Cuts, params: HeterogeneityParams
) -> Iterator[Metric]:
    """Proximity score: fraction of cells with a membrane OD of at least t, or within r of such a cell.

    Parameters
    ----------
    od
        Membrane OD of every cell, shape ``(n,)``.
    rows, cuts
        Hexagon of every cell, from 0, and the blocks that these make.
    """
    n = len(od)
    for t in params.proximity_od:
        name = f"proximity_od_{round(100 * t):03d}"
        target = od >= np.float32(t)
        many = int(np.count_nonzero(target))
        if n < params.min_cells or many < params.min_positive:
            yield from (insufficient(name, many, scale_um=reach) for reach in params.proximity_um)
            continue
        distance = nearest(y_um, x_um, target, params.proximity_um[-1])
        for reach in params.proximity_um:
            served = distance <= reach
            value = int(np.count_nonzero(served)) / n
            held = sums_by(rows, cuts.hexagons, served, np.ones(n))
            interval = cuts.blocks(held).share(value, lambda sums: sums[..., 0] / sums[..., 1], n)
            yield measured(name, value, n, scale_um=reach, interval=interval)
