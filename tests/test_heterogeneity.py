"""Metrics of heterogeneity: analytic extremes, hand-worked numbers, and when there is no number."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from her2core.guidelines.rules_ihc import CellClass, load_rules
from her2core.guidelines.rules_ish import load_ish_rules
from her2core.heterogeneity import diversity
from her2core.heterogeneity.blocks import Cuts
from her2core.heterogeneity.ihc import BIN_OD, BINS, measure_heterogeneity, sweep_regions
from her2core.heterogeneity.ish import measure_ish_heterogeneity, sweep_nuclei
from her2core.heterogeneity.metrics import Metric, Status, insufficient, measured
from her2core.heterogeneity.regions import Hexes, HexGrid
from her2core.params import HeterogeneityParams, ISHScoreParams
from her2core.records import Quality
from her2core.scoring.ihc import MeasuredCells
from her2core.scoring.ish import score_ish
from her2core.scoring.ish_nuclei import MeasuredNuclei
from her2core.scoring.mixture import Populations, fit_two
from her2core.statistics import wilson

PARAMS = HeterogeneityParams(replicates=200, permutations=99)
RULES = load_rules("breast_asco_cap_2018")
ISH = ISHScoreParams(replicates=100)
ISH_RULES = load_ish_rules(ISH.rules)
GOOD = Quality("pass", (), 10.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.02)
CENTRES = (np.arange(BINS, dtype=np.float64) + 0.5) * BIN_OD
COUNTS = st.lists(st.integers(0, 60), min_size=4, max_size=4).filter(lambda c: sum(c) > 1)
VALUES = st.lists(st.floats(0, 2.5), min_size=5, max_size=60)


def counts(*n: int) -> NDArray[np.float64]:
    return np.array(n, np.float64)


def of(spread: Any, values: Any) -> float:
    """A spread of plain values, in whatever order they come."""
    x = np.sort(np.asarray(values, np.float64))
    return float(spread(x, np.ones(len(x))))


# Diversity of scores


@pytest.mark.parametrize(
    ("index", "alone", "halves", "even"),
    [
        (diversity.shannon, 0.0, math.log(2) + 1 / 2000, math.log(4)),
        (diversity.evenness, 0.0, (math.log(2) + 1 / 2000) / math.log(4), 1.0),
        (diversity.gini_simpson, 0.0, 1 - 2 * 500 * 499 / (1000 * 999), 1 - 4 * 250 * 249 / (1000 * 999)),
        (diversity.rao_q, 0.0, 0.5, 2 * (3 * 1 + 2 * 2 + 1 * 3) / 3 / 16),
    ],
)
def test_extremes_of_diversity(index: Any, alone: float, halves: float, even: float) -> None:
    """All cells of one score, half 0 and half 3, and a quarter each, of 1000 cells."""
    assert float(index(counts(0, 1000, 0, 0))) == alone
    assert float(index(counts(500, 0, 0, 500))) == pytest.approx(halves)
    assert float(index(counts(250, 250, 250, 250))) == pytest.approx(even)


def test_rao_alone_knows_how_far_apart_scores_are() -> None:
    near, far = counts(50, 50, 0, 0), counts(50, 0, 0, 50)
    assert float(diversity.rao_q(near)) == pytest.approx(1 / 6)
    assert float(diversity.rao_q(far)) == 0.5
    for blind in (diversity.shannon, diversity.gini_simpson):
        assert float(blind(near)) == float(blind(far))


@given(COUNTS)
def test_diversity_agrees_with_pairs_of_cells(found: list[int]) -> None:
    """Against pairs of cells counted one by one, and SciPy's entropy."""
    cells = np.repeat(np.arange(4), found)
    n, w = len(cells), counts(*found)
    apart = np.abs(cells[:, None] - cells)
    assert float(diversity.rao_q(w)) == pytest.approx(apart.mean() / 3)
    assert float(diversity.gini_simpson(w)) == pytest.approx((apart > 0).sum() / (n * (n - 1)))
    seen = np.count_nonzero(w)
    expected = min(stats.entropy(w) + (seen - 1) / (2 * n), math.log(4))
    assert float(diversity.shannon(w)) == pytest.approx(expected)


