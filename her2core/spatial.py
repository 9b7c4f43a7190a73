"""Where the expression of a slide lies: all spatial metrics, of regions on their lattice and of cells.

Docs/heterogeneity.md says what each one means and where it misleads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from her2core.biopsy import virtual_biopsies
from her2core.bootstrap import Blocks, whole
from her2core.guideline import CellClass, RuleSet
from her2core.lattice import (
    co_occurrences,
    hot_and_cold,
    permutation_p,
    shares,
    texture_contrast,
    texture_entropy,
    without_islands,
)
from her2core.metrics import Metric, insufficient, measured
from her2core.params import HeterogeneityParams
from her2core.regions import Hexes, NucleusRegions, Regions
from her2core.scores import MeasuredCells
from her2core.spatial_cells import clustering_metrics, pattern_metrics, proximity_metrics, sums_by
from her2core.variogram import fit_exponential, semivariogram

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
_SPAN = 3
"""Hexagons along the edge of a block that is drawn for an interval, so that most neighbours stay. Ours."""


def measure_spatial(
    cells: MeasuredCells,
    classes: NDArray[np.int8],
    sweep: Sequence[Regions],
    params: HeterogeneityParams,
    rules: RuleSet,
) -> tuple[Metric, ...]:
    """All that depends on where the tumour cells of an IHC slide lie, virtual biopsies among it.

    Parameters
    ----------
    cells, classes
        All cells of the slide, in any order, and what `scores.classify` says of them.
    sweep
        The same cells by hexagon, at every size of the sweep.
    """
    tumour = np.where(cells.tumour, classes, np.int8(CellClass.UNEVALUABLE))
    base = next(regions for regions in sweep if regions.grid.size_um == params.region_um)
    y, x = cells.y_um, cells.x_um
    return (
        *(metric for regions in sweep for metric in region_metrics(regions, params)),
        *cell_metrics(base, y, x, tumour, cells.membrane_od, params),
        *virtual_biopsies(y, x, tumour, rules, params),
    )


def spatial_metrics(
    regions: Regions,
    y_um: Reals,
    x_um: Reals,
    classes: NDArray[np.int8],
    od: NDArray[np.floating],
    params: HeterogeneityParams,
) -> list[Metric]:
    """All spatial metrics of an IHC slide: `region_metrics` at one size of region, and `cell_metrics`.

    Parameters
    ----------
    regions
        The same cells by hexagon; blocks of the intervals as well.
    y_um, x_um, classes, od
        Place, class and mean membrane OD of the cells, shape ``(n,)``, in any order. Cells without a class
        (`CellClass.UNEVALUABLE`; also what is no tumour) are left out.
    """
    return [*region_metrics(regions, params), *cell_metrics(regions, y_um, x_um, classes, od, params)]


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
    """Pattern type, clustering and proximity of single cells; parameters as in `spatial_metrics`."""
    counted = np.flatnonzero(classes >= CellClass.C0)
    y, x, classes, od = y_um[counted], x_um[counted], classes[counted], od[counted]
    rows = regions.rows_of(y, x)
    yield from pattern_metrics(y, x, classes, params)
    area_um2 = len(regions) * regions.grid.area_um2
    yield from clustering_metrics(y, x, classes, rows, area_um2, params)
    yield from proximity_metrics(y, x, od.astype(np.float64), rows, params)


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
    joined, joined_near, kept = without_islands(value, near)
    names = [f"{name}_{what}" for name in LATTICE_METRICS]
    scale, n = hexes.grid.size_um, len(joined)
    if n < params.min_regions:
        yield from (insufficient(name, n, scale_um=scale) for name in names)
    elif (joined == joined[0]).all():
        yield from (measured(name, None, n, scale_um=scale) for name in names)
    else:
        blocks = _blocks(hexes.q[kept], hexes.r[kept])
        yield from _autocorrelation(joined, joined_near, blocks, what, scale, params)
        yield from _hot_and_cold(value, near, _blocks(hexes.q, hexes.r), what, scale, params)
        yield from _variogram(hexes, value, what)
        yield from _texture(joined, joined_near, blocks, what, scale, top, params)


def _blocks(q: Ints, r: Ints) -> Ints:
    """Block of `_SPAN` x `_SPAN` hexagons that each hexagon lies in, numbered from 0."""
    keys = (q // _SPAN << 32) + r // _SPAN
    blocks: Ints = np.unique(keys, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return blocks


def _sums(blocks: Ints, *columns: NDArray[np.number | np.bool_]) -> Reals:
    """What each block adds to the sums, shape ``(blocks, len(columns))``."""
    return sums_by(blocks, int(blocks.max()) + 1, *columns)


def _ratio(a: Reals, b: Reals) -> Reals:
    ratio: Reals = np.divide(a, b, out=np.full(len(a), np.nan), where=b > 0)
    return ratio


def _autocorrelation(
    value: Reals, near: Ints, blocks: Ints, what: str, scale: float, params: HeterogeneityParams
) -> Iterator[Metric]:
    """Moran's I and Geary's C with intervals, and p-values of both."""
    n, found = len(value), shares(value, near)
    p_moran, p_geary = permutation_p(value, near, params.permutations, _SEED)
    columns = (whole(x) for x in (found.product, found.difference, found.square))
    drawn = Blocks.of(_sums(blocks, *columns), params.replicates)
    moran = drawn.interval(found.moran, lambda sums: _ratio(sums[:, 0], sums[:, 2]))
    half = (n - 1) / (2 * n)
    geary = drawn.interval(found.geary, lambda sums: half * _ratio(sums[:, 1], sums[:, 2]), 0.0)
    yield measured(f"moran_i_{what}", found.moran, n, scale_um=scale, interval=moran)
    yield measured(f"moran_p_{what}", p_moran, n, scale_um=scale)
    yield measured(f"geary_c_{what}", found.geary, n, scale_um=scale, interval=geary)
    yield measured(f"geary_p_{what}", p_geary, n, scale_um=scale)


def _hot_and_cold(
    value: Reals, near: Ints, blocks: Ints, what: str, scale: float, params: HeterogeneityParams
) -> Iterator[Metric]:
    """Fractions of hexagons that lie where high, or low, values gather."""
    kind, n = hot_and_cold(value, near), len(value)
    for name, sign in (("hot_fraction", 1), ("cold_fraction", -1)):
        drawn = Blocks.of(_sums(blocks, kind == sign, np.ones(n)), params.replicates)
        fraction = int(np.count_nonzero(kind == sign)) / n
        interval = drawn.interval(fraction, lambda sums: sums[:, 0] / sums[:, 1], 0.0, 1.0)
        yield measured(f"{name}_{what}", fraction, n, scale_um=scale, interval=interval)


def _variogram(hexes: Hexes, value: Reals, what: str) -> Iterator[Metric]:
    """Range and nugget share, each only where the model fixes it."""
    scale, n = hexes.grid.size_um, len(value)
    fit = fit_exponential(semivariogram(hexes.q, hexes.r, value, scale))
    names = (f"variogram_range_um_{what}", f"variogram_nugget_{what}")
    if fit is None:
        yield from (insufficient(name, n, scale_um=scale) for name in names)
        return
    label = None if fit.structured and fit.resolved else "range>max" if fit.structured else "no structure"
    yield measured(names[0], None if label else fit.range_um, n, scale_um=scale, label=label)
    nugget = None if label == "range>max" else fit.nugget_share if fit.structured else 1.0
    yield measured(names[1], nugget, n, scale_um=scale, label=label)


def _texture(
    value: Reals, near: Ints, blocks: Ints, what: str, scale: float, top: float, params: HeterogeneityParams
) -> Iterator[Metric]:
    """Entropy and contrast of neighbouring levels. Draws repeat pairs and so lower entropy: no interval."""
    n, counts = len(value), co_occurrences(value, near, top)
    entropy, contrast = texture_entropy(counts.sum(axis=0)), float(texture_contrast(counts.sum(axis=0)))
    drawn = Blocks.of(_sums(blocks, *counts.T), params.replicates)
    interval = drawn.interval(contrast, texture_contrast, 0.0)
    yield measured(f"texture_entropy_{what}", entropy, n, scale_um=scale)
    yield measured(f"texture_contrast_{what}", contrast, n, scale_um=scale, interval=interval)
