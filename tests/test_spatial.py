"""Spatial metrics: analytic extremes, hand-worked cases, and PySAL's numbers."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from her2core.guidelines.rules_ihc import CellClass, load_rules
from her2core.heterogeneity.biopsy import virtual_biopsies
from her2core.heterogeneity.ihc import measure_heterogeneity
from her2core.heterogeneity.lattice import (
    MORAN_MOST,
    co_occurrences,
    discoveries,
    getis_ord,
    hot_and_cold,
    permutation_p,
    shares,
    texture_contrast,
    texture_entropy,
    without_islands,
)
from her2core.heterogeneity.metrics import Metric, Status
from her2core.heterogeneity.regions import NEIGHBOURS, Hexes, HexGrid, Regions, regions_of_cells
from her2core.heterogeneity.spatial import cell_metrics, lattice_metrics, region_metrics
from her2core.heterogeneity.spatial_cells import label_l
from her2core.heterogeneity.variogram import Semivariogram, fit_exponential, semivariogram
from her2core.params import HeterogeneityParams
from her2core.points.nearest import nearest
from her2core.points.neighbour_counts import neighbour_counts
from her2core.scoring.ihc import MeasuredCells

Ints = NDArray[np.int64]
Reals = NDArray[np.float64]
PARAMS = HeterogeneityParams(permutations=199, replicates=99)
SIZE = 250.0


def rhombus(edge: int) -> tuple[Ints, Ints]:
    q, r = np.divmod(np.arange(edge * edge), edge)
    return q, r


def on_torus(edge: int) -> tuple[Ints, Ints, Ints]:
    """Axial coordinates and neighbours of a lattice without an edge, on which extremes are exact."""
    q, r = rhombus(edge)
    near = [(q + dq) % edge * edge + (r + dr) % edge for dq, dr in NEIGHBOURS]
    return q, r, np.stack(near, axis=1)


def field(rows: int, columns: int) -> Hexes:
    """A rectangle of hexagons."""
    r, column = (a.ravel() for a in np.mgrid[:rows, :columns])
    q = column - r // 2
    order = np.lexsort((r, q))
    return Hexes(HexGrid(SIZE), q[order], r[order])


def column_of(hexes: Hexes) -> Ints:
    return hexes.q + hexes.r // 2


def scrambled(hexes: Hexes) -> Reals:
    """Some value without order that any program can repeat."""
    q, r = hexes.q, hexes.r
    return (q * 7 + r * 13 + q * r * 5) % 11 / 10.0


def named(metrics: list[Metric]) -> dict[tuple[str, float | None], Metric]:
    return {(m.name, m.scale_um): m for m in metrics}


def lattice_of(hexes: Hexes, value: Reals) -> dict[str, Metric]:
    return {m.name: m for m in lattice_metrics(hexes, value, "x", 1.0, PARAMS)}


def test_extremes_of_moran_and_geary_on_a_lattice_without_edge() -> None:
    q, r, near = on_torus(12)
    rows = shares((r % 2).astype(float), near)
    assert rows.moran == pytest.approx(-1 / 3, abs=1e-14)
    n = len(q)
    assert rows.geary == pytest.approx(4 / 3 * (n - 1) / n, abs=1e-12)

    thirds = np.array([1.0, -0.5, -0.5])[(q - r) % 3]  # of three colours: nobody has a neighbour alike
    least = shares(thirds, near)
    assert least.moran == pytest.approx(-0.5, abs=1e-14)
    assert least.geary == pytest.approx(1.5 * (n - 1) / n, abs=1e-12)

    random = np.random.default_rng(2)
    values = [shares(random.normal(size=n), near).moran for _ in range(50)]
    assert min(values) > -0.5


@pytest.mark.parametrize(
    ("piece", "value", "moran", "geary"),
    [
        ([(0, 0), (1, 0)], [1.0, -1.0], -1.0, 2.0),
        ([(0, 0), (1, 0), (2, 0), (3, 0)], [1.0, -1.0, 1.0, -1.0], -1.0, 2.0),
        ([(0, 0), (1, 0), (-1, 1), (0, -1)], [3**0.5, -1.0, -1.0, -1.0], -2 / 3**0.5, None),
        ([(0, 0), (1, 0), (-1, 1), (0, -1)], [3.0, -1.0, -1.0, -1.0], -1.0, 8 / 3),
    ],
    ids=["pairs", "strips", "stars", "stars for C"],
)
def test_moran_and_geary_reach_further_on_ragged_tissue(
    piece: list[tuple[int, int]], value: list[float], moran: float, geary: float | None
) -> None:
    """Pieces by themselves, each value once with either sign, so that the mean is 0."""
    apart = [(q + 10 * i, r) for i in range(12) for q, r in piece]
    q, r = np.array(sorted(apart)).T
    hexes = Hexes(HexGrid(SIZE), q, r)
    signs = np.repeat([1.0, -1.0] * 6, len(piece))
    of = dict(zip(apart, (signs * np.tile(value, 12)).tolist(), strict=True))
    z = np.array([of[place] for place in zip(hexes.q.tolist(), hexes.r.tolist(), strict=True)])
    found, m = shares(z, hexes.neighbours()), len(z)
    assert found.moran == pytest.approx(moran)
    assert abs(found.moran) <= MORAN_MOST + 1e-12
    if geary is not None:
        assert found.geary == pytest.approx(geary * (m - 1) / m)


@pytest.mark.parametrize(
    ("hexes", "value", "moran", "geary", "gi_corner", "gi_above_0"),
    [
        (field(36, 36), lambda h: h.r % 2, -0.32232510288065847, 1.3213047903012751, -0.577796616584619, 630),
        (
            field(36, 36),
            lambda h: column_of(h) < 18,
            0.9627057613168724,
            0.037265462264390585,
            1.733389849753857,
            648,
        ),
        (field(8, 9), scrambled, -0.1412761803336883, 1.1028114276416994, -1.390340338343279, 39),
    ],
    ids=["alternating rows", "two blocks", "scrambled"],
)
def test_pysal_agrees(
    hexes: Hexes,
    value: Callable[[Hexes], Ints],
    moran: float,
    geary: float,
    gi_corner: float,
    gi_above_0: int,
) -> None:
    """Moran, Geary and G_Local(star=True) of esda 2.9.0 on the same neighbours, libpysal 4.14.1."""
    x, near = value(hexes).astype(float), hexes.neighbours()
    found = shares(x, near)
    assert found.moran == pytest.approx(moran, abs=1e-13)
    assert found.geary == pytest.approx(geary, abs=1e-12)
    z = getis_ord(x, near)
    assert z[(hexes.q == 0) & (hexes.r == 0)][0] == pytest.approx(gi_corner, abs=1e-12)
    assert np.count_nonzero(z > 0) == gi_above_0


def test_pysal_agrees_where_hexagons_are_missing() -> None:
    hexes = field(6, 8)
    kept = (hexes.q * 5 + hexes.r * 3) % 7 != 0
    hexes = Hexes(hexes.grid, hexes.q[kept], hexes.r[kept])
    x, near = scrambled(hexes), hexes.neighbours()
    assert len(hexes) == 41
    assert shares(x, near).moran == pytest.approx(-0.1399885810743719, abs=1e-13)
    assert shares(x, near).geary == pytest.approx(1.1317644722470463, abs=1e-12)
    z = getis_ord(x, near)
    assert z[(hexes.q == 1) & (hexes.r == 0)][0] == pytest.approx(-1.3862831710585406, abs=1e-12)
    assert z[(hexes.q == 5) & (hexes.r == 5)][0] == pytest.approx(-1.5882181374721702, abs=1e-12)


def test_moran_and_geary_of_three_in_a_row_by_hand() -> None:
    near = np.full((3, 6), -1)
    near[0, 0], near[1, :2], near[2, 0] = 1, (0, 2), 1
    found = shares(np.array([0.0, 1.0, 5.0]), near)  # mean 2; z = -2, -1, 3; sum of squares 14
    assert found.moran == pytest.approx((-2 * -1 + -1 * 0.5 + 3 * -1) / 14)
    assert found.geary == pytest.approx(2 / (2 * 3) * (1 + (1 + 16) / 2 + 16) / 14)


def test_islands_are_dropped() -> None:
    hexes = Hexes(HexGrid(SIZE), np.array([0, 1, 9]), np.array([0, 0, 0]))
    value, near, kept = without_islands(np.array([1.0, 2.0, 3.0]), hexes.neighbours())
    assert value.tolist() == [1.0, 2.0]
    assert kept.tolist() == [True, True, False]
    assert sorted(near.max(axis=1).tolist()) == [0, 1]


def test_permutations_tell_pattern_from_chance() -> None:
    hexes = field(9, 9)
    near = hexes.neighbours()
    assert permutation_p((column_of(hexes) < 4).astype(float), near, 199, 1) == (1 / 200, 1 / 200)
    assert min(permutation_p(scrambled(hexes), near, 199, 1)) > 1 / 200
    two = np.array([0.0, 1.0])  # either arrangement of two is as far from chance as the other
    pair = np.full((2, 6), -1)
    pair[0, 0], pair[1, 0] = 1, 0
    assert permutation_p(two, pair, 99, 1) == (1.0, 1.0)


def test_the_p_of_random_fields_is_uniform() -> None:
    near, random = field(6, 6).neighbours(), np.random.default_rng(5)
    p = np.array([permutation_p(random.normal(size=36), near, 99, 1) for _ in range(200)])
    assert np.abs(p.mean(axis=0) - 0.5).max() < 0.07
    assert (p <= 0.05).mean() < 0.09


def test_hot_and_cold_hexagons_are_the_planted_ones() -> None:
    hexes = field(20, 20)
    column, random = column_of(hexes), np.random.default_rng(1)
    value = 0.5 + 0.02 * random.normal(size=len(hexes))
    hot, cold = (column < 4) & (hexes.r < 4), (column > 15) & (hexes.r > 15)
    kind = hot_and_cold(value + 0.3 * hot - 0.3 * cold, hexes.neighbours())
    assert kind[hot].min() == 1
    assert kind[cold].max() == -1
    assert np.count_nonzero(kind) <= 2 * (16 + 9)  # and at most the ring around them
    assert not hot_and_cold(np.ones(len(hexes)), hexes.neighbours()).any()


def test_discoveries_are_those_of_benjamini_and_hochberg() -> None:
    p = np.random.default_rng(3).random(200) ** 3
    assert (discoveries(p, 0.05) == (false_discovery_control(p) <= 0.05)).all()
    assert discoveries(p, 0.05).any()
    assert not discoveries(np.full(5, 0.9), 0.05).any()


def test_texture_by_hand() -> None:
    _, r, near = on_torus(6)
    rows = co_occurrences((r % 2) * 0.35, near, 1.0)  # levels 0 and 3; 2 of 6 alike
    assert texture_contrast(rows) == pytest.approx(4 / 6 * 9)
    p = [1 / 6, 1 / 6, 1 / 3, 1 / 3]
    assert texture_entropy(rows) == pytest.approx(-sum(x * math.log2(x) for x in p))
    ends = co_occurrences(np.where(r % 2, 7.0, -1.0), near, 1.0)
    assert texture_contrast(ends) == pytest.approx(4 / 6 * 81)  # what lies beyond belongs to the end


def test_entropy_of_all_pairs_alike_is_the_greatest() -> None:
    assert texture_entropy(np.ones(100)) == pytest.approx(2 * math.log2(10))


def test_semivariogram_is_that_of_all_pairs() -> None:
    hexes = field(11, 9)
    kept = (hexes.q * 5 + hexes.r * 3) % 7 != 0
    hexes = Hexes(hexes.grid, hexes.q[kept] - 40, hexes.r[kept] + 17)
    value = scrambled(hexes)
    found = semivariogram(hexes.q, hexes.r, value, SIZE)

    i, j = np.triu_indices(len(value), 1)
    apart = np.hypot(hexes.y_um[i] - hexes.y_um[j], hexes.x_um[i] - hexes.x_um[j])
    squared, lag = (value[i] - value[j]) ** 2, np.rint(apart / SIZE)
    longest = max(np.ptp(hexes.y_um), np.ptp(hexes.x_um)) / 2
    lags = [m for m in (((lag == k) & (apart <= longest)) for k in range(1, 20)) if m.sum() >= 30]
    assert found.pairs.tolist() == [m.sum() for m in lags]
    np.testing.assert_allclose(found.lag_um, [apart[m].mean() for m in lags])
    np.testing.assert_allclose(found.gamma, [squared[m].mean() / 2 for m in lags], atol=1e-12)


def test_the_fit_finds_the_model_that_made_the_curve() -> None:
    lag = np.arange(1, 13) * SIZE
    model = 0.02 + 0.08 * (1 - np.exp(-3 * lag / 1400))
    fit = fit_exponential(Semivariogram(lag, model, np.full(12, 500)))
    assert fit is not None
    assert fit.range_um == pytest.approx(1400, rel=1e-3)
    assert fit.nugget_share == pytest.approx(0.2, rel=1e-2)
    assert fit.resolved
    assert fit.structured


def test_a_gradient_has_no_range_and_noise_no_structure() -> None:
    hexes, random = field(16, 16), np.random.default_rng(0)
    slope = lattice_of(hexes, 0.05 * column_of(hexes) + 0.01)
    assert slope["variogram_range_um_x"].label == "range>max"
    assert slope["variogram_range_um_x"].status is Status.DEGENERATE
    noise = lattice_of(hexes, random.random(len(hexes)))
    assert noise["variogram_range_um_x"].label == "no structure"
    assert noise["variogram_nugget_x"].value == 1.0


def test_a_constant_is_degenerate_and_few_hexagons_are_insufficient() -> None:
    constant = lattice_of(field(6, 6), np.full(36, 0.4))
    assert {m.status for m in constant.values()} == {Status.DEGENERATE}
    few = lattice_of(field(5, 5), np.arange(25.0))
    assert {m.status for m in few.values()} == {Status.INSUFFICIENT}
    none = lattice_of(Hexes(HexGrid(SIZE), np.zeros(0, np.int64), np.zeros(0, np.int64)), np.zeros(0))
    assert {(m.status, m.n) for m in none.values()} == {(Status.INSUFFICIENT, 0)}
    assert constant.keys() == few.keys() == none.keys()


def test_islands_do_not_count_towards_the_least_number_of_hexagons() -> None:
    q = np.concatenate([column_of(field(1, 29)), [100]])
    hexes = Hexes(HexGrid(SIZE), q, np.zeros(30, np.int64))
    found = lattice_of(hexes, np.arange(30.0) / 30)
    assert {(m.status, m.n) for m in found.values()} == {(Status.INSUFFICIENT, 29)}


def test_values_lie_in_their_interval_and_range() -> None:
    hexes = field(14, 14)
    found = lattice_of(hexes, 0.5 + 0.3 * np.sin(column_of(hexes) / 2) + 0.1 * scrambled(hexes))
    for name in ("moran_i_x", "geary_c_x", "hot_fraction_x", "cold_fraction_x", "texture_contrast_x"):
        metric = found[name]
        assert metric.value is not None
        assert metric.low is not None
        assert metric.high is not None
        assert metric.low <= metric.value <= metric.high
        assert metric.low < metric.high


def test_counts_of_neighbours_are_those_of_all_pairs() -> None:
    y, x = np.random.default_rng(4).integers(0, 40, (2, 300)) * 5.0  # many ties, also at the reach itself
    reaches = (25.0, 50.0, 100.0)
    apart = np.hypot(y[:, None] - y, x[:, None] - x)
    expected = np.stack([(apart <= reach).sum(axis=1) - 1 for reach in reaches], axis=1)
    assert (neighbour_counts(y, x, reaches) == expected).all()
    assert neighbour_counts(y[:1], x[:1], reaches).tolist() == [[0, 0, 0]]
    assert neighbour_counts(y[:0], x[:0], reaches).shape == (0, 3)


def test_l_of_random_labels_is_zero_on_average() -> None:
    """Between gaps as well: the cells lie in two nests, which under complete randomness is clustering."""
    random = np.random.default_rng(6)
    y, x = random.uniform(0, 200, (2, 400))
    x[200:] += 600
    reaches = (25.0, 100.0)
    everyone = neighbour_counts(y, x, reaches)
    found = []
    for _ in range(200):
        positive = random.permutation(400) < 120
        found.append(label_l(positive, everyone, neighbour_counts(y[positive], x[positive], reaches), 1e5))
    spread = np.std(found, axis=0)
    assert spread.min() > 0.1
    assert (np.abs(np.mean(found, axis=0)) < 4 * spread / math.sqrt(200)).all()
    clustered = x < 200
    near = neighbour_counts(y[clustered], x[clustered], reaches)
    assert label_l(clustered, everyone, near, 1e5)[1] > 10


def test_l_by_hand() -> None:
    """Four cells on a line, 10 µm apart, the first two positive; reach 10 µm, area 600 µm²."""
    y, x = np.zeros(4), np.arange(4) * 10.0
    positive = np.array([True, True, False, False])
    found = label_l(positive, neighbour_counts(y, x, (10.0,)), neighbour_counts(y[:2], x[:2], (10.0,)), 600.0)
    k_positive, k_null = 600 * 2 / (2 * 1), 600 * 6 / (4 * 3)
    assert found[0] == pytest.approx(math.sqrt(k_positive / math.pi) - math.sqrt(k_null / math.pi))


def test_distance_from_the_nearest_target() -> None:
    y, x = np.zeros(5), np.array([0.0, 10.0, 25.0, 25.5, 90.0])
    target = np.array([True, False, False, False, False])
    assert nearest(y, x, target, 25.0).tolist() == [0.0, 10.0, 25.0, math.inf, math.inf]
    assert nearest(y, x, np.ones(5, bool), 25.0).tolist() == [0.0] * 5
    assert nearest(y, x, np.zeros(5, bool), 25.0).tolist() == [math.inf] * 5
    assert nearest(y[:0], x[:0], target[:0], 25.0).shape == (0,)


@pytest.mark.parametrize("part", [0.01, 0.2, 0.9])
def test_no_target_in_reach_is_overlooked(part: float) -> None:
    random = np.random.default_rng(6)
    y, x = random.integers(-40, 400, (2, 800)) / 2.0  # whole distances: some are just the reach
    target = random.random(800) < part
    apart = np.hypot(y[:, None] - y[target], x[:, None] - x[target]).min(axis=1)
    assert (nearest(y, x, target, 15.0) <= 15.0).tolist() == (apart <= 15.0).tolist()
    assert nearest(y, x, target, 300.0) == pytest.approx(apart)


Sheet = tuple[Reals, Reals, NDArray[np.int64], NDArray[np.int64]]


@pytest.fixture(scope="module")
def sheet() -> Sheet:
    """60 x 60 cells, 15 µm apart, and their rows and columns."""
    i, j = (a.ravel() for a in np.mgrid[:60, :60])
    return i * 15.0, j * 15.0, i, j


def all_of(
    regions: Regions,
    y: Reals,
    x: Reals,
    classes: NDArray[np.int8],
    od: NDArray[np.float32],
    params: HeterogeneityParams,
) -> list[Metric]:
    """Everything that depends on where cells lie, at one size of region."""
    return [*region_metrics(regions, params), *cell_metrics(regions, y, x, classes, od, params)]


def slide(sheet: Sheet, order: NDArray[np.intp], params: HeterogeneityParams = PARAMS) -> list[Metric]:
    """All spatial metrics of a sheet with a strong half, its cells in some order."""
    y, x, i, j = (a[order] for a in sheet)
    od = (np.where(j < 20, 0.7, 0.15) + 0.05 * ((i * 7 + j * 11) % 13) / 13).astype(np.float32)
    classes = np.where(j < 20, 4, np.where((i + j) % 9 == 0, -1, 0)).astype(np.int8)
    everyone = np.ones(len(y), bool)
    cells = MeasuredCells(y, x, od / 2, od, od, od, everyone, everyone, np.ones_like(od), od)
    regions = regions_of_cells(cells, classes, 100.0, load_rules("breast_asco_cap_2018"), 100)
    return all_of(regions, y, x, classes, od, params)


def test_order_of_the_cells_makes_no_difference(sheet: Sheet) -> None:
    n = len(sheet[0])
    assert slide(sheet, np.arange(n)) == slide(sheet, np.random.default_rng(8).permutation(n))


def test_a_strong_half_is_found_by_every_metric(sheet: Sheet) -> None:
    found = named(slide(sheet, np.arange(len(sheet[0]))))
    moran = found["moran_i_od", 100.0]
    assert moran.value is not None
    assert moran.value > 0.7
    assert found["moran_p_od", 100.0].value == 1 / 200
    assert found["pattern_minority_3", 25.0].label == "cluster"
    n = found["pattern_minority_3", 25.0].n
    assert n == np.count_nonzero((sheet[3] < 20) | ((sheet[2] + sheet[3]) % 9 != 0))
    assert found["pattern_largest_3", 25.0].value == 1200 / n
    for reach in PARAMS.reach_um:
        clustered = found["label_l_3", reach]
        assert clustered.value is not None
        assert clustered.low is not None
        assert clustered.value > clustered.low > 0


def test_proximity_rises_with_reach_and_falls_with_od(sheet: Sheet) -> None:
    params = HeterogeneityParams(
        permutations=99, replicates=99, proximity_um=(10.0, 20.0, 40.0), proximity_od=(0.16, 0.18, 0.71)
    )
    found = named(slide(sheet, np.arange(len(sheet[0])), params))
    score = np.array(
        [
            [found[f"proximity_od_{od}", reach].value for reach in params.proximity_um]
            for od in ("016", "018", "071")
        ],
        dtype=float,
    )
    assert (np.diff(score, axis=1) >= 0).all()
    assert (np.diff(score, axis=0) <= 0).all()
    assert score[2, 0] < score[2, 2] < score[0, 2] == 1.0
    # within 20 µm of the strong half: it, and the cells of one more column that have a class
    n = found["pattern_minority_3", 25.0].n
    params = HeterogeneityParams(permutations=99, replicates=99, proximity_um=(20.0,), proximity_od=(0.6,))
    column = sum((i + 20) % 9 != 0 for i in range(60))
    found = named(slide(sheet, np.arange(len(sheet[0])), params))
    assert found["proximity_od_060", 20.0].value == (1200 + column) / n


def test_too_few_positive_cells_are_insufficient(sheet: Sheet) -> None:
    y, x, _, _ = sheet
    od = np.zeros(len(y), np.float32)
    od[:29] = 0.7
    classes = np.where(od > 0.5, 4, 0).astype(np.int8)
    everyone = np.ones(len(y), bool)
    cells = MeasuredCells(y, x, od, od, od, od, everyone, everyone, np.ones_like(od), od)
    regions = regions_of_cells(cells, classes, 100.0, load_rules("breast_asco_cap_2018"), 100)
    found = named(all_of(regions, y, x, classes, od, PARAMS))
    for name, reach in (("label_l_3", 50.0), ("proximity_od_060", 50.0)):
        assert found[name, reach].status is Status.INSUFFICIENT
        assert found[name, reach].n == 29


def test_a_slide_without_tumour_has_every_metric_and_no_value(sheet: Sheet) -> None:
    y, x, _, _ = sheet
    od, classes = np.zeros(len(y), np.float32), np.full(len(y), -1, np.int8)
    everyone = np.ones(len(y), bool)
    cells = MeasuredCells(y, x, od, od, od, od, everyone, everyone, np.ones_like(od), od)
    regions = regions_of_cells(cells, classes, 100.0, load_rules("breast_asco_cap_2018"), 100)
    found = all_of(regions, y, x, classes, od, PARAMS)
    assert {m.status for m in found} == {Status.INSUFFICIENT}
    assert named(found).keys() == named(slide(sheet, np.arange(len(y)))).keys()


def test_cells_outside_the_tumour_take_no_part(sheet: Sheet) -> None:
    y, x, i, j = sheet
    od = np.where(j < 20, 0.7, 0.15).astype(np.float32)
    classes, rules = np.where(j < 20, 4, 0).astype(np.int8), load_rules("breast_asco_cap_2018")
    params = HeterogeneityParams(
        sweep_um=(100.0, 250.0), permutations=99, replicates=99, biopsies=99, needle_length_um=300.0,
        needle_width_um=100.0, tma_diameter_um=200.0, biopsy_cells=10,
    )  # fmt: skip

    def measured(rows: NDArray[np.intp], tumour: NDArray[np.bool_]) -> tuple[Metric, ...]:
        column = od[rows]
        cells = MeasuredCells(
            y[rows], x[rows], *[column] * 4, np.ones(len(rows), bool), tumour, np.ones_like(column), column
        )
        sweep = tuple(regions_of_cells(cells, classes[rows], size, rules, 100) for size in params.sweep_um)
        of_tumour = np.where(tumour, classes[rows], np.int8(CellClass.UNEVALUABLE))
        biopsies = virtual_biopsies(cells.y_um, cells.x_um, of_tumour, rules, params)
        return (*measure_heterogeneity(cells, classes[rows], sweep, params, "3+"), *biopsies)

    inside = np.flatnonzero(i < 45)
    found = measured(np.arange(len(y)), i < 45)
    assert found == measured(inside, np.ones(len(inside), bool))
    assert len({(m.name, m.scale_um) for m in found}) == len(found)
    assert {m.scale_um for m in found if m.name == "moran_i_od"} == {100.0, 250.0}
    assert any(m.name == "biopsy_tma_other_1" and m.value for m in found)
