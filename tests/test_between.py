"""How blocks, slides and lesions differ: by hand, against cells one by one, and in any order."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pytest
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from polars.testing import assert_frame_equal
from scipy import stats
from scipy.spatial.distance import jensenshannon

from her2core.cases.comparisons import Comparer, Comparison
from her2core.cases.patients import by_patient
from her2core.cases.specimens import SlideOutcome, score_cases
from her2core.guidelines.rules_ihc import ClassCounts, load_rules
from her2core.guidelines.rules_ish import load_ish_rules
from her2core.heterogeneity.between import (
    ComparedMetric,
    cells_between,
    eta2,
    js_divergence,
    unbiased_interval,
)
from her2core.heterogeneity.catalogue import CASE_METRICS, PATIENT_METRICS
from her2core.heterogeneity.jackknife import BLOCKS
from her2core.heterogeneity.metrics import Metric, Status
from her2core.heterogeneity.regions import regions_of_cells, regions_of_nuclei
from her2core.heterogeneity.units import Sums, Unit
from her2core.lake.rows_metrics import (
    case_metric_rows,
    case_wide_row,
    patient_metric_rows,
    patient_wide_row,
)
from her2core.lake.rows_regions import block_sums, region_rows
from her2core.lake.schema import (
    CASE_HETEROGENEITY,
    CASE_HETEROGENEITY_WIDE,
    PATIENT_HETEROGENEITY,
    PATIENT_HETEROGENEITY_WIDE,
    REGIONS,
)
from her2core.lake.slide_files import write_slide_file
from her2core.lake.tables import commit_rows
from her2core.params import HeterogeneityParams, ISHScoreParams, ScoreParams
from her2core.records import Assay, Fluorescence, Quality, SlideProfile, SlideRow, SlideState
from her2core.scoring.genetic import heterogeneity
from her2core.scoring.ihc import Expression, MeasuredCells, SlideScore, judge
from her2core.scoring.ish import ISHScore, judge_ish
from her2core.scoring.ish_nuclei import MeasuredNuclei
from her2core.scoring.signals import ISHCounts, SignalCounts
from her2core.storage.store import Store

PARAMS = HeterogeneityParams(replicates=200)
SCORE, ISH = ScoreParams(calibration="batch 1"), ISHScoreParams(replicates=100)
RULES, ISH_RULES = load_rules("breast_asco_cap_2018"), load_ish_rules(ISH.rules)
GOOD = Quality("pass", (), 10.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.02)
PROFILE = SlideProfile(
    Fluorescence(("DAPI", "HER2", "CEP17"), (0.0,) * 3, (1.0,) * 3, 10.0, 100.0), GOOD, 4, "t"
)
OD = np.array([0.0, 0.25, 0.5, 0.75])
"""Membrane OD of cells of score 0 to 3, exact in binary."""
Hexes = NDArray[np.float64]


def cells(*mixes: Sequence[int]) -> Hexes:
    """Hexagons of cells of score 0, 1, 2 and 3, each at its `OD`: `CELL_SUMS`."""
    n = np.array(mixes, np.float64)
    return np.column_stack([n.sum(axis=1), n @ OD, n @ OD**2, n])


def nuclei(*hexes: Sequence[tuple[int, int]]) -> tuple[Hexes, SignalCounts]:
    """Hexagons of nuclei of so many HER2 and CEP17 signals: `NUCLEUS_SUMS`, and the counts of all."""
    rows = [
        (
            len(h),
            sum(a for a, _ in h),
            sum(a * a for a, _ in h),
            sum(b for _, b in h),
            sum(a > 2.2 * b for a, b in h),
        )
        for h in hexes
    ]
    her2, cep17 = (np.array([pair[i] for h in hexes for pair in h]) for i in (0, 1))
    return np.array(rows, np.float64), SignalCounts.of(her2, cep17)


class Cohort:
    """Slides of made-up hexagons, and what a run makes of them."""

    def __init__(self) -> None:
        self.outcomes: list[SlideOutcome] = []
        self.hexes: dict[str, Hexes] = {}
        self.asked: list[str] = []

    def ihc(self, name: str, hexes: Hexes, **more: Any) -> None:
        n0, n1, n2, n3 = (int(k) for k in hexes[:, 3:].sum(axis=0))
        counts = ClassCounts(n0=n0, n1=n1, n2=n2, n3=n3, contiguous_3=n3, cluster_3=n3)
        score = SlideScore(
            verdict=judge(counts, SCORE, RULES, ()),
            counts=counts,
            expression=Expression(counts.n, n1, n2, n3, (0.1,), (0,), 0, float(hexes[:, 1].sum()), 0.0, 0.0),
            rules=RULES.name,
            rules_version=RULES.version,
            n_cells=counts.n,
            n_tumour=counts.n,
            n_unevaluable=0,
            membrane_od=(),
            completeness_median=None,
        )
        self._add(name, Assay.IHC, hexes, more, score=score)

    def ish(self, name: str, made: tuple[Hexes, SignalCounts], **more: Any) -> None:
        hexes, counted = made
        counts = ISHCounts(counted, SignalCounts(counted.dual))
        score = ISHScore(
            verdict=judge_ish(counts, ISH, ISH_RULES),
            counts=counts,
            heterogeneity=heterogeneity(counts.all, ISH, ISH_RULES),
            population=None,
            rules=ISH_RULES.name,
            rules_version=ISH_RULES.version,
            **dict.fromkeys(
                ("n_nuclei", "n_tumour", "n_evaluable", "n_well_shaped", "n_flagged", "n_unscorable"),
                counted.n,
            ),
            n_areas=2,
            her2_spots_mean=None,
            cep17_spots_mean=None,
        )
        self._add(name, Assay.FISH, hexes, more, ish=score)

    def _add(self, name: str, assay: Assay, hexes: Hexes, more: dict[str, Any], **score: Any) -> None:
        row = SlideRow(**({"slide_id": name, "case_id": "c1", "uri": "x.tif", "assay": assay} | more))
        self.outcomes.append(SlideOutcome(row, SlideState.SCORED, profile=PROFILE, **score))
        self.hexes[name] = hexes

    def read(self, name: str) -> Hexes:
        self.asked.append(name)
        return self.hexes[name]

    def compare(self) -> dict[str, Comparison]:
        """Comparisons of every patient."""
        outcomes = {o.slide.slide_id: o for o in self.outcomes}
        comparer = Comparer(outcomes, self.read, PARAMS, SCORE, ISH)
        cases = score_cases(self.outcomes, SCORE, RULES, ISH)
        return {patient: comparer.compare(found) for patient, found in by_patient(cases).items()}

    def specimen(self) -> dict[str, ComparedMetric]:
        """Metrics of the only specimen."""
        ((_, found),) = self.compare()["c1"].specimens
        return by_name(found)

    def patient(self) -> dict[str, ComparedMetric]:
        """Metrics of the only patient."""
        (found,) = self.compare().values()
        return by_name(found.lesions)


def by_name(found: Sequence[ComparedMetric]) -> dict[str, ComparedMetric]:
    named = {each.metric.name: each for each in found}
    assert len(named) == len(found)
    return named


def values(found: dict[str, ComparedMetric]) -> dict[str, float | None]:
    return {name: each.metric.value for name, each in found.items()}


def many(mix: Sequence[int], hexagons: int = 20) -> Hexes:
    return cells(*[mix] * hexagons)


# By hand


def test_one_block_without_stain_and_one_of_3() -> None:
    """All that can differ does: all variance lies between them, and a cell's score tells its block."""
    cohort = Cohort()
    cohort.ihc("s1", many([10, 0, 0, 0]), block_id="B1")
    cohort.ihc("s2", many([0, 0, 0, 10]), block_id="B2")
    found = cohort.specimen()
    for kind in ("blocks", "slides"):
        assert {
            name.removeprefix(f"{kind}_"): each.metric.value for name, each in found.items() if kind in name
        } == {
            "eta2_od": pytest.approx(1.0),
            "js_divergence": pytest.approx(math.log(2)),
            "p3_pct_sd": pytest.approx(100 / math.sqrt(2)),
            "p3_pct_range": 100.0,
            "p2_pct_sd": pytest.approx(100 / math.sqrt(2)),
            "p2_pct_range": 100.0,
            "membrane_od_mean_sd": pytest.approx(0.75 / math.sqrt(2)),
            "membrane_od_mean_range": 0.75,
            "h_score_sd": pytest.approx(300 / math.sqrt(2)),
            "h_score_range": 300.0,
            "score_range": 3.0,
        }
    assert found["blocks_eta2_od"].units == ("B1", "B2")
    assert found["slides_eta2_od"].units == ("s1", "s2")
    assert (found["blocks_eta2_od"].metric.n, found["blocks_eta2_od"].cells) == (2, 400)


