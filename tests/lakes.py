"""Finished runs without slides: the tables that analyses read, written as a run commits them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from her2core.lake.schema import CASES, HETEROGENEITY, SLIDES, Table
from her2core.lake.tables import commit_rows
from her2core.storage.store import Store

SCORES = {"pos_IHC3": "3+", "pos_IHC2_ISHpos": "2+", "low_2plus": "2+", "low_1plus": "1+", "equivocal": "2+"}
STATUSES = {"pos_IHC3": "Positive", "pos_IHC2_ISHpos": "Positive", "equivocal": "Equivocal"}


def row(table: Table, **known: Any) -> dict[str, Any]:
    """A row of a table: null where nothing is known, empty where null is not allowed."""
    return {c.name: known.get(c.name, _empty(c.type) if c.required else None) for c in table.columns}


def _empty(kind: pa.DataType) -> Any:
    if pa.types.is_list(kind):
        return []
    if pa.types.is_boolean(kind):
        return False
    return 0 if pa.types.is_integer(kind) or pa.types.is_floating(kind) else ""


def write_run(folder: Path, specimens: Iterable[Mapping[str, Any]]) -> Path:
    """An output with one IHC slide a specimen.

    A specimen: ``case_id``, ``her2_class`` and, where known, ``patient_id``, ``specimen_id``, ``site``,
    ``collection_date``, ``reader_score``, ``membrane_od_mean`` and ``metrics`` (name and size -> value).
    """
    store = Store(folder)
    slides, cases, metrics = [], [], []
    for one in specimens:
        ids = {k: one.get(k) for k in ("case_id", "patient_id", "specimen_id", "site", "collection_date")}
        found = one["her2_class"]
        score = SCORES.get(found, "0" if found != "indeterminate" else None)
        name = "-".join(str(ids[k]) for k in ("case_id", "specimen_id") if ids[k])
        own = {"score": score, "membrane_od_mean": one.get("membrane_od_mean"), "h_score": one.get("h_score")}
        state = "scored" if score else "indeterminate"
        slides.append(
            row(SLIDES, slide_id=name, assay="HER2-IHC", uri=f"slides/{name}.tif", state=state, n_scored=1000,
                reader_score=one.get("reader_score"), her2_class=found, **ids, **own)
        )  # fmt: skip
        status = STATUSES.get(found, "Indeterminate" if found == "indeterminate" else "Negative")
        cases.append(row(CASES, her2_status=status, her2_class=found, **ids, **own))
        for (metric, scale), value in one.get("metrics", {}).items():
            metrics.append(
                row(HETEROGENEITY, slide_id=name, case_id=ids["case_id"], metric=metric, scale_um=scale,
                    value=value, n=1000, status="ok")
            )  # fmt: skip
    for table, rows in ((SLIDES, slides), (CASES, cases), (HETEROGENEITY, metrics)):
        commit_rows(store, table, rows)
    return folder
