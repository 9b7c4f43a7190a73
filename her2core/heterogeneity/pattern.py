"""The pattern that the rarer kind of tumour cell makes: homogeneous, cluster, mosaic or scattered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

import numpy as np
from numpy.typing import NDArray

from her2core.heterogeneity.blocks import Cuts
from her2core.heterogeneity.bootstrap import UNIT, whole
from her2core.heterogeneity.jackknife import sums_by
from her2core.heterogeneity.metrics import Metric, insufficient, measured
from her2core.heterogeneity.spatial_cells import POSITIVE, Neighbours
from her2core.params import HeterogeneityParams
from her2core.points.components import component_labels
from her2core.points.nearest import nearest
from her2core.points.neighbour_counts import neighbour_counts
from her2core.points.order import by_place

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Reals = NDArray[np.float64]

MINORITY_PERCENT = 1
"""A minority of less than this percentage of the cells leaves the tumour homogeneous. Ours."""
CLUSTER_PERCENT, CLUSTER_CELLS = 10, 20
"""A cluster holds at least this percentage of the tumour's cells, and at least so many. Ours."""
SCATTERED_PERCENT, SCATTERED_CELLS = 80, 3
"""Scattered: at least this percentage of the minority lies in groups of at most so many cells. Ours."""
CORE = (2, 3)
"""The least part of a cell's neighbours that are of its own kind inside a cluster. Ours: at random, even of
half and half too few cells have as many to hang together; in a cluster one cell in four may be another."""
METRICS = ("minority", "largest", "cohesive", "scattered", "groups")


class PatternType(StrEnum):
    """Types of intratumoral heterogeneity.

    References
    ----------
    Types as in Nguyen et al., Laboratory Investigation 2019 (s41374-018-0172-y); the algorithm is ours.
    """

    HOMOGENEOUS = "homogeneous"
    CLUSTER = "cluster"
    MOSAIC = "mosaic"
    SCATTERED = "scattered"


@dataclass(frozen=True, slots=True)
class Pattern:
    """What the rarer kind of cell makes of a tumour.

    Attributes
    ----------
    rarer
        Which cells are of the rarer kind, shape ``(n,)``: the positive ones at half and half.
    group
        Connected group of each of these, 0 the largest, shape ``(minority,)``.
    cohesive
        Which of these lie in the largest cohesive group, shape ``(minority,)``.
    """

    rarer: Bools
    group: Ints
    cohesive: Bools

    @property
    def n(self) -> int:
        return len(self.rarer)

    @property
    def minority(self) -> int:
        return len(self.group)

    @property
    def sizes(self) -> Ints:
        """Cells in each group, largest first."""
        sizes: Ints = np.bincount(self.group)
        return sizes

    @property
    def in_small(self) -> Bools:
        """Which cells of the minority are alone or nearly so."""
        return self.sizes[self.group] <= SCATTERED_CELLS

    @property
    def type(self) -> PatternType:
        """Decided by whole numbers, in the order homogeneous, cluster, scattered, mosaic."""
        if 100 * self.minority < MINORITY_PERCENT * self.n:
            return PatternType.HOMOGENEOUS
        cluster = int(np.count_nonzero(self.cohesive))
        if cluster >= CLUSTER_CELLS and 100 * cluster >= CLUSTER_PERCENT * self.n:
            return PatternType.CLUSTER
        if 100 * int(np.count_nonzero(self.in_small)) >= SCATTERED_PERCENT * self.minority:
            return PatternType.SCATTERED
        return PatternType.MOSAIC


def pattern_of(
    y_um: Reals, x_um: Reals, positive: Bools, link_um: float, near: Ints | None = None
) -> Pattern:
    """Pattern that positive and negative cells make, shape ``(n,)`` each.

    A group is what hangs together by links of cells of one kind. A cohesive group hangs together by links
    of core cells alone, those whose neighbours are of their own kind for the most part, and takes in the
    cells linked to one of these (as DBSCAN does): cells mixed at random hang together as soon as each of
    them has some five of its kind in reach, across the whole slide, and yet are no cluster.

    Parameters
    ----------
    link_um
        Cells of one kind at most this far apart are linked, and cells of any kind are neighbours.
    near
        Neighbours of every cell, shape ``(n,)``, where they have been counted.

    References
    ----------
    Ester M, Kriegel HP, Sander J, Xu X. A density-based algorithm for discovering clusters. KDD 1996:226-231.
    """
    n, many = len(positive), int(np.count_nonzero(positive))
    rarer = positive if 2 * many <= n else ~positive
    y, x = y_um[rarer], x_um[rarer]
    if near is None:
        near = neighbour_counts(y_um, x_um, (link_um,))[:, 0]
    alike = neighbour_counts(y, x, (link_um,))[:, 0]
    core = np.flatnonzero(CORE[1] * alike >= CORE[0] * near[rarer])
    seeds = np.zeros(len(y), np.bool_)
    seeds[core[_by_size(component_labels(y[core], x[core], link_um)) == 0]] = True
    cohesive = nearest(y, x, seeds, link_um) <= link_um
    return Pattern(rarer, _by_size(component_labels(y, x, link_um)), cohesive)


