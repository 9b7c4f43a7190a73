"""Tumour cells are chosen from the table: by a model that sees no strength of DAB, and by stained nests."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from her2core.cases.specimens import SlideOutcome, score_case
from her2core.errors import ConfigError, Reason
from her2core.guidelines.rules_ihc import load_rules
from her2core.kernels.stain import reference_stain
from her2core.params import ScoreParams
from her2core.records import Assay, Quality, SlideProfile, SlideRow, SlideState
from her2core.scoring.ihc import MeasuredCells, SlideScore, score_slide
from her2core.scoring.tissue_features import AROUND_UM as REACHES_UM
from her2core.scoring.tissue_features import SQUARE_UM, TissueFeatures
from her2core.scoring.tumour import (
    AROUND_UM,
    COLUMNS,
    FROM_CELLS,
    TumourChoice,
    choose_tumour,
    load_model,
    parse_model,
    with_tumour,
)

MPP = 0.25
STAIN = reference_stain((240.0, 240.0, 240.0))
GOOD = Quality("pass", (), 0.1, 1.0, 0.0, 0.0, 0.0, 0.0, 0.05)
PARAMS = ScoreParams()
RULES = load_rules(PARAMS.rules)
MODEL = load_model(PARAMS.tumour_model)

Cells = dict[str, NDArray[Any]]


def tissue(seed: int = 0, part: float = 0.3, side_um: float = 500.0) -> tuple[Cells, NDArray[np.bool_]]:
    """Rows as of a nest (large pale nuclei in coloured cytoplasm) beside stroma; which are the nest's."""
    rng = np.random.default_rng(seed)
    n = int(side_um**2 / 110)
    x, y = rng.uniform(0, side_um / MPP, (2, n))
    tumour = x < part * side_um / MPP
    keep = tumour | (rng.random(n) < 0.5)  # stroma is less crowded

    def numbers(of_tumour: float, of_stroma: float, spread: float) -> NDArray[np.float32]:
        return np.asarray(rng.normal(np.where(tumour, of_tumour, of_stroma), spread), np.float32)

    cells: Cells = {
        "y_px0": y,
        "x_px0": x,
        "nucleus_area_um2": np.maximum(numbers(40, 25, 8), 8),
        "nucleus_elongation": np.maximum(numbers(1.3, 1.8, 0.3), 1),
        "nucleus_od": numbers(0.25, 0.30, 0.04),
        "nucleus_contrast": numbers(0.10, 0.26, 0.03),
        "cell_area_um2": np.maximum(numbers(110, 55, 15), 20),
        "evaluable_fraction": np.clip(numbers(0.98, 0.8, 0.1), 0, 1),
        "nucleus_texture_od": np.maximum(numbers(0.07, 0.07, 0.02), 0),
        "clear_rim_fraction": np.clip(numbers(0.05, 0.5, 0.15), 0, 1),
        "clear_around_fraction": np.clip(numbers(0.1, 0.4, 0.15), 0, 1),
        "fibre_alignment": numbers(0.0, 0.15, 0.1),
        "bare_fraction": np.clip(numbers(0.1, 0.5, 0.15), 0, 1),
    }
    order = np.lexsort((x[keep], y[keep]))
    return {name: values[keep][order] for name, values in cells.items()}, tumour[keep][order]


def choice_of(
    cells: Mapping[str, NDArray[Any]],
    stained: NDArray[np.bool_] | None = None,
    completeness: NDArray[np.float32] | None = None,
) -> TumourChoice:
    """By default the whole contour of a stained cell is stained."""
    marks = np.zeros(len(cells["y_px0"]), np.bool_) if stained is None else stained
    whole = marks.astype(np.float32) if completeness is None else completeness
    return choose_tumour(cells, marks, whole, MPP, STAIN, MODEL)


def test_a_nest_is_told_from_stroma_without_any_stain() -> None:
    cells, tumour = tissue()
    away = np.abs(cells["x_px0"] * MPP - 150) > 25
    chosen = choice_of(cells).chosen
    assert chosen[tumour & away].mean() > 0.9
    assert chosen[~tumour & away].mean() < 0.15


