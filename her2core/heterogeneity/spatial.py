"""Where the expression of a slide lies: all spatial metrics, of regions on their lattice and of cells.

docs/heterogeneity.md explains what each one means and where it misleads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from her2core.guidelines.rules_ihc import CellClass
from her2core.heterogeneity.blocks import Cuts
from her2core.heterogeneity.jackknife import BLOCKS, fraction_interval, jackknife_interval, spatial_blocks
from her2core.heterogeneity.lattice import (
    LEVELS,
    MORAN_MOST,
    among,
    co_occurrences,
    hot_and_cold,
    permutation_p,
    shares,
    texture_contrast,
    texture_entropy,
    without_islands,
)
from her2core.heterogeneity.metrics import Metric, insufficient, measured
from her2core.heterogeneity.pattern import pattern_metrics
from her2core.heterogeneity.regions import Hexes, NucleusRegions, Regions
from her2core.heterogeneity.spatial_cells import Neighbours, clustering_metrics, proximity_metrics
from her2core.heterogeneity.variogram import fit_exponential, semivariogram
from her2core.params import HeterogeneityParams

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Reals = NDArray[np.float64]

TOP_OD, TOP_COPIES = 1.5, 15.0
"""Upper ends of the ten texture levels: DAB saturates above 1.5 OD; 15 copies are beyond doubt. Ours."""
LATTICE_METRICS = (
    "moran_i",
    "moran_p",
    "geary_c",
    "geary_p",
    "hot_fraction",
    "cold_fraction",
    "variogram_range_um",
    "variogram_nugget",
    "texture_entropy",
    "texture_contrast",
)
"""Metrics of one value of the regions; ``_od``, ``_completeness``, ... follows in a metric's name."""
_SEED = 20260402
"""Key of the random arrangements: p-values depend on the hexagons alone."""


def region_metrics(regions: Regions, params: HeterogeneityParams) -> Iterator[Metric]:
    """`lattice_metrics` of mean membrane OD and of mean completeness, over the regions with cells enough."""
    valid, hexes = _valid(regions, regions.n, params)
    yield from lattice_metrics(hexes, regions.od_mean[valid], "od", TOP_OD, params)
    yield from lattice_metrics(hexes, regions.completeness_mean[valid], "completeness", 1.0, params)


def nucleus_region_metrics(regions: NucleusRegions, params: HeterogeneityParams) -> Iterator[Metric]:
    """`lattice_metrics` of mean HER2 copies and of the amplified fraction of an ISH slide."""
    valid, hexes = _valid(regions, regions.n, params)
    yield from lattice_metrics(hexes, regions.copies_mean[valid], "copies", TOP_COPIES, params)
    yield from lattice_metrics(hexes, regions.amplified_fraction[valid], "amplified", 1.0, params)


def cell_metrics(
    regions: Regions,
    y_um: Reals,
    x_um: Reals,
    classes: NDArray[np.int8],
    od: NDArray[np.floating],
    params: HeterogeneityParams,
) -> Iterator[Metric]:
    """Pattern type, clustering and proximity of single cells.

    Parameters
    ----------
    regions
        The same cells by hexagon: the blocks of the intervals.
    y_um, x_um, classes, od
        Place, class and mean membrane OD of the cells, shape ``(n,)``, in any order. Cells without a class
        (`CellClass.UNEVALUABLE`; also what is no tumour) are left out.
    """
    counted = np.flatnonzero(classes >= CellClass.C0)
    y, x, classes, od = y_um[counted], x_um[counted], classes[counted], od[counted]
    rows = regions.rows_of(y, x)
    around, cuts = Neighbours.of(y, x, classes, params), Cuts.of(regions)
    yield from pattern_metrics(y, x, classes, rows, cuts, around, params)
    area_um2 = len(regions) * regions.grid.area_um2
    yield from clustering_metrics(y, x, classes, rows, cuts, around, area_um2, params)
    yield from proximity_metrics(y, x, od.astype(np.float64), rows, cuts, params)


def _valid(hexes: Hexes, n: Ints, params: HeterogeneityParams) -> tuple[NDArray[np.bool_], Hexes]:
    valid = n >= params.region_cells
    return valid, Hexes(hexes.grid, hexes.q[valid], hexes.r[valid])


