"""From nuclei to ISH group: what is counted, recounted, pooled, and what chance and truncation explain."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import TypeAdapter

from her2core.errors import Reason
from her2core.guidelines.rules_ish import load_ish_rules
from her2core.params import ISHScoreParams
from her2core.records import Quality
from her2core.scoring.copynumber import fit_copies, seen_signals, truncation_null
from her2core.scoring.genetic import heterogeneity
from her2core.scoring.ish import ISHScore, judge_ish, score_ish
from her2core.scoring.ish_nuclei import (
    MeasuredNuclei,
    count_nuclei,
    in_reserve,
    ish_columns,
    second_population,
)
from her2core.scoring.signals import ISHCounts, SignalCounts, estimate

PARAMS = ISHScoreParams()
RULES = load_ish_rules(PARAMS.rules)
GOOD = Quality("pass", (), 10.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.02)
BAD = dataclasses.replace(GOOD, verdict="fail", reasons=("blur",))
RATIO, COPIES = RULES.heterogeneity.ratio_above, RULES.heterogeneity.copies_above


def nuclei(her2: Any, cep17: Any = 2, **columns: Any) -> MeasuredNuclei:
    """Well-shaped tumour nuclei in a square lattice of 12 µm, spots as signals; `columns` overrides."""
    h, c = np.broadcast_arrays(np.atleast_1d(her2), np.atleast_1d(1 if cep17 is None else cep17))
    n, side = len(h), math.isqrt(len(h)) + 1
    made: dict[str, Any] = {
        "nucleus_id": np.arange(n),
        "y_um": 12.0 * (np.arange(n) // side),
        "x_um": 12.0 * (np.arange(n) % side),
        "flags": np.zeros(n),
        "tumour": np.ones(n),
        "her2_spots": h,
        "her2_signals": h,
        "cep17_spots": None if cep17 is None else c,
        "cep17_signals": None if cep17 is None else c,
    } | columns
    types = {"flags": np.uint8, "tumour": np.bool_, "y_um": np.float64, "x_um": np.float64}
    return MeasuredNuclei(
        **{k: None if v is None else np.asarray(v, types.get(k, np.int64)) for k, v in made.items()}
    )


def table(*nuclei: tuple[int, int, int], dual: bool = True) -> SignalCounts:
    return SignalCounts(dual, tuple(sorted(nuclei)))


def unsplit(counts: SignalCounts) -> ISHCounts:
    return ISHCounts(counts, SignalCounts(counts.dual))


def score(measured: MeasuredNuclei, params: ISHScoreParams = PARAMS, **more: Any) -> ISHScore:
    return score_ish(measured, params, RULES, more.pop("quality", GOOD), **more)


def ids(n: int, *, reserve: bool) -> NDArray[np.int64]:
    """The first n names of one of the two samples."""
    names = np.arange(20 * n + 200)
    return names[in_reserve(names, PARAMS.reserve_one_in) == reserve][:n]


# sums


def test_ratio_of_sums_is_not_the_mean_of_ratios() -> None:
    counts = SignalCounts.of(np.array([8, 2]), np.array([1, 4]))
    assert (counts.n, counts.her2, counts.cep17) == (2, 10, 5)
    assert counts.ratio == 2.0
    assert np.mean([8 / 1, 2 / 4]) == 4.25
    assert (counts.her2_mean, counts.cep17_mean) == (5.0, 2.5)


def test_a_single_probe_has_copies_and_no_ratio() -> None:
    counts = SignalCounts.of(np.array([3, 5, 5]), None)
    assert counts.nuclei == ((3, 0, 1), (5, 0, 2))
    assert (counts.n, counts.her2, counts.cep17, counts.ratio, counts.cep17_mean) == (3, 13, None, None, None)


def test_no_nuclei_have_no_numbers() -> None:
    for dual in (True, False):
        none = SignalCounts(dual)
        assert (none.n, none.her2, none.ratio, none.her2_mean, none.cep17_mean) == (0, 0, None, None, None)
        assert estimate(none, 100) is None
        assert heterogeneity(none, PARAMS, RULES) is None


_counts = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 6)), max_size=12).map(
    lambda rows: SignalCounts.of(*(np.array(rows, np.int64).reshape(-1, 2).T))
)
_pairs = st.builds(ISHCounts, _counts, _counts)


@given(parts=st.lists(_pairs, min_size=1, max_size=5), data=st.data())
def test_slides_pool_in_any_order_to_the_sums_of_their_nuclei(parts: list[ISHCounts], data: Any) -> None:
    shuffled = data.draw(st.permutations(parts))
    cut = data.draw(st.integers(1, len(parts)))
    pooled = reduce(add, parts)
    head, tail = shuffled[:cut], shuffled[cut:]
    assert reduce(add, [reduce(add, head), *tail]) == pooled
    for name in ("n", "her2", "cep17"):
        assert getattr(pooled.all, name) == sum(getattr(p.all, name) for p in parts)
        assert getattr(pooled.first, name) == sum(getattr(p.first, name) for p in parts)


def test_a_dual_and_a_single_probe_cannot_be_pooled() -> None:
    with pytest.raises(ValueError, match="dual and of a single"):
        table((2, 2, 9)) + table((2, 0, 9), dual=False)


# intervals


def test_intervals_are_reproducible_and_known_by_hand() -> None:
    counts = table((1, 2, 500), (3, 2, 500))
    found = estimate(counts, 1000)
    assert found is not None
    assert found == estimate(counts, 1000)
    assert found.ratio is not None
    assert found.cep17 is not None
    assert found.her2.value == 2.0
    assert found.her2.range == pytest.approx(
        (2 - 1.96 / math.sqrt(1000), 2 + 1.96 / math.sqrt(1000)), abs=0.01
    )
    assert found.ratio.range == tuple(end / 2 for end in found.her2.range)
    assert found.cep17.range == (2.0, 2.0)


def test_intervals_cover_what_they_should() -> None:
    random = np.random.default_rng(7)
    hits = 0
    for _ in range(200):
        drawn = random.binomial(6, 0.7, (2, 60)) + 1
        found = estimate(SignalCounts.of(drawn[0], drawn[1]), 400)
        assert found is not None
        assert found.ratio is not None
        hits += found.ratio.low <= 1.0 <= found.ratio.high
    assert 180 <= hits <= 199  # 95 % of 200, within three standard deviations, and not all


def test_identical_nuclei_leave_no_doubt() -> None:
    verdict = judge_ish(unsplit(table((4, 2, 60))), PARAMS, RULES)
    assert verdict.estimates is not None
    assert verdict.estimates.ratio is not None
    assert verdict.estimates.ratio.range == (2.0, 2.0)
    assert (verdict.group, verdict.possible_groups, verdict.crossed, verdict.borderline) == (
        "1",
        ("1",),
        (),
        False,
    )


def test_borderline_names_the_cut_offs_and_the_groups_they_part() -> None:
    near = judge_ish(unsplit(table((3, 2, 30), (5, 2, 30))), PARAMS, RULES)
    assert (near.group, near.possible_groups) == ("1", ("1", "2", "4", "5"))
    assert near.crossed == ("ratio 2", "copies 4")
    assert near.borderline
    high = judge_ish(unsplit(table((4, 1, 30), (8, 1, 30))), PARAMS, RULES)
    assert (high.group, high.possible_groups, high.crossed) == ("1", ("1",), ("copies 6",))
    assert high.borderline


# every boundary, as nuclei


@pytest.mark.parametrize(
    ("rows", "group"),
    [
        # 20 nuclei: ratio exactly 2.0 at 4.0 copies, one HER2 signal less, one CEP17 signal more
        ([(4, 2, 20)], "1"),
        ([(4, 2, 19), (3, 2, 1)], "5"),
        ([(4, 2, 19), (4, 3, 1)], "4"),
        ([(4, 2, 19), (5, 2, 1)], "1"),
        # ratio of 2.0 and one signal short of 4.0 copies
        ([(4, 1, 19), (3, 1, 1)], "2"),
        ([(4, 1, 20)], "1"),
        ([(2, 1, 20)], "2"),
        ([(2, 1, 19), (1, 1, 1)], "5"),
        # 4.0 and 6.0 copies below ratio 2.0
        ([(4, 3, 20)], "4"),
        ([(4, 3, 19), (3, 3, 1)], "5"),
        ([(6, 4, 20)], "3"),
        ([(6, 4, 19), (5, 4, 1)], "4"),
        ([(6, 4, 19), (7, 4, 1)], "3"),
        ([(6, 3, 20)], "1"),
        ([(6, 3, 19), (5, 3, 1)], "4"),
    ],
)
def test_dual_probe_boundaries(rows: list[tuple[int, int, int]], group: str) -> None:
    her2, cep17 = (np.repeat([row[i] for row in rows], [row[2] for row in rows]) for i in (0, 1))
    assert score(nuclei(her2, cep17)).verdict.group == group


@pytest.mark.parametrize(
    ("rows", "group"),
    [
        ([(4, 20)], "single_equivocal"),
        ([(4, 19), (3, 1)], "single_negative"),
        ([(6, 20)], "single_positive"),
        ([(6, 19), (5, 1)], "single_equivocal"),
        ([(6, 19), (7, 1)], "single_positive"),
    ],
)
def test_single_probe_boundaries(rows: list[tuple[int, int]], group: str) -> None:
    found = score(nuclei(np.repeat(*zip(*rows, strict=True)), None))
    assert found.verdict.group == group
    assert found.verdict.estimates is not None
    assert found.verdict.estimates.ratio is None
    assert found.cep17_spots_mean is None


@pytest.mark.parametrize(
    ("n", "group", "reasons"),
    [
        (0, None, {Reason.INSUFFICIENT_NUCLEI, Reason.FEW_AREAS}),
        (1, None, {Reason.INSUFFICIENT_NUCLEI, Reason.FEW_AREAS}),
        (19, None, {Reason.INSUFFICIENT_NUCLEI, Reason.FEW_AREAS}),
        (20, "1", {Reason.LIMITED_NUCLEI, Reason.FEW_AREAS}),
        (59, "1", {Reason.LIMITED_NUCLEI, Reason.FEW_AREAS}),
        (60, "1", {Reason.FEW_AREAS}),
    ],
)
def test_nineteen_nuclei_are_too_few_and_twenty_are_not(n: int, group: str | None, reasons: set[str]) -> None:
    found = score(nuclei(np.full(n, 8)))
    assert found.verdict.group == group
    assert set(found.verdict.reasons) == reasons
    assert found.n_evaluable == n
    if group is None:
        assert (found.verdict.possible_groups, found.verdict.crossed) == ((), ())
        assert (found.verdict.recount_group, found.verdict.n_recount) == (None, 0)


# evaluable nuclei


def test_only_flawless_tumour_nuclei_with_both_colours_count() -> None:
    her2 = np.array([4, 4, 0, 4, 4, 4, 4])
    cep17 = np.array([2, 2, 2, 0, 2, 2, 2])
    flags = np.array([0, 0, 0, 0, 1, 64, 4])
    tumour = np.array([1, 0, 1, 1, 1, 1, 1])
    found = score(nuclei(her2, cep17, flags=flags, tumour=tumour))
    assert (found.n_nuclei, found.n_tumour, found.n_evaluable, found.n_flagged) == (7, 6, 1, 3)
    # well-shaped: all of the tumour but the overlapping one; four of these five cannot be counted
    assert (found.n_well_shaped, found.n_unscorable) == (5, 4)
    assert found.counts.all == table((4, 2, 1))
    alone = score(nuclei(her2, None, flags=flags, tumour=tumour))
    assert alone.n_evaluable == 2  # a single probe needs no second colour


@pytest.mark.parametrize("flag", [1, 2, 4, 8, 16, 32, 64])
def test_each_flag_excludes_unless_told_otherwise(flag: int) -> None:
    measured = nuclei(np.full(30, 4), flags=np.full(30, flag))
    assert score(measured).n_evaluable == 0
    assert score(measured, dataclasses.replace(PARAMS, excluded_flags=127 - flag)).n_evaluable == 30


@pytest.mark.parametrize(("missing", "warned"), [(25, False), (26, True)])
def test_more_than_a_quarter_of_unscorable_nuclei_warns(missing: int, warned: bool) -> None:
    found = score(nuclei(np.where(np.arange(100) < missing, 0, 2)))
    assert found.n_unscorable == missing
    assert (Reason.UNSCORABLE_NUCLEI in found.verdict.reasons) == warned
    assert found.verdict.group == "5"


@pytest.mark.parametrize(("blurred", "readable"), [(40, True), (41, False)])
def test_a_slide_out_of_focus_is_indeterminate(blurred: int, readable: bool) -> None:
    flags = np.where(np.arange(100) < blurred, 4, 0)
    found = score(nuclei(np.full(100, 2), flags=flags))
    assert (found.verdict.group == "5") is readable
    assert (Reason.BLUR in found.verdict.reasons) is not readable
    assert (found.heterogeneity is None) is not readable  # nor is it pooled
    lying_badly = score(nuclei(np.full(100, 2), flags=np.where(np.arange(100) < blurred, 4 + 8, 0)))
    assert Reason.BLUR not in lying_badly.verdict.reasons
    counted = score(nuclei(np.full(100, 2), flags=flags), dataclasses.replace(PARAMS, excluded_flags=123))
    assert (counted.verdict.group, counted.n_evaluable) == ("5", 100)


def test_the_category_counts_signals_or_spots_and_both_are_kept() -> None:
    measured = nuclei(np.full(60, 12), her2_spots=np.full(60, 3))
    by_signals, by_spots = score(measured), score(measured, dataclasses.replace(PARAMS, count="spots"))
    assert (by_signals.verdict.group, by_spots.verdict.group) == ("1", "5")
    assert (by_signals.her2_spots_mean, by_signals.cep17_spots_mean) == (3.0, 2.0)
    assert (by_signals.counts.all.her2, by_spots.counts.all.her2) == (720, 180)


@pytest.mark.parametrize(
    ("x_um", "areas"),
    [
        ([100.0] * 20, 1),
        ([100.0] * 10 + [300.0] * 10, 2),
        ([100.0] * 11 + [300.0] * 9, 1),
        ([249.9] * 10 + [250.0] * 10, 2),
        (list(range(0, 5000, 250)), 0),
    ],
)
def test_areas_of_tumour(x_um: list[float], areas: int) -> None:
    found = score(nuclei(np.full(20, 2), x_um=x_um, y_um=np.full(20, 30.0)))
    assert found.n_areas == areas
    assert (Reason.FEW_AREAS in found.verdict.reasons) == (areas < 2)


def test_what_cannot_be_read_has_counts_but_no_group() -> None:
    measured = nuclei(np.full(100, 8))
    for found, reason in (
        (score(measured, quality=BAD), "blur"),
        (score(measured, unresolved=Reason.RESOLUTION_LOW), "resolution_low"),
    ):
        verdict = found.verdict
        assert (verdict.group, verdict.recount_group, verdict.possible_groups) == (None, None, ())
        assert reason in verdict.reasons
        assert found.counts.all.n == 100
        assert found.heterogeneity is None
        assert found.population is None
    assert "pale" in score(measured, quality=dataclasses.replace(GOOD, reasons=("pale",))).verdict.reasons


def test_columns_come_from_a_table_by_name() -> None:
    columns = {
        name: pa.array(np.arange(3) if name != "is_tumour" else np.ones(3, np.bool_))
        for name in ish_columns(dual=True)
    }
    measured = MeasuredNuclei.of(pa.table(columns), dual=True)
    assert measured.cep17_signals is not None
    assert measured.cep17_signals.tolist() == [0, 1, 2]
    assert measured.flags.dtype == np.uint8
    alone = MeasuredNuclei.of(pa.table({n: columns[n] for n in ish_columns(dual=False)}), dual=False)
    assert alone.cep17_signals is None


# first count and recount


def test_the_reserve_is_a_third_by_a_hash_that_never_changes() -> None:
    names = np.arange(30_000)
    reserve = in_reserve(names, 3)
    assert abs(np.count_nonzero(reserve) - 10_000) < 3 * math.sqrt(30_000 * 2 / 9)
    # SplitMix64 of 0, 1, 2: 0xe220a8397b1dcdaf, 0x910a2dec89025cc1, 0x975835de1c9756ce
    expected = [z % 3 == 0 for z in (0xE220A8397B1DCDAF, 0x910A2DEC89025CC1, 0x975835DE1C9756CE)]
    assert reserve[:3].tolist() == expected
    assert (in_reserve(names[::-1].copy(), 3) == reserve[::-1]).all()


@pytest.mark.parametrize(
    ("first", "reserve", "n", "n_recount"),
    [(40, 20, 40, 20), (40, 19, 59, 0), (19, 40, 59, 0), (20, 20, 20, 20), (60, 0, 60, 0)],
)
def test_a_recount_needs_nuclei_enough_on_both_sides(
    first: int, reserve: int, n: int, n_recount: int
) -> None:
    names = np.concatenate([ids(first, reserve=False), ids(reserve, reserve=True)])
    found = score(nuclei(np.full(first + reserve, 4), 2, nucleus_id=names)).verdict
    assert (found.n, found.n_recount) == (n, n_recount)
    assert found.recount_group == ("1" if n_recount else None)
    assert found.recount_ratio == (2.0 if n_recount else None)
    assert found.recount_her2 == (4.0 if n_recount else None)


@pytest.mark.parametrize(
    ("reserve_her2", "recount", "result"),
    [(3, "2", "Negative"), (5, "1", "ADJUDICATE"), (None, None, "PENDING_RECOUNT")],
)
def test_a_recount_confirms_or_goes_to_a_person(
    reserve_her2: int | None, recount: str | None, result: str
) -> None:
    """Group 2 beside IHC 2+: 3 HER2 and 1 CEP17 in the first count."""
    kept = 0 if reserve_her2 is None else 30
    names = np.concatenate([ids(60, reserve=False), ids(kept, reserve=True)])
    her2 = np.concatenate([np.full(60, 3), np.full(kept, reserve_her2 or 0)])
    verdict = score(nuclei(her2, 1, nucleus_id=names)).verdict
    assert (verdict.group, verdict.recount_group) == ("2", recount)
    assert RULES.resolve("2", "2+", verdict.recount_group).result == result


def test_reserves_of_several_small_slides_are_enough_together() -> None:
    names = np.concatenate([ids(20, reserve=False), ids(10, reserve=True)])
    one = count_nuclei(nuclei(np.full(30, 3), 1, nucleus_id=names), PARAMS)
    assert judge_ish(one, PARAMS, RULES).recount_group is None
    both = judge_ish(one + one, PARAMS, RULES)
    assert (both.group, both.n, both.recount_group, both.n_recount) == ("2", 40, "2", 20)


def test_counts_depend_on_no_order_of_rows() -> None:
    random = np.random.default_rng(3)
    measured = nuclei(random.integers(1, 9, 300), random.integers(1, 4, 300))
    order = random.permutation(300)
    shuffled = dataclasses.replace(
        measured, **{f.name: getattr(measured, f.name)[order] for f in dataclasses.fields(measured)}
    )
    assert score(shuffled) == score(measured)


def test_a_score_survives_json() -> None:
    adapter = TypeAdapter(ISHScore)
    random = np.random.default_rng(5)
    her2 = np.where(np.arange(400) < 120, random.poisson(9, 400), random.integers(1, 3, 400)) + 1
    for found in (score(nuclei(her2)), score(nuclei(her2, None)), score(nuclei(np.empty(0, int)))):
        assert adapter.validate_json(adapter.dump_json(found)) == found


# truncation


def test_visible_signals_of_whole_copies_are_a_truncated_binomial() -> None:
    seen = seen_signals(2 * 0.7 / 0.91, 0.7)  # two copies, 70 % each, at least one
    assert seen[:3] == pytest.approx([0, 0.42 / 0.91, 0.49 / 0.91])
    assert seen[3:] == pytest.approx(0, abs=1e-12)


@settings(max_examples=50)
@example(mean=2000.0, retention=0.7)
@given(mean=st.floats(1.0, 40.0), retention=st.floats(0.1, 0.95))
def test_visible_signals_have_the_mean_asked_for(mean: float, retention: float) -> None:
    seen = seen_signals(mean, retention)
    assert seen.sum() == pytest.approx(1)
    assert seen @ np.arange(len(seen)) == pytest.approx(mean)
    assert seen.min() >= 0
    assert seen[0] == 0


def test_truncation_pulls_a_ratio_of_two_down_by_a_twelfth() -> None:
    def mean(copies: int) -> float:
        return copies * 0.7 / (1 - 0.3**copies)

    assert mean(4) / mean(2) == pytest.approx(1.84, abs=0.01)
    for copies, cep17 in ((3, 2), (3, 3)):  # homogeneous 3:2 and 3:3 show 5-17 % of nuclei above 2.2
        assert 0.05 <= truncation_null(mean(copies), mean(cep17), 0.7, RATIO) <= 0.17
    assert truncation_null(mean(2), mean(2), 0.7, RATIO) == pytest.approx(0, abs=1e-9)
    assert truncation_null(mean(12), mean(2), 0.7, RATIO) > 0.99
    assert truncation_null(mean(6), None, 0.7, COPIES) == pytest.approx(0, abs=1e-9)


def test_the_null_is_what_a_simulation_of_it_finds() -> None:
    random = np.random.default_rng(11)
    her2, cep17 = random.binomial(3, 0.7, 200_000), random.binomial(2, 0.7, 200_000)
    shown = (her2 > 0) & (cep17 > 0)
    her2, cep17 = her2[shown], cep17[shown]
    beyond = np.mean(5 * her2 > 11 * cep17)
    assert truncation_null(her2.mean(), cep17.mean(), 0.7, RATIO) == pytest.approx(beyond, abs=0.005)


@pytest.mark.parametrize(("mean", "retention"), [(0.9, 0.7), (math.nan, 0.7), (2.0, 0.0), (2.0, 1.0)])
def test_a_null_of_nothing_is_refused(mean: float, retention: float) -> None:
    with pytest.raises(ValueError, match="expected at least 1"):
        seen_signals(mean, retention)


# populations of copies


def histogram(draw: Callable[[np.random.Generator], NDArray[np.int64]]) -> tuple[list[int], list[int]]:
    drawn = draw(np.random.default_rng(2))
    copies, nuclei = np.unique(drawn[drawn > 0], return_counts=True)
    return copies.tolist(), nuclei.tolist()


@pytest.mark.parametrize(
    ("draw", "separated"),
    [
        (lambda r: r.binomial(2, 0.7, 600), False),
        (lambda r: r.binomial(4, 0.7, 600), False),
        (lambda r: r.poisson(8, 600) + 1, False),  # amplified, one broad population
        (lambda r: r.lognormal(2.2, 0.5, 600).astype(int) + 1, False),  # skewed is not two
        (lambda r: r.binomial(np.where(np.arange(600) < 150, 12, 2), 0.7), True),
        (lambda r: r.binomial(np.where(np.arange(600) < 450, 20, 2), 0.7), True),
        (lambda r: r.binomial(np.where(np.arange(600) < 20, 20, 2), 0.7), False),  # 3 %: too few
        (lambda r: r.binomial(np.where(np.arange(600) < 300, 3, 2), 0.7), False),  # too close
    ],
)
def test_two_populations_are_told_from_one(draw: Any, separated: bool) -> None:
    found = fit_copies(*histogram(draw), 0.7)
    assert found is not None
    assert found.separated == separated
    assert sum(found.weights) == pytest.approx(1)
    assert found.means[0] <= found.means[1]


def test_populations_are_found_where_they_were_planted() -> None:
    copies, counted = histogram(lambda r: r.binomial(np.where(np.arange(2000) < 600, 12, 2), 0.7))
    found = fit_copies(copies, counted, 0.7)
    assert found is not None
    assert found.means == pytest.approx((2 * 0.7 / 0.91, 12 * 0.7), abs=0.15)
    assert found.sds == pytest.approx((math.sqrt(2 * 0.7 / 0.91 * 0.3), math.sqrt(12 * 0.21)), abs=0.15)
    assert found.weights[1] == pytest.approx(600 / (600 + 1400 * 0.91), abs=0.02)
    assert found == fit_copies(copies, counted, 0.7)


def test_one_number_of_copies_is_no_histogram() -> None:
    assert fit_copies([2], [500], 0.7) is None
    assert fit_copies([], [], 0.7) is None


# genetic heterogeneity


@pytest.mark.parametrize(("n", "category"), [(199, "underpowered"), (200, "heterogeneous")])
def test_heterogeneity_needs_two_hundred_nuclei(n: int, category: str) -> None:
    found = heterogeneity(table((2, 2, n - 40), (12, 2, 40)), PARAMS, RULES)
    assert found is not None
    assert found.ratio_arm is not None
    assert (found.category, found.copies_arm.category, found.n) == (category, category, n)
    assert (found.ratio_arm.amplified, found.ratio_arm.fraction) == (40, 40 / n)
    powered = category != "underpowered"
    assert (found.populations is not None) == powered
    assert (found.ratio_arm.excess is not None) == (found.ratio_arm.beyond_null is not None) == powered


def test_the_arms_differ_and_cut_offs_belong_below() -> None:
    rows = ((11, 5, 100), (12, 5, 50), (6, 4, 200), (7, 4, 50))  # ratio 2.2 and 6 copies do not exceed
    found = heterogeneity(table(*rows), PARAMS, RULES)
    assert found is not None
    assert found.ratio_arm is not None
    assert (found.ratio_arm.amplified, found.copies_arm.amplified) == (50, 200)


def test_a_homogeneous_tumour_meets_cap_2009_but_not_the_null_and_a_mixed_one_both() -> None:
    random = np.random.default_rng(13)
    even = score(nuclei(random.binomial(3, 0.7, 900), random.binomial(2, 0.7, 900))).heterogeneity
    mixed_copies = np.where(np.arange(900) < 200, 12, 2)
    mixed = score(nuclei(random.binomial(mixed_copies, 0.7), random.binomial(2, 0.7, 900))).heterogeneity
    assert even is not None
    assert mixed is not None
    assert even.ratio_arm is not None
    assert mixed.ratio_arm is not None
    assert even.category == mixed.category == "heterogeneous"
    assert even.ratio_arm.excess == pytest.approx(0, abs=0.03)
    assert (even.ratio_arm.beyond_null, mixed.ratio_arm.beyond_null) == (False, True)
    assert mixed.ratio_arm.excess == pytest.approx(mixed.ratio_arm.fraction, abs=0.01)
    assert even.populations is not None
    assert mixed.populations is not None
    assert (even.populations.separated, mixed.populations.separated) == (False, True)
    assert even.copies_cv < 0.4 < 0.8 < mixed.copies_cv


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.integers(1, 30), st.integers(1, 6), st.integers(1, 400)), min_size=1, max_size=30
    ),
    dual=st.booleans(),
)
@example(rows=[(1, 1, 200), (12, 1, 60)], dual=True)
@example(rows=[(1, 1, 100_000), (30, 1, 9_000), (2, 3, 1)], dual=True)
def test_any_counts_have_an_answer(rows: list[tuple[int, int, int]], dual: bool) -> None:
    counts = reduce(add, (table((h, c if dual else 0, k), dual=dual) for h, c, k in rows))
    found, verdict = heterogeneity(counts, PARAMS, RULES), judge_ish(unsplit(counts), PARAMS, RULES)
    assert found is not None
    for arm in (found.copies_arm, found.ratio_arm):
        if arm is not None and arm.expected is not None:
            assert 0 <= arm.expected <= 1
            assert 0 <= arm.fraction <= 1
    if two := found.populations:
        assert two.weights[0] + two.weights[1] == pytest.approx(1)
        assert all(map(math.isfinite, (*two.means, *two.sds, two.delta_bic, two.ashman_d)))
    if verdict.group is not None:
        assert verdict.group in verdict.possible_groups
        assert len(verdict.possible_groups) == 1 or verdict.borderline


def test_a_single_probe_has_the_copies_arm_alone() -> None:
    found = heterogeneity(table((2, 0, 270), (12, 0, 30), dual=False), PARAMS, RULES)
    assert found is not None
    assert found.ratio_arm is None
    assert (found.category, found.copies_arm.amplified) == ("heterogeneous", 30)


def test_spread_of_copies_by_hand() -> None:
    found = heterogeneity(table((1, 2, 2), (5, 2, 2)), PARAMS, RULES)
    assert found is not None
    assert found.copies_cv == pytest.approx(2 / 3)


# a second population


def planted(amplified: NDArray[np.bool_], cep17: int | None = 2) -> MeasuredNuclei:
    return nuclei(np.where(amplified, 10, 2), cep17)


def test_a_contiguous_amplified_population_is_counted_by_itself() -> None:
    side = 21  # 400 nuclei in a lattice of 21 columns
    columns = np.arange(400) % side
    found = second_population(planted(columns < 6), PARAMS, RULES)
    assert found is not None
    assert (found.group, found.rest_group) == ("1", "5")
    assert found.counts.n == pytest.approx(np.count_nonzero(columns < 6), abs=20)
    assert found.fraction == found.counts.n / 400
    alone = second_population(planted(columns < 6, None), PARAMS, RULES)
    assert alone is not None
    assert (alone.group, alone.rest_group) == ("single_positive", "single_negative")


@pytest.mark.parametrize(
    "amplified",
    [
        np.arange(400) % 4 == 0,  # scattered: no tissue of its own
        np.arange(400) < 0,  # none
        np.arange(400) >= 0,  # all: no second population
        np.arange(400) % 21 < 1,  # a strip that its neighbours outvote
        np.arange(400) < 40,  # 10 % is not more than 10 %
    ],
)
def test_scattered_few_or_all_amplified_nuclei_are_no_second_population(amplified: NDArray[np.bool_]) -> None:
    assert second_population(planted(amplified), PARAMS, RULES) is None


@pytest.mark.parametrize(("columns", "counted"), [(6, None), (7, 44)])
def test_a_second_population_is_more_than_a_tenth(columns: int, counted: int | None) -> None:
    """Of 400 nuclei a block of seven rows: less its corners, which neighbours outvote, 37 or 44."""
    row, column = np.divmod(np.arange(400), 21)
    found = second_population(planted((column < columns) & (row < 7)), PARAMS, RULES)
    assert (found and found.counts.n) == counted


# parameters


@pytest.mark.parametrize(
    "wrong",
    [
        {"count": "dots"},
        {"min_nuclei": 0},
        {"full_nuclei": 19},
        {"excluded_flags": 128},
        {"reserve_one_in": 1},
        {"area_nuclei": 0},
        {"replicates": 99},
        {"retention": 1.0},
        {"max_unscorable_percent": 101},
        {"max_blurred_percent": -1},
        {"population_percent": -1},
    ],
)
def test_parameters_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ISHScoreParams(**wrong)


def test_groups_times_every_ihc_state_follow_from_nuclei() -> None:
    """One slide a group, planted; its verdict resolved beside each score."""
    planted_groups = {"1": (8, 2), "2": (3, 1), "3": (7, 4), "4": (5, 3), "5": (2, 2)}
    for (group, (her2, cep17)), ihc in itertools.product(
        planted_groups.items(), (None, "0", "1+", "2+", "3+")
    ):
        verdict = score(nuclei(np.full(90, her2), cep17)).verdict
        assert (verdict.group, verdict.recount_group) == (group, group)
        final = {"1": "Positive", "5": "Negative"}.get(group)
        if final is None:
            two = "Positive" if group == "3" else "Negative"
            final = {None: "PENDING_IHC", "2+": two, "3+": "Positive"}.get(ihc, "Negative")
        assert RULES.resolve(group, ihc, verdict.recount_group).result == final