def test_a_stained_nest_is_tumour_whatever_its_nuclei_look_like() -> None:
    cells, tumour = tissue()
    assert not choice_of(cells).nest.any()
    nest = choice_of(cells, ~tumour).nest  # stroma's looks, and all of it stained
    away = np.abs(cells["x_px0"] * MPP - 150) > 35
    assert nest[~tumour & away].mean() > 0.95
    assert not nest[tumour & away].any()


def test_a_cell_that_shows_the_membrane_of_one_neighbour_is_not_of_the_nest() -> None:
    cells, _ = tissue()
    everyone = np.ones(len(cells["y_px0"]), np.bool_)
    septum = np.arange(len(everyone)) % 10 == 0
    nest = choice_of(cells, everyone, np.where(septum, 0.4, 0.9).astype(np.float32)).nest
    assert not nest[septum].any()
    assert nest[~septum].mean() > 0.95


def test_half_of_a_probability_is_that_of_the_cells_around() -> None:
    cells, _ = tissue(7)
    alone = MODEL.probability(TissueFeatures.of(cells, MPP, STAIN))
    place = np.stack([cells["y_px0"], cells["x_px0"]], axis=1) * MPP
    square = np.floor(place / SQUARE_UM)
    expected = [
        (p + alone[np.hypot(*(square - own).T) * SQUARE_UM <= AROUND_UM].mean()) / 2
        for p, own in zip(alone, square, strict=True)
    ]
    assert choice_of(cells).probability == pytest.approx(expected, abs=1e-3)


def test_single_stained_cells_are_no_nest() -> None:
    cells, _ = tissue()
    nest = choice_of(cells, np.random.default_rng(1).random(len(cells["y_px0"])) < 0.2).nest
    assert nest.mean() < 0.01


def test_a_place_among_the_slides_own_cells_runs_from_end_to_end_of_their_range() -> None:
    cells, _ = tissue(6)
    features = TissueFeatures.of(cells, MPP, STAIN)
    own, place = features.table(("clear_rim", "own_clear_rim")).T
    low, high = np.quantile(own, (0.03, 0.97))
    assert place == pytest.approx((own - (low + high) / 2) / (high - low))


def test_what_is_stained_elsewhere_does_not_move_the_range_of_a_slides_own_cells() -> None:
    cells, _ = tissue(6)
    stained = cells["x_px0"] * MPP < 100
    assert 0.1 < stained.mean() < 0.4
    dark = cells | {"bare_fraction": np.where(stained, 0.0, cells["bare_fraction"])}
    plain, beside = (TissueFeatures.of(given, MPP, STAIN, stained) for given in (cells, dark))
    names = ("own_bare", "own_contrast_25")
    assert np.array_equal(plain.table(names)[~stained], beside.table(names)[~stained])
    low, high = np.quantile(cells["bare_fraction"][~stained], (0.03, 0.97))
    assert plain.table(("own_bare",))[:, 0] == pytest.approx(
        (cells["bare_fraction"] - (low + high) / 2) / (high - low)
    )


def test_where_most_cells_are_stained_all_of_them_set_the_range() -> None:
    cells, _ = tissue(6)
    stained = cells["x_px0"] * MPP < 300
    assert stained.mean() > 0.6
    plain, given = (TissueFeatures.of(cells, MPP, STAIN, which) for which in (None, stained))
    assert np.array_equal(plain.table(("own_bare",)), given.table(("own_bare",)))


