"""Heterogeneity of an ISH slide: amplified nuclei, how copies vary, and where the amplified ones lie.

Numbers of signals and of stain are never compared: these metrics have names of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from her2core.guidelines.rules_ish import ISHRules
from her2core.heterogeneity import spatial
from her2core.heterogeneity.blocks import Blocks, Cuts
from her2core.heterogeneity.metrics import Metric, insufficient, measured
from her2core.heterogeneity.regions import NucleusRegions, beyond, regions_of_nuclei
from her2core.params import HeterogeneityParams, ISHScoreParams
from her2core.scoring.copynumber import truncation_floor
from her2core.scoring.genetic import GeneticArm, Heterogeneity
from her2core.scoring.ish_nuclei import MeasuredNuclei
from her2core.scoring.mixture import fit_two

Reals = NDArray[np.float64]

MIN_COMPARED = 2
"""Regions between which amplification can differ (Filho 2021 compares two biopsy sites)."""


def sweep_nuclei(
    nuclei: MeasuredNuclei, params: HeterogeneityParams, score: ISHScoreParams, rules: ISHRules
) -> tuple[NucleusRegions, ...]:
    """Regions of a slide at every size of the sweep, ascending."""
    return tuple(regions_of_nuclei(nuclei, size, score, rules) for size in params.sweep_um)


def measure_ish_heterogeneity(
    nuclei: MeasuredNuclei,
    sweep: Sequence[NucleusRegions],
    params: HeterogeneityParams,
    score: ISHScoreParams,
    rules: ISHRules,
    genetic: Heterogeneity | None,
) -> tuple[Metric, ...]:
    """All metrics of one ISH slide.

    Parameters
    ----------
    nuclei
        All nuclei of the slide, in any order.
    sweep
        `sweep_nuclei` of the same nuclei.
    rules
        Where amplification begins.
    genetic
        Heterogeneity by the definition of CAP 2009, `ISHScore.heterogeneity`; None without nuclei.
    """
    base = next(regions for regions in sweep if regions.grid.size_um == params.region_um)
    found = [*_slide_metrics(nuclei, base, score, rules, genetic)]
    for regions in sweep:
        found += _region_metrics(regions, params)
        found += spatial.nucleus_region_metrics(regions, params)
    return tuple(found)


def _slide_metrics(
    nuclei: MeasuredNuclei,
    base: NucleusRegions,
    score: ISHScoreParams,
    rules: ISHRules,
    genetic: Heterogeneity | None,
) -> Iterator[Metric]:
    """Amplified nuclei, and mean and spread of copies, wherever the nuclei are."""
    n = int(base.n.sum())
    arms: dict[str, GeneticArm | None] = {"ratio_arm": None, "copies_arm": None}
    if genetic is not None:
        arms = {"ratio_arm": genetic.ratio_arm, "copies_arm": genetic.copies_arm}
    if genetic is None or n < score.min_nuclei:
        named = [f"amplified_{arm}" for arm, found in arms.items() if genetic is None or found]
        yield from (insufficient(name, n) for name in ("copies_mean", "copies_sd", "copies_cv", *named))
        return
    copies, histograms = _histograms(nuclei, base, score)
    columns = (histograms.sum(axis=1), histograms @ copies, histograms @ copies**2)
    beyond_copies = histograms @ beyond(copies.astype(np.int64), None, rules)
    cuts = Cuts.of(base)
    blocks = cuts.blocks(np.stack([*columns, base.amplified, beyond_copies], axis=1).astype(np.float64))
    mean, spread = float(_mean(blocks.total)), float(_sd(blocks.total))
    yield measured("copies_mean", mean, n, interval=blocks.interval(mean, _mean, 0.0))
    yield measured("copies_sd", spread, n, interval=blocks.interval(spread, _sd, 0.0))
    cv = spread / mean
    yield measured("copies_cv", cv, n, interval=blocks.interval(cv, lambda s: _sd(s) / _mean(s), 0.0))
    for (name, arm), column in zip(arms.items(), (3, 4), strict=True):
        if arm:
            yield from _arm(name, arm, n, blocks, column)
    yield _ashman(cuts.blocks(histograms), copies, n, score.retention, genetic)


def _arm(name: str, arm: GeneticArm, n: int, blocks: Blocks, column: int) -> Iterator[Metric]:
    """Share of amplified nuclei, which ``column`` of the blocks counts, and what truncation leaves of it."""
    interval = blocks.share(arm.fraction, lambda sums: sums[..., column] / sums[..., 0], n)
    yield measured(f"amplified_{name}", arm.fraction, n, interval=interval, label=arm.category)
    if arm.excess is None:
        yield insufficient(f"amplified_excess_{name}", n)
        return
    explained = arm.fraction - arm.excess
    shifted = interval and (interval[0] - explained, interval[1] - explained)
    yield measured(f"amplified_excess_{name}", arm.excess, n, interval=shifted)


def _ashman(by_copies: Blocks, copies: Reals, n: int, retention: float, genetic: Heterogeneity) -> Metric:
    """Ashman's D of copies, if there are two populations."""
    name, found = "copies_ashman_d", genetic.populations
    if genetic.copies_arm.expected is None:  # too few nuclei for either
        return insufficient(name, n)
    if found is None or not found.separated:
        return measured(name, None, n, label="unimodal" if found else None)
    floor = truncation_floor(retention)
    start = fit_two(copies, by_copies.total, floor=floor)

    def distance(histogram: Reals) -> Reals:
        drawn = fit_two(copies, histogram, start, floor)
        return np.full(histogram.shape[:-1], np.nan) if drawn is None else drawn.ashman_d

    return measured(name, found.ashman_d, n, interval=by_copies.interval(found.ashman_d, distance, 0.0))


def _histograms(nuclei: MeasuredNuclei, base: NucleusRegions, score: ISHScoreParams) -> tuple[Reals, Reals]:
    """Numbers of HER2 signals, ascending, shape ``(b,)``, and how many nuclei of each hexagon show each."""
    counted = nuclei.evaluable(score)
    copies, which = np.unique(nuclei.counted(score)[0][counted], return_inverse=True)
    rows, b = base.rows_of(nuclei.y_um[counted], nuclei.x_um[counted]), len(copies)
    histograms = np.bincount(rows * b + which, minlength=len(base) * b).reshape(len(base), b)
    return copies.astype(np.float64), histograms.astype(np.float64)


def _mean(sums: Reals) -> Reals:
    copies: Reals = sums[..., 1] / sums[..., 0]
    return copies


def _sd(sums: Reals) -> Reals:
    """Standard deviation of copies, divided by n as `genetic.Heterogeneity.copies_cv` is; NaN of none."""
    variance = sums[..., 2] / sums[..., 0] - _mean(sums) ** 2
    exact = sums[..., 2] * sums[..., 0] > sums[..., 1] ** 2  # whole numbers: equal copies are seen as equal
    return np.sqrt(np.where(exact, variance, np.nan))


def _region_metrics(regions: NucleusRegions, params: HeterogeneityParams) -> Iterator[Metric]:
    """Least and most of amplified nuclei among regions with nuclei enough."""
    scale = regions.grid.size_um
    shares = regions.amplified_fraction[regions.n >= params.region_cells]
    names = [f"region_amplified_{name}" for name in ("min", "max", "range")]
    if len(shares) < MIN_COMPARED:
        yield from (insufficient(name, len(shares), scale_um=scale) for name in names)
        return
    low, high = float(shares.min()), float(shares.max())
    for name, value in zip(names, (low, high, high - low), strict=True):
        yield measured(name, value, len(shares), scale_um=scale)
