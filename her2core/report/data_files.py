"""The tables behind the figures beside the page, each as CSV and as Parquet, and what their columns mean."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from her2core.lake.schema import CASES, HETEROGENEITY_WIDE, SLIDES
from her2core.report.batches import FEWEST
from her2core.report.quality import OUTLYING
from her2core.storage.store import Store
from her2core.text import harmless

OWN = {
    "name": "case, specimen and site",
    "stage": "how far a slide came: received, readable, scored or called",
    "why": "why it came no further; of a specimen, what made its result",
    "notes": "the slide's reasons in words",
    "possible_scores": "scores that stay possible",
    "review": "a person should look",
    "disagreements": "what disagrees",
    "reported_ish": "ISH reported elsewhere",
    "specimens": "number of specimens",
    "slides": "number of slides",
    "patients": "number of patients",
    "value": "value of a measure; in tables of counts, the code that is counted",
    "meaning": "the code in words",
    "measure": "what is compared",
    "unit": "unit of the value",
    "score": "IHC score; in quality, distance from the median of the assay in units of the spread",
    "outlier": f"the score lies beyond {OUTLYING}",
    "factor": "what slides are grouped by",
    "groups": f"groups with {FEWEST} slides or more",
    "n": "slides in these groups",
    "effect": "epsilon squared: share of the ranks' variance between groups",
    "p": "Kruskal-Wallis test",
    "q": "p adjusted over all tests of the report (Benjamini and Hochberg)",
    "specimen": "case, specimen and site",
    "between": "what disagrees with what",
    "what": "the disagreement in words",
    "reader": "score of the reader in the manifest",
    "machine": "score of the run",
    "month": "month of collection",
}
"""Columns that no table of the lake has."""


def write_tables(store: Store, folder: str, tables: Mapping[str, pa.Table]) -> list[str]:
    """Write every table twice, and ``columns.csv``, which explains each column; the paths written."""
    written = []
    for name, table in tables.items():
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        store.write_bytes(f"{folder}/{name}.csv", as_csv(table))
        store.write_bytes(f"{folder}/{name}.parquet", buffer.getbuffer())
        written += [f"{folder}/{name}.csv", f"{folder}/{name}.parquet"]
    store.write_bytes(f"{folder}/columns.csv", as_csv(_columns(tables)))
    return [*written, f"{folder}/columns.csv"]


def table_of(
    rows: Sequence[Mapping[str, Any]], names: Sequence[str] = (), of: pa.DataType | None = None
) -> pa.Table:
    """Rows as a table, also without a row.

    Parameters
    ----------
    names
        Columns of a table that may have no row, and of one whose type is given.
    of
        Type of all columns; by default that of their values.
    """
    if rows:
        schema = None if of is None else pa.schema([(name, of) for name in names])
        return pa.Table.from_pylist(list(rows), schema=schema)
    return pa.table({name: pa.nulls(0, of or pa.string()) for name in names})


def as_csv(table: pa.Table) -> bytes:
    """A table as UTF-8 CSV; no cell is a formula to a spreadsheet."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(table.column_names)
    for row in table.to_pylist():
        writer.writerow([harmless(cell) if isinstance(cell, str) else cell for cell in row.values()])
    return text.getvalue().encode("utf-8")


def _columns(tables: Mapping[str, pa.Table]) -> pa.Table:
    known = {
        column.name: (column.unit, column.description)
        for table in (HETEROGENEITY_WIDE, CASES, SLIDES)
        for column in table.columns
    }
    rows = []
    for name, table in tables.items():
        for column in table.column_names:
            unit, meaning = known.get(column, ("", ""))
            own = OWN.get(column, "") if name not in ("slides", "specimens") else ""
            rows.append(
                {
                    "file": name,
                    "column": column,
                    "unit": unit,
                    "meaning": own or meaning or OWN.get(column, ""),
                }
            )
    return pa.Table.from_pylist(rows)
