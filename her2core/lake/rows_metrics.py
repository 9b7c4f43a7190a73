"""From metrics to rows of ``heterogeneity`` and its sisters, tidy and wide; see `schema`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from her2core.cases.specimens import CaseScore
from her2core.heterogeneity.between import ComparedMetric
from her2core.heterogeneity.catalogue import CASE_METRICS, PATIENT_METRICS, SLIDE_METRICS, MetricSpec
from her2core.heterogeneity.metrics import Metric
from her2core.records import SlideRow

Row = dict[str, Any]


def metric_rows(slide: SlideRow, metrics: Sequence[Metric]) -> list[Row]:
    """Rows of ``heterogeneity``: the metrics of a slide."""
    ids = {"slide_id": slide.slide_id, "case_id": slide.case_id}
    return [ids | _tidy(m) | {"scale_um": m.scale_um, "label": m.label} for m in metrics]


def wide_row(slide: SlideRow, metrics: Sequence[Metric]) -> Row:
    """Row of ``heterogeneity_wide``: the same side by side."""
    return {"slide_id": slide.slide_id, "case_id": slide.case_id} | _wide(SLIDE_METRICS, metrics)


def case_metric_rows(case: CaseScore, compared: Sequence[ComparedMetric]) -> list[Row]:
    """Rows of ``case_heterogeneity``: how the slides and blocks of a specimen differ."""
    return [_specimen(case) | _compared(each) for each in compared]


def case_wide_row(case: CaseScore, compared: Sequence[ComparedMetric]) -> Row:
    """Row of ``case_heterogeneity_wide``."""
    return _specimen(case) | _wide(CASE_METRICS, [each.metric for each in compared])


def patient_metric_rows(patient: str, compared: Sequence[ComparedMetric]) -> list[Row]:
    """Rows of ``patient_heterogeneity``: how the lesions of a patient differ."""
    return [{"patient_id": patient} | _compared(each) for each in compared]


def patient_wide_row(patient: str, compared: Sequence[ComparedMetric]) -> Row:
    """Row of ``patient_heterogeneity_wide``."""
    return {"patient_id": patient} | _wide(PATIENT_METRICS, [each.metric for each in compared])


def _specimen(case: CaseScore) -> Row:
    return {"case_id": case.case_id, "specimen_id": case.specimen_id, "site": case.site}


def _tidy(metric: Metric) -> Row:
    return {
        "metric": metric.name,
        "value": metric.value,
        "low": metric.low,
        "high": metric.high,
        "n": metric.n,
        "status": str(metric.status),
    }


def _compared(compared: ComparedMetric) -> Row:
    return _tidy(compared.metric) | {"n_cells": compared.cells, "units": list(compared.units)}


def _wide(named: Iterable[MetricSpec], metrics: Sequence[Metric]) -> Row:
    """Columns of a wide table; those of metrics that are not there are null, status as well."""
    found = {(metric.name, metric.scale_um): metric for metric in metrics}
    row: Row = {}
    for each in named:
        for scale, column in each.columns.items():
            metric = found.get((each.name, scale))
            for part in ("value", "low", "high", "status", *(("label",) if each.labelled else ())):
                name = column if part == "value" else f"{column}_{part}"
                row[name] = None if metric is None else getattr(metric, part)
    return row
