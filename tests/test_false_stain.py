"""What a slide's own unstained cells explain is no stain; real faint stain beyond them is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from her2core.errors import Reason
from her2core.kernels.ihc.planes import DAB_PER_OD
from her2core.scoring.false_stain import STEP_OD, dark_tail, expected_false_stain
from her2core.scoring.ihc import MeasuredCells, classify, judge
from tests.test_scores import BREAST, PARAMS, outcome, score, score_case
from tests.test_scores import cells as measured_as

N = 2000


def spread(middle: float, by: float, n: int = N) -> NDArray[np.float32]:
    """Darkest tenths of unstained contours: a normal spread, in the kernel's steps."""
    normal = np.random.default_rng(1).normal(middle, by, n)
    return np.asarray(np.rint(np.maximum(normal, 0) / STEP_OD) * STEP_OD, np.float32)


def slide(dark: NDArray[np.float32], stained: int, grey: float = 0.0) -> MeasuredCells:
    """A 0: contours as dark as that, whose darkest tenth counts as stain, and cells of 1+ instead of some.

    Of dark contours the part ``grey`` is grey.
    """
    share = np.clip((dark - 0.1) * 5 + 0.1, 0.0, 0.4).astype(np.float32)  # of the contour, from 0.1 OD on
    share[dark > 0.08] = np.maximum(share[dark > 0.08], 0.05)
    od = np.maximum(dark, 0.11).astype(np.float32)
    brown = np.where(np.arange(len(dark)) % 100 < 100 * grey, 0.1, 0.9).astype(np.float32)
    share[:stained], od[:stained], dark[:stained], brown[:stained] = 0.5, 0.28, 0.3, 0.9
    cytoplasm = np.full(len(dark), 0.02, np.float32)
    one = measured_as(*["0"] * len(dark), completeness=share, intensity_od=od, cytoplasm_od=cytoplasm)
    return MeasuredCells(
        **{name: getattr(one, name) for name in MeasuredCells.__slots__}
        | {"dark_od": dark, "brownness": brown}
    )


@pytest.mark.parametrize(
    ("middle", "by", "stained", "her2_class"),
    [
        (0.03, 0.010, 0, "null"),
        (0.03, 0.010, 100, "ultralow"),  # a clean slide with 5 % of 1+
        (0.06, 0.025, 0, "0_unresolved"),  # haze or a strong counterstain: 5 % pass the cut-point
        (0.06, 0.025, 40, "0_unresolved"),  # 2 % of 1+ cannot be told from it
    ],
)
def test_ultralow_is_what_the_slides_own_unstained_cells_do_not_explain(
    middle: float, by: float, stained: int, her2_class: str
) -> None:
    result = score(slide(spread(middle, by), stained))
    assert (result.verdict.score, result.verdict.her2_class) == ("0", her2_class)
    assert (Reason.FALSE_STAIN in result.verdict.reasons) == (her2_class == "0_unresolved")


def test_dark_contours_that_are_grey_explain_less() -> None:
    """Erythrocytes and nuclei darken contours, but what little is stained of others is grey as well."""
    dark = spread(0.06, 0.025)
    brown, grey = slide(dark.copy(), 80), slide(dark.copy(), 80, grey=0.95)
    assert expected_false_stain(grey, PARAMS) < 0.2 * expected_false_stain(brown, PARAMS)
    assert score(grey).verdict.her2_class == "ultralow"


def test_the_tail_bounds_what_passes_the_cut_point() -> None:
    """Of a normal spread it is more than there is, also where the cut-point lies in its middle."""
    for by in (0.01, 0.02, 0.03, 0.05):
        od = spread(0.05, by, 20_000)
        assert (od >= np.float32(0.1)).mean() <= dark_tail(od, 0.1) <= 0.4
    rank = np.arange(1, 20_001) / 20_000
    exponential = np.rint(-0.02 * np.log(rank) / STEP_OD) * STEP_OD
    seen = (exponential >= 0.1).mean()
    assert dark_tail(exponential.astype(np.float32), 0.1) == pytest.approx(seen, rel=0.02)  # a straight line


@pytest.mark.parametrize("od", [[], [0.0] * 9, [0.0] * 7 + [0.05] * 3, [0.0] * 90 + [0.3] * 10])
def test_nothing_is_explained_where_unstained_contours_keep_away_from_the_cut_point(od: list[float]) -> None:
    assert dark_tail(np.array(od, np.float32), 0.1) < 0.001


def test_od_is_counted_in_the_kernels_steps() -> None:
    assert STEP_OD == 1 / DAB_PER_OD


def test_a_1_plus_of_which_all_may_be_false_could_be_a_0() -> None:
    """Under haze most contours are dark, and many of them come to be stained: no control has so much."""
    counts = score(slide(spread(0.03, 0.01), 300)).counts
    verdicts = [judge(counts, PARAMS, BREAST, (), false_stained=k) for k in (0, 250, 400)]
    assert [(v.score, v.her2_class) for v in verdicts] == [("1+", "low_1plus")] * 3
    assert [v.possible_scores for v in verdicts] == [("1+",), ("1+",), ("0", "1+")]
    assert [Reason.FALSE_STAIN in v.reasons for v in verdicts] == [False, False, True]


def test_a_cell_of_class_2_is_no_false_stain() -> None:
    cells = slide(spread(0.06, 0.025), 0)
    counts = score(cells).counts
    assert judge(counts, PARAMS, BREAST, (), false_stained=200).her2_class == "0_unresolved"
    moderate = measured_as(*["0"] * 500, "2")
    assert int((classify(moderate, PARAMS, BREAST) > 1).sum()) == 1
    assert judge(score(moderate).counts, PARAMS, BREAST, (), false_stained=200).her2_class == "ultralow"


def test_pooled_slides_are_held_against_what_all_their_unstained_cells_explain() -> None:
    def case(dark: NDArray[np.float32], stained: int) -> str:
        results = {f"s{i}": score(slide(dark.copy(), stained)) for i in range(2)}
        slides = [dataclasses.replace(outcome(name, "0"), score=one) for name, one in results.items()]
        return score_case(slides, PARAMS, BREAST).verdict.her2_class

    assert case(spread(0.03, 0.010), 100) == "ultralow"
    assert case(spread(0.06, 0.025), 0) == "0_unresolved"