def test_blocks_alike_do_not_differ() -> None:
    cohort = Cohort()
    for i in range(3):
        cohort.ihc(f"s{i}", many([5, 3, 2, 1]), block_id=f"B{i}")
    for name, each in cohort.specimen().items():
        assert each.metric.status is Status.OK
        assert each.metric.value == pytest.approx(0.0, abs=1e-12), name
        assert each.metric.low in (None, 0.0), name


def test_a_quarter_of_the_variance() -> None:
    """Half 0 and half 1 (by OD 0 and 0.25) beside half 2 and half 3: 0.25² within, 0.5² between, over 4."""
    cohort = Cohort()
    cohort.ihc("s1", many([5, 5, 0, 0]), block_id="B1")
    cohort.ihc("s2", many([0, 0, 5, 5]), block_id="B2")
    found = values(cohort.specimen())
    assert found["blocks_eta2_od"] == pytest.approx(0.25**2 / (0.25**2 + 0.125**2))
    assert found["blocks_js_divergence"] == pytest.approx(math.log(4) - math.log(2))
    assert found["blocks_p3_pct_range"] == 50.0
    assert found["blocks_p2_pct_range"] == 100.0


def test_slides_of_one_block_are_pooled() -> None:
    """Two slides that differ, in one block: between blocks the other block's cells are alike."""
    cohort = Cohort()
    cohort.ihc("s1", many([10, 0, 0, 0]), block_id="B1")
    cohort.ihc("s2", many([0, 0, 0, 10]), block_id="B1")
    cohort.ihc("s3", many([5, 0, 0, 5]), block_id="B2")
    cohort.ihc("s4", many([5, 5, 0, 0]))
    found = cohort.specimen()
    assert found["blocks_eta2_od"].metric.value == pytest.approx(0.0, abs=1e-12)
    assert found["blocks_eta2_od"].units == ("B1", "B2")  # what names no block is none
    assert found["slides_eta2_od"].metric.n == 4
    assert (found["slides_p3_pct_range"].metric.value, found["slides_score_range"].metric.value) == (
        100.0,
        3.0,
    )


