"""What a run left in the lake, as of that run, whatever came later."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from her2core.errors import ConfigError
from her2core.lake.finished import finished_runs, whole_run
from her2core.lake.ghosts import slides_of
from her2core.lake.schema import CASES, HETEROGENEITY_WIDE, PATIENTS, RUNS, SLIDES, Table
from her2core.lake.tables import read_version
from her2core.storage.store import Store

Row = dict[str, Any]

ADDRESSES = ("uri", "roi_source", "cells_source")
"""Columns of ``slides`` that hold addresses: never shown, and their folders are taken out of messages."""
SLIDE_COLUMNS = tuple(column.name for column in SLIDES.columns)
CASE_COLUMNS = tuple(column.name for column in CASES.columns)
PATIENT_COLUMNS = ("patient_id", "specimens", "primary_metastasis", "primary_metastasis_change")
MEASURES = (
    "gini_simpson",
    "shannon",
    "membrane_od_cv",
    "eta2_100um",
    "discordant_fraction_250um",
    "region_score_range_250um",
    "moran_i_od_100um",
    "hot_fraction_od_100um",
    "biopsy_needle_other_1_10000um",
    "copies_cv",
    "amplified_ratio_arm",
)
"""Metrics of heterogeneity that the report draws; the table ``heterogeneity_wide`` holds all."""


@dataclass(frozen=True, slots=True)
class RunTables:
    """Rows of one run.

    Attributes
    ----------
    run
        Its row of ``runs``, without ``inputs``.
    slides, cases, patients
        Rows of the tables of these names that belong to it, sorted by their keys.
    measures
        `MEASURES` by slide.
    """

    run: Row
    slides: tuple[Row, ...]
    cases: tuple[Row, ...]
    patients: tuple[Row, ...]
    measures: dict[str, Row]

    @property
    def run_id(self) -> str:
        return str(self.run["run_id"])


def read_run(store: Store, run_id: str | None = None) -> RunTables:
    """Read a run's rows at the versions of the tables that it names.

    Parameters
    ----------
    store
        Output of the run.
    run_id
        Which run; the last one that finished if None.

    Raises
    ------
    ConfigError
        If the output holds no finished run, or not this one.
    """
    runs = finished_runs(store) if store.exists(f"tables/{RUNS.name}/_delta_log") else []
    if not runs:
        raise ConfigError(
            f"{store.uri()} holds no finished run; start one with: her2 run MANIFEST --out {store.uri()}"
        )
    if run_id is not None and run_id not in runs:
        last = ", ".join(runs[-5:])
        raise ConfigError(f"{store.uri()} holds no finished run {run_id}; the last ones are {last}")
    run = whole_run(store, run_id or runs[-1])
    own = {each["slide_id"] for each in json.loads(run.pop("inputs"))}

    def rows(table: Table, columns: Sequence[str]) -> list[Row]:
        read = read_version(store, table, columns, run[f"{table.name}_version"]).to_pylist()
        return sorted(read, key=lambda row: [row[name] or "" for name in table.key])

    slides = [row for row in rows(SLIDES, SLIDE_COLUMNS) if row["slide_id"] in own]
    cases = [row for row in rows(CASES, CASE_COLUMNS) if own.intersection(slides_of(row))]
    patients = {patient_key(row) for row in cases}
    return RunTables(
        run=run,
        slides=tuple(slides),
        cases=tuple(cases),
        patients=tuple(row for row in rows(PATIENTS, PATIENT_COLUMNS) if row["patient_id"] in patients),
        measures={
            row["slide_id"]: row
            for row in rows(HETEROGENEITY_WIDE, ("slide_id", "case_id", *MEASURES))
            if row["slide_id"] in own
        },
    )


def patient_key(row: Row) -> str:
    """Whose a slide or specimen is: the patient, or the case where the manifest names none."""
    return str(row["patient_id"] or row["case_id"])


def specimen_key(row: Row) -> tuple[str, str, str]:
    """What a row of ``slides`` and one of ``cases`` have in common."""
    return row["case_id"], row["specimen_id"] or "", row["site"] or ""
