"""The manifest as a table of texts, as spreadsheets and databases export it.

Row numbers are those that a spreadsheet shows: the header is row 1, and a line ``sep=;`` before it is none.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from her2core.errors import ManifestError
from her2core.storage.s3check import with_server
from her2core.storage.sources import read_small
from her2core.text import shown

MAX_BYTES = 64 * 2**20
"""Longest manifest: 200 bytes a slide for 300 000 slides. Ours."""
MAX_ROWS = 200_000
"""Most rows. Ours."""
MAX_COLUMNS = 1_000
"""Most columns. Ours."""
_SEP = re.compile(r"\ufeff?\"?sep=(.)\"?[ \t;,]*(\r\n|\r|\n|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Sheet:
    """A header, and the numbered rows under it that are not blank, as wide as the header."""

    header: tuple[str, ...]
    records: tuple[tuple[int, tuple[str, ...]], ...]


def read_sheet(uri: str, endpoint_url: str | None, required: Sequence[str]) -> tuple[Sheet, list[str]]:
    """The table of a file, and what is wrong with its shape, each problem with its row.

    Parameters
    ----------
    required
        Columns that no row may lack; where only columns after them are missing, cells are empty. Spreadsheets
        leave empty cells away at the end of rows.

    Raises
    ------
    ManifestError
        If there is no table.
    """
    return parse_sheet(uri, manifest_bytes(uri, endpoint_url), required)


def parse_sheet(uri: str, data: bytes, required: Sequence[str]) -> tuple[Sheet, list[str]]:
    """The table in the bytes of a file; see `read_sheet`."""
    text = _decoded(uri, data)
    given = _SEP.match(text)
    if given:
        text = text[given.end() :]
    first = next((line for line in re.split(r"\r\n|\r|\n", text, maxsplit=50) if line.strip()), "")
    delimiter = given[1] if given else max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    numbered: list[tuple[int, list[str]]] = []
    try:
        for number, cells in enumerate(reader, start=1):
            if not any(cell.strip() for cell in cells):
                continue
            if not numbered and len(cells) > MAX_COLUMNS and any(c.strip() for c in cells[MAX_COLUMNS:]):
                raise ManifestError(f"{uri}: {len(cells)} columns; expected {MAX_COLUMNS} at most.")
            numbered.append((number, cells))
            if len(numbered) > MAX_ROWS:
                raise ManifestError(f"{uri}: more than {MAX_ROWS} rows; split the cohort.")
    except csv.Error as error:
        raise ManifestError(
            f"{uri}: not a CSV file; line {reader.line_num}: {error}. Close its quotation marks, and double "
            'those inside a cell, as in "the ""left"" breast".'
        ) from None
    if not numbered:
        raise ManifestError(
            f"{uri}: empty; expected a header with {', '.join(required)} and one row a slide."
        )
    return _shaped(numbered, required, delimiter)


def manifest_bytes(uri: str, endpoint_url: str | None) -> bytes:
    """The bytes of a manifest.

    Raises
    ------
    ManifestError
        If there are none, or too many.
    """
    try:
        data = read_small(uri, endpoint_url, MAX_BYTES)
    except FileNotFoundError:
        raise ManifestError(
            f"{with_server(uri, endpoint_url)}: no such file; expected a manifest (CSV)."
        ) from None
    except IsADirectoryError:
        raise ManifestError(
            f"{uri}: a folder; expected a manifest (CSV). Draft one: her2 manifest {uri} > manifest.csv"
        ) from None
    except OSError as error:
        raise ManifestError(f"{uri}: cannot be read: {error}") from error
    if len(data) > MAX_BYTES:
        raise ManifestError(f"{uri}: more than {MAX_BYTES} bytes; expected a manifest (CSV).")
    return data


def _decoded(uri: str, data: bytes) -> str:
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        row = data[: error.start].count(b"\n") + 1
        raise ManifestError(f"{uri}: row {row} is not UTF-8; save the sheet as 'CSV UTF-8'.") from None


def _shaped(
    numbered: Sequence[tuple[int, list[str]]], required: Sequence[str], delimiter: str
) -> tuple[Sheet, list[str]]:
    """The table without columns that hold nothing, and rows that do not fit it."""
    names = [column_name(cell) for cell in numbered[0][1]]
    named = [place for place, name in enumerate(names) if name]
    header = tuple(names[place] for place in named)
    least = 1 + max((names.index(name) for name in required if name in names), default=len(names) - 1)
    records, problems = [], []
    for number, cells in numbered[1:]:
        if not least <= len(cells) or any(cell.strip() for cell in cells[len(names) :]):
            remedy = (
                f"; put cells that hold {delimiter!r} in quotation marks" if len(cells) > len(names) else ""
            )
            problems.append(f"row {number}: {len(cells)} cells, but the header has {len(names)}{remedy}")
            continue
        odd = next((p for p, name in enumerate(names[: len(cells)]) if not name and cells[p].strip()), None)
        if odd is not None:
            problems.append(
                f"row {number}: found {shown(cells[odd])} in column {odd + 1}, which has no name; name it "
                "(x_... if it is your own)"
            )
            continue
        records.append((number, tuple(cells[place] if place < len(cells) else "" for place in named)))
    return Sheet(header, tuple(records)), problems


def column_name(cell: str) -> str:
    """A column's name as it is compared: in small letters, with ``_`` for spaces and dashes."""
    return re.sub(r"[\s\-]+", "_", cell.replace("\ufeff", "").strip().casefold())