@pytest.mark.parametrize(("n", "bias"), [(20, -0.081), (100, -0.015)])
def test_the_correction_takes_the_bias_of_entropy_away(n: int, bias: float) -> None:
    """Four scores alike: plain entropy is too low by the numbers of spec §5.2, ours by a fifth at most."""
    drawn = np.random.default_rng(3).multinomial(n, [0.25] * 4, size=20_000).astype(np.float64)
    plain = stats.entropy(drawn, axis=1)
    assert plain.mean() - math.log(4) == pytest.approx(bias, abs=0.002)
    skewed = np.random.default_rng(3).multinomial(n, [0.4, 0.3, 0.2, 0.1], size=20_000).astype(np.float64)
    left = diversity.shannon(skewed).mean() - stats.entropy([0.4, 0.3, 0.2, 0.1])
    assert abs(left) < abs(bias) / 5


def test_nothing_and_one_cell_have_no_diversity() -> None:
    for index in (diversity.shannon, diversity.evenness, diversity.gini_simpson, diversity.rao_q):
        assert np.isnan(index(counts(0, 0, 0, 0)))
    assert np.isnan(diversity.gini_simpson(counts(0, 0, 1, 0)))


# Spread of optical density


@given(VALUES.filter(lambda v: np.ptp(v) > 1e-3))
def test_spread_agrees_with_the_textbook(values: list[float]) -> None:
    x, n = np.sort(values), len(values)
    assert of(diversity.mean, values) == pytest.approx(np.mean(x))
    assert of(diversity.sd, values) == pytest.approx(np.std(x, ddof=1))
    assert of(diversity.mad, values) == pytest.approx(stats.median_abs_deviation(x))
    if x.mean() >= 0.05:
        assert of(diversity.cv, values) == pytest.approx(stats.variation(x, ddof=1))
    pairs = np.abs(x[:, None] - x).sum() / (2 * n**2 * x.mean())
    assert of(diversity.gini, values) == pytest.approx(pairs)
    skew, kurtosis = stats.skew(x, bias=False), stats.kurtosis(x, bias=False)
    expected = (skew**2 + 1) / (kurtosis + 3 * (n - 1) ** 2 / ((n - 2) * (n - 3)))
    assert of(diversity.bimodality, values) == pytest.approx(expected, rel=1e-6)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 5)), min_size=4, max_size=20))
def test_counted_values_spread_as_written_out_ones(pairs: list[tuple[int, int]]) -> None:
    """A histogram, and the same cells one by one, through every index."""
    w: Any = np.bincount([v for v, _ in pairs], [k for _, k in pairs], minlength=10).astype(np.float64)
    x = np.arange(10, dtype=np.float64) / 9.7  # no mean of so few is `MIN_MEAN_OD` but for its last bit
    for spread in (diversity.mean, diversity.sd, diversity.mad, diversity.cv, diversity.gini,
                   diversity.bimodality):  # fmt: skip
        one, other = float(spread(x, w)), of(spread, np.repeat(x, w.astype(int)))
        assert one == pytest.approx(other, nan_ok=True), spread


def test_extremes_of_gini() -> None:
    """One cell holds all: (n - 1) / n; a background of 0.2 OD takes half of it away."""
    assert of(diversity.gini, [0] * 9 + [1]) == pytest.approx(0.9)
    assert of(diversity.gini, [-1.0] * 9 + [1]) == pytest.approx(0.9)
    x = np.random.default_rng(0).gamma(2, 0.1, 100_000)
    assert of(diversity.gini, x + 0.2) == pytest.approx(of(diversity.gini, x) / 2, rel=0.01)
    assert of(diversity.gini, x) == pytest.approx(0.375, abs=0.003)


def test_bimodality_of_known_distributions() -> None:
    """Spec §5.2: normal 0.33, lognormal 0.50; uniform 5/9; two points 1."""
    grid = (np.arange(100_000) + 0.5) / 100_000
    assert of(diversity.bimodality, stats.norm.ppf(grid)) == pytest.approx(1 / 3, abs=0.002)
    assert of(diversity.bimodality, grid) == pytest.approx(5 / 9, abs=0.001)
    assert of(diversity.bimodality, [0.2] * 500 + [0.8] * 500) == pytest.approx(1.0, abs=0.01)
    assert of(diversity.bimodality, np.exp(0.4 * stats.norm.ppf(grid))) == pytest.approx(0.45, abs=0.06)