def test_one_block_or_one_of_few_cells_is_compared_with_nothing() -> None:
    cohort = Cohort()
    cohort.ihc("s1", many([10, 0, 0, 0]), block_id="B1")
    cohort.ihc("s2", cells([0, 0, 0, 99]), block_id="B2")
    found = cohort.specimen()
    scored = found.pop("blocks_score_range"), found.pop("slides_score_range")
    assert {(e.metric.status, e.metric.n, e.metric.value, e.cells) for e in found.values()} == {
        (Status.INSUFFICIENT, 1, None, 200)
    }
    assert {e.metric.value for e in scored} == {3.0}  # both have a score, if on few cells
    assert cohort.asked == []


def test_what_is_all_alike_has_no_variance_to_share() -> None:
    cohort = Cohort()
    for i in range(2):
        cohort.ihc(f"s{i}", many([0, 10, 0, 0]), block_id=f"B{i}")
    found = cohort.specimen()
    assert found["blocks_eta2_od"].metric.status is Status.DEGENERATE
    assert found["blocks_js_divergence"].metric.value == 0.0


def test_blocks_of_nuclei() -> None:
    """200 nuclei of 2 HER2 and 2 CEP17 signals, and 200 of 8 and 2."""
    cohort = Cohort()
    cohort.ish("f1", nuclei(*[[(2, 2)] * 10] * 20), block_id="B1")
    cohort.ish("f2", nuclei(*[[(8, 2)] * 10] * 20), block_id="B2")
    found = values(cohort.specimen())
    assert {name: value for name, value in found.items() if name.startswith("blocks_")} == {
        "blocks_eta2_copies": pytest.approx(1.0),
        "blocks_copies_mean_sd": pytest.approx(6 / math.sqrt(2)),
        "blocks_copies_mean_range": 6.0,
        "blocks_ratio_sd": pytest.approx(3 / math.sqrt(2)),
        "blocks_ratio_range": 3.0,
        "blocks_amplified_sd": pytest.approx(1 / math.sqrt(2)),
        "blocks_amplified_range": 1.0,
    }