def _by_size(labels: Ints) -> Ints:
    """Labels renumbered from 0, the most frequent one first; of equally many, the one seen first."""
    _, first, inverse, counts = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    ranks = np.empty(len(first), np.int64)
    ranks[np.lexsort((first, -counts))] = np.arange(len(first))
    return ranks[inverse.reshape(-1)]


def pattern_metrics(
    y_um: Reals,
    x_um: Reals,
    classes: NDArray[np.int8],
    rows: Ints,
    cuts: Cuts,
    around: Neighbours,
    params: HeterogeneityParams,
) -> Iterator[Metric]:
    """Pattern type and sizes of groups, for both meanings of positive; the label is the type.

    Groups are found once. The interval leaves blocks of hexagons out, and each cell keeps the size of its own
    group.

    Parameters
    ----------
    rows, cuts
        Hexagon of every cell, from 0, and the blocks that these make.
    around
        `Neighbours` of these cells.
    """
    n, scale = len(classes), params.link_um
    order = by_place(y_um, x_um, classes)  # of two groups of one size the same is taken in any order
    near = around.within(params.link_um)[order, 0]
    y_um, x_um, classes, rows = y_um[order], x_um[order], classes[order], rows[order]
    for word, lowest in POSITIVE.items():
        names = [f"pattern_{part}_{word}" for part in METRICS]
        if n < params.min_cells:
            yield from (insufficient(name, n, scale_um=scale) for name in names)
            continue
        found = pattern_of(y_um, x_um, classes >= lowest, scale, near)
        blocks = cuts.blocks(_held(found, rows, cuts.hexagons))
        shares, highest = _values(blocks.total).tolist()[:4], (0.5, 0.5, 0.5, 1.0)
        for k, (value, high) in enumerate(zip(shares, highest, strict=True)):
            if METRICS[k] in ("largest", "cohesive"):  # one group, wherever it is, and no draw of cells
                interval = blocks.interval(value, partial(_value, k), 0.0, high)
            else:
                of = found.minority if METRICS[k] == "scattered" else n
                interval = blocks.share(value, partial(_value, k), of, high)
            yield measured(names[k], value, n, scale_um=scale, interval=interval, label=found.type.value)
        groups = float(np.count_nonzero(found.sizes >= CLUSTER_CELLS))
        interval = blocks.interval(groups, partial(_value, 4, times=n), 0.0, n)
        yield measured(names[4], groups, n, scale_um=scale, interval=interval, label=found.type.value)


def _held(found: Pattern, rows: Ints, blocks: int) -> Reals:
    """What each hexagon holds: cells, and of the minority all, and those of each kind of group."""
    sizes = found.sizes[found.group]
    part = np.where(sizes >= CLUSTER_CELLS, whole(1 / sizes), 0.0)  # of one group of cells in many hexagons
    of_minority = (np.ones(found.minority), found.group == 0, found.cohesive, found.in_small, part)
    held = sums_by(rows[found.rarer], blocks, *of_minority)
    return np.concatenate([sums_by(rows, blocks, np.ones(found.n)), held], axis=1)


def _value(k: int, sums: Reals, times: int = 1) -> Reals:
    value: Reals = times * _values(sums)[..., k]
    return value


def _values(sums: Reals) -> Reals:
    """`METRICS` of sums, shape ``(..., 5)``, groups by cell; what is a share of none is NaN."""
    cells, minority, largest, cohesive, small, groups = np.moveaxis(sums, -1, 0)
    share = minority / cells
    scattered = np.divide(small, minority, out=np.full(np.shape(cells), np.nan), where=minority > 0)
    groups = groups * UNIT / cells
    values = (np.minimum(share, 1 - share), largest / cells, cohesive / cells, scattered, groups)
    return np.stack(values, axis=-1)
