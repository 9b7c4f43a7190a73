"""The names of metrics: those that slides give, no more and no fewer, and one column each."""

from __future__ import annotations

import numpy as np
import pytest

from her2core.guidelines.rules_ihc import load_rules
from her2core.guidelines.rules_ish import load_ish_rules
from her2core.heterogeneity.biopsy import virtual_biopsies
from her2core.heterogeneity.catalogue import CASE_METRICS, PATIENT_METRICS, SLIDE_METRICS, MetricSpec
from her2core.heterogeneity.ihc import measure_heterogeneity, sweep_regions
from her2core.heterogeneity.ish import measure_ish_heterogeneity, sweep_nuclei
from her2core.heterogeneity.metrics import Metric, insufficient, measured
from her2core.lake.rows_metrics import metric_rows, wide_row
from her2core.lake.schema import HETEROGENEITY_WIDE
from her2core.params import HeterogeneityParams, ISHScoreParams
from her2core.records import Assay, Quality, SlideRow
from her2core.scoring.ihc import MeasuredCells
from her2core.scoring.ish import score_ish
from her2core.scoring.ish_nuclei import MeasuredNuclei

PARAMS = HeterogeneityParams(replicates=99, permutations=99, biopsies=99)
GOOD = Quality("pass", (), 10.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.02)
SLIDE = SlideRow("s1", "c1", "x.tif", Assay.IHC)


@pytest.fixture(scope="module")
def metrics() -> tuple[Metric, ...]:
    """Those of an IHC slide and of an ISH slide, both small."""
    draw, n = np.random.default_rng(3), 600
    y, x = draw.uniform(0, 800, (2, n))
    od, yes = draw.uniform(0, 1, n).astype(np.float32), np.ones(n, np.bool_)
    cells, classes = (
        MeasuredCells(y, x, od, od, od, od, yes, yes, np.ones_like(od), od),
        draw.integers(0, 5, n).astype(np.int8),
    )
    rules = load_rules("breast_asco_cap_2018")
    sweep = sweep_regions(cells, classes, PARAMS, rules)
    of_cells = measure_heterogeneity(cells, classes, sweep, PARAMS, "3+")
    biopsies = virtual_biopsies(y, x, classes, rules, PARAMS)
    score = ISHScoreParams(replicates=100)
    her2, cep17 = draw.integers(1, 12, n), draw.integers(1, 4, n)
    nuclei = MeasuredNuclei(np.arange(n), y, x, np.zeros(n, np.uint8), yes, her2, her2, cep17, cep17)
    ish_rules = load_ish_rules(score.rules)
    genetic = score_ish(nuclei, score, ish_rules, GOOD).heterogeneity
    sweep_ish = sweep_nuclei(nuclei, PARAMS, score, ish_rules)
    of_nuclei = measure_ish_heterogeneity(nuclei, sweep_ish, PARAMS, score, ish_rules, genetic)
    return (*of_cells, *biopsies, *of_nuclei)


def test_slides_give_the_metrics_of_the_catalogue(metrics: tuple[Metric, ...]) -> None:
    """A metric that is new, or whose name changes, belongs into her2core/heterogeneity/catalogue.py."""
    given = {(metric.name, metric.scale_um) for metric in metrics}
    assert given == {(named.name, scale) for named in SLIDE_METRICS for scale in named.columns}
    assert len(given) == len(metrics)
    labelled = {metric.name for metric in metrics if metric.label not in (None, "unimodal")}
    assert {named.name for named in SLIDE_METRICS if named.labelled} <= labelled


@pytest.mark.parametrize("catalogue", [SLIDE_METRICS, CASE_METRICS, PATIENT_METRICS])
def test_every_column_is_one_metric_at_one_size(catalogue: tuple[MetricSpec, ...]) -> None:
    columns = [column for named in catalogue for column in named.columns.values()]
    assert len(set(columns)) == len(columns)
    assert all(named.meaning.endswith(".") for named in catalogue)


def test_names_of_columns() -> None:
    named = MetricSpec("moran_i_od", "Moran's I.", "", (100.0, 250.0))
    assert named.columns == {100.0: "moran_i_od_100um", 250.0: "moran_i_od_250um"}
    assert named.pattern == "moran_i_od_{100,250}um"
    assert MetricSpec("shannon", "Entropy.").columns == {None: "shannon"}
    assert MetricSpec("proximity", "Near.", "", (25.0,)).pattern == "proximity_25um"


def test_a_wide_row_holds_what_the_tidy_ones_hold(metrics: tuple[Metric, ...]) -> None:
    row = wide_row(SLIDE, metrics)
    assert list(row) == HETEROGENEITY_WIDE.schema.names
    stems = {(named.name, scale): c for named in SLIDE_METRICS for scale, c in named.columns.items()}
    for tidy in metric_rows(SLIDE, metrics):
        column = stems[tidy["metric"], tidy["scale_um"]]
        for part, ending in (("value", ""), ("low", "_low"), ("high", "_high"), ("status", "_status")):
            assert row[f"{column}{ending}"] == tidy[part]
    assert row["pattern_minority_3_25um_label"] == "scattered"
    assert row["amplified_ratio_arm_label"] == "amplified"


def test_what_is_measured_at_other_sizes_stays_tidy_and_what_is_not_is_null() -> None:
    found = [measured("eta2", 0.5, 40, scale_um=300.0), insufficient("shannon", 7)]
    row = wide_row(SLIDE, found)
    assert {name: value for name, value in row.items() if value is not None} == {
        "slide_id": "s1",
        "case_id": "c1",
        "shannon_status": "insufficient",
    }
