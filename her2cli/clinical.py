"""The verb that reads clinical tables: ``clinical``."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from her2cli.common import EXIT_CODES, Endpoint, Json, app, console
from her2core.errors import ManifestError
from her2core.text import counted, harmless

if TYPE_CHECKING:
    from her2core.cases.clinical import ClinicalRow, ClinicalTable

MAX_SHOWN = 20
"""Most rows, and most texts, that the terminal shows; ``--out`` and ``--json`` hold all. Ours."""


@app.command("clinical", epilog=EXIT_CODES)
def clinical_command(
    table: Annotated[
        str, typer.Argument(help="Table with one row a patient: tabs, semicolons or commas (path or s3://).")
    ],
    mapping: Annotated[
        list[str] | None,
        typer.Option(
            "--map", metavar="WHAT=COLUMN", help='Which column holds what: --map ish_status="FISH result".'
        ),
    ] = None,
    source: Annotated[
        str, typer.Option(help="Where the results come from, for the manifest's ish_source.")
    ] = "clinical table",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="CSV of the manifest's cells, and why cells are empty.")
    ] = None,
    endpoint_url: Endpoint = None,
    as_json: Json = False,
) -> None:
    """Read HER2 results as clinics write them, and list what a person has to decide."""
    from her2core.cases.clinical import read_clinical_table

    found = read_clinical_table(table, mapping_of(mapping or []), endpoint_url)
    if out is not None:
        _write(out, found.rows, source)
    if as_json:
        typer.echo(json.dumps(_as_dict(found, source), indent=1))
        return
    for line in _lines(found):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(_outcomes(found.rows))
    for shown in (_open(found.rows), _unread(found.rows)):
        if shown is not None:
            console.print(shown)
    if out is not None:
        console.print(f"manifest cells: {out}", highlight=False, soft_wrap=True)


def mapping_of(words: Sequence[str]) -> dict[str, str]:
    """``WHAT=COLUMN`` of the command line."""
    found: dict[str, str] = {}
    for word in words:
        what, equals, column = word.partition("=")
        if not (equals and what.strip() and column.strip()):
            raise ManifestError(f'--map {word}: expected WHAT=COLUMN, such as ish_status="FISH result"')
        if what.strip() in found:
            raise ManifestError(f"--map: {what.strip()} is mapped twice")
        found[what.strip()] = column.strip()
    return found


def _lines(table: ClinicalTable) -> list[str]:
    layout = table.layout
    read = ", ".join(f"{what} from {column!r}" for what, column in layout.columns.items())
    return [
        f"{counted(len(table.rows), 'row')}, separated by {layout.delimiter}, {layout.encoding}",
        f"read: {read}",
    ]


def _outcomes(rows: Sequence[ClinicalRow]) -> Table:
    from her2core.cases.clinical import summarise

    counted = summarise(rows)
    shown = Table("IHC", "rows", "ISH", "rows", box=None, title="How rows ended", title_justify="left")
    ihc, ish = (counted[assay].most_common() for assay in ("ihc", "ish"))
    for i in range(max(len(ihc), len(ish))):
        left, right = (found[i] if i < len(found) else ("", "") for found in (ihc, ish))
        shown.add_row(*map(str, (*left, *right)))
    return shown


def _open(rows: Sequence[ClinicalRow]) -> Table | None:
    """Rows whose statements contradict each other."""
    conflicting = [row for row in rows if row.conflicts]
    if not conflicting:
        return None
    title = f"For a person to decide: {counted(len(conflicting), 'row')}{_first(conflicting)}"
    shown = Table("row", "patient", "what contradicts what", box=None, title=title, title_justify="left")
    for row in conflicting[:MAX_SHOWN]:
        shown.add_row(str(row.row), _plain(row.patient_id), _plain("; ".join(row.conflicts), 200))
    return shown


def _unread(rows: Sequence[ClinicalRow]) -> Table | None:
    """Texts that gave no value, and why."""
    texts = Counter(
        (column, row.reasons[column], text) for row in rows for column, text in row.unread.items()
    )
    if not texts:
        return None
    title = f"Not read: {counted(texts.total(), 'cell')}{_first(texts)}"
    shown = Table("what", "why", "text", "cells", box=None, title=title, title_justify="left")
    for (column, reason, text), count in texts.most_common(MAX_SHOWN):
        shown.add_row(column, reason, _plain(text), str(count))
    return shown


def _plain(text: str, most: int = 60) -> Text:
    """A table's text for the terminal: neither markup nor control characters."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    return Text(printable if len(printable) <= most else printable[: most - 1] + "…")


def _first(found: Sequence[Any] | Counter[Any]) -> str:
    return f", the first {MAX_SHOWN}" if len(found) > MAX_SHOWN else ""


def _as_dict(table: ClinicalTable, source: str) -> dict[str, Any]:
    from her2core.cases.clinical import manifest_columns

    rows = [{**dataclasses.asdict(row), "manifest": manifest_columns(row, source)} for row in table.rows]
    return {"layout": dataclasses.asdict(table.layout), "rows": rows}


def _write(path: Path, rows: Sequence[ClinicalRow], source: str) -> None:
    """The manifest's cells of every row, and in columns of the user's own why cells are empty."""
    from her2core.cases.clinical import MANIFEST_COLUMNS, manifest_columns

    names = ("patient_id", *MANIFEST_COLUMNS, "x_row", "x_conflicts", "x_unread")
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            for row in rows:
                unread = "; ".join(
                    f"{column}: {text} ({row.reasons[column]})" for column, text in row.unread.items()
                )
                more = {"x_row": str(row.row), "x_conflicts": "; ".join(row.conflicts), "x_unread": unread}
                cells = {"patient_id": row.patient_id, **manifest_columns(row, source), **more}
                writer.writerow({name: harmless(cell) for name, cell in cells.items()})
    except OSError as error:
        raise ManifestError(f"{path}: cannot be written: {error.strerror or error}") from error