# Lesions


def lesions() -> Cohort:
    cohort = Cohort()
    cohort.ihc("a1", many([8, 0, 0, 2]), site="primary", specimen_id="core", patient_id="p1")
    cohort.ihc("a2", many([5, 0, 0, 5]), site="primary", specimen_id="excision", patient_id="p1")
    cohort.ihc("b", many([9, 1, 0, 0]), case_id="c2", site="metastasis:liver", patient_id="p1")
    cohort.ihc("d", many([0, 0, 10, 0]), case_id="c3", site="unknown", patient_id="p1")
    cohort.ish("f1", nuclei(*[[(8, 2)] * 10] * 20), site="primary", specimen_id="core", patient_id="p1")
    cohort.ish("f2", nuclei(*[[(2, 2)] * 10] * 20), case_id="c2", site="metastasis:liver", patient_id="p1")
    return cohort


def test_primary_and_metastasis_are_set_side_by_side() -> None:
    """Two specimens of the primary: the first of the highest class stands for it, as in ``patients``."""
    found = lesions().patient()
    assert found["lesions_p3_pct_range"].units == ("c1/core/primary", "c2/metastasis:liver")
    assert {name: value for name, value in values(found).items() if name.startswith("metastasis_")} == {
        "metastasis_less_primary_p3_pct": -20.0,
        "metastasis_less_primary_p2_pct": -20.0,
        "metastasis_less_primary_membrane_od_mean": pytest.approx(0.025 - 0.15),
        "metastasis_less_primary_h_score": pytest.approx(10.0 - 60.0),
        "metastasis_less_primary_score": -3.0,
        "metastasis_less_primary_copies_mean": -6.0,
        "metastasis_less_primary_ratio": -3.0,
        "metastasis_less_primary_amplified": -1.0,
    }
    assert found["lesions_score_range"].metric.value == 3.0
    assert found["lesions_eta2_copies"].metric.value == pytest.approx(1.0)


def test_specimens_are_compared_each_by_itself() -> None:
    """No specimen has two slides of one assay, and none borrows another's."""
    (one,) = lesions().compare().values()
    assert [case.name for case, _ in one.specimens] == [
        "c1/core/primary", "c1/excision/primary", "c2/metastasis:liver", "c3/unknown",
    ]  # fmt: skip
    for _, found in one.specimens:
        assert {each.metric.n for each in found} <= {0, 1}
        assert {each.metric.status for each in found} == {Status.INSUFFICIENT}


def test_one_probe_is_not_compared_with_two() -> None:
    cohort = lesions()
    counted = SignalCounts(False, ((7, 0, 200),))
    hexes = np.column_stack(
        [np.full(20, 10.0), np.full(20, 70.0), np.full(20, 490.0), np.zeros(20), np.full(20, 10.0)]
    )
    cohort.ish("f3", (hexes, counted), case_id="c4", site="metastasis:bone", patient_id="p1")
    assert cohort.patient()["lesions_copies_mean_range"].metric.value == 6.0
    alone = Cohort()
    for name, site in (("f1", "primary"), ("f2", "metastasis")):
        alone.ish(name, (hexes, counted), site=site, specimen_id=name)
    found = alone.patient()
    assert found["lesions_copies_mean_range"].metric.value == 0.0
    assert "lesions_ratio_range" not in found


def test_only_slides_that_are_compared_are_read_and_each_once() -> None:
    cohort = lesions()
    cohort.ihc("z", many([5, 5, 0, 0]), case_id="c9")
    cohort.compare()
    assert sorted(cohort.asked) == ["a1", "b", "f1", "f2"]


# Against other formulas

SCORES = st.lists(st.integers(0, 3), min_size=5, max_size=40)