def repeated(header: Sequence[str]) -> list[str]:
    """Names that stand twice."""
    return sorted(name for name, count in Counter(header).items() if count > 1)


EXCEL_NUMBER = re.compile(r"[0-9](?:[.,][0-9]+)?[eE]\+[0-9]{1,3}")
"""How a spreadsheet writes a long number: 1.23457E+11."""
_MONTH = "(?:jan|feb|mar|mrz|mär|apr|may|mai|jun|jul|aug|sep|oct|okt|nov|dec|dez)[a-zä]*"
EXCEL_DATE = re.compile(
    rf"[0-9]{{1,2}}[-. /]{{1,2}}{_MONTH}(?:[-. /]+[0-9]{{2,4}})?|{_MONTH}[-. /]+[0-9]{{2,4}}"
    r"|[0-9]{1,2}([./])[0-9]{1,2}\1(?:[0-9]{2}){1,2}|[0-9]{4}-[0-9]{2}-[0-9]{2} 00:00(?::00)?",
    re.IGNORECASE,
)
"""How a spreadsheet writes what looks like a date: 3-Jan, Mar-02, 01. Mrz, 5/12/2024, 2024-05-12 00:00."""
EXCEL_ERRORS = frozenset({"#ref!", "#name?", "#value!", "#div/0!", "#null!", "#num!", "#spill!"})
"""What a spreadsheet writes where a formula fails."""
NO_ROOM = re.compile("#{2,}")
"""What a spreadsheet writes of a number for which its column is too narrow."""
EXACT_DIGITS = 15
"""Digits that a spreadsheet keeps of a number; the rest become zeros."""


def mangled(value: str) -> str | None:
    """What a spreadsheet may have made of an id, or None."""
    if EXCEL_NUMBER.fullmatch(value):
        return "looks like a long number that a spreadsheet has shortened"
    if EXCEL_DATE.fullmatch(value):
        return "looks like a date that a spreadsheet has made of an id"
    if value.isdecimal() and len(value) > EXACT_DIGITS and not value[EXACT_DIGITS:].strip("0"):
        return f"looks like a number of which a spreadsheet has kept {EXACT_DIGITS} digits"
    if re.fullmatch(r"[0-9]+[.,]0+", value):
        return "looks like a whole number that became one with decimals"
    return None
