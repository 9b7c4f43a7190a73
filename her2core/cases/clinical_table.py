"""A clinical table as a file: its encoding, separator, quotes, and which of its columns hold what."""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from her2core.encoding import decode_text, encoding_of
from her2core.errors import ManifestError
from her2core.storage.sources import read_small
from her2core.text import first_few, shown

MAX_BYTES = 64 * 2**20
"""Longest table, in bytes. Ours."""
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "patient_id": ("bcr_patient_barcode", "patient_id"),
    "ihc_status": ("her2_status_by_ihc", "ihc_her2", "her2_ihc_status", "ihc_status"),
    "ihc_score": ("her2_ihc_score", "ihc_score", "reader_score"),
    "ihc_percent": ("her2_ihc_percent_positive", "ihc_percent"),
    "ish_status": ("her2_fish_status", "her2_ish_status", "fish_status", "ish_status"),
    "ish_her2": ("her2_copy_number", "ish_her2"),
    "ish_cep17": ("cent17_copy_number", "cep17_copy_number", "ish_cep17"),
    "n_nuclei": ("her2_and_cent17_cells_count", "n_nuclei"),
    "ish_ratio": ("her2_cent17_ratio", "her2_cep17_ratio", "ish_ratio"),
}
"""What is read, and the names (TCGA's, cBioPortal's, the manifest's) of the columns that hold it, folded."""
DELIMITERS: Mapping[str, str] = {"\t": "tab", ";": "semicolon", ",": "comma", "|": "bar"}
MAX_SHOWN = 20
"""Most rows or columns that one message lists. Ours."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a table was read.

    Attributes
    ----------
    columns
        What is read -> the name of the column that holds it, as the table writes it.
    delimiter
        A word of `DELIMITERS`.
    encoding
        Python's name of it.
    """

    columns: Mapping[str, str]
    delimiter: str
    encoding: str


@dataclass(frozen=True, slots=True)
class Table:
    """The cells of a table.

    Attributes
    ----------
    rows
        Number of the row as a spreadsheet counts it, and its cells by the names of `COLUMNS`, trimmed.
    """

    layout: Layout
    rows: tuple[tuple[int, Mapping[str, str]], ...]


def read_table(uri: str, mapping: Mapping[str, str], endpoint_url: str | None = None) -> Table:
    """Cells of a table in a file.

    Raises
    ------
    ManifestError
        If it cannot be read, names no patients or nothing of HER2, or leaves open which column holds what.
    """
    try:
        data = read_small(uri, endpoint_url, MAX_BYTES)
    except FileNotFoundError:
        raise ManifestError(f"{uri}: no such file; expected a clinical table") from None
    except OSError as error:
        raise ManifestError(f"{uri}: cannot be read: {error.strerror or error}") from error
    if len(data) > MAX_BYTES:
        raise ManifestError(f"{uri}: more than {MAX_BYTES} bytes; expected a table of patients")
    return parse_table(decode_text(data), uri, mapping, encoding_of(data)[0])


def parse_table(text: str, name: str, mapping: Mapping[str, str], encoding: str = "utf-8") -> Table:
    """Cells of a table given as text; ``name`` is what errors call it. Raises as `read_table`."""
    mapping = canonical(mapping)
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    delimiter = _delimiter(text, mapping)
    numbered = [
        (number, cells)
        for number, cells in enumerate(_cells(text, delimiter, name), start=1)
        if any(cell.strip() for cell in cells) and not _aside(cells)
    ]
    header = [" ".join(cell.split()) for cell in numbered[0][1]] if numbered else []
    places = _places(header, mapping, name)
    wide = [n for n, cells in numbered[1:] if any(cell.strip() for cell in cells[len(header) :])]
    if wide:
        too_wide = first_few([str(row) for row in wide], MAX_SHOWN)
        raise ManifestError(
            f"{name}: rows with more cells than the header's {len(header)}: {too_wide}; "
            f"put cells that hold a {DELIMITERS[delimiter]} in double quotes"
        )
    rows = (
        (n, {c: cells[i].strip() if i < len(cells) else "" for c, i in places.items()})
        for n, cells in numbered[1:]
    )
    sub_headers = {*COLUMNS["patient_id"], _folded(header[places["patient_id"]])}
    patients = tuple(
        (n, cells)
        for n, cells in rows
        if _folded(cells["patient_id"]) not in sub_headers and not cells["patient_id"].startswith("CDE_ID")
    )
    named = {column: header[i] for column, i in places.items()}
    return Table(Layout(named, DELIMITERS[delimiter], encoding), patients)


