"""Virtual biopsies: what lies under a core, and how often it has another score."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from her2core.guidelines.rules_ihc import CellClass, ClassCounts, load_rules
from her2core.heterogeneity.biopsy import (
    _COUNTED,
    Core,
    Ints,
    Section,
    _ranks,
    cores_of,
    score_of,
    virtual_biopsies,
)
from her2core.heterogeneity.metrics import Metric, Status
from her2core.params import HeterogeneityParams
from her2core.points.cores import Strips

BREAST, GASTRIC = load_rules("breast_asco_cap_2018"), load_rules("gastric_biopsy")
SMALL = HeterogeneityParams(
    needle_length_um=1000.0, needle_width_um=100.0, tma_diameter_um=200.0, biopsies=100, biopsy_cells=20
)
Reals = NDArray[np.float64]


@pytest.fixture(scope="module")
def sheet() -> tuple[Reals, Reals]:
    """200 x 100 cells, 10 µm apart."""
    y, x = (a.ravel() * 10.0 for a in np.mgrid[:100, :200])
    return y, x


def by_name(metrics: list[Metric]) -> dict[str, Metric]:
    return {m.name: m for m in metrics}


@given(
    y0=st.floats(-50, 450), x0=st.floats(-50, 450), angle=st.floats(0, math.pi), length=st.floats(1, 400),
    width=st.floats(1, 400), seed=st.integers(0, 20),
)  # fmt: skip
def test_points_under_a_core_are_those_of_a_test_of_each(
    y0: float, x0: float, angle: float, length: float, width: float, seed: int
) -> None:
    y, x = np.random.default_rng(seed).uniform(0, 400, (2, 300))
    strips = Strips.of(y, x, 37.0)
    dy, dx, sin, cos = y - y0, x - x0, math.sin(angle), math.cos(angle)
    inside = (np.abs(dx * cos + dy * sin) <= length / 2) & (np.abs(dy * cos - dx * sin) <= width / 2)
    assert sorted(strips.under(y0, x0, angle, length, width)) == np.flatnonzero(inside).tolist()
    disc = dy * dy + dx * dx <= (length / 2) ** 2
    assert sorted(strips.under(y0, x0, angle, length, length, disc=True)) == np.flatnonzero(disc).tolist()


@given(
    length=st.floats(1, 400), width=st.floats(1, 400), disc=st.booleans(), least=st.integers(0, 40),
    seed=st.integers(0, 50), straight=st.booleans(),
)  # fmt: skip
def test_a_tally_counts_what_lies_under_each_core(
    length: float, width: float, disc: bool, least: int, seed: int, straight: bool
) -> None:
    random = np.random.default_rng(seed)
    y, x = random.integers(0, 80, (2, 400)) * 5.0
    kinds, centres = random.integers(0, 4, 400), random.integers(0, 400, 30)
    angles = random.integers(0, 3, 30) * math.pi / 2 if straight else random.uniform(0, math.pi, 30)
    width = length if disc else width
    strips = Strips.of(y, x, 37.0)
    under = [
        strips.under(y[i], x[i], angle, length, width, disc=disc)
        for i, angle in zip(centres.tolist(), angles.tolist(), strict=True)
    ]
    expected = [
        np.bincount(kinds[rows], minlength=kinds.max() + 1).tolist() for rows in under if len(rows) >= least
    ]
    found = strips.tally(kinds, centres, angles, length, width, disc=disc, least=least, most=20)
    assert found.tolist() == expected[:20]


def counts_of(table: Ints) -> list[ClassCounts]:
    return [ClassCounts(**dict(zip(_COUNTED, row, strict=True))) for row in table.tolist()]


def test_ranks_are_those_of_pooled_counts(sheet: tuple[Reals, Reals]) -> None:
    y, x = sheet
    classes = np.random.default_rng(2).choice(5, len(y), p=[0.6, 0.2, 0.1, 0.05, 0.05])
    params = dataclasses.replace(SMALL, biopsies=100, biopsy_cores=2)
    for rules in (BREAST, GASTRIC):
        section = Section.of(y, x, (classes * (x > 1000)).astype(np.int8))
        table = section.take(cores_of(params)[1], params, rules)
        taken = counts_of(table)
        pooled = [
            [score_of(a, rules), score_of(a + b, rules)] for a, b in zip(taken[::2], taken[1::2], strict=True)
        ]
        assert _ranks(table, (100, 2), rules).tolist() == pooled
        assert len(np.unique(pooled)) > 1


def test_the_edge_of_a_core_belongs_to_it() -> None:
    y, x = np.array([0.0, 0.0, 10.0, 10.1]), np.array([0.0, 50.0, 0.0, 0.0])
    assert sorted(Strips.of(y, x, 100.0).under(0.0, 0.0, 0.0, 100.0, 20.0)) == [0, 1, 2]
    assert sorted(Strips.of(y, x, 3.0).under(0.0, 0.0, math.pi / 2, 20.2, 100.0)) == [0, 1, 2, 3]


def test_a_uniform_tumour_has_one_score(sheet: tuple[Reals, Reals]) -> None:
    for rules in (BREAST, GASTRIC):
        classes = np.full(len(sheet[0]), CellClass.C3, np.int8)
        found = virtual_biopsies(*sheet, classes, rules, SMALL)
        assert len(found) == 2 * 2 * 6
        assert {m.value for m in found} == {0.0}
        assert {m.n for m in found} == {100}
        assert all(m.high is not None and 0 < m.high < 0.05 for m in found)


def test_a_strong_corner_is_missed_less_often_by_more_cores(sheet: tuple[Reals, Reals]) -> None:
    """15 % of the cells are strong, at one end: 3+ for the section, and for a disc only if it lies there."""
    y, x = sheet
    strong = x < 300
    classes = np.where(strong, CellClass.C3, CellClass.C0).astype(np.int8)
    params = dataclasses.replace(SMALL, biopsies=1000)
    found = by_name(virtual_biopsies(y, x, classes, BREAST, params))
    other = [found[f"biopsy_tma_other_{k}"].value for k in range(1, 7)]
    assert all(value is not None for value in other)
    # a disc of radius 100 µm is 3+ if more than a tenth of it is strong: centred up to 367 µm from the end
    # (1 - (acos(d) - d sqrt(1 - d^2)) / pi of it is not, d the distance of the border in radii)
    d = min(
        np.linspace(0, 1, 1001), key=lambda d: abs(math.acos(d) - d * math.sqrt(1 - d * d) - 0.1 * math.pi)
    )
    missed = 1 - (300 + 100 * d) / 2000
    first = found["biopsy_tma_other_1"]
    assert first.low is not None
    assert first.high is not None
    assert first.low - 0.01 < missed < first.high + 0.01
    assert other[0] > other[5]  # type: ignore[operator]
    assert [found[f"biopsy_tma_lower_{k}"].value for k in range(1, 7)] == other  # there is nothing above 3+


def test_a_biopsy_can_score_higher_than_the_section(sheet: tuple[Reals, Reals]) -> None:
    y, x = sheet
    classes = np.where(x < 150, CellClass.C3, CellClass.C0).astype(np.int8)  # 7.5 %: 2+ for the section
    found = by_name(virtual_biopsies(y, x, classes, BREAST, SMALL))
    other, lower = (found[f"biopsy_tma_{word}_1"].value for word in ("other", "lower"))
    assert other is not None
    assert lower is not None
    assert 0 < lower < other


def test_order_and_unclassed_cells_make_no_difference(sheet: tuple[Reals, Reals]) -> None:
    y, x = sheet
    classes = np.where(x < 300, CellClass.C3, CellClass.C0).astype(np.int8)
    found = virtual_biopsies(y, x, classes, BREAST, SMALL)
    assert found == virtual_biopsies(y, x, classes, BREAST, SMALL)
    shuffled = np.random.default_rng(1).permutation(len(y))
    more = np.concatenate([shuffled, shuffled[:500]])
    unclassed = np.where(np.arange(len(more)) < len(y), classes[more], CellClass.UNEVALUABLE)
    assert found == virtual_biopsies(y[more], x[more], unclassed.astype(np.int8), BREAST, SMALL)


def test_cores_of_one_biopsy_are_pooled_by_whole_numbers(sheet: tuple[Reals, Reals]) -> None:
    y, x = sheet
    classes = np.where(x < 300, CellClass.C3, CellClass.C0).astype(np.int8)
    section = Section.of(y, x, classes)
    disc = cores_of(SMALL)[1]
    taken = counts_of(section.take(disc, SMALL, BREAST))
    third = [
        score_of(a + b + c, BREAST) for a, b, c in zip(taken[::6], taken[1::6], taken[2::6], strict=True)
    ]
    found = by_name(virtual_biopsies(y, x, classes, BREAST, SMALL))
    assert found["biopsy_tma_other_3"].value == np.mean(np.array(third) != 3)
    assert min(c.n for c in taken) >= SMALL.biopsy_cells


def test_a_cluster_rule_looks_at_groups_inside_the_core() -> None:
    """Five strong cells hang together on the slide, but no core of 40 µm across holds them all."""
    y, x = np.zeros(105), np.arange(105) * 10.0
    classes = np.zeros(105, np.int8)
    classes[50:55] = CellClass.C3
    section = Section.of(y, x, classes)
    assert score_of(section.counts(np.arange(105), GASTRIC), GASTRIC) == 3
    assert score_of(section.counts(np.arange(51, 105), GASTRIC), GASTRIC) == 0
    params = dataclasses.replace(SMALL, tma_diameter_um=30.0, biopsy_cores=2, biopsy_cells=2)
    found = by_name(virtual_biopsies(y, x, classes, GASTRIC, params))
    assert found["biopsy_tma_lower_2"].value == 1.0


def test_a_tumour_too_thin_for_such_cores_is_insufficient(sheet: tuple[Reals, Reals]) -> None:
    y, x = sheet
    params = dataclasses.replace(SMALL, biopsy_cells=500)  # 314 cells lie under a disc of 200 µm
    found = by_name(virtual_biopsies(y, x, np.zeros(len(y), np.int8), BREAST, params))
    assert found["biopsy_tma_other_1"].status is Status.INSUFFICIENT
    assert found["biopsy_needle_other_1"].status is Status.OK
    none = virtual_biopsies(y[:0], x[:0], np.zeros(0, np.int8), BREAST, SMALL)
    assert {(m.status, m.n) for m in none} == {(Status.INSUFFICIENT, 0)}


def test_cores_are_as_large_as_the_parameters_say(sheet: tuple[Reals, Reals]) -> None:
    assert cores_of(HeterogeneityParams()) == (
        Core("needle", 10_000.0, 1_000.0, disc=False),
        Core("tma", 600.0, 600.0, disc=True),
    )
    section = Section.of(*sheet, np.zeros(len(sheet[0]), np.int8))
    largest = {
        core.name: section.take(core, SMALL, BREAST)[:300, :5].sum(axis=1).max() for core in cores_of(SMALL)
    }
    assert largest["needle"] == pytest.approx(1000, rel=0.12)  # 1000 x 100 µm at 100 µm² a cell
    assert largest["tma"] == pytest.approx(314, rel=0.03)


@pytest.mark.parametrize("change", [{"biopsies": 98}, {"needle_width_um": 0.0}, {"biopsy_cores": 0}])
def test_impossible_parameters_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        dataclasses.replace(SMALL, **change)  # type: ignore[arg-type]