@given(st.lists(SCORES, min_size=2, max_size=5))
def test_shares_agree_with_cells_one_by_one(blocks: list[list[int]]) -> None:
    """eta² against the sums of squares of an analysis of variance, divergence against SciPy."""
    counts = np.array([np.bincount(block, minlength=4) for block in blocks], np.float64)
    units = np.stack([cells(row).sum(axis=0) for row in counts])
    ods = [OD[block] for block in blocks]
    everyone = np.concatenate(ods)
    total = float(np.sum((everyone - everyone.mean()) ** 2))
    within = sum(float(np.sum((od - od.mean()) ** 2)) for od in ods)
    if total > 0:
        assert float(eta2(units)) == pytest.approx(1 - within / total, abs=1e-9)
    p = counts / counts.sum(axis=1, keepdims=True)
    mixed = stats.entropy(p.mean(axis=0)) - np.mean([stats.entropy(row) for row in p])
    assert float(js_divergence(units)) == pytest.approx(mixed, abs=1e-12)
    if len(blocks) == 2:
        assert float(js_divergence(units)) == pytest.approx(jensenshannon(*p) ** 2, abs=1e-9)
    assert float(js_divergence(units)) <= math.log(len(blocks)) + 1e-12


def test_hexagons_of_the_table_add_up_to_the_cells(tmp_path: Path) -> None:
    """From a slide's rows of ``regions``, as a run reads them, to number, sum and squares of its cells."""
    store, draw = Store(tmp_path), np.random.default_rng(5)
    y, x = draw.uniform(0, 2000, (2, 3000))
    od = draw.uniform(0, 1.5, 3000).astype(np.float32)
    yes = np.ones(3000, np.bool_)
    classes = draw.integers(0, 5, 3000).astype(np.int8)
    measured = MeasuredCells(y, x, od, od, od, od, yes, yes, np.ones_like(od), od)
    sweep = [regions_of_cells(measured, classes, size, RULES, 100) for size in (100.0, 250.0)]
    slide = SlideRow("s1", "c1", "x.tif", Assay.IHC)
    file = write_slide_file(store, REGIONS, "key", region_rows(slide, sweep))
    assert file is not None
    hexes = block_sums(store, file, 250.0, Assay.IHC)
    assert len(hexes) == (BLOCKS if len(sweep[1]) >= BLOCKS else 1)
    exact = od.astype(np.float64)
    scores = np.bincount(np.array([0, 1, 2, 2, 3])[classes], minlength=4)
    assert Sums.of(hexes, 99, "s1").total == pytest.approx(
        [3000, exact.sum(), (exact**2).sum(), *scores], abs=1e-4
    )


def test_hexagons_of_nuclei_add_up_too(tmp_path: Path) -> None:
    store, draw = Store(tmp_path), np.random.default_rng(6)
    her2, cep17 = draw.integers(1, 12, 500), draw.integers(1, 4, 500)
    found = MeasuredNuclei(
        nucleus_id=np.arange(500),
        y_um=draw.uniform(0, 900, 500),
        x_um=draw.uniform(0, 900, 500),
        flags=np.zeros(500, np.uint8),
        tumour=np.ones(500, np.bool_),
        her2_spots=her2,
        her2_signals=her2,
        cep17_spots=cep17,
        cep17_signals=cep17,
    )
    slide = SlideRow("f1", "c1", "x.tif", Assay.FISH)
    sweep = [regions_of_nuclei(found, size, ISH, ISH_RULES) for size in (100.0, 250.0)]
    file = write_slide_file(store, REGIONS, "key", region_rows(slide, sweep))
    assert file is not None
    total = block_sums(store, file, 250.0, Assay.FISH).sum(axis=0)
    assert total.tolist() == [500, her2.sum(), (her2**2).sum(), cep17.sum(), (5 * her2 > 11 * cep17).sum()]


# Intervals


def planted(mean: float, seed: np.random.Generator, hexagons: int = 40) -> Hexes:
    """Hexagons of 40 cells around their own mean, which lies around the block's."""
    centres = mean + 0.1 * seed.standard_normal(hexagons)
    od = centres[:, None] + 0.1 * seed.standard_normal((hexagons, 40))
    scores = np.digitize(od, [0.2, 0.4, 0.6])
    mix = [(scores == k).sum(axis=1) for k in range(4)]
    return np.column_stack([np.full(hexagons, 40), od.sum(axis=1), (od**2).sum(axis=1), *mix])


