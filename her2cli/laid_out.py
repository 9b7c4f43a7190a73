"""Markdown on a terminal: tables as wide as it is, with no word lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markdown import Markdown, MarkdownElement, TableElement
from rich.table import Column, Table
from rich.text import Text

WORD = 8
"""Characters of the words of a column that are not parted; longer ones are where the table is too wide."""


class Folded(TableElement):
    """A table whose long names go on in the next line, where others end in three points."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        """Tables with columns that hold their headings' longest words."""
        for table in super().__rich_console__(console, options):
            if isinstance(table, Table):
                for column in table.columns:
                    heading, *cells = (c.plain if isinstance(c, Text) else str(c) for c in _cells(column))
                    words = [len(word) for cell in cells for word in cell.split()]
                    column.overflow = "fold"
                    column.min_width = max(1, *map(len, heading.split()), min(max(words, default=0), WORD))
                yield table


def _cells(column: Column) -> list[RenderableType]:
    return [column.header, *column.cells]


class LaidOut(Markdown):
    """Markdown with such tables."""

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {**Markdown.elements, "table_open": Folded}