def test_the_range_passes_from_all_cells_to_the_unstained_ones_without_a_step() -> None:
    cells, _ = tissue(6)
    order = np.argsort(cells["x_px0"])
    first = np.isin(np.arange(len(order)), order[: len(order) // 3])
    cells = cells | {"bare_fraction": np.where(first, 0.0, 0.5 + cells["bare_fraction"] / 2)}

    def range_of(n_stained: int) -> float:
        stained = np.isin(np.arange(len(order)), order[:n_stained])
        table = TissueFeatures.of(cells, MPP, STAIN, stained).table(("bare", "own_bare"))
        (low, low_at), (high, high_at) = table[[table[:, 0].argmin(), table[:, 0].argmax()]]
        return float((high - low) / (high_at - low_at))

    widths = np.array([range_of(n) for n in range(int(0.38 * len(order)), int(0.62 * len(order)))])
    assert abs(widths[-1] - widths[0]) > 0.1
    assert np.abs(np.diff(widths)).max() < 0.1 * abs(widths[-1] - widths[0])


def test_the_model_reads_no_dab() -> None:
    """Nor could it: its features are made from these columns alone."""
    assert not [
        name for name in FROM_CELLS if "membrane" in name or "cytoplasm" in name or "complete" in name
    ]


def test_the_order_of_cells_and_the_corner_of_the_slide_make_no_difference() -> None:
    cells, tumour = tissue(2)
    stained = np.random.default_rng(3).random(len(tumour)) < 0.5
    straight = choice_of(cells, stained)
    mixed = np.random.default_rng(4).permutation(len(tumour))
    other = choice_of({name: values[mixed] for name, values in cells.items()}, stained[mixed])
    assert np.array_equal(other.probability, straight.probability[mixed])
    assert np.array_equal(other.nest, straight.nest[mixed])
    whole_squares = 640 * SQUARE_UM / MPP
    moved = cells | {axis: cells[axis] + whole_squares for axis in ("y_px0", "x_px0")}
    assert np.array_equal(choice_of(moved, stained).probability, straight.probability)


def test_means_around_a_cell_are_those_of_the_cells_in_the_squares_around() -> None:
    cells, _ = tissue(5, side_um=220.0)
    features = TissueFeatures.of(cells, MPP, STAIN)
    square = np.floor(np.stack([cells["y_px0"], cells["x_px0"]], axis=1) * MPP / SQUARE_UM)
    apart = np.hypot(*np.moveaxis(square[:, None] - square[None], 2, 0)) * SQUARE_UM
    for um in REACHES_UM:
        near = apart <= um
        names = (f"contrast_{um:.0f}", f"crowd_{um:.0f}", f"spread_contrast_{um:.0f}")
        mean, crowd, spread = features.table(names).T
        own = features.own["contrast"]
        expected = [own[row].mean() for row in near]
        assert mean == pytest.approx(expected, abs=2e-4)
        assert np.exp(crowd) == pytest.approx(near.sum(axis=1))
        assert spread == pytest.approx([own[row].std() for row in near], abs=0.01)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_cells_or_none_are_told_too(n: int) -> None:
    cells, _ = tissue()
    few = choice_of({name: values[:n] for name, values in cells.items()})
    assert few.probability.shape == few.nest.shape == (n,)
    assert np.isfinite(few.probability).all()


def test_what_was_told_is_appended_band_by_band() -> None:
    cells, _ = tissue()
    result = choice_of(cells)
    table = pa.table(cells)
    cuts = [0, 0, 100, 101, len(table)]
    bands = [table.slice(a, b - a) for a, b in pairwise(cuts)]
    made = pa.concat_tables(with_tumour(bands, result))
    for name, values in zip(COLUMNS, (result.probability, result.nest, result.chosen), strict=True):
        assert np.array_equal(made[name].to_numpy(), values)


def test_stroma_alone_holds_no_tumour() -> None:
    cells, _ = tissue()
    assert choice_of(cells).found
    only_stroma, _ = tissue(part=0.0)
    rng = np.random.default_rng(0)
    assert not choice_of(only_stroma, rng.random(len(only_stroma["y_px0"])) < 0.05).found
    assert choice_of(only_stroma, np.ones(len(only_stroma["y_px0"]), np.bool_)).found  # all of it stained


@cache
def _model_text() -> str:
    return json.dumps(dataclasses.asdict(MODEL))


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("features", ["colour_25"], "one length"),
        ("features", [*MODEL.features[1:], "colour_25"], "colour_25"),
        ("features", [*MODEL.features[1:], "contrast_33"], "contrast_33"),
        ("spread", [0.0] * len(MODEL.features), "above 0"),
        ("name", "other", "other"),
        ("name", "a\nb", "printable"),
        ("version", 0, "version of 1 or more"),
        ("bias", float("nan"), "finite"),
        ("weights", ["1"] * len(MODEL.weights), "must be real number"),
    ],
)
def test_a_model_that_cannot_be_used_is_refused(name: str, value: object, says: str) -> None:
    assert parse_model(_model_text(), "mine", expected=MODEL.name) == MODEL
    with pytest.raises(ConfigError, match=says):
        parse_model(json.dumps(json.loads(_model_text()) | {name: value}), "mine", expected=MODEL.name)


