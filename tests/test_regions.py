"""Hexagons that stand still: where points belong, and what cells and nuclei say of their hexagon."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from her2core.guidelines.rules_ihc import CellClass, load_rules
from her2core.guidelines.rules_ish import load_ish_rules
from her2core.heterogeneity.dataset import columns_of, to_dataset, to_map
from her2core.heterogeneity.regions import (
    NEIGHBOURS,
    UNSCORED,
    Hexes,
    HexGrid,
    distance,
    hexes_of,
    regions_of_cells,
    regions_of_nuclei,
)
from her2core.params import ISHScoreParams
from her2core.scoring.ihc import MeasuredCells
from her2core.scoring.ish_nuclei import MeasuredNuclei

BREAST, GASTRIC_BIOPSY = load_rules("breast_asco_cap_2018"), load_rules("gastric_biopsy")
ISH = ISHScoreParams()
ISH_RULES = load_ish_rules(ISH.rules)
PLACES = st.floats(-5e4, 5e4)


def cells(y: Any, x: Any, od: Any, completeness: Any = 0.5, tumour: Any = True) -> MeasuredCells:
    y, x, od, completeness, tumour = np.broadcast_arrays(y, x, od, completeness, tumour)
    return MeasuredCells(
        y_um=y.astype(np.float64),
        x_um=x.astype(np.float64),
        completeness=completeness.astype(np.float32),
        intensity_od=od.astype(np.float32),
        membrane_od=od.astype(np.float32),
        cytoplasm_od=od.astype(np.float32),
        evaluable=np.ones(len(y), np.bool_),
        tumour=tumour.astype(np.bool_),
        brownness=np.ones(len(y), np.float32),
        dark_od=od.astype(np.float32),
    )


@given(PLACES, PLACES, st.sampled_from([0.7, 100.0, 250.0]))
def test_a_point_belongs_to_the_nearest_centre(y: float, x: float, size: float) -> None:
    grid = HexGrid(size)
    q, r = grid.of(np.array([y]), np.array([x]))

    def away(dq: int, dr: int) -> float:
        y0, x0 = grid.centre(q + dq, r + dr)
        return float(np.hypot(y - y0, x - x0)[0])

    assert all(away(0, 0) <= away(*step) + 1e-9 for step in NEIGHBOURS)
    assert away(0, 0) <= size / np.sqrt(3) * (1 + 1e-9)


@given(PLACES, PLACES)
def test_hexagons_are_those_of_cube_rounding(y: float, x: float) -> None:
    """Away from borders, where the usual rule and ours could differ."""
    grid = HexGrid(100.0)
    r_part = y / grid.row_um
    q_part = x / grid.size_um - r_part / 2
    parts = np.array([q_part, r_part, -q_part - r_part])
    rounded = np.round(parts)
    worst = np.argsort(np.abs(rounded - parts))
    rounded[worst[-1]] = -np.delete(rounded, worst[-1]).sum()
    found = tuple(int(v[0]) for v in grid.of(np.array([y]), np.array([x])))
    y0, x0 = grid.centre(np.array([rounded[0], found[0]]), np.array([rounded[1], found[1]]))
    away = np.hypot(y - y0, x - x0)
    assert found == (int(rounded[0]), int(rounded[1])) or abs(away[0] - away[1]) < 1e-9


def test_borders_belong_to_the_right_and_to_the_upper_row() -> None:
    grid = HexGrid(250.0)
    q, r = grid.of(np.array([0.0, 0.0, 0.0]), np.array([0.0, 125.0, 124.999]))
    assert (q.tolist(), r.tolist()) == ([0, 1, 0], [0, 0, 0])
    corner = np.array([250.0 / np.sqrt(3)])  # below the centre, where three hexagons meet
    assert [v.item() for v in grid.of(np.nextafter(corner, 0), np.array([0.0]))] == [0, 0]


def test_centres_lie_in_their_own_hexagon_and_six_neighbours_at_one_size() -> None:
    grid = HexGrid(250.0)
    q, r = (v.ravel() for v in np.mgrid[-40:40, -40:40])
    y, x = grid.centre(q, r)
    assert [v.tolist() for v in grid.of(y, x)] == [q.tolist(), r.tolist()]
    for dq, dr in NEIGHBOURS:
        y1, x1 = grid.centre(q + dq, r + dr)
        assert np.allclose(np.hypot(y1 - y, x1 - x), 250.0)
    assert {int(distance(np.array(dq), np.array(dr))) for dq, dr in NEIGHBOURS} == {1}
    assert distance(np.array([3]), np.array([-1])).tolist() == [3]


def test_hexagons_tile_the_plane_without_favour() -> None:
    """Every hexagon inside a square lattice of points holds the same area."""
    step = 2.5
    y, x = (v.ravel() * step for v in np.mgrid[0:400, 0:400])
    hexes, rows = hexes_of(HexGrid(100.0), y, x)
    held = np.bincount(rows) * step**2
    middle = (hexes.neighbours() >= 0).all(axis=1)
    assert middle.sum() > 50
    assert np.allclose(held[middle], HexGrid(100.0).area_um2, rtol=0.03)


def test_neighbours_and_rows_are_found() -> None:
    q, r = (v.ravel().astype(np.int64) for v in np.mgrid[0:3, 0:3])
    hexes = Hexes(HexGrid(100.0), q, r)
    near = hexes.neighbours()
    assert near[4].tolist() == [7, 5, 2, 1, 3, 6]  # of (1, 1), in the order of NEIGHBOURS
    assert near[0].tolist() == [3, 1, -1, -1, -1, -1]
    assert hexes.rows_of(np.array([0.0, -300.0]), np.array([100.0, 0.0])).tolist() == [3, -1]
    nothing = Hexes(HexGrid(100.0), np.empty(0, np.int64), np.empty(0, np.int64))
    assert nothing.rows_of(np.zeros(2), np.zeros(2)).tolist() == [-1, -1]
    assert nothing.neighbours().shape == (0, 6)


@pytest.mark.parametrize("size", [0.0, -1.0, np.nan, np.inf])
def test_impossible_sizes_are_refused(size: float) -> None:
    with pytest.raises(ValueError, match="expected a size above 0"):
        HexGrid(size)


def test_cells_are_gathered_by_hand() -> None:
    """Five cells in hexagon (0, 0), one in (2, 0); a stroma cell and an unevaluable one count nowhere."""
    x = np.array([0, 1, 2, 3, 4, 200, 0, 0])
    od = np.array([0.1, 0.5, 0.3, 0.4, 0.2, 0.9, 3.0, 3.0])
    tumour = np.arange(8) != 6
    classes = np.array([0, 4, 2, 3, 1, 4, 4, CellClass.UNEVALUABLE], np.int8)
    found = regions_of_cells(cells(0.0, x, od, 0.25, tumour), classes, 100.0, BREAST, 100)
    assert (found.q.tolist(), found.r.tolist()) == ([0, 2], [0, 0])
    assert found.counts.tolist() == [[1, 1, 1, 1, 1], [0, 0, 0, 0, 1]]
    assert found.n.tolist() == [5, 1]
    assert found.od_mean == pytest.approx([0.3, 0.9])
    assert found.od_sd == pytest.approx([np.std([0.1, 0.2, 0.3, 0.4, 0.5], ddof=1), 0.0])
    assert found.od_quantiles[0] == pytest.approx([0.1, 0.3, 0.5])
    assert found.completeness_mean == pytest.approx([0.25, 0.25])
    assert found.score.tolist() == [UNSCORED, UNSCORED]


@pytest.mark.parametrize(("strong", "score"), [(10, 2), (11, 3), (0, 0)])
def test_regional_scores_follow_the_rules_strictly(strong: int, score: int) -> None:
    """Of 100 cells, 10 of class 3 are not more than 10 %: 2+ by its floor, as on a slide."""
    classes = np.where(np.arange(100) < strong, 4, 0).astype(np.int8)
    everywhere = cells(0.0, np.linspace(-40, 40, 100), 0.5)
    found = regions_of_cells(everywhere, classes, 100.0, BREAST, 100)
    assert found.score.tolist() == [score]
    assert regions_of_cells(everywhere, classes, 100.0, BREAST, 101).score.tolist() == [UNSCORED]


def test_clusters_of_biopsy_rules_are_sought_inside_each_hexagon() -> None:
    """Five strong cells that hang together are 3+; the same five apart are not."""
    x = np.linspace(-48, 48, 100)
    beside, apart = np.zeros(100, np.int8), np.zeros(100, np.int8)
    beside[40:45] = apart[::20] = CellClass.C3
    together = regions_of_cells(cells(0.0, x, 0.5), beside, 100.0, GASTRIC_BIOPSY, 100)
    spread = regions_of_cells(cells(0.0, 10 * x, 0.5), apart, 1000.0, GASTRIC_BIOPSY, 100)
    assert (together.score.tolist(), spread.score.tolist()) == ([3], [0])


def test_regions_depend_on_no_order_of_the_cells() -> None:
    random = np.random.default_rng(5)
    y, x = random.uniform(0, 2000, (2, 5000))
    od = random.gamma(2, 0.2, 5000)
    classes = random.integers(-1, 5, 5000).astype(np.int8)
    one = columns_of(regions_of_cells(cells(y, x, od, od % 1), classes, 250.0, BREAST, 20))
    for mixed in (np.arange(5000)[::-1], random.permutation(5000)):
        other = regions_of_cells(
            cells(y[mixed], x[mixed], od[mixed], od[mixed] % 1), classes[mixed], 250.0, BREAST, 20
        )
        for name, (values, *_) in columns_of(other).items():
            assert np.array_equal(values, one[name][0]), name


def test_no_cells_make_no_regions() -> None:
    found = regions_of_cells(cells(np.empty(0), np.empty(0), 0.0), np.empty(0, np.int8), 250.0, BREAST, 100)
    assert len(found) == 0
    assert to_dataset(found).sizes == {"region": 0}


def test_nuclei_are_gathered_by_hand() -> None:
    """A ratio of sums, and amplified only beyond 2.2: 11 over 5 is not."""
    x = np.array([0.0, 1.0, 2.0, 300.0, 0.0])
    her2, cep17 = np.array([11, 12, 2, 4, 30]), np.array([5, 5, 2, 2, 2])
    nuclei = MeasuredNuclei(
        nucleus_id=np.arange(5),
        y_um=np.zeros(5),
        x_um=x,
        flags=np.array([0, 0, 0, 0, 1], np.uint8),
        tumour=np.ones(5, np.bool_),
        her2_spots=her2,
        her2_signals=her2,
        cep17_spots=cep17,
        cep17_signals=cep17,
    )
    found = regions_of_nuclei(nuclei, 250.0, ISH, ISH_RULES)
    assert (found.n.tolist(), found.amplified.tolist()) == ([3, 1], [1, 0])
    assert (found.her2.tolist(), found.her2_squares.tolist()) == ([25, 4], [11**2 + 12**2 + 2**2, 4**2])
    assert found.ratio is not None
    assert found.ratio.tolist() == [25 / 12, 2.0]
    assert found.copies_mean.tolist() == [25 / 3, 4.0]
    assert found.amplified_fraction.tolist() == [1 / 3, 0.0]
    assert to_dataset(found)["ratio"].attrs["long_name"] == "HER2 over CEP17 signals."


def test_datasets_name_units_and_places() -> None:
    y, x = (v.ravel() * 40.0 for v in np.mgrid[0:20, 0:20])
    classes = np.full(400, CellClass.C1, np.int8)
    regions = regions_of_cells(cells(y, x, y / 1000), classes, 250.0, BREAST, 20)
    flat, dense = to_dataset(regions), to_map(regions)
    assert flat.sizes == {"region": len(regions)}
    assert flat["membrane_od_mean"].attrs["units"] == "OD"
    assert flat["y_um"].attrs["units"] == "micrometer"
    assert flat.attrs["size_um"] == 250.0
    assert int(dense["n"].sum()) == 400
    for i in range(len(regions)):
        at = {"r": int(regions.r[i]), "column": int(regions.q[i] + regions.r[i] // 2)}
        assert float(dense["membrane_od_mean"].sel(at)) == regions.od_mean[i]
        assert float(dense["x_um"].sel(at)) == regions.x_um[i]
        assert float(dense["y_um"].sel(r=at["r"])) == regions.y_um[i]
    empty = dense["n"].values == 0
    assert np.isnan(dense["membrane_od_mean"].values[empty]).all()
    assert (dense["score"].values[empty] == UNSCORED).all()