@pytest.mark.parametrize("value", [0.0, 0.1, 0.7])
def test_equal_values_have_no_spread(value: float) -> None:
    """NaN and not the 1e-17 of rounded sums: `0.1 * 7 / 7` is not 0.1."""
    for spread in (diversity.sd, diversity.mad, diversity.cv, diversity.gini, diversity.bimodality):
        assert math.isnan(of(spread, [value] * 777)), spread


def test_no_coefficient_of_variation_of_nearly_nothing() -> None:
    assert math.isnan(of(diversity.cv, [0.04, 0.05]))
    assert of(diversity.cv, [0.05, 0.06]) == pytest.approx(math.sqrt(2) * 0.005 / 0.055)


def test_median_deviation_of_bins_is_that_of_the_cells() -> None:
    x = np.random.default_rng(1).gamma(2, 0.2, 20_000)
    w = np.bincount((x / BIN_OD).astype(int), minlength=BINS)[None, :BINS].astype(np.float64)
    assert diversity.binned_mad(BIN_OD, w)[0] == pytest.approx(of(diversity.mad, x), abs=BIN_OD / 10)


# Two populations


def histogram(values: Any) -> NDArray[np.float64]:
    bins = np.clip(np.asarray(values) / BIN_OD, 0, BINS - 1).astype(int)
    return np.bincount(bins, minlength=BINS).astype(np.float64)


def normal(mean: float, sd: float, n: int) -> NDArray[np.float64]:
    return np.asarray(stats.norm.ppf((np.arange(n) + 0.5) / n, mean, sd), np.float64)


def test_two_populations_are_found_where_they_are() -> None:
    fitted = fit_two(CENTRES, histogram(np.r_[normal(0.3, 0.05, 1400), normal(0.8, 0.10, 600)]))
    assert fitted is not None
    assert fitted.two
    assert fitted.weights == pytest.approx([0.7, 0.3], abs=0.01)
    assert fitted.means == pytest.approx([0.3, 0.8], abs=0.01)
    assert fitted.ashman_d == pytest.approx(math.sqrt(2) * 0.5 / math.hypot(0.05, 0.1), rel=0.05)


@pytest.mark.parametrize(
    "values",
    [normal(0.5, 0.1, 2000), np.r_[normal(0.3, 0.05, 1960), normal(1.0, 0.05, 40)]],
    ids=["one", "2 % apart"],
)
def test_one_population_and_a_few_odd_cells_are_not_two(values: NDArray[np.float64]) -> None:
    fitted = fit_two(CENTRES, histogram(values))
    assert fitted is not None
    assert not fitted.two


@pytest.mark.parametrize("n", [500, 5_000, 50_000, 200_000])
@pytest.mark.parametrize("d", [2.0, 2.5, 3.0, 5.0])
def test_separated_populations_are_found_as_from_the_truth(d: float, n: int) -> None:
    """A tail of few cells fits a little, and is where a single start ended."""
    random = np.random.default_rng([n, round(10 * d)])
    for share in (0.1, 0.3, 0.5):
        for spread in (0.5, 1.0, 2.0):
            sds = np.array([0.08, 0.08 * spread])
            means = np.array([0.4, 0.4 + d * float(np.hypot(*sds)) / math.sqrt(2)])
            higher = random.random(n) < share
            cells = histogram(
                np.clip(random.normal(means[higher.astype(int)], sds[higher.astype(int)]), 0, None)
            )
            truth = Populations(np.array([1 - share, share]), means, sds, np.array(0.0))
            fitted, planted = fit_two(CENTRES, cells), fit_two(CENTRES, cells, truth)
            assert fitted is not None
            assert planted is not None
            assert fitted.two == planted.two
            if planted.two:
                assert fitted.delta_bic >= planted.delta_bic - 0.01
            if n >= 50_000:
                assert fitted.ashman_d == pytest.approx(planted.ashman_d, abs=0.05)
                assert fitted.ashman_d == pytest.approx(d, abs=0.25)


def test_of_several_fits_one_with_cells_enough_in_both_is_kept() -> None:
    """One hundredth of the cells, far off, would fit better as a population of its own."""
    cells = np.r_[normal(0.3, 0.06, 20_000), normal(0.55, 0.06, 20_000), normal(1.6, 0.03, 400)]
    fitted = fit_two(CENTRES, histogram(cells))
    assert fitted is not None
    assert fitted.two
    assert fitted.means[0] == pytest.approx(0.3, abs=0.03)