def test_an_unknown_model_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match="expected one of cores"):
        load_model("crowds")


# what a slide's row says of it


def scored(
    classes: str, tumour: str, nests: str | None = None, *, found: bool = True, **more: Any
) -> SlideScore:
    """Score of cells by class (0, 1, 3), of which those marked x are tumour or in nests."""
    kinds = {"0": (0.0, 0.0), "1": (0.5, 0.25), "3": (1.0, 0.9)}
    completeness, od = np.array([kinds[c] for c in classes], np.float32).T
    place = np.arange(len(classes), dtype=np.float64)
    everyone = np.ones(len(classes), np.bool_)
    measured = MeasuredCells(
        place, place, completeness, od, od, od / 10, everyone, marks(tumour), np.ones_like(od), od
    )
    quality = dataclasses.replace(GOOD, tissue_area_mm2=more.pop("tissue_mm2", 0.01))
    chosen = None if nests is None else marks(nests)
    return score_slide(measured, PARAMS, RULES, quality, MPP, nests=chosen, tumour_found=found, **more)


def marks(text: str) -> NDArray[np.bool_]:
    return np.array([c == "x" for c in text])


def test_a_choice_of_cells_that_decides_the_score_is_said() -> None:
    classes, tumour = "3" * 120 + "0" * 2000, "x" * 1000 + "." * 1120
    result = scored(classes, tumour, "x" * 120 + "." * 2000).verdict
    assert result.score == "3+"  # 12 % of those chosen, 6 % of all
    assert result.borderline
    assert set(result.possible_scores) == {"2+", "3+"}
    assert Reason.TUMOUR_CHOICE in result.reasons
    drawn = scored(classes, tumour).verdict  # a person drew what counts
    assert drawn.score == "3+"
    assert Reason.TUMOUR_CHOICE not in drawn.reasons


def test_a_choice_of_cells_that_decides_nothing_is_not() -> None:
    result = scored("3" * 900 + "0" * 300, "x" * 1000 + "." * 200, "x" * 900 + "." * 300).verdict
    assert (result.score, result.possible_scores) == ("3+", ("3+",))
    assert Reason.TUMOUR_CHOICE not in result.reasons


@pytest.mark.parametrize(
    ("tumour", "other", "her2_class", "possible"),
    [
        (
            "1" * 40 + "0" * 960,
            "1" * 40 + "0" * 960,
            "0_unresolved",
            ("0",),
        ),  # granules, in tumour as elsewhere
        ("1" * 40 + "0" * 960, "1" * 10 + "0" * 990, "ultralow", ("0",)),
        ("1" * 40 + "0" * 960, "0" * 10, "ultralow", ("0",)),
        ("3" + "0" * 999, "1" * 40 + "0" * 960, "ultralow", ("0",)),  # nothing there is of class 3
        ("3" + "0" * 999, "3" * 10 + "0" * 990, "0_unresolved", ("0",)),
        ("0" * 1000, "1" * 40 + "0" * 960, "null", ("0",)),
        ("1" * 200 + "0" * 800, "1" * 150 + "0" * 850, "low_1plus", ("0", "1+")),
        ("1" * 200 + "0" * 800, "1" * 10 + "0" * 990, "low_1plus", ("1+",)),
    ],
)
def test_other_tissue_is_the_slides_own_negative_control(
    tumour: str, other: str, her2_class: str, possible: tuple[str, ...]
) -> None:
    cells = "x" * len(tumour) + "." * len(other)
    verdict = scored(tumour + other, cells, "." * len(cells)).verdict
    assert (verdict.her2_class, verdict.possible_scores) == (her2_class, possible)
    assert (Reason.FALSE_STAIN in verdict.reasons) == (her2_class == "0_unresolved" or len(possible) > 1)
    assert (
        Reason.FALSE_STAIN not in scored(tumour + other, cells).verdict.reasons
    )  # a person drew what counts


