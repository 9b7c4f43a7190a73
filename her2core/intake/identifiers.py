"""Whose slide it is: from a naming rule, or from a table that a laboratory keeps beside its slides."""

from __future__ import annotations

import io
import re
import unicodedata
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import islice
from typing import Any

from her2core.errors import ConfigError, ManifestError
from her2core.intake.discover import file_stem
from her2core.intake.manifest import COLUMNS
from her2core.intake.manifest_sheet import MAX_BYTES, MAX_COLUMNS, MAX_ROWS, column_name, read_sheet
from her2core.storage.sources import read_small
from her2core.text import listed, shown

NAMED = tuple(name for name in COLUMNS if name != "uri")
"""Columns of a manifest that a rule or a table may fill."""
FILE_COLUMNS = ("file", "filename", "file_name", "slide_file", "image", "image_file", "path", "uri", "name")
"""Columns that may name the slide's file, in the order in which they are looked for."""
EXCEL_ROWS = 2**20
"""Rows of a sheet in Excel; a file may state any number of empty ones."""
MAX_UNZIPPED = 2**29
"""Most bytes that a spreadsheet may unpack to. Ours."""

Cells = Mapping[str, str]
"""Cells of a manifest row, by column."""


class UnclearError(Exception):
    """What is known of a slide contradicts itself; a person must decide."""