def lattice_metrics(
    hexes: Hexes, value: Reals, what: str, top: float, params: HeterogeneityParams
) -> Iterator[Metric]:
    """`LATTICE_METRICS` of one value of the regions.

    Parameters
    ----------
    hexes
        The regions that take part.
    value
        Shape ``(m,)``, without NaN.
    what
        Name of the value, which the metrics' names end with.
    top
        Upper end of the texture levels.
    """
    near = hexes.neighbours()
    joined, joined_near, _ = without_islands(value, near)
    names = [f"{name}_{what}" for name in LATTICE_METRICS]
    scale, n = hexes.grid.size_um, len(joined)
    if n < params.min_regions:
        yield from (insufficient(name, n, scale_um=scale) for name in names)
        return
    if _constant(joined):
        yield from (measured(name, None, n, scale_um=scale) for name in names)
        return
    kept = _without_each_block(hexes)
    found, without = _indices(value, near, top), [_indices(value[k], among(near, k), top) for k in kept]

    def index(name: str, low: float = -math.inf, high: float = math.inf) -> Metric:
        left_out = np.array([each[name] for each in without])
        interval = jackknife_interval(found[name], left_out, low, high)
        return measured(f"{name}_{what}", found[name], n, scale_um=scale, interval=interval)

    p_moran, p_geary = permutation_p(joined, joined_near, params.permutations, _SEED)
    yield index("moran_i", -MORAN_MOST, MORAN_MOST)
    yield measured(f"moran_p_{what}", p_moran, n, scale_um=scale)
    yield index("geary_c", 0.0)
    yield measured(f"geary_p_{what}", p_geary, n, scale_um=scale)
    for name in ("hot_fraction", "cold_fraction"):
        m, left_out = len(value), np.array([each[name] for each in without])
        interval = fraction_interval(round(found[name] * m), m, left_out)
        yield measured(f"{name}_{what}", found[name], m, scale_um=scale, interval=interval)
    yield from _variogram(hexes, value, kept, what)
    yield index("texture_entropy", 0.0, 2 * math.log2(LEVELS))
    yield index("texture_contrast", 0.0, (LEVELS - 1) ** 2)


def _constant(value: Reals) -> bool:
    return not len(value) or bool((value == value[0]).all())


def _without_each_block(hexes: Hexes) -> list[Bools]:
    """The hexagons that stay when each of the blocks is left out, shape ``(m,)`` each."""
    blocks = spatial_blocks(hexes.y_um, hexes.x_um)
    return [] if blocks is None else [blocks != block for block in range(BLOCKS)]


def _indices(value: Reals, near: Ints, top: float) -> dict[str, float]:
    """What neighbours make together, by the metric's name; NaN if all with a neighbour are alike."""
    kind = hot_and_cold(value, near)
    value, near, _ = without_islands(value, near)
    if _constant(value):
        return dict.fromkeys(LATTICE_METRICS, math.nan)
    of, counts = shares(value, near), co_occurrences(value, near, top)
    return {
        "moran_i": of.moran,
        "geary_c": of.geary,
        "hot_fraction": np.count_nonzero(kind == 1) / len(kind),
        "cold_fraction": np.count_nonzero(kind == -1) / len(kind),
        "texture_entropy": texture_entropy(counts),
        "texture_contrast": texture_contrast(counts),
    }


def _variogram(hexes: Hexes, value: Reals, kept: list[Bools], what: str) -> Iterator[Metric]:
    """Range and nugget share, each only where the model fixes it; the interval of a range is of its log."""
    scale, n = hexes.grid.size_um, len(value)
    names = (f"variogram_range_um_{what}", f"variogram_nugget_{what}")
    fit = fit_exponential(semivariogram(hexes.q, hexes.r, value, scale))
    if fit is None:
        yield from (insufficient(name, n, scale_um=scale) for name in names)
        return
    if not fit.structured:
        yield measured(names[0], None, n, scale_um=scale, label="no structure")
        yield measured(names[1], 1.0, n, scale_um=scale, label="no structure")
        return
    if not fit.resolved:
        yield from (measured(name, None, n, scale_um=scale, label="range>max") for name in names)
        return
    without = [fit_exponential(semivariogram(hexes.q[k], hexes.r[k], value[k], scale)) for k in kept]
    fixed = [each if each and each.structured and each.resolved else None for each in without]
    logs = np.array([math.log(each.range_um) if each else math.nan for each in fixed])
    ends = jackknife_interval(math.log(fit.range_um), logs)
    interval = ends and (math.exp(ends[0]), math.exp(ends[1]))
    yield measured(names[0], fit.range_um, n, scale_um=scale, interval=interval)
    nuggets = np.array([each.nugget_share if each else math.nan for each in fixed])
    interval = jackknife_interval(fit.nugget_share, nuggets, 0.0, 1.0)
    yield measured(names[1], fit.nugget_share, n, scale_um=scale, interval=interval)
