"""The tables of a run as CSV, Parquet and one XLSX workbook, with the dictionary of every column.

Nothing is lost on the way: every table has its columns and rows, and lists are JSON.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from her2core.errors import ConfigError
from her2core.export.finished import FinishedRun, Row, Selection
from her2core.extras import need
from her2core.lake.schema import TABLES, Table
from her2core.storage.store import Store
from her2core.storage.temporary import temporary_folder
from her2core.text import harmless

SMALL = tuple(name for name in TABLES if name not in ("cells", "nuclei"))
"""Tables that fit in memory and in a sheet; cells and nuclei on request, as CSV alone."""
DICTIONARY = "dictionary"
MAX_ROWS, MAX_COLUMNS, MAX_TEXT = 1_048_576, 16_384, 32_767
"""What a sheet of Excel holds, with its header; characters of a cell."""
_BY_STAIN = "85319-2 HER2 [Presence] in Breast cancer specimen by Immune stain (18474-7 in other tissue)"
_BY_ISH = (
    "85318-4 ERBB2 gene duplication [Presence] in Breast cancer specimen by FISH (31150-6 in other tissue)"
)
_RATIO = "49683-6 ERBB2 gene copy number/Chromosome 17 copy number in Tissue by FISH"
_COPIES = "74860-8 ERBB2 gene copy number/nucleus in Tissue by FISH"
_CONTROL = "74861-6 Chromosome 17 copy number/nucleus in Tissue by FISH"
LOINC: Mapping[tuple[str, str], str] = {
    ("slides", "score"): _BY_STAIN,
    ("slides", "reader_score"): _BY_STAIN,
    ("cases", "score"): _BY_STAIN,
    ("cases", "her2_status"): "48676-1 HER2 [Interpretation] in Tissue",
    ("cases", "ish_result"): _BY_ISH,
    **{(table, "ish_ratio"): _RATIO for table in ("slides", "cases")},
    **{(table, "ish_her2_mean"): _COPIES for table in ("slides", "cases")},
    **{(table, "ish_cep17_mean"): _CONTROL for table in ("slides", "cases")},
}
"""Codes for what a clinical system calls the same; by FISH where LOINC knows no other ISH."""
_SCORE = (
    "Observation.valueCodeableConcept of http://loinc.org (answer list LL4396-9): 0 is LA6111-4, "
    "1+ LA11841-6, 2+ LA11842-4, 3+ LA11843-2, none Indeterminate LA11884-6; 0+ (ultralow) has no code"
)
_READER = f"{_SCORE}; neither have 0_null and 0_ultralow, a reader's strata of 0: both are sent as 0"
_STATUS = (
    "Observation.valueCodeableConcept of http://snomed.info/sct: Positive is 10828004, Negative 260385009, "
    "Equivocal 42425007, Indeterminate 82334004"
)
_QUANTITY = "Observation.valueQuantity"
_QUANTITIES = ("ish_ratio", "ish_her2_mean", "ish_cep17_mean")
FHIR: Mapping[tuple[str, str], str] = {
    ("slides", "score"): _SCORE,
    ("slides", "reader_score"): _READER,
    ("cases", "score"): _SCORE,
    ("cases", "her2_status"): _STATUS,
    **{(t, name): _QUANTITY for t in ("slides", "cases") for name in _QUANTITIES},
    **{(t, "patient_id"): "Patient.identifier" for t in ("slides", "cases", "patients")},
    **{(t, "specimen_id"): "Specimen.identifier" for t in ("slides", "cases")},
    **{(t, "collection_date"): "Specimen.collection.collectedDateTime" for t in ("slides", "cases")},
}
"""Where FHIR R4 keeps a column, and its codes for the words in it.

References
----------
LL4396-9 as enumerated in the value set mii-vs-onko-mamma-her2neu-ihc-score of the German Medical Informatics
Initiative; Positive, Negative, Equivocal and Indeterminate as in mCODE's PositiveNegativeVS.
"""
ADDRESSES = frozenset(
    [
        *(("slides", name) for name in ("uri", "roi_source", "cells_source", "message")),
        *(("runs", name) for name in ("manifest_uri", "inputs", "configuration")),
    ]
)
"""Columns with addresses and names of files, which may be people's; left out of what is given away."""
DICTIONARY_COLUMNS = ("table", "column", "type", "unit", "required", "loinc", "fhir", "meaning")


