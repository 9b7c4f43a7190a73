"""Heterogeneity of an IHC slide: how cells differ, how regions differ, and how sure either is.

Every metric comes with its number of cells or regions, its status and a 95 % interval; see
docs/heterogeneity.md for what each one means and where it misleads. The mean is always among them: most
indices of spread are largest in the middle of the scale, so that they rise and fall with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from her2core.guidelines.rules_ihc import SCORES, CellClass, RuleSet
from her2core.heterogeneity import diversity, spatial
from her2core.heterogeneity.blocks import Blocks, Cuts
from her2core.heterogeneity.bootstrap import UNIT, whole
from her2core.heterogeneity.jackknife import fraction_of_regions
from her2core.heterogeneity.metrics import Metric, insufficient, measured
from her2core.heterogeneity.regions import UNSCORED, Hexes, Regions, regions_of_cells
from her2core.params import HeterogeneityParams
from her2core.scoring.ihc import MeasuredCells
from her2core.scoring.mixture import fit_two

Reals = NDArray[np.float64]
Index = Callable[[Reals], Reals]
Spread = Callable[[Reals, Reals], Reals]

BIN_OD = 0.005
"""Width of the bins of membrane OD, about two grey levels: intervals and mixtures rest on them (ours)."""
BINS = 512
"""Bins from 0 to 2.56 OD; what lies beyond is counted in the last, far into saturation (ours)."""
_CENTRES: Reals = (np.arange(BINS, dtype=np.float64) + 0.5) * BIN_OD

BY_SCORE: dict[str, tuple[Index, float]] = {
    "shannon": (diversity.shannon, math.log(diversity.STEPS)),
    "evenness": (diversity.evenness, 1.0),
    "gini_simpson": (diversity.gini_simpson, 1.0),
    "rao_q": (diversity.rao_q, 0.5),
}
"""Indices of the four scores of cells, with their upper bound."""
BY_OD: dict[str, tuple[Spread, float]] = {
    "membrane_od_mean": (diversity.mean, math.inf),
    "membrane_od_sd": (diversity.sd, math.inf),
    "membrane_od_mad": (diversity.mad, math.inf),
    "membrane_od_cv": (diversity.cv, math.inf),
    "membrane_od_gini": (diversity.gini, 1.0),
}
"""Indices of the membrane OD of cells, with their upper bound."""


def sweep_regions(
    cells: MeasuredCells, classes: NDArray[np.int8], params: HeterogeneityParams, rules: RuleSet
) -> tuple[Regions, ...]:
    """Regions of a slide at every size of the sweep, ascending."""
    return tuple(
        regions_of_cells(cells, classes, size, rules, params.region_score_cells) for size in params.sweep_um
    )


def measure_heterogeneity(
    cells: MeasuredCells,
    classes: NDArray[np.int8],
    sweep: Sequence[Regions],
    params: HeterogeneityParams,
    slide_score: str | None,
) -> tuple[Metric, ...]:
    """All metrics of one IHC slide.

    Parameters
    ----------
    cells, classes
        All cells of the slide, in any order, and their classes as `scoring.ihc.classify` finds them.
    sweep
        `sweep_regions` of the same cells.
    slide_score
        ``0`` to ``3+``; None if the slide is indeterminate, and then no region can disagree with it.
    """
    counted = np.flatnonzero(cells.tumour & (classes >= CellClass.C0))
    y, x, od = cells.y_um[counted], cells.x_um[counted], cells.membrane_od[counted].astype(np.float64)
    base = next(regions for regions in sweep if regions.grid.size_um == params.region_um)
    found = [*cell_metrics(base, y, x, od, params)]
    found += spatial.cell_metrics(base, y, x, classes[counted], od, params)
    for regions in sweep:
        found += region_metrics(regions, params, slide_score)
        found += spatial.region_metrics(regions, params)
    return tuple(found)


def cell_metrics(
    regions: Regions, y_um: Reals, x_um: Reals, od: Reals, params: HeterogeneityParams
) -> Iterator[Metric]:
    """How the cells of a slide differ, wherever they are.

    Parameters
    ----------
    regions
        What the blocks of the intervals are made of.
    y_um, x_um, od
        Place and membrane OD of the cells in them, shape ``(n,)``.
    """
    n, m, cuts = len(od), len(regions), Cuts.of(regions)
    bins = np.clip(np.floor(od / BIN_OD), 0, BINS - 1).astype(np.int64)
    rows = regions.rows_of(y_um, x_um)
    histograms = np.bincount(rows * BINS + bins, minlength=m * BINS).reshape(m, BINS).astype(np.float64)
    by_score, by_od = cuts.blocks(scores_of(regions)), cuts.blocks(histograms)
    ordered, one = np.sort(od), np.ones(n)

    for name, (index, top) in BY_SCORE.items():
        if n < params.min_cells:
            yield insufficient(name, n)
            continue
        value = float(index(by_score.total))
        yield measured(name, value, n, interval=by_score.interval(value, index, 0.0, top))
    for name, least, (spread, top) in (
        *((name, params.min_cells, entry) for name, entry in BY_OD.items()),
        ("bimodality", params.min_cells_mixture, (diversity.bimodality, 1.0)),
    ):
        if n < least:
            yield insufficient(name, n)
            continue
        value = float(spread(ordered, one))
        low = -math.inf if name == "membrane_od_mean" else 0.0
        yield measured(name, value, n, interval=by_od.interval(value, _binned(spread), low, top))
    yield _ashman(by_od, n, params)


def scores_of(regions: Regions) -> Reals:
    """Cells of score 0, 1, 2 (2u among them) and 3, shape ``(m, 4)``."""
    n0, n1, n2, n2u, n3 = regions.counts.T
    return np.stack([n0, n1, n2 + n2u, n3], axis=1).astype(np.float64)


def _binned(spread: Spread) -> Index:
    if spread is diversity.mad:  # bins are wider than the interval of a median may be
        return lambda histogram: diversity.binned_mad(BIN_OD, histogram)
    return lambda histogram: spread(_CENTRES, histogram)


def _ashman(by_od: Blocks, n: int, params: HeterogeneityParams) -> Metric:
    """Ashman's D, if there are two populations."""
    name = "ashman_d"
    if n < params.min_cells_mixture:
        return insufficient(name, n)
    fitted = fit_two(_CENTRES, by_od.total)
    if fitted is None or not fitted.two:
        return measured(name, None, n, label="unimodal")

    def distance(histogram: Reals) -> Reals:
        without = fit_two(_CENTRES, histogram, fitted)
        return fitted.ashman_d if without is None else without.ashman_d

    value = float(fitted.ashman_d)
    return measured(name, value, n, interval=by_od.interval(value, distance, 0.0))