@pytest.mark.parametrize("means", [(0.4, 0.4, 0.4), (0.4, 0.45, 0.5)], ids=["alike", "apart"])
def test_intervals_hold_the_truth_of_blocks_alike_and_apart(means: tuple[float, ...]) -> None:
    names = ("blocks_eta2_od", "blocks_js_divergence", "blocks_p3_pct_sd", "blocks_membrane_od_mean_sd")
    seed, trials = np.random.default_rng(8), 60

    def measure(hexagons: int) -> dict[str, Metric]:
        units = []
        for i, mean in enumerate(means):
            sums = Sums.of(planted(mean, seed, hexagons), 200, f"s{i}")
            units.append(Unit(f"B{i}", 40 * hexagons, sums, 1, 0.0))
        return {each.metric.name: each.metric for each in cells_between("blocks", units, 100)}

    truth = {name: m.value or 0.0 for name, m in measure(5_000).items()}
    if len(set(means)) == 1:
        truth = dict.fromkeys(truth, 0.0)
    held = dict.fromkeys(names, 0)
    for _ in range(trials):
        found = measure(BLOCKS)
        for name in names:
            low, high = found[name].low, found[name].high
            assert low is not None
            assert high is not None
            held[name] += low <= truth[name] <= high
    assert min(held.values()) >= 0.85 * trials, held


def test_few_hexagons_give_no_interval_and_few_draws_none_either() -> None:
    cohort = Cohort()
    cohort.ihc("s1", many([40, 0, 0, 0], 9), block_id="B1")
    cohort.ihc("s2", many([30, 0, 0, 10], 20), block_id="B2")
    found = cohort.specimen()
    assert {e.metric.status for e in found.values()} == {Status.OK}
    assert {(e.metric.low, e.metric.high) for e in found.values()} == {(None, None)}
    assert unbiased_interval(0.1, np.linspace(0.1, 0.2, 9), 1.0) is None


def test_draws_that_are_all_alike_give_no_interval() -> None:
    """Blocks without one cell of another class: how rare such cells are is not known from draws."""
    cohort = Cohort()
    cohort.ihc("s1", many([10, 0, 0, 0]), block_id="B1")
    cohort.ihc("s2", planted(0.4, np.random.default_rng(3)), block_id="B2")
    cohort.ihc("s3", many([0, 0, 0, 10]), block_id="B3")
    assert cohort.specimen()["blocks_eta2_od"].metric.low is not None
    del cohort.outcomes[1]
    found = cohort.specimen()
    assert found["blocks_eta2_od"].metric.value == pytest.approx(1.0)
    assert {(e.metric.low, e.metric.high) for e in found.values()} == {(None, None)}
    assert unbiased_interval(0.1, np.full(99, 0.1), 1.0) is None


def test_slides_are_drawn_independently() -> None:
    """Equal hexagons under other names give other replicates; the same name gives the same."""
    hexes = planted(0.4, np.random.default_rng(1))
    one, again, other = (Sums.of(hexes, 99, name).replicates for name in ("s1", "s1", "s2"))
    assert one is not None
    assert np.array_equal(one, again)  # type: ignore[arg-type]
    assert other is not None
    assert abs(np.corrcoef(one[:, 1], other[:, 1])[0, 1]) < 0.35


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_slides_makes_no_difference(seed: int) -> None:
    cohort, shuffled = lesions(), lesions()
    draw = np.random.default_rng(2)
    for one in (cohort, shuffled):
        draw = np.random.default_rng(2)
        for i in range(5):
            one.ihc(f"x{i}", planted(0.3 + i / 20, draw), case_id="c7", block_id=f"B{i // 2}")
    random.Random(seed).shuffle(shuffled.outcomes)
    assert cohort.compare() == shuffled.compare()


# Tables


def test_every_metric_is_in_the_catalogue_and_every_name_of_it_is_given() -> None:
    cohort = lesions()
    (found,) = cohort.compare().values()
    specimen = {each.metric.name for _, compared in found.specimens for each in compared}
    assert specimen == {named.name for named in CASE_METRICS}
    assert {each.metric.name for each in found.lesions} == {named.name for named in PATIENT_METRICS}
    for named in (*CASE_METRICS, *PATIENT_METRICS):
        assert named.columns == {None: named.name}


def test_discordance_is_that_of_the_case() -> None:
    cohort = Cohort()
    cohort.ihc("s1", many([10, 0, 0, 0]), block_id="B1")
    cohort.ihc("s2", many([8, 2, 0, 0]), block_id="B2")
    cohort.ihc("s3", many([0, 0, 0, 10]), block_id="B2")
    (case,) = score_cases(cohort.outcomes, SCORE, RULES, ISH)
    found = values(cohort.specimen())
    assert found["slides_score_range"] == case.discordance == 3
    assert found["blocks_score_range"] == case.block_discordance == 3