def _aside(cells: Sequence[str]) -> bool:
    """Comments, and the line by which Excel names its separator."""
    return cells[0].startswith("#") or (cells[0].startswith("sep=") and not any(cells[1:]))


def _folded(name: str) -> str:
    """A column's name in small letters, all else between them one underscore."""
    return re.sub(r"[\W_]+", "_", name.casefold()).strip("_")


def canonical(mapping: Mapping[str, str]) -> dict[str, str]:
    """A mapping by the names of `COLUMNS`, where it uses other known ones or is the other way round.

    Raises
    ------
    ManifestError
        If it names nothing that is read, or one thing twice.
    """
    of = {known: column for column, names in COLUMNS.items() for known in (column, *names)}
    found: dict[str, str] = {}
    for what, column in mapping.items():
        pair = (what, column) if _folded(what) in of else (column, what)
        if _folded(pair[0]) not in of:
            raise ManifestError(f"found {shown(what)} mapped; expected one of {', '.join(COLUMNS)}")
        name = of[_folded(pair[0])]
        if name in found:
            raise ManifestError(f"{name} is mapped twice: to {found[name]!r} and {pair[1]!r}")
        found[name] = pair[1]
    return found


def _delimiter(text: str, mapping: Mapping[str, str]) -> str:
    """The separator that parts the first line into most columns that are known, else into most."""
    lines = (line for line in text.split("\n") if line.strip() and not line.startswith(("#", "sep=")))
    first = next(lines, "")
    known = {*(name for names in COLUMNS.values() for name in names), *map(_folded, mapping.values())}

    def columns(delimiter: str) -> tuple[int, int]:
        names = [_folded(name.strip(' "')) for name in first.split(delimiter)]
        return len(known.intersection(names)), len(names)

    return max(DELIMITERS, key=columns)


def _cells(text: str, delimiter: str, name: str) -> list[list[str]]:
    """Cells of every line, those in quotes without them, unless quotes are part of the text."""
    try:
        rows = list(csv.reader(io.StringIO(text), delimiter=delimiter, strict=True))
        if not any(delimiter in cell and "\n" in cell for cells in rows for cell in cells):
            return rows
    except csv.Error:
        pass  # a quote that is never closed, as in 5" tumour
    try:
        return list(csv.reader(io.StringIO(text), delimiter=delimiter, quoting=csv.QUOTE_NONE))
    except csv.Error as error:
        raise ManifestError(f"{name}: cannot be read as a table ({error})") from None


def _places(header: Sequence[str], mapping: Mapping[str, str], name: str) -> dict[str, int]:
    """Which cell of a row holds what."""
    folded = [_folded(column) for column in header]
    places = {}
    for column, names in COLUMNS.items():
        if column in mapping:
            found = [_folded(mapping[column])]
            if found[0] not in folded:
                near = difflib.get_close_matches(mapping[column], header, n=1, cutoff=0.5)
                meant = f"; did you mean {near[0]!r}?" if near else ""
                raise ManifestError(f"{name}: no column {mapping[column]!r} for {column}{meant}")
        else:
            found = [known for known in names if known in folded]
        if len(found) > 1 and column != "patient_id":  # TCGA names patients twice, by barcode and by number
            both = " and ".join(repr(header[folded.index(each)]) for each in found)
            raise ManifestError(f"{name}: {both} both hold {column}; choose one by a mapping: {column}=NAME")
        if found:
            at = [i for i, each in enumerate(folded) if each == found[0]]
            if len(at) > 1:
                where = ", ".join(str(i + 1) for i in at)
                raise ManifestError(
                    f"{name}: column {header[at[0]]!r} stands more than once (columns {where}), and which "
                    "one counts is not known; delete or rename the others"
                )
            places[column] = at[0]
    doubled = [column for column in places if list(places.values()).count(places[column]) > 1]
    if doubled:
        raise ManifestError(f"{name}: {' and '.join(doubled)} are mapped to one column")
    if "patient_id" not in places or len(places) == 1:
        raise ManifestError(f"{name}: {_missing(places)}")
    return places


def _missing(places: Mapping[str, int]) -> str:
    lacking = ["patient_id"] if "patient_id" not in places else [c for c in COLUMNS if c != "patient_id"]
    named = [f"{column} ({' or '.join(COLUMNS[column])})" for column in lacking]
    return (
        f"no column for {' or '.join(named)}; expected a table separated by tabs, semicolons or commas, "
        f"or a mapping such as {lacking[0]}=NAME"
    )