def region_metrics(
    regions: Regions, params: HeterogeneityParams, slide_score: str | None
) -> Iterator[Metric]:
    """How the regions of a slide differ from each other and from the slide, at one size."""
    scale = regions.grid.size_um
    valid = regions.n >= params.region_cells
    m = int(np.count_nonzero(valid))
    if m < params.min_regions:
        yield insufficient("eta2", m, scale_um=scale)
        yield insufficient("eta2_expected", m, scale_um=scale)
    else:
        taking = Hexes(regions.grid, regions.q[valid], regions.r[valid])
        blocks = Cuts.of(taking).blocks(_squares(regions, valid))
        value = float(_eta2(blocks.total))
        yield measured("eta2", value, m, scale_um=scale, interval=blocks.interval(value, _eta2, 0.0, 1.0))
        chance = (m - 1) / (int(regions.n[valid].sum()) - 1)
        yield measured("eta2_expected", chance if math.isfinite(value) else None, m, scale_um=scale)

    there = regions.score != UNSCORED
    scored = regions.score[there].astype(np.int64)
    names = ("discordant_fraction", "two_step_fraction", "region_score_range")
    if len(scored) < params.min_regions:
        yield from (insufficient(name, len(scored), scale_um=scale) for name in names)
        return
    for name, steps in zip(names, (1, 2), strict=False):
        if slide_score is None:
            yield measured(name, None, len(scored), scale_um=scale)
            continue
        away = np.abs(scored - SCORES.index(slide_score)) >= steps
        interval = fraction_of_regions(away, regions.y_um[there], regions.x_um[there])
        yield measured(name, float(away.mean()), len(scored), scale_um=scale, interval=interval)
    yield measured(names[2], float(np.ptp(scored)), len(scored), scale_um=scale)


def _squares(regions: Regions, valid: NDArray[np.bool_]) -> Reals:
    """Of each valid hexagon: cells, and sums of OD and of squares between and within, from the grand mean."""
    n, mean, sd = regions.n[valid], regions.od_mean[valid], regions.od_sd[valid]
    away = mean - float(n @ mean) / float(n.sum())
    return np.stack([n, whole(n * away), whole(n * away**2), whole((n - 1) * sd**2)], axis=1)


def _eta2(sums: Reals) -> Reals:
    """Share of the variance of OD that lies between hexagons: ``SS_between / SS_total``."""
    n, away, squares, within = np.moveaxis(sums, -1, 0)
    between = np.maximum(squares * UNIT - (away * UNIT) ** 2 / n, 0.0)
    total = between + within * UNIT
    share: Reals = between / np.where(total > 0, total, np.nan)
    return share