@dataclass(frozen=True, slots=True)
class NamingRule:
    """A regular expression whose named groups are columns of the manifest.

    It must fit the whole name of the slide without its ending; if it holds a ``/``, the whole path below the
    place that is ingested.
    """

    pattern: re.Pattern[str]

    @classmethod
    def of(cls, text: str) -> NamingRule:
        """Read a rule.

        Raises
        ------
        ConfigError
            If it is no regular expression, or names no or other columns.
        """
        try:
            pattern = re.compile(text)
        except re.error as error:
            raise ConfigError(f"the naming rule {shown(text)} is no regular expression: {error}") from None
        odd = sorted(pattern.groupindex.keys() - set(NAMED))
        if odd or not pattern.groupindex:
            found = f"the unknown column{'s' if len(odd) > 1 else ''} {listed(odd)}" if odd else "no group"
            raise ConfigError(
                f"the naming rule {shown(text)} names {found}; expected groups such as (?P<case_id>...) of "
                f"{', '.join(NAMED)}"
            )
        return cls(pattern)

    def cells(self, path: str) -> Cells | None:
        """Fields of a slide's name; None where the rule does not fit it."""
        folder, slash, name = path.rpartition("/")
        stem = file_stem(name)
        fit = self.pattern.fullmatch(f"{folder}{slash}{stem}" if "/" in self.pattern.pattern else stem)
        return fit and {column: text.strip() for column, text in fit.groupdict().items() if text}


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A table with one row a slide, joined by the name of its file.

    Attributes
    ----------
    rows
        Cells by name: a path, a file's name, or that without its ending, whatever the table has.
    used
        Its columns that are taken, by column of the manifest.
    passed_over
        Its other columns.
    """

    uri: str
    rows: Mapping[str, Sequence[Cells]]
    used: Mapping[str, str]
    passed_over: tuple[str, ...]

    def cells(self, path: str, alike: int) -> Cells | None:
        """The row of a slide; None if it has none.

        Parameters
        ----------
        alike
            How many slides of the place have this file name.

        Raises
        ------
        UnclearError
            If several rows are the slide's, or one is of several slides.
        """
        name = path.rpartition("/")[2]
        for key, is_whole in ((path, True), (name, False), (file_stem(name), False)):
            found = self.rows.get(_folded(key))
            if found is None:
                continue
            if len(found) > 1:
                raise UnclearError(f"{self.uri} has {len(found)} rows for {key!r} that differ")
            if alike > 1 and not is_whole:
                raise UnclearError(f"{self.uri} names {key!r}, and {alike} slides are called so; write paths")
            return found[0]
        return None


def read_sidecar(
    uri: str, mapping: Mapping[str, str], file_column: str | None, endpoint_url: str | None
) -> Sidecar:
    """Read a CSV, TSV or XLSX table.

    Parameters
    ----------
    uri
        Path or ``s3://`` address; of an XLSX, ``#Sheet`` may follow, else it is the first sheet.
    mapping
        Name of the table's column, by column of the manifest; columns named as in the manifest need none.
    file_column
        Column that names the slide's file; the first of `FILE_COLUMNS` without.

    Raises
    ------
    ManifestError
        If it is no table, or lacks a column.
    """
    header, records = _table(uri, endpoint_url)
    by_folded = {column_name(name): name for name in header}
    odd = sorted(set(mapping) - set(NAMED))
    if odd:
        raise ManifestError(f"--map {odd[0]}=...: no column of a manifest; expected {', '.join(NAMED)}")
    wanted = {column: column_name(name) for column, name in mapping.items()}
    for column, name in wanted.items():
        if name not in by_folded:
            raise ManifestError(
                f"{uri}: has no column {mapping[column]!r} for {column}; it has {listed(header)}"
            )
    used = {name: name for name in NAMED if name in by_folded and name not in wanted.values()} | wanted
    candidates = (
        [column_name(file_column)] if file_column else [n for n in FILE_COLUMNS if n in by_folded][:1]
    )
    if not candidates or candidates[0] not in by_folded:
        expected = file_column or " or ".join(FILE_COLUMNS[:4])
        raise ManifestError(
            f"{uri}: no column {expected} that names the slide's file; it has {listed(header)}. Name it: "
            "--file-column NAME"
        )
    place = {column_name(name): number for number, name in enumerate(header)}
    rows: dict[str, list[Cells]] = {}
    for record in records:
        name = unicodedata.normalize("NFC", record[place[candidates[0]]].strip())
        cells = {c: t for c, n in used.items() if (t := record[place[n]].strip())}
        if name and cells not in rows.setdefault(_folded(name), []):
            rows[_folded(name)].append(cells)
    taken = {*used.values(), candidates[0]}
    return Sidecar(
        uri,
        rows,
        {column: by_folded[name] for column, name in used.items()},
        tuple(original for name, original in by_folded.items() if name and name not in taken),
    )


def merged(rule: Cells | None, table: Cells | None) -> dict[str, str]:
    """What rule and table give together.

    Raises
    ------
    UnclearError
        If they contradict each other.
    """
    both = {**(rule or {}), **(table or {})}
    for column in (rule or {}).keys() & (table or {}).keys():
        if _folded(rule[column]) != _folded(table[column]):  # type: ignore[index]  # both have it
            raise UnclearError(
                f"{column}: the file's name gives {shown(rule[column])}, the table {shown(table[column])}"  # type: ignore[index]
            )
    return both


def _table(uri: str, endpoint_url: str | None) -> tuple[tuple[str, ...], Sequence[Sequence[str]]]:
    place, _, sheet = uri.partition("#")
    if not place.lower().endswith((".xlsx", ".xlsm")):
        found, misshapen = read_sheet(uri, endpoint_url, ())
        if misshapen:
            raise ManifestError(f"{uri}: {misshapen[0]}")
        return found.header, [cells for _, cells in found.records]
    rows = _excel(place, sheet, endpoint_url)
    if not rows:
        raise ManifestError(f"{uri}: an empty sheet; expected a header and one row a slide")
    width = len(rows[0])
    return tuple(rows[0]), [[*row[:width], *[""] * (width - len(row))] for row in rows[1:] if any(row)]


def _excel(uri: str, sheet: str, endpoint_url: str | None) -> list[list[str]]:
    try:
        from openpyxl import load_workbook
        from openpyxl.utils.exceptions import InvalidFileException
    except ImportError:
        raise ConfigError(
            f"{uri}: reading XLSX needs openpyxl: pip install 'her2cohort[export]', or save the sheet as CSV"
        ) from None
    try:
        data = read_small(uri, endpoint_url, MAX_BYTES)
        if len(data) > MAX_BYTES:
            raise ManifestError(f"{uri}: more than {MAX_BYTES} bytes; save the sheet as CSV")
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            if sum(part.file_size for part in packed.infolist()) > MAX_UNZIPPED:
                raise ManifestError(f"{uri}: unpacks to over {MAX_UNZIPPED} bytes; save the sheet as CSV")
        book = load_workbook(io.BytesIO(data), read_only=True, data_only=True)
    except FileNotFoundError:
        raise ManifestError(f"{uri}: no such file") from None
    except (zipfile.BadZipFile, InvalidFileException, KeyError, ValueError, OSError) as error:
        raise ManifestError(f"{uri}: no XLSX that can be read ({type(error).__name__})") from None
    try:
        if sheet and sheet not in book.sheetnames:
            raise ManifestError(f"{uri}: has no sheet {sheet!r}; it has {listed(book.sheetnames)}")
        rows: list[list[str]] = []
        chosen = book[sheet or book.sheetnames[0]]
        chosen.reset_dimensions()  # one cell with a format far below or to the right would widen every row
        for values in islice(chosen.iter_rows(values_only=True), EXCEL_ROWS):
            if all(value is None for value in values):
                continue
            if len(rows) > MAX_ROWS:
                raise ManifestError(f"{uri}: more than {MAX_ROWS} rows; split the table")
            rows.append([_text(value) for value in values[:MAX_COLUMNS]])
        return rows
    finally:
        book.close()


def _text(value: Any) -> str:
    """A cell of a spreadsheet as a person sees it: whole numbers without decimals, days in ISO form."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime) and value.time() == datetime.min.time():
        return value.date().isoformat()
    if isinstance(value, date):
        return value.isoformat()
    return str(value).strip()


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()
