"""Tables that people bring to an analysis: reads, lines of therapy, days of biopsies, RNA."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from her2core.errors import ManifestError
from her2core.intake.manifest_sheet import read_sheet, repeated

ABSENT = frozenset({"", "na", "n/a", "nan", "none", "-", "–", "[not available]", "[not applicable]"})
"""How a cell without a value is written."""
MAX_PROBLEMS = 20
"""Most problems that one message lists. Ours."""

Cells = dict[str, str | None]
"""A row by column; None where a cell has no value."""


def read_rows(
    uri: str, endpoint_url: str | None, required: Sequence[str], literal: Collection[str] = ()
) -> tuple[tuple[str, ...], list[tuple[int, Cells]], list[str]]:
    """Header and numbered rows of a table (CSV; path or ``s3://``), and the rows that do not fit the header.

    Parameters
    ----------
    required
        Columns that no row may lack; whether the header has them, the caller checks.
    literal
        Columns in which a word of `ABSENT` is a value.

    Raises
    ------
    ManifestError
        If there is no table, or one of its columns stands twice.
    """
    sheet, problems = read_sheet(uri, endpoint_url, required)
    if twice := repeated(sheet.header):
        raise ManifestError(f"{uri}: columns {', '.join(twice)} stand twice")
    rows = [
        (number, {n: _value(c, n in literal) for n, c in zip(sheet.header, cells, strict=True)})
        for number, cells in sheet.records
    ]
    return sheet.header, rows, problems


def _value(cell: str, literal: bool) -> str | None:
    text = cell.strip()
    return text if literal or text.casefold() not in ABSENT else None


def refuse(uri: str, problems: Sequence[str]) -> None:
    """Refuse a table with problems, naming the first of them and how many more there are.

    Raises
    ------
    ManifestError
        If there are any.
    """
    if problems:
        more = f"\n... and {len(problems) - MAX_PROBLEMS} more" if len(problems) > MAX_PROBLEMS else ""
        raise ManifestError(f"{uri}: cannot be used\n" + "\n".join(problems[:MAX_PROBLEMS]) + more)
