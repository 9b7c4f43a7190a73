"""A finished run without a pixel: rows of the lake written by hand, and small pictures."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from PIL import Image

from her2core.lake.schema import CASES, HETEROGENEITY_WIDE, PATIENTS, RUNS, SLIDES, Table
from her2core.lake.tables import commit_rows
from her2core.storage.store import Store

Row = dict[str, Any]

RUN = "20260102T030405Z-abcdef"
FOLDER = "/data/J. Doe/slides"
"""Folder that the slides came from: it must appear nowhere."""


def blank(table: Table, **values: Any) -> Row:
    """A row of a table: null, or empty where that is not allowed."""
    row: Row = {}
    for column in table.columns:
        empty: Any = None
        if column.required:
            if pa.types.is_list(column.type):
                empty = []
            elif pa.types.is_boolean(column.type):
                empty = False
            elif pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
                empty = 0
            elif pa.types.is_timestamp(column.type):
                empty = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
            else:
                empty = ""
        row[column.name] = empty
    unknown = values.keys() - row.keys()
    assert not unknown, unknown
    return row | values


def slide(name: str, case: str | None = None, **values: Any) -> Row:
    """A slide of a case of its own; scored 3+ unless the values have it otherwise."""
    of = case or f"case-{name}"
    usual = {
        "state": "scored", "assay": "HER2-IHC", "score": "3+", "her2_class": "pos_IHC3",
        "reasons": ["uncalibrated"], "patient_id": f"patient-{of}", "uri": f"{FOLDER}/{name}.svs",
        "uncalibrated": True, "borderline": False, "n_scored": 1000, "n0": 500, "n1": 100, "n2": 50,
        "n2u": 50, "n3": 300, "p3_pct": 30.0, "p2_pct": 40.0, "p_any_pct": 50.0, "h_score": 120.0,
        "scanner": "A",
        "membrane_od_mean": 0.4, "tissue_area_mm2": 10.0, "qc_verdict": "pass", "i0": [240.0, 240.0, 240.0],
        "rules": "breast_asco_cap_2018",
    }  # fmt: skip
    return blank(SLIDES, **({"slide_id": name, "case_id": of} | usual | values))


def unscored(name: str, state: str, *reasons: str, **values: Any) -> Row:
    """A slide that has no score."""
    measured = ("n_scored", "n0", "n1", "n2", "n2u", "n3", "p3_pct", "p2_pct", "p_any_pct", "h_score")
    gone = dict.fromkeys((*measured, "membrane_od_mean", "score", "her2_class", "rules", "uncalibrated"))
    return slide(name, **(gone | {"state": state, "reasons": list(reasons)} | values))


def specimen(of: Sequence[Row], **values: Any) -> Row:
    """The specimen of these slides, positive unless the values have it otherwise."""
    first = of[0]
    same = {name: first[name] for name in ("case_id", "patient_id", "specimen_id", "site", "score", "p3_pct")}
    usual = {"her2_status": "Positive", "her2_class": "pos_IHC3", "n_scored": 1000, "borderline": False}
    names = [row["slide_id"] for row in of]
    return blank(CASES, **(same | usual | {"slides": names, "reasons": ["uncalibrated"]} | values))


def picture(colour: str, wide: int = 200, high: int = 120) -> bytes:
    """A PNG of one colour."""
    out = io.BytesIO()
    Image.new("RGB", (wide, high), colour).save(out, "PNG")
    return out.getvalue()


def write_run(
    store: Store,
    slides: Sequence[Row],
    cases: Sequence[Row],
    patients: Sequence[Row] = (),
    measures: Sequence[Row] = (),
    run_id: str = RUN,
    **values: Any,
) -> None:
    """Commit the tables of a run."""
    rows: Mapping[Table, Sequence[Row]] = {
        SLIDES: slides,
        CASES: cases,
        PATIENTS: patients,
        HETEROGENEITY_WIDE: measures,
    }
    versions = {f"{table.name}_version": commit_rows(store, table, of) for table, of in rows.items()}
    run = blank(
        RUNS,
        **(
            {
                "run_id": run_id,
                "state": "partial",
                "manifest_uri": f"{FOLDER}/manifest.csv",
                "n_slides": len(slides),
                "manifest_sha256": "0" * 64,
                "configuration": "{}",
                "versions": json.dumps({"her2cohort": "0"}),
                "inputs": json.dumps([{"slide_id": row["slide_id"]} for row in slides]),
            }
            | versions
            | values
        ),
    )
    commit_rows(store, RUNS, [run])