def test_a_few_cells_in_nests_are_no_choice() -> None:
    result = scored("3" * 99 + "0" * 4000, "x" * 4099, "x" * 99 + "." * 4000).verdict
    assert Reason.TUMOUR_CHOICE not in result.reasons


def test_tissue_without_tumour_has_no_score() -> None:
    result = scored("0" * 3303, "x" * 3303, "." * 3303, found=False)
    assert result.verdict.score is None
    assert Reason.NO_TUMOUR in result.verdict.reasons
    assert not result.readable
    assert scored("0" * 3303, "x" * 3303).verdict.score == "0"  # drawn


@pytest.mark.parametrize(("mm2", "sparse"), [(1.3, True), (0.5, False)])
def test_tissue_with_hardly_a_nucleus_has_no_score(mm2: float, sparse: bool) -> None:
    result = scored("0" * 167, "x" * 167, tissue_mm2=mm2)
    assert (Reason.NUCLEI_SPARSE in result.verdict.reasons) is sparse
    assert (result.verdict.score is None) is sparse


@pytest.mark.parametrize(("high", "pale"), [(0.09, True), (0.15, False)])
def test_a_pale_counterstain_has_no_score(high: float, pale: bool) -> None:
    stain = dataclasses.replace(STAIN, hematoxylin_high_od=high)
    result = scored("0" * 600, "x" * 600, stain=stain)
    assert (Reason.COUNTERSTAIN_WEAK in result.verdict.reasons) is pale
    assert (result.verdict.score is None) is pale


def outcome(slide_id: str, score: SlideScore) -> SlideOutcome:
    profile = SlideProfile(STAIN, GOOD, 4, "tissue")
    row = SlideRow(slide_id=slide_id, case_id="c", uri=f"{slide_id}.svs", assay=Assay.IHC)
    return SlideOutcome(row, SlideState.SCORED, profile=profile, score=score)


def test_a_specimen_weighs_the_choices_of_its_slides_together() -> None:
    doubtful = scored("3" * 120 + "0" * 2000, "x" * 1000 + "." * 1120, "x" * 120 + "." * 2000)
    drawn = scored("3" * 900 + "0" * 100, "x" * 1000)
    alone = score_case([outcome("a", doubtful)], PARAMS, RULES).verdict
    assert Reason.TUMOUR_CHOICE in alone.reasons
    assert set(alone.possible_scores) == {"2+", "3+"}
    both = score_case([outcome("a", doubtful), outcome("b", drawn)], PARAMS, RULES).verdict
    assert both.possible_scores == ("3+",)  # 32 % of all there is
    assert Reason.TUMOUR_CHOICE not in both.reasons


def test_tissue_without_tumour_is_not_pooled() -> None:
    empty = scored("0" * 3000, "x" * 3000, "." * 3000, found=False)
    strong = scored("3" * 300, "x" * 300)
    case = score_case([outcome("a", empty), outcome("b", strong)], PARAMS, RULES)
    assert case.pooled == ("b",)
    assert (case.verdict.score, case.counts.n) == ("3+", 300)
    assert Reason.NO_TUMOUR in case.reasons