def commit(store: Store, cohort: Cohort) -> None:
    for patient, found in cohort.compare().items():
        tidy = [row for case, compared in found.specimens for row in case_metric_rows(case, compared)]
        wide = [case_wide_row(case, compared) for case, compared in found.specimens]
        commit_rows(store, CASE_HETEROGENEITY, tidy)
        commit_rows(store, CASE_HETEROGENEITY_WIDE, wide)
        commit_rows(store, PATIENT_HETEROGENEITY, patient_metric_rows(patient, found.lesions))
        commit_rows(store, PATIENT_HETEROGENEITY_WIDE, [patient_wide_row(patient, found.lesions)])


def test_polars_and_duckdb_read_what_was_compared(tmp_path: Path) -> None:
    store, cohort = Store(tmp_path), lesions()
    cohort.ihc("x1", many([10, 0, 0, 0]), case_id="c7", block_id="B1")
    cohort.ihc("x2", many([0, 0, 0, 10]), case_id="c7", block_id="B2")
    commit(store, cohort)
    tidy = pl.read_delta(store.delta_uri("tables/case_heterogeneity"))
    wide = pl.read_delta(store.delta_uri("tables/case_heterogeneity_wide"))
    one = tidy.row(
        by_predicate=(pl.col("case_id") == "c7") & (pl.col("metric") == "blocks_eta2_od"), named=True
    )
    assert (one["n"], one["n_cells"], one["status"], one["units"]) == (2, 400, "ok", ["B1", "B2"])
    row = wide.row(by_predicate=pl.col("case_id") == "c7", named=True)
    assert (row["blocks_eta2_od"], row["blocks_eta2_od_status"]) == (one["value"], "ok")
    assert (row["blocks_eta2_od_low"], row["blocks_eta2_od_high"]) == (one["low"], one["high"])
    assert (row["blocks_eta2_copies"], row["blocks_eta2_copies_status"]) == (None, None)  # it has no ISH
    wide = duckdb.read_parquet(DeltaTable(store.delta_uri("tables/patient_heterogeneity_wide")).file_uris())
    columns = "patient_id, metastasis_less_primary_p3_pct, lesions_score_range_status"
    asked = f"SELECT {columns} FROM lesions ORDER BY 1"
    assert wide.query("lesions", asked).fetchall() == [("c7", None, "insufficient"), ("p1", -20.0, "ok")]


def test_wide_and_tidy_say_the_same(tmp_path: Path) -> None:
    store = Store(tmp_path)
    commit(store, lesions())
    tidy = pl.read_delta(store.delta_uri("tables/patient_heterogeneity"))
    wide = pl.read_delta(store.delta_uri("tables/patient_heterogeneity_wide"))
    assert len(tidy) == len(PATIENT_METRICS)
    for row in tidy.iter_rows(named=True):
        for column, ending in (("value", ""), ("low", "_low"), ("high", "_high"), ("status", "_status")):
            assert wide[f"{row['metric']}{ending}"].item() == row[column]


def test_a_late_slide_changes_its_own_case_and_patient(tmp_path: Path) -> None:
    """Rows are replaced by case, and by patient; all others stay as they are."""
    store, early = Store(tmp_path), lesions()
    early.ihc("x1", many([10, 0, 0, 0]), case_id="c7", block_id="B1")
    commit(store, early)

    def read(name: str) -> pl.DataFrame:
        return pl.read_delta(store.delta_uri(f"tables/{name}"))

    names = (
        "case_heterogeneity",
        "case_heterogeneity_wide",
        "patient_heterogeneity",
        "patient_heterogeneity_wide",
    )
    before = {name: read(name) for name in names}
    late = Cohort()
    late.ihc("x1", many([10, 0, 0, 0]), case_id="c7", block_id="B1")
    late.ihc("x2", many([0, 0, 0, 10]), case_id="c7", block_id="B2")
    commit(store, late)
    for name in names:
        own = pl.col("case_id" if name.startswith("case") else "patient_id") == "c7"
        assert_frame_equal(read(name).filter(~own), before[name].filter(~own), check_exact=True)
    assert read("case_heterogeneity_wide").filter(case_id="c7")["blocks_eta2_od"].item() == pytest.approx(1.0)