def test_a_spike_is_no_population_and_one_value_no_mixture() -> None:
    spikes = fit_two(CENTRES, histogram([0.3] * 200 + [0.32] * 200))
    assert spikes is not None
    assert float(spikes.ashman_d) < 1.1  # 0.02 apart, and no narrower than 0.02 each
    assert fit_two(CENTRES, histogram([0.3] * 200)) is None


def test_many_samples_are_fitted_as_each_alone() -> None:
    one = histogram(np.r_[normal(0.3, 0.08, 1000), normal(0.7, 0.12, 1000)])
    other = histogram(np.r_[normal(0.35, 0.08, 900), normal(0.7, 0.1, 1100)])
    start = fit_two(CENTRES, one)
    assert start is not None
    together = fit_two(CENTRES, np.stack([one, other]), start)
    alone = fit_two(CENTRES, other)
    assert together is not None
    assert alone is not None
    assert together.ashman_d[0] == pytest.approx(start.ashman_d, rel=1e-3)
    assert together.ashman_d[1] == pytest.approx(alone.ashman_d, rel=1e-3)


# Intervals


def _ratio(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(sums[..., 0] / sums[..., 1])


def hexagons(rows: int, columns: int) -> Hexes:
    r, column = (a.ravel() for a in np.mgrid[:rows, :columns])
    q = column - r // 2
    order = np.lexsort((r, q))
    return Hexes(HexGrid(250.0), q[order], r[order])


def test_intervals_cover_what_they_should() -> None:
    """The mean of 144 independent hexagons: nearly all of 200 intervals hold the truth."""
    random, cuts = np.random.default_rng(11), Cuts.of(hexagons(12, 12))
    covered = 0
    for _ in range(200):
        found = cuts.blocks(np.stack([random.poisson(50, 144), np.full(144, 10)], axis=1).astype(np.float64))
        ends = found.interval(float(_ratio(found.total)), _ratio)
        assert ends is not None
        covered += ends[0] <= 5.0 <= ends[1]
    assert 185 <= covered <= 199


def test_intervals_cover_the_truth_where_hexagons_resemble_each_other() -> None:
    """Values that resemble each other over four hexagons, which are no independent draws."""
    hexes, random = hexagons(20, 20), np.random.default_rng(3)
    apart = np.hypot(hexes.y_um[:, None] - hexes.y_um, hexes.x_um[:, None] - hexes.x_um)
    root, cuts = np.linalg.cholesky(np.exp(-3 * apart / 1000.0)), Cuts.of(hexes)
    held = {"mean": 0, "share": 0}
    for _ in range(100):
        value = root @ random.normal(size=len(hexes))
        blocks = cuts.blocks(np.stack([value + 5, value > 1, np.ones(len(hexes))], axis=1))
        ends = blocks.interval(float(blocks.total[0] / 400), lambda s: s[..., 0] / s[..., 2])
        fraction = float(blocks.total[1] / 400)
        of = blocks.share(fraction, lambda s: s[..., 1] / s[..., 2], 400)
        assert ends is not None
        assert of is not None
        held["mean"] += ends[0] <= 5 <= ends[1]
        held["share"] += of[0] <= stats.norm.sf(1) <= of[1]
    assert min(held.values()) >= 88, held


def test_the_variance_of_a_mean_is_that_of_eight_blocks_and_what_thirty_two_lack() -> None:
    hexes, random = hexagons(16, 16), np.random.default_rng(5)
    value = np.cumsum(random.normal(size=256))
    cuts = Cuts.of(hexes)
    assert cuts.fine is not None
    mean = [np.array([value[cuts.fine // by == k].mean() for k in range(32 // by)]) for by in (4, 1)]
    eight, thirty_two = mean[0].var(ddof=1) / 8, mean[1].var(ddof=1) / 32
    assert eight > thirty_two
    found = cuts.blocks(np.stack([value, np.ones(256)], axis=1)).variance(_ratio)
    further = (math.sqrt(8) - 1) / (math.sqrt(32) - math.sqrt(8))
    assert found == pytest.approx(eight + further * (eight - thirty_two))


def test_intervals_need_hexagons_and_something_that_varies() -> None:
    for m, given_one in ((15, False), (16, True), (31, True), (32, True)):
        held = np.stack([np.arange(m) + 1.0, np.ones(m)], axis=1)
        found = Cuts.of(hexagons(1, m)).blocks(held)
        assert (found.interval(1.0, _ratio) is not None) is given_one
        assert (found.share(0.5, lambda s: s[..., 0] / 1e4, 10) is not None) is given_one
    alike = Cuts.of(hexagons(5, 8)).blocks(np.ones((40, 2)))
    assert alike.interval(1.0, _ratio) is None
    none = Cuts.of(hexagons(5, 8)).blocks(np.stack([np.zeros(40), np.full(40, 99.0)], axis=1))
    assert none.share(0.0, _ratio, 3960) == wilson(0, 40)  # of forty hexagons, not of 3960 cells


# A slide


def slide(od: Any, classes: Any, *, side: int = 200, step: float = 10.0) -> tuple[MeasuredCells, Any]:
    """A square lattice of tumour cells, and functions of row and column for OD and class."""
    row, column = (v.ravel() for v in np.mgrid[0:side, 0:side])
    n = side * side
    values = np.broadcast_to(np.asarray(od(row, column), np.float32), n)
    kinds = np.broadcast_to(np.asarray(classes(row, column), np.int8), n)
    cells = MeasuredCells(
        row * step, column * step, np.full(n, 0.5, np.float32), values, values, values,
        np.ones(n, np.bool_), np.ones(n, np.bool_), np.ones(n, np.float32), values,
    )  # fmt: skip
    return cells, kinds


def by_name(cells: MeasuredCells, classes: Any, score: str | None) -> dict[tuple[str, float | None], Metric]:
    sweep = sweep_regions(cells, classes, PARAMS, RULES)
    found = measure_heterogeneity(cells, classes, sweep, PARAMS, score)
    named = {(metric.name, metric.scale_um): metric for metric in found}
    assert len(named) == len(found)
    return named


def test_a_slide_of_two_halves() -> None:
    """Left 0 at 0.1 OD, right 3+ at 0.9 OD: every index at its extreme, nearly all of it between regions."""
    noise = np.random.default_rng(4).normal(0, 0.05, 40_000)
    cells, classes = slide(
        lambda r, c: np.where(c < 100, 0.15, 0.9) + noise, lambda r, c: np.where(c < 100, 0, 4)
    )
    found = by_name(cells, classes, "3+")
    assert found["rao_q", None].value == pytest.approx(0.5)
    assert found["shannon", None].value == pytest.approx(math.log(2), abs=1e-4)
    assert found["ashman_d", None].value == pytest.approx(math.sqrt(2) * 0.75 / 0.0707, rel=0.05)
    assert (found["bimodality", None].value or 0) > 0.9
    assert (found["eta2", 100.0].value or 0) > 0.9
    assert found["eta2", 250.0].n >= 60
    discordant = found["discordant_fraction", 250.0]
    assert discordant.value == found["two_step_fraction", 250.0].value == pytest.approx(0.45, abs=0.1)
    assert found["region_score_range", 250.0].value == 3.0
    for metric in found.values():
        if metric.low is not None and metric.high is not None and metric.value is not None:
            assert metric.low <= metric.value <= metric.high, metric


def test_a_slide_without_differences_is_degenerate_where_variance_is_needed() -> None:
    """All cells of one score: diversity is 0, which is a finding; of one OD: no spread, which is none."""
    found = by_name(*slide(lambda r, c: 0.1, lambda r, c: 1), score="1+")
    for name in ("shannon", "evenness", "gini_simpson", "rao_q"):
        assert (found[name, None].value, found[name, None].status) == (0.0, Status.OK)
    for name in ("membrane_od_sd", "membrane_od_mad", "membrane_od_cv", "membrane_od_gini", "bimodality"):
        assert (found[name, None].value, found[name, None].status) == (None, Status.DEGENERATE)
    assert found["eta2", 250.0].status is Status.DEGENERATE
    assert found["ashman_d", None].label == "unimodal"
    assert found["discordant_fraction", 250.0].value == 0.0
    assert found["membrane_od_mean", None].value == pytest.approx(0.1)


def test_noise_without_regions_is_not_taken_for_regions() -> None:
    random = np.random.default_rng(6)
    od = random.gamma(4, 0.1, 40_000)
    found = by_name(*slide(lambda r, c: od, lambda r, c: random.integers(0, 5, 40_000)), score="2+")
    for scale in (100.0, 250.0):
        expected = found["eta2_expected", scale].value
        assert found["eta2", scale].value == pytest.approx(expected, rel=0.25)


def test_few_cells_are_insufficient_and_none_are_too() -> None:
    cells, classes = slide(lambda r, c: 0.1 + r / 50, lambda r, c: r % 5, side=9)
    for few in (by_name(cells, classes, "2+"), by_name(*slide(lambda r, c: r, lambda r, c: r, side=0), "0")):
        assert few["shannon", None].status is few["membrane_od_mean", None].status is Status.INSUFFICIENT
        assert few["eta2", 250.0].status is few["discordant_fraction", 250.0].status is Status.INSUFFICIENT
    cells, classes = slide(lambda r, c: 0.1 + (r + c) / 50, lambda r, c: r % 5, side=14)  # 196 cells
    found = by_name(cells, classes, "2+")
    assert found["shannon", None].status is Status.OK
    assert found["shannon", None].low is None  # no interval from so few hexagons
    assert found["ashman_d", None].status is found["bimodality", None].status is Status.INSUFFICIENT


def test_no_region_disagrees_with_a_slide_without_score() -> None:
    found = by_name(*slide(lambda r, c: c / 100, lambda r, c: c % 5), score=None)
    assert found["discordant_fraction", 250.0].status is Status.DEGENERATE
    assert found["region_score_range", 250.0].status is Status.OK


def test_unevaluable_and_stroma_cells_count_nowhere() -> None:
    cells, classes = slide(lambda r, c: np.where(r < 100, 0.2 + c / 1000, 9.0), lambda r, c: c % 5)
    half = np.arange(40_000) < 20_000
    alone = MeasuredCells(*(getattr(cells, name)[half] for name in MeasuredCells.__slots__))
    hidden = np.where(half, classes, CellClass.UNEVALUABLE).astype(np.int8)
    assert by_name(cells, hidden, "2+") == by_name(alone, classes[half], "2+")


def test_metrics_depend_on_no_order_of_the_cells() -> None:
    random = np.random.default_rng(8)
    od = random.gamma(2, 0.2, 10_000)
    cells, classes = slide(lambda r, c: od, lambda r, c: random.integers(-1, 5, 10_000), side=100)
    mixed = random.permutation(10_000)
    other = MeasuredCells(*(getattr(cells, name)[mixed] for name in MeasuredCells.__slots__))
    assert by_name(cells, classes, "2+") == by_name(other, classes[mixed], "2+")


# Signals


def nuclei(her2: Any, cep17: Any = 2, *, step: float = 25.0) -> MeasuredNuclei:
    h, c = np.broadcast_arrays(np.asarray(her2), np.asarray(0 if cep17 is None else cep17))
    n = len(h)
    row, column = np.divmod(np.arange(n), math.isqrt(n))
    y, x = (step * place.astype(np.float64) for place in (row, column))
    alike = np.zeros(n, np.uint8), np.ones(n, np.bool_)
    return MeasuredNuclei(np.arange(n), y, x, *alike, h, h, *((None, None) if cep17 is None else (c, c)))


def of_signals(found: MeasuredNuclei) -> dict[tuple[str, float | None], Metric]:
    genetic = score_ish(found, ISH, ISH_RULES, GOOD).heterogeneity
    sweep = sweep_nuclei(found, PARAMS, ISH, ISH_RULES)
    metrics = measure_ish_heterogeneity(found, sweep, PARAMS, ISH, ISH_RULES, genetic)
    named = {(metric.name, metric.scale_um): metric for metric in metrics}
    assert len(named) == len(metrics)
    return named


def test_a_quarter_of_amplified_nuclei_in_one_corner() -> None:
    side = 80
    row, column = (v.ravel() for v in np.mgrid[0:side, 0:side])
    found = of_signals(nuclei(np.where((row < 40) & (column < 40), 12, 2)))
    amplified = found["amplified_ratio_arm", None]
    assert (amplified.value, amplified.label, amplified.n) == (0.25, "heterogeneous", 6400)
    assert amplified.low is not None
    assert amplified.high is not None
    assert amplified.low < 0.25 < amplified.high
    assert amplified.high - amplified.low > 0.1  # regions are drawn, not nuclei: those would give 0.02
    assert found["copies_mean", None].value == pytest.approx(4.5)
    assert found["copies_cv", None].value == pytest.approx(math.sqrt(18.75) / 4.5)
    assert found["copies_ashman_d", None].value is not None
    for name, value in (("min", 0.0), ("max", 1.0), ("range", 1.0)):
        assert found[f"region_amplified_{name}", 250.0].value == value


def test_signals_have_intervals_of_both_arms_and_of_two_populations() -> None:
    side = 80
    row, column = (v.ravel() for v in np.mgrid[0:side, 0:side])
    random = np.random.default_rng(5)
    copies = random.binomial(np.where((row // 20 + column // 20) % 2, 16, 3), 0.7) + 1
    found = of_signals(nuclei(copies))
    for name in (
        "amplified_ratio_arm",
        "amplified_copies_arm",
        "amplified_excess_copies_arm",
        "copies_ashman_d",
    ):
        metric = found[name, None]
        assert metric.value is not None
        assert metric.low is not None
        assert metric.high is not None
        assert metric.low < metric.value < metric.high, name
    single = of_signals(nuclei(copies, None))
    for name in ("amplified_copies_arm", "copies_ashman_d", "copies_mean"):  # what CEP17 has no part in
        assert single[name, None] == found[name, None]


def test_equal_nuclei_do_not_differ() -> None:
    found = of_signals(nuclei(np.full(900, 2)))
    assert found["copies_cv", None].status is Status.DEGENERATE
    assert found["copies_ashman_d", None].status is Status.DEGENERATE
    assert found["amplified_ratio_arm", None].value == 0.0
    assert found["region_amplified_range", 250.0].value == 0.0


def test_few_nuclei_say_little() -> None:
    few, some = of_signals(nuclei(np.full(16, 2))), of_signals(nuclei(np.arange(100) % 3 + 2))
    assert {metric.status for metric in few.values()} == {Status.INSUFFICIENT}
    assert some["amplified_ratio_arm", None].label == "underpowered"
    assert some["amplified_excess_ratio_arm", None].status is Status.INSUFFICIENT
    assert some["copies_ashman_d", None].status is Status.INSUFFICIENT
    assert some["copies_cv", None].status is Status.OK


WITHOUT_INTERVAL = {
    "moran_p",
    "geary_p",
    "eta2_expected",
    "region_score_range",
    "region_amplified_min",
    "region_amplified_max",
    "region_amplified_range",
}
"""Docs/heterogeneity.md says why; and variograms whose fit hangs on one block."""


def test_every_other_metric_has_an_interval() -> None:
    random = np.random.default_rng(3)
    noise = random.normal(0, 0.08, 300 * 300)
    cells, classes = slide(
        lambda r, c: np.maximum(0.4 + 0.25 * np.sin(r / 12) * np.sin(c / 15) + noise, 0.0),
        lambda r, c: np.where(np.sin(r / 12) * np.sin(c / 15) + noise > 0.2, 4, (r + c) % 2), side=300,
    )  # fmt: skip
    row, column = (v.ravel() for v in np.mgrid[0:120, 0:120])
    signals = nuclei(random.binomial(np.where(np.sin(row / 9) * np.sin(column / 11) > 0, 14, 3), 0.7) + 1)
    seen = set()
    for key, metric in (*by_name(cells, classes, "2+").items(), *of_signals(signals).items()):
        what = metric.name.removesuffix("_od").removesuffix("_copies").removesuffix("_amplified")
        what = what.removesuffix("_completeness")
        if metric.status is not Status.OK:
            continue
        if what in WITHOUT_INTERVAL:
            assert metric.low is metric.high is None, key
            seen.add(what)
        elif metric.low is None:
            assert what.startswith("variogram"), key
        else:
            assert metric.value is not None
            assert metric.high is not None
            assert metric.low <= metric.value <= metric.high, key
    assert seen == WITHOUT_INTERVAL


# Records


def test_a_metric_has_a_value_exactly_if_it_is_ok() -> None:
    assert measured("x", float("nan"), 5).status is Status.DEGENERATE
    assert insufficient("x", 5, scale_um=250.0) == Metric(
        "x", None, None, None, 5, 250.0, Status.INSUFFICIENT
    )
    with pytest.raises(ValueError, match="with status ok"):
        Metric("x", None, None, None, 5, None, Status.OK)
    with pytest.raises(ValueError, match="expected finite numbers"):
        Metric("x", 1.0, -math.inf, 2.0, 5, None, Status.OK)
