"""Tumour cells: what lies just on either side of every number that chooses them, in this file's own figures.

Squares of the average are 8 µm wide; cells here lie in the middle of one: distances are whole squares.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.optimize import minimize

from her2core.errors import ConfigError
from her2core.kernels.stain import reference_stain
from her2core.scoring.tissue_features import MEASURED, TissueFeatures
from her2core.scoring.tumour import TumourChoice, TumourModel, choose_tumour, parse_model
from her2core.scoring.tumour_fit import DrawnCells, _examples, fit_model

BY_DENSITY = TumourModel("by density", 1, "nothing", ("density",), (0.0,), (1.0,), (1.0,), 0.0)
STAIN = reference_stain((240.0, 240.0, 240.0))
LOW, RANGE = STAIN.hematoxylin_low_od, STAIN.hematoxylin_high_od - STAIN.hematoxylin_low_od


def cells_at(squares: list[int], **columns: list[float]) -> dict[str, np.ndarray]:
    """Cells in the middle of these squares of one row, at 1 µm a pixel."""
    n = len(squares)
    out = {name: np.ones(n) for name in MEASURED}
    out |= {"y_px0": np.full(n, 4.0), "x_px0": 8.0 * np.array(squares) + 4.0}
    return out | {name: np.array(values, float) for name, values in columns.items()}


def likely(squares: list[int], chances: list[float]) -> dict[str, np.ndarray]:
    """Cells whose hematoxylin gives them these probabilities."""
    chance = np.array(chances)
    return cells_at(squares, nucleus_od=(LOW + RANGE * np.log(chance / (1 - chance))).tolist())


def choice(
    squares: list[int],
    chances: list[float],
    stained: list[bool] | None = None,
    completeness: float = 1.0,
) -> TumourChoice:
    n = len(squares)
    marks = np.array(stained if stained is not None else [False] * n)
    cells = likely(squares, chances)
    return choose_tumour(cells, marks, np.full(n, completeness), 1.0, STAIN, BY_DENSITY)


# --- features -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("um", "within", "beyond"), [(25, 3, 4), (50, 6, 7), (100, 12, 13)])
def test_a_feature_averages_over_the_squares_within_its_distance(um: int, within: int, beyond: int) -> None:
    for away, cells in ((within, 2), (beyond, 1)):
        found = TissueFeatures.of(cells_at([0, away]), 1.0, STAIN)
        assert found.table((f"crowd_{um}",))[:, 0] == pytest.approx(np.log(cells))
        assert found.sum_around(np.ones(2), float(um)).tolist() == [cells, cells]


def test_squares_are_eight_micrometres() -> None:
    """Places 10.5 and 32.1 µm lie in squares 1 and 4; 15.9 and 16.1 µm in neighbouring ones."""
    apart = cells_at([0, 0], x_px0=[10.5, 32.1])
    assert TissueFeatures.of(apart, 1.0, STAIN).sum_around(np.ones(2), 25.0).tolist() == [2, 2]
    for x, together in (([15.9, 16.1], 1), ([16.1, 23.9], 2)):
        found = TissueFeatures.of(cells_at([0, 0], x_px0=x), 1.0, STAIN)
        assert found.sum_around(np.ones(2), 1.0).tolist() == [together, together]


def test_only_these_distances_have_features() -> None:
    assert [um for um in range(200) if TissueFeatures.knows(f"density_{um}")] == [25, 50, 100]
    assert TissueFeatures.knows("own_spread_texture_50")
    assert TissueFeatures.knows("crowd_100")
    assert not TissueFeatures.knows("spread_crowd_50")
    assert not TissueFeatures.knows("crowd")


def test_averages_are_made_of_steps_of_a_4096th() -> None:
    found = TissueFeatures.of(cells_at([0]), 1.0, STAIN)
    assert found.mean_around(np.array([0.6 / 4096]), 25.0)[0] == 1 / 4096
    assert found.mean_around(np.array([0.4 / 4096]), 25.0)[0] == 0


def test_mean_and_spread_are_those_of_the_cells_around() -> None:
    """Hematoxylin of 1, 2 and 6 ranges; the fourth cell is too far away."""
    od = (LOW + RANGE * np.array([1.0, 2.0, 6.0, 7.0])).tolist()
    found = TissueFeatures.of(cells_at([0, 1, 2, 9], nucleus_od=od), 1.0, STAIN)
    table = found.table(("density", "density_25", "spread_density_25"))
    np.testing.assert_allclose(table[:, 0], [1, 2, 6, 7])
    np.testing.assert_allclose(table[:, 1], [3, 3, 3, 7], rtol=1e-3)
    np.testing.assert_allclose(table[:, 2], [np.std([1, 2, 6])] * 3 + [0], atol=1e-2)


def test_an_odd_number_counts_as_eight() -> None:
    odd = cells_at([0, 9], nucleus_od=[LOW + 7.9 * RANGE, LOW + 9.0 * RANGE])
    assert TissueFeatures.of(odd, 1.0, STAIN).table(("density",))[:, 0] == pytest.approx([7.9, 8.0])


def test_a_slides_own_range_goes_from_the_3rd_to_the_97th_percentile() -> None:
    od = (LOW + RANGE * np.linspace(0, 2, 101)).tolist()
    found = TissueFeatures.of(cells_at([0] * 101, nucleus_od=od), 1.0, STAIN).table(("own_density",))[:, 0]
    assert found[[3, 50, 97]] == pytest.approx([-0.5, 0.0, 0.5])


# --- choice -------------------------------------------------------------------------------------------


def test_a_cell_is_likely_from_one_half_and_probabilities_have_4096_steps() -> None:
    found = choice([0, 99, 198, 297], [0.498, 0.502, 0.6, 0.7123])
    assert found.chosen.tolist() == [False, True, True, True]
    assert np.all(found.probability * 4096 == np.rint(found.probability * 4096))
    assert found.probability == pytest.approx([0.498, 0.502, 0.6, 0.7123], abs=1 / 8192)


@pytest.mark.parametrize(("away", "shared"), [(3, True), (4, False)])
def test_half_of_a_probability_is_the_mean_within_25_um(away: int, shared: bool) -> None:
    """A mean of 0.4 beside 0.2 and 0.6 draws both a half of the way."""
    assert choice([0, away], [0.2, 0.6]).probability == pytest.approx(
        [0.3, 0.5] if shared else [0.2, 0.6], abs=1e-3
    )


@pytest.mark.parametrize(
    ("stained", "others", "completeness", "nest"),
    [
        (7, 3, 1.0, True),
        (9, 4, 1.0, False),  # 0.69
        (4, 0, 1.0, True),
        (3, 0, 1.0, False),
        (7, 3, 0.5, True),
        (7, 3, 0.49, False),
    ],
)
def test_a_nest_has_seven_tenths_stained_cells_four_of_them_and_half_a_contour(
    stained: int, others: int, completeness: float, nest: bool
) -> None:
    n = stained + others
    marks = [True] * stained + [False] * others
    assert choice([0] * n, [0.1] * n, marks, completeness).nest.tolist() == [nest] * n


@pytest.mark.parametrize(("away", "nest"), [(3, True), (4, False)])
def test_a_nest_reaches_25_um(away: int, nest: bool) -> None:
    """Two stained cells here and two there are four within reach of each, or not."""
    assert choice([0, 0, away, away], [0.1] * 4, [True] * 4).nest.all() == nest


@pytest.mark.parametrize(
    ("compact", "others", "chance", "found"),
    [
        (90, 910, 0.8, True),
        (89, 911, 0.8, False),
        (121, 5879, 0.8, True),  # 2.02 %
        (119, 5881, 0.8, False),
        (100, 900, 0.76, True),
        (100, 900, 0.74, False),
    ],
)
def test_tumour_is_found_from_90_cells_and_a_fiftieth_where_it_is_compact(
    compact: int, others: int, chance: float, found: bool
) -> None:
    squares, chances = [0] * compact + [99] * others, [chance] * compact + [0.2] * others
    assert choice(squares, chances).found == found


@pytest.mark.parametrize(("away", "found"), [(6, True), (7, False)])
def test_tumour_is_compact_over_50_um(away: int, found: bool) -> None:
    """100 cells at 0.74 are compact with a hundred at 0.95 in reach; those are too few by themselves."""
    chances = [0.74] * 60 + [0.95] * 60
    assert choice([0] * 60 + [away] * 60, chances).found == found


@pytest.mark.parametrize(("nest", "found"), [(10, True), (9, False)])
def test_tumour_is_found_from_a_tenth_in_nests(nest: int, found: bool) -> None:
    squares = [0] * nest + [99] * (100 - nest)
    assert choice(squares, [0.1] * 100, [True] * nest + [False] * (100 - nest)).found == found


def as_text(**changed: object) -> str:
    return json.dumps(json.loads(BY_DENSITY.text) | changed)


def test_a_models_words_and_numbers_have_limits() -> None:
    assert parse_model(as_text(name="a" * 256), "here").name == "a" * 256
    for wrong in ({"name": "a" * 257}, {"version": 0}, {"spread": [0.0]}, {"weights": [1.0, 2.0]}):
        with pytest.raises(ConfigError):
            parse_model(as_text(**wrong), "here")
    with pytest.raises(ConfigError) as raised:
        parse_model(as_text(features=["x" * 900]), "here")
    assert 400 < len(str(raised.value)) < 460  # what is wrong is cut, not what is named


# --- fit ----------------------------------------------------------------------------------------------


def drawn(tumour: int, other: int, seed: int = 1) -> DrawnCells:
    features = np.random.default_rng(seed).normal(size=(tumour + other, 2))
    features[:tumour, 0] += 1.0
    return DrawnCells("s", features, np.arange(tumour + other) < tumour)


def test_every_slide_and_kind_weighs_the_same_from_150_cells() -> None:
    for count, used, weight in ((1000, 400, 200.0), (150, 150, 200.0), (75, 75, 100.0), (20, 20, 80 / 3)):
        (_, _, other), (_, marks, tumour) = _examples(drawn(count, 300))
        assert (len(tumour), marks.tolist(), other.sum()) == (used, [1.0] * used, pytest.approx(200.0))
        assert tumour.sum() == pytest.approx(weight)
    assert len(_examples(drawn(19, 300))) == 1


def test_weights_are_those_of_the_least_penalised_loss() -> None:
    """Against a general minimiser; the penalty of a weight is 3 examples, and the bias is free."""
    cells = drawn(150, 150)
    model = fit_model([cells], ("density", "contrast"), "m", 1, "here")
    x = (cells.features - cells.features.mean(axis=0)) / cells.features.std(axis=0)
    sign, each = np.where(cells.tumour, 1.0, -1.0), 200 / 150

    def loss(b: np.ndarray) -> float:
        return float(each * np.logaddexp(0, -sign * (b[0] + x @ b[1:])).sum() + 1.5 * (b[1:] ** 2).sum())

    least = minimize(loss, np.zeros(3), tol=1e-10).x
    assert [model.bias, *model.weights] == pytest.approx(least.tolist(), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize(
    ("tumour", "other", "missing"), [(19, 300, "of tumour"), (300, 19, "of other tissue")]
)
def test_a_kind_that_no_slide_has_20_cells_of_is_named(tumour: int, other: int, missing: str) -> None:
    with pytest.raises(ValueError, match=f"20 or more cells {missing}"):
        fit_model([drawn(tumour, other)], ("density", "contrast"), "m", 1, "here")