def dictionary_rows(tables: Iterable[Table]) -> Iterator[Row]:
    """Every column of the tables: type, unit, meaning and, where there are some, codes of LOINC and FHIR."""
    for table in tables:
        for column in table.columns:
            yield {
                "table": table.name,
                "column": column.name,
                "type": str(column.type),
                "unit": column.unit,
                "required": column.required,
                "loinc": LOINC.get((table.name, column.name), ""),
                "fhir": FHIR.get((table.name, column.name), ""),
                "meaning": column.description,
            }


def export_csv(run: FinishedRun, out: Store, cells: bool = False, addresses: bool = True) -> list[str]:
    """Write every table as CSV beside ``dictionary.csv``; cells and nuclei on request, slide by slide.

    Text that a spreadsheet would run as a formula has an apostrophe before it; all else is as in the tables.

    Parameters
    ----------
    addresses
        Whether columns with addresses and names of files are there too.
    """
    written = []
    tables = [TABLES[name] for name in SMALL] + ([TABLES["cells"], TABLES["nuclei"]] if cells else [])
    for table in tables:
        if not run.store.exists(f"tables/{table.name}/_delta_log"):
            continue
        with temporary_folder("her2-export-", "the bytes of an exported file") as folder:
            local = folder / f"{table.name}.csv"
            with local.open("w", newline="", encoding="utf-8") as file:
                _write_csv(file, table, run, addresses)
            out.write_file(f"{table.name}.csv", local)
        written.append(f"{table.name}.csv")
    text = io.StringIO()
    writer = csv.DictWriter(text, DICTIONARY_COLUMNS, lineterminator="\n")
    writer.writeheader()
    rows = (r for r in dictionary_rows(tables) if addresses or (r["table"], r["column"]) not in ADDRESSES)
    writer.writerows({k: plain(v) for k, v in row.items()} for row in rows)
    out.write_bytes(f"{DICTIONARY}.csv", text.getvalue().encode())
    return [*written, f"{DICTIONARY}.csv"]


def _write_csv(file: Any, table: Table, run: FinishedRun, addresses: bool) -> None:
    writer = csv.writer(file, lineterminator="\n")
    names = [c.name for c in table.columns if addresses or (table.name, c.name) not in ADDRESSES]
    writer.writerow(names)
    if table.name not in ("cells", "nuclei"):
        writer.writerows([plain(row[name]) for name in names] for row in run.rows(table, names))
        return
    for slide in run.slides:
        for batch in run.batches(slide, Selection(), names, table):
            writer.writerows([plain(row.get(name)) for name in names] for row in batch.to_pylist())


def plain(value: Any) -> str:
    """A value as a cell of text: numbers that read back as they are, lists and records as JSON."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, (list, dict)):
        return harmless(json.dumps(value, ensure_ascii=False))
    return harmless(value) if isinstance(value, str) else repr(value)


def export_xlsx(run: FinishedRun, out: Store, name: str = "her2.xlsx") -> list[str]:
    """Write the small tables as sheets of one workbook, the dictionary first.

    Raises
    ------
    ConfigError
        If a table is larger than a sheet; CSV holds it.
    """
    need("export", "openpyxl")
    from openpyxl import Workbook

    book = Workbook(write_only=True)
    tables = [TABLES[t] for t in SMALL if run.store.exists(f"tables/{t}/_delta_log")]
    _sheet(book, DICTIONARY, DICTIONARY_COLUMNS, list(dictionary_rows(tables)))
    for table in tables:
        names = [column.name for column in table.columns]
        _sheet(book, table.name, names, run.rows(table, names))
    buffer = io.BytesIO()
    book.save(buffer)
    out.write_bytes(name, buffer.getvalue())
    return [name]


def _sheet(book: Any, title: str, names: Sequence[str], rows: Sequence[Row]) -> None:
    if len(rows) >= MAX_ROWS or len(names) > MAX_COLUMNS:
        raise ConfigError(
            f"{title}: {len(rows)} rows and {len(names)} columns; a sheet holds {MAX_ROWS - 1} and "
            f"{MAX_COLUMNS}. "
            "Export CSV"
        )
    sheet = book.create_sheet(title[:31])
    sheet.freeze_panes = "A2"
    sheet.append(list(names))
    for row in rows:
        sheet.append([_cell(title, name, row[name]) for name in names])


def _cell(table: str, name: str, value: Any) -> Any:
    """A value as a sheet keeps it: numbers and flags as they are, lists as JSON."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, (bool, int, float)):
        return value
    text = value if isinstance(value, str) else plain(value)
    if len(text) > MAX_TEXT:
        raise ConfigError(
            f"{table}.{name}: a text of {len(text)} characters; a cell holds {MAX_TEXT}. Export CSV"
        )
    return harmless(text)
