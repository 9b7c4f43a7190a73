"""Cells to classes to slide scores to cases: table-driven boundaries and hand-worked numbers."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from her2core.cases.specimens import SlideOutcome, score_case, score_cases
from her2core.errors import ConfigError, Reason
from her2core.guidelines.rules_ihc import CellClass, load_rules
from her2core.lake.rows import case_row
from her2core.lake.schema import CASES
from her2core.params import IHCParams, ScoreParams
from her2core.points.components import component_labels, largest_component
from her2core.records import Assay, Quality, SlideProfile, SlideRow, SlideState, StainProfile
from her2core.scoring.ihc import (
    MeasuredCells,
    SlideScore,
    classify,
    completeness_column,
    score_columns,
    score_slide,
)

PARAMS = ScoreParams(calibration="batch 1")
BREAST, GASTRIC = load_rules("breast_asco_cap_2018"), load_rules("gastric_resection")
LADDER = IHCParams().ladder_od
GOOD = Quality("pass", (), 0.001, 1.0, 0.0, 0.0, 0.0, 0.0, 0.02)
BAD = dataclasses.replace(GOOD, verdict="fail", reasons=("blur",))
STAIN = StainProfile(
    i0=(250.0, 250.0, 250.0),
    hematoxylin=(0.65, 0.70, 0.29),
    dab=(0.27, 0.57, 0.78),
    source="estimated",
    fallback=None,
    hematoxylin_angle_deg=0.0,
    dab_angle_deg=0.0,
    hematoxylin_low_od=0.1,
    hematoxylin_high_od=0.5,
)

KINDS = {  # (completeness, intensity OD) in the middle of each breast class
    "0": (0.0, 0.0),
    "1": (0.5, 0.15),
    "1 complete": (0.95, 0.15),
    "2": (0.95, 0.30),
    "2u": (0.5, 0.50),
    "3": (0.95, 0.80),
}


def cells(*kinds: str, spacing_um: float = 10.0, **columns: Any) -> MeasuredCells:
    """One evaluable tumour cell a kind, in a row; `columns` overrides."""
    n = len(kinds)
    measured = np.array([KINDS[kind] for kind in kinds], np.float32).reshape(n, 2)
    made = {
        "y_um": np.zeros(n),
        "x_um": spacing_um * np.arange(n, dtype=np.float64),
        "completeness": measured[:, 0],
        "intensity_od": measured[:, 1],
        "membrane_od": measured[:, 1],
        "cytoplasm_od": np.full(n, 0.02, np.float32),
        "evaluable": np.ones(n, np.bool_),
        "tumour": np.ones(n, np.bool_),
        "brownness": np.ones(n, np.float32),
        "dark_od": measured[:, 1],
    }
    return MeasuredCells(**(made | {k: np.asarray(v, made[k].dtype) for k, v in columns.items()}))


def many(**kinds: int) -> tuple[str, ...]:
    return tuple(k.removeprefix("c").replace("1x", "1 complete") for k, n in kinds.items() for _ in range(n))


def score(
    measured: MeasuredCells, params: ScoreParams = PARAMS, quality: Quality = GOOD, mpp: float = 0.25
) -> SlideScore:
    return score_slide(measured, params, BREAST, quality, mpp)


# cells to classes


@pytest.mark.parametrize(
    ("completeness", "od", "breast", "gastric"),
    [
        (0.0, 0.0, "0", "0"),
        (0.09, 0.9, "0", "0"),
        (0.10, 0.19, "1", "1"),
        (0.10, 0.20, "1", "1"),
        (0.10, 0.39, "1", "1"),
        (0.10, 0.40, "2u", "2u"),
        (0.10, 0.60, "2u", "2u"),
        (0.29, 0.59, "2u", "2u"),
        (0.29, 0.30, "1", "1"),
        (0.30, 0.19, "1", "1"),
        (0.30, 0.20, "1", "2u"),
        (0.30, 0.40, "2u", "2u"),
        (0.30, 0.59, "2u", "2u"),
        (0.30, 0.60, "2u", "3"),
        (0.89, 0.39, "1", "2u"),
        (0.89, 0.60, "2u", "3"),
        (0.90, 0.19, "1", "1"),
        (0.90, 0.20, "2", "2"),
        (0.90, 0.59, "2", "2"),
        (0.90, 0.60, "3", "3"),
        (1.00, 2.00, "3", "3"),
        (0.0, np.nan, "0", "0"),
    ],
)
def test_a_cut_point_belongs_to_the_class_above_it(
    completeness: float, od: float, breast: str, gastric: str
) -> None:
    one = cells("0", completeness=[completeness], intensity_od=[od])
    assert CellClass(classify(one, PARAMS, BREAST)[0]).label == breast
    assert CellClass(classify(one, PARAMS, GASTRIC)[0]).label == gastric


@pytest.mark.parametrize(
    ("od", "cytoplasm", "expected"),
    [
        (0.15, 0.06, "1"),
        (0.15, 0.08, "0"),  # grains of haze that a contour runs through
        (0.35, 0.28, "0"),
        (0.35, 0.26, "2"),
        (0.50, 0.45, "2"),  # too dark for haze
        (0.15, np.nan, "1"),
    ],
)
def test_stain_of_the_membrane_exceeds_that_of_the_cytoplasm(
    od: float, cytoplasm: float, expected: str
) -> None:
    one = cells("0", completeness=[0.95], intensity_od=[od], cytoplasm_od=[cytoplasm])
    assert CellClass(classify(one, PARAMS, BREAST)[0]).label == expected


@pytest.mark.parametrize(
    ("od", "brownness", "expected"),
    [
        (0.15, 0.4, "1"),
        (0.15, 0.39, "0"),  # an erythrocyte beside the cell
        (0.35, -0.5, "0"),
        (0.40, 0.1, "2"),  # too dark to be one, and colour is off at strong edges
    ],
)
def test_a_faint_membrane_is_brown(od: float, brownness: float, expected: str) -> None:
    one = cells("0", completeness=[0.95], intensity_od=[od], brownness=[brownness])
    assert CellClass(classify(one, PARAMS, BREAST)[0]).label == expected


def test_an_unevaluable_contour_has_no_class_and_is_not_counted() -> None:
    measured = cells("3", "3", "0", evaluable=[True, False, True])
    assert classify(measured, PARAMS, BREAST).tolist() == [CellClass.C3, CellClass.UNEVALUABLE, CellClass.C0]
    result = score(measured)
    assert (result.n_cells, result.n_tumour, result.n_unevaluable, result.counts.n) == (3, 3, 1, 2)


def table(n: int, **columns: Any) -> pa.Table:
    made: dict[str, Any] = {f"completeness_{i:02d}": np.full(n, i / 10, np.float32) for i in range(8)}
    made |= {name: np.zeros(n, np.float32) for name in score_columns(PARAMS, LADDER) if name not in made}
    made |= {"evaluable_fraction": np.ones(n, np.float32), "is_tumour": np.ones(n, np.bool_)}
    return pa.table(made | columns)


def test_columns_of_a_table_find_their_meaning() -> None:
    evaluable = np.array([1.0, 0.5, 0.49], np.float32)
    measured = MeasuredCells.of(table(3, evaluable_fraction=evaluable), PARAMS, LADDER)
    assert measured.completeness.tolist() == pytest.approx([0.1] * 3)  # the ladder's cut-point 1 is 0.10
    assert measured.evaluable.tolist() == [True, True, False]
    other = MeasuredCells.of(table(3), dataclasses.replace(PARAMS, detect_od=0.15), LADDER)
    assert other.completeness.tolist() == pytest.approx([0.2] * 3)


def test_cells_as_they_would_be_on_a_brighter_background() -> None:
    """0.05 OD more is a cut-point of 0.05 where it was 0.10; what has no OD still has none."""
    od = np.array([0.18, np.nan], np.float32)
    lacking = MeasuredCells.of(table(2, membrane_od_median=od), PARAMS, LADDER, 0.05)
    assert lacking.completeness.tolist() == pytest.approx([0.0] * 2)  # the ladder's cut-point 0 is 0.05
    np.testing.assert_allclose(lacking.intensity_od, [0.23, np.nan], atol=1e-6)
    between = MeasuredCells.of(table(2), PARAMS, LADDER, -0.025)
    assert between.completeness.tolist() == pytest.approx([0.15] * 2)
    at_zero = MeasuredCells.of(table(2), PARAMS, LADDER, 0.12)
    assert at_zero.completeness.tolist() == pytest.approx([1.0] * 2)  # nothing is paler than no stain


def test_a_detection_cut_point_that_was_not_measured_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"0\.12, not a cut-point .*0\.15"):
        completeness_column(dataclasses.replace(PARAMS, detect_od=0.12), LADDER)


@pytest.mark.parametrize(
    "wrong",
    [
        {"weak_od": 0.5},
        {"detect_fraction": 0.0},
        {"lateral_fraction": 0.95},
        {"complete_fraction": 1.1},
        {"grid_od": ()},
        {"min_cells": 0},
        {"full_cells": 10},
        {"false_stain_ppm": -1},
        {"membrane_contrast_od": -0.1},
        {"membrane_brownness": 1.5},
    ],
)
def test_parameters_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        dataclasses.replace(PARAMS, **wrong)


# slides


def test_counts_h_score_and_p_of_t_by_hand() -> None:
    measured = cells(*many(c0=40, c1=20, c2=20, c2u=10, c3=10))
    result = score(measured)
    c = result.counts
    assert (c.n0, c.n1, c.n2, c.n2u, c.n3, c.n1_complete) == (40, 20, 20, 10, 10, 0)
    assert (c.n, c.stained, c.at_least_2) == (100, 60, 40)
    e = result.expression
    # membrane OD: 40 x 0, 20 x 0.15, 20 x 0.30, 10 x 0.50, 10 x 0.80
    assert (e.weak, e.moderate, e.strong) == (20, 10, 10)
    assert e.h_score == 1 * 20 + 2 * 10 + 3 * 10
    assert e.membrane_od_mean == pytest.approx((20 * 0.15 + 20 * 0.30 + 10 * 0.50 + 10 * 0.80) / 100)
    assert e.completeness_mean == pytest.approx((20 * 0.5 + 20 * 0.95 + 10 * 0.5 + 10 * 0.95) / 100)
    assert e.cytoplasm_od_mean == pytest.approx(0.02)
    by_t = dict(zip(e.grid_od, e.p_of_t or (), strict=True))
    assert (by_t[0.05], by_t[0.15], by_t[0.20], by_t[0.30], by_t[0.50], by_t[0.80], by_t[1.0]) == (
        (0.6, 0.6, 0.4, 0.4, 0.2, 0.1, 0.0)
    )
    assert result.membrane_od == pytest.approx((0.0, 0.0, 0.0, 0.15, 0.30, 0.50, 0.80))
    assert result.completeness_median == pytest.approx(0.5)
    assert (result.verdict.score, result.verdict.her2_class) == ("2+", "equivocal_2plus")
    assert result.verdict.p3 == pytest.approx((0.055229, 0.174366), abs=1e-6)


def test_complete_faint_cells_are_told_apart() -> None:
    assert score(cells(*many(c0=60, c1=20, c1x=20))).counts.n1_complete == 20


@pytest.mark.parametrize(
    ("n", "score_", "reason"),
    [
        (19, None, "insufficient_tumour"),
        (20, "3+", "limited_tumour"),
        (99, "3+", "limited_tumour"),
        (100, "3+", None),
    ],
)
def test_how_many_cells_it_takes(n: int, score_: str | None, reason: str | None) -> None:
    verdict = score(cells(*many(c3=n))).verdict
    assert verdict.score == score_
    assert verdict.reasons == ((reason,) if reason else ())
    assert verdict.her2_class == ("pos_IHC3" if score_ else "indeterminate")


def test_a_score_that_the_guessed_background_decides_is_none() -> None:
    dark = cells(*many(c0=80, c2=20))
    as_faint = cells(*many(c0=80, c1=20))
    quality = dataclasses.replace(GOOD, verdict="warn", reasons=("background_unknown",))
    result = score_slide(dark, PARAMS, BREAST, quality, 0.25, doubtful=[as_faint, dark])
    verdict = result.verdict
    assert (verdict.score, verdict.her2_class) == (None, "indeterminate")
    assert (verdict.possible_scores, verdict.borderline, verdict.undecided) == (("1+", "2+"), True, True)
    assert verdict.reasons == ("background_unknown",)
    assert result.counts.n2 == 20  # measured all the same
    strong = score_slide(
        dark, PARAMS, BREAST, quality, 0.25, doubtful=[cells(*many(c0=100)), cells(*many(c3=100))]
    )
    assert strong.verdict.possible_scores == ("0", "1+", "2+", "3+")
    stands = score_slide(dark, PARAMS, BREAST, quality, 0.25, doubtful=[dark, dark]).verdict
    assert (stands.score, stands.reasons, stands.undecided) == ("2+", ("background_unknown",), False)


def test_an_undecided_slide_says_where_the_choice_of_cells_decides_too() -> None:
    """2+ over all cells, 3+ over its nests, and 0 if the background is brighter: any of these is possible."""
    found = cells(*many(c0=1900, c3=100))
    nests = classify(found, PARAMS, BREAST) == CellClass.C3
    faint = [cells(*many(c0=2000))]
    both = score_slide(found, PARAMS, BREAST, GOOD, 0.25, nests=nests, doubtful=faint).verdict
    assert (both.score, both.possible_scores, both.borderline) == (None, ("0", "1+", "2+", "3+"), True)
    assert both.reasons == ("tumour_choice",)
    alone = score_slide(found, PARAMS, BREAST, GOOD, 0.25, doubtful=faint).verdict
    assert (alone.possible_scores, alone.reasons) == (("0", "1+", "2+"), ())


def test_null_or_ultralow_is_unresolved_where_the_guessed_background_decides() -> None:
    null, stained = cells(*many(c0=700)), cells(*many(c0=680, c1=20))
    assert score(null).verdict.her2_class == "null"
    verdict = score_slide(null, PARAMS, BREAST, GOOD, 0.25, doubtful=[stained]).verdict
    assert (verdict.score, verdict.her2_class, verdict.null_excludes_pct) == ("0", "0_unresolved", None)


def test_cells_of_an_undecided_slide_are_not_pooled() -> None:
    undecided = score_slide(
        cells(*many(c0=80, c2=20)), PARAMS, BREAST, GOOD, 0.25, doubtful=[cells(*many(c0=80, c1=20))]
    )
    plain = score(cells(*many(c0=200)))
    profile = SlideProfile(STAIN, GOOD, 3, "tissue")
    outcomes = [
        SlideOutcome(SlideRow(name, "c", name, Assay.IHC), state, profile=profile, score=found)
        for name, state, found in (
            ("a", SlideState.INDETERMINATE, undecided),
            ("b", SlideState.SCORED, plain),
        )
    ]
    case = score_case(outcomes, PARAMS, BREAST)
    assert (case.pooled, case.indeterminate, case.counts.n) == (("b",), ("a",), 200)


def test_no_cells_at_all_is_a_value() -> None:
    result = score(cells())
    assert (result.verdict.score, result.counts.n, result.expression.h_score) == (None, 0, None)
    assert result.verdict.p_any == (0.0, 1.0)
    assert result.membrane_od == (None,) * 7


def test_failed_quality_is_indeterminate_with_its_reason_and_its_counts() -> None:
    result = score(cells(*many(c3=200)), quality=BAD)
    assert (result.verdict.score, result.verdict.reasons) == (None, ("blur",))
    assert result.counts.n3 == 200


def test_warnings_are_passed_on() -> None:
    warned = dataclasses.replace(GOOD, verdict="warn", reasons=("stain_fallback",))
    verdict = score(cells(*many(c3=200)), quality=warned).verdict
    assert (verdict.score, verdict.reasons) == ("3+", ("stain_fallback",))


@pytest.mark.parametrize(("mpp", "coarse"), [(0.25, False), (0.30, False), (0.301, True)])
def test_coarse_pixels_make_the_low_end_unreliable(mpp: float, coarse: bool) -> None:
    reasons = score(cells(*many(c0=300)), mpp=mpp).verdict.reasons
    assert (Reason.LOW_END_UNRELIABLE in reasons) is coarse


def test_uncalibrated_unless_a_calibration_is_named() -> None:
    assert Reason.UNCALIBRATED in score(cells(*many(c3=200)), ScoreParams()).verdict.reasons
    assert Reason.UNCALIBRATED not in score(cells(*many(c3=200))).verdict.reasons


def test_strong_cells_far_apart_are_an_unusual_pattern() -> None:
    near, far = (score(cells(*many(c3=200), spacing_um=gap)) for gap in (25.0, 25.1))
    assert (near.counts.contiguous_3, near.verdict.patterns) == (200, ())
    assert (far.counts.contiguous_3, far.verdict.patterns) == (1, ("strong_not_contiguous",))
    assert far.verdict.reasons == ("unusual_pattern",)


def test_clusters_are_cumulative() -> None:
    c = score(cells("3", "3", "0", "0", "2", "1", "0", "0", "3", "3", "3", spacing_um=20.0)).counts
    assert (c.cluster_3, c.cluster_2, c.cluster_any) == (3, 3, 3)
    c = score(cells("3", "2", "1", "2", spacing_um=20.0)).counts
    assert (c.cluster_3, c.cluster_2, c.cluster_any) == (1, 2, 4)


def test_cells_outside_the_tumour_do_not_count() -> None:
    measured = cells(*many(c0=100, c3=100), tumour=[True] * 100 + [False] * 100)
    result = score(measured)
    assert (result.counts.n, result.counts.n3, result.expression.strong) == (100, 0, 0)
    assert (result.n_cells, result.n_tumour) == (200, 100)


def test_the_same_cells_score_otherwise_with_other_cut_offs() -> None:
    measured = cells(*many(c0=100, c2=100))
    assert score(measured).verdict.score == "2+"
    lower = dataclasses.replace(PARAMS, moderate_od=0.22, strong_od=0.25)
    assert score(measured, lower).verdict.score == "3+"
    stricter = dataclasses.replace(PARAMS, complete_fraction=0.96)
    assert score(measured, stricter).verdict.score == "1+"
    assert score_slide(cells(*many(c0=180, c3=20)), PARAMS, GASTRIC, GOOD, 0.25).verdict.score == "3+"
    assert score(cells(*many(c0=180, c3=20))).verdict.score == "2+"


@given(order=st.permutations(range(40)))
def test_the_order_of_the_rows_does_not_matter(order: list[int]) -> None:
    rng = np.random.default_rng(1)
    columns = {f.name: rng.random(40) for f in dataclasses.fields(MeasuredCells)}
    columns |= {"evaluable": columns["evaluable"] > 0.1, "tumour": columns["tumour"] > 0.1}
    columns |= {axis: 100 * columns[axis] for axis in ("y_um", "x_um")}
    straight = cells(*["0"] * 40, **columns)
    shuffled = cells(*["0"] * 40, **{name: values[order] for name, values in columns.items()})
    assert score(straight) == score(shuffled)


def test_a_score_survives_json() -> None:
    adapter = TypeAdapter(SlideScore)
    result = score(cells(*many(c0=40, c1=20, c2=20, c2u=10, c3=10)))
    assert adapter.validate_json(adapter.dump_json(result)) == result


# groups of cells


@settings(max_examples=60)
@given(
    points=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), min_size=1, max_size=40),
    link=st.sampled_from([1.0, 5.0, 25.0, 70.0]),
    shift=st.tuples(st.integers(-1000, 1000), st.integers(-1000, 1000)),
)
def test_components_against_all_pairs(
    points: list[tuple[int, int]], link: float, shift: tuple[int, int]
) -> None:
    y, x = (np.array(axis, np.float64) for axis in zip(*points, strict=True))
    label = list(range(len(points)))
    for i in range(len(points)):
        for j in range(i):
            if (y[i] - y[j]) ** 2 + (x[i] - x[j]) ** 2 <= link * link and label[i] != label[j]:
                low, high = sorted((label[i], label[j]))
                label = [low if k == high else k for k in label]
    assert component_labels(y, x, link).tolist() == label
    assert component_labels(y + shift[0], x + shift[1], link).tolist() == label
    assert largest_component(y, x, link) == max(label.count(k) for k in label)


def test_a_link_is_inclusive_and_nothing_is_nothing() -> None:
    y = np.zeros(2)
    assert largest_component(y, np.array([0.0, 25.0]), 25.0) == 2
    assert largest_component(y, np.array([0.0, 25.0001]), 25.0) == 1
    assert largest_component(y[:0], y[:0], 25.0) == 0


# cases


def row(slide_id: str, **more: Any) -> SlideRow:
    return SlideRow(
        **({"slide_id": slide_id, "case_id": "c1", "uri": f"{slide_id}.svs", "assay": Assay.IHC} | more)
    )


def outcome(slide_id: str, *kinds: str, quality: Quality = GOOD, **more: Any) -> SlideOutcome:
    result = score(cells(*kinds), quality=quality)
    state = SlideState.SCORED if result.verdict.score else SlideState.INDETERMINATE
    profile = SlideProfile(STAIN, quality, 4, "tissue")
    return SlideOutcome(row(slide_id, **more), state, profile=profile, score=result)


def failed(slide_id: str, state: SlideState = SlideState.QUARANTINED, **more: Any) -> SlideOutcome:
    return SlideOutcome(row(slide_id, **more), state, reason="file_truncated", message="cut short")


@pytest.mark.parametrize(
    ("kinds", "status", "her2_class"),
    [
        (many(c0=80, c3=20), "Positive", "pos_IHC3"),
        (many(c0=80, c2=20), "Equivocal", "equivocal_2plus"),
        (many(c0=80, c1=20), "Negative", "low_1plus"),
        (many(c0=95, c1=5), "Negative", "ultralow"),
        (many(c0=299), "Negative", "null"),
        (many(c0=298), "Negative", "0_unresolved"),
        (many(c3=19), "Indeterminate", "indeterminate"),
    ],
)
def test_her2_status_from_ihc_alone(kinds: tuple[str, ...], status: str, her2_class: str) -> None:
    case = score_case([outcome("s1", *kinds)], PARAMS, BREAST)
    assert (case.status, case.verdict.her2_class) == (status, her2_class)


def test_slides_are_pooled_by_their_cells_and_judged_once() -> None:
    small = outcome("s1", *many(c0=20, c3=20), block_id="a", reader_score="3+")
    large = outcome("s2", *many(c0=960), block_id="b", reader_score="0")
    case = score_case([small, large], PARAMS, BREAST)
    assert (case.counts.n3, case.counts.n) == (20, 1000)
    assert (
        case.verdict.score == "2+"
    )  # 2 %: the average of the two scores would say otherwise, so would the highest
    assert (case.slide_max, case.discordance, case.n_blocks) == ("3+", 3, 2)
    assert case.expression is not None
    assert case.expression.h_score == pytest.approx(300 * 20 / 1000)
    assert case.reader_scores == ("s1=3+", "s2=0")
    assert case.incomplete is False


def test_slides_with_too_few_cells_may_have_enough_together() -> None:
    case = score_case([outcome(f"s{i}", *many(c3=15)) for i in range(2)], PARAMS, BREAST)
    assert (case.verdict.score, case.verdict.reasons) == ("3+", ("limited_tumour",))
    assert case.pooled == case.indeterminate == ("s0", "s1")


def test_a_slide_without_a_score_is_named_and_never_read_as_negative() -> None:
    alone = score_case([failed("s1")], PARAMS, BREAST)
    assert (alone.status, alone.verdict.score, alone.failed, alone.expression) == (
        "Indeterminate",
        None,
        ("s1",),
        None,
    )
    others = [
        outcome("s1", *many(c3=100)),
        outcome("s2", *many(c0=900), quality=BAD),
        failed("s3", SlideState.FAILED),
        failed("s4", SlideState.SKIPPED),
    ]
    case = score_case(others, PARAMS, BREAST)
    assert (case.status, case.counts.n) == ("Positive", 100)  # the 900 cells of the blurred slide do not vote
    assert (case.pooled, case.indeterminate, case.failed, case.skipped) == (
        ("s1",),
        ("s2",),
        ("s3",),
        ("s4",),
    )
    assert (case.incomplete, case.n_slides) == (True, 4)
    assert "blur" in case.verdict.reasons


def test_specimens_and_sites_are_never_merged() -> None:
    outcomes = [
        outcome("s1", *many(c3=100), site="primary"),
        outcome("s2", *many(c0=300), site="metastasis"),
        outcome("s3", *many(c0=300), site="primary", specimen_id="p2"),
        outcome("s4", *many(c2=100), case_id="c0"),
    ]
    found = [
        (c.case_id, c.specimen_id, c.site, c.verdict.score) for c in score_cases(outcomes, PARAMS, BREAST)
    ]
    assert found == [
        ("c0", None, None, "2+"),
        ("c1", None, "metastasis", "0"),
        ("c1", None, "primary", "3+"),
        ("c1", "p2", "primary", "0"),
    ]
    with pytest.raises(ValueError, match="one specimen"):
        score_case(outcomes, PARAMS, BREAST)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_slides_merge_in_any_order_to_the_same_row(seed: int) -> None:
    rng = np.random.default_rng(seed)
    outcomes = [outcome(f"s{i}", *rng.choice(list(KINDS), rng.integers(0, 60))) for i in range(4)]
    outcomes = [*outcomes, failed("s9"), outcome("s8", *many(c3=50), quality=BAD)]
    straight = case_row(score_case(outcomes, PARAMS, BREAST), BREAST)
    random.Random(seed).shuffle(outcomes)
    assert case_row(score_case(outcomes, PARAMS, BREAST), BREAST) == straight
    assert set(straight) == set(CASES.schema.names)


@pytest.mark.parametrize(
    ("bare_mm2", "stained_mm2", "warned"),
    [(0.02, 0.19, True), (0.02, 0.21, False), (0.019, 0.1, False), (0.5, 4.9, True), (0.5, 5.0, False)],
)
def test_stained_tissue_without_cells_is_named_from_two_hundredths_of_a_mm2_and_more_than_a_tenth(
    bare_mm2: float, stained_mm2: float, warned: bool
) -> None:
    found = cells(*["3"] * 150)
    verdict = score_slide(found, PARAMS, BREAST, GOOD, 0.25, bare_mm2=(bare_mm2, stained_mm2)).verdict
    assert (Reason.STAINED_WITHOUT_CELLS in verdict.reasons) == warned


def test_a_slides_row_has_the_quantiles_that_its_columns_name() -> None:
    """A hundred and one cells from 0 to 1: a quantile is its percent."""
    steps = np.linspace(0, 1, 101)
    found = cells(*["0"] * 101, membrane_od=steps, completeness=steps)
    score = score_slide(found, PARAMS, BREAST, GOOD, 0.25)
    assert score.membrane_od == pytest.approx((0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95), abs=0.006)
    assert score.completeness_median == pytest.approx(0.5, abs=0.006)
