"""What an analysis leaves: tidy tables as CSV and Parquet, figures, one text, and a dictionary of all
columns."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from her2core.analysis.resampling import Estimate
from her2core.lake.schema import REAL, TEXT, WHOLE, Column
from her2core.storage.store import Store
from her2core.text import harmless

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5B0A4F", "#777777")
"""Okabe and Ito's, safe for colour-blind readers."""
RESEARCH_ONLY = "Research use only, not for diagnosis."
SUMMARY = "summary.md"
DICTIONARY = "dictionary.csv"
FILES = "files.txt"
"""Names all files of the answer, a line each, so that the next one here removes what it has not."""
_OWN = re.compile(r"(figures/[\w-]+\.png)|([\w-]+\.(csv|parquet|md))")

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ResultTable:
    """One tidy table of an analysis; its rows have the columns' names and no other."""

    name: str
    description: str
    columns: tuple[Column, ...]
    rows: Sequence[Row]

    def arrow(self) -> pa.Table:
        """The rows as Arrow; what is not a number (NaN) is null."""
        schema = pa.schema([column.field for column in self.columns])
        names = set(schema.names)
        for row in self.rows:
            if set(row) != names:
                raise ValueError(f"{self.name}: columns {sorted(set(row) ^ names)} are missing or unknown")
        return pa.Table.from_pylist([{k: _known(v) for k, v in row.items()} for row in self.rows], schema)

    def csv(self) -> str:
        """The same rows as CSV; no cell is a formula to a spreadsheet."""
        return csv_text([c.name for c in self.columns], self.arrow().to_pylist())


@dataclass(frozen=True, slots=True)
class Answer:
    """All that an analysis leaves: its text in Markdown, tables, and figures by name as PNG."""

    title: str
    text: str
    tables: tuple[ResultTable, ...]
    figures: Mapping[str, bytes] = field(default_factory=dict)

    def table(self, name: str) -> ResultTable:
        """The table of that name."""
        return next(table for table in self.tables if table.name == name)


def text_column(name: str, meaning: str) -> Column:
    """A column of words."""
    return Column(name, TEXT, "", meaning)


def count_column(name: str, meaning: str) -> Column:
    """A column of counts."""
    return Column(name, WHOLE, "", meaning)


def estimate_columns(name: str, meaning: str, unit: str = "") -> tuple[Column, ...]:
    """Columns of a value and its interval."""
    return (
        Column(name, REAL, unit, f"{meaning}."),
        Column(f"{name}_low", REAL, unit, f"{meaning}: lower end of its 95 % interval."),
        Column(f"{name}_high", REAL, unit, f"{meaning}: upper end of its 95 % interval."),
    )


def spread(name: str, value: Estimate) -> dict[str, float]:
    """Cells of `estimate_columns`."""
    return {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}


def write_answer(out: Store, answer: Answer) -> tuple[str, ...]:
    """Write an answer into a folder or below an ``s3://`` address, the text last; paths in it.

    What an earlier answer left there and this one has not is removed: no figure outlives its numbers.
    """
    files: dict[str, bytes] = {}
    for table in answer.tables:
        buffer = io.BytesIO()
        pq.write_table(table.arrow(), buffer, compression="zstd")
        files[f"{table.name}.csv"] = table.csv().encode()
        files[f"{table.name}.parquet"] = buffer.getvalue()
    files |= {f"figures/{name}.png": png for name, png in answer.figures.items()}
    files[DICTIONARY] = dictionary(answer.tables).encode()
    earlier = out.read_bytes(FILES).decode(errors="replace").splitlines() if out.exists(FILES) else []
    both = dict.fromkeys(
        [*earlier, *files, SUMMARY]
    )  # until all is written, so that an interrupted one is known
    out.write_bytes(FILES, _lines(both))
    for path in earlier:
        if path not in files and _OWN.fullmatch(path):
            out.delete(path)
    files[SUMMARY] = answer.text.encode()
    for path, data in files.items():
        out.write_bytes(path, data)
    out.write_bytes(FILES, _lines(files))
    return tuple(files)


def _lines(paths: Iterable[str]) -> bytes:
    return "".join(f"{path}\n" for path in paths).encode()


def dictionary(tables: Iterable[ResultTable]) -> str:
    """Every column of every table: its type, unit and meaning, as CSV."""
    names = ("table", "column", "type", "unit", "meaning")
    rows = (
        dict(zip(names, (t.name, c.name, str(c.type), c.unit, c.description), strict=True))
        for t in tables
        for c in t.columns
    )
    return csv_text(names, rows)


def csv_text(names: Sequence[str], rows: Iterable[Row]) -> str:
    """Rows as CSV: lists joined by ``; ``, nothing for null, and no cell that a spreadsheet runs."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([cell(row[name]) for name in names] for row in rows)
    return text.getvalue()


def cell(value: Any) -> str:
    """A value as a cell of a CSV; numbers so that they read back as they are."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return harmless("; ".join(cell(v) for v in value))
    return harmless(value) if isinstance(value, str) else str(value)


def markdown(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join(lines)


def number(value: float | None, digits: int = 2) -> str:
    """A number for a text, and a dash where there is none."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction as a percentage for a text."""
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.{digits}f} %"


def interval(low: float | None, high: float | None, digits: int = 2, scale: float = 1.0) -> str:
    """An interval for a text."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return "no interval"
    return f"{scale * low:.{digits}f} to {scale * high:.{digits}f}"


def estimated(value: Estimate, digits: int = 2) -> str:
    """A value with its interval for a text."""
    return f"{number(value.value, digits)} ({interval(value.low, value.high, digits)})"


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
