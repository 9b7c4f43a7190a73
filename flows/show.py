"""What a terminal shows of a run: bars while it works, a table when it is done; plain log lines elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from her2core.stages.progress import ENDED
from her2core.stages.progress import Progress as Step

STATE_COLOURS = {
    "scored": "green",
    "indeterminate": "yellow",
    "failed": "red",
    "quarantined": "magenta",
    "skipped": "cyan",
}


class _Bars(logging.Handler):
    """One bar for the cohort and one a slide in flight, with its stage; gone when the slide has ended."""

    def __init__(self, bars: Progress) -> None:
        super().__init__(logging.DEBUG)
        self.bars = bars
        self.tasks: dict[str, TaskID] = {}

    def emit(self, record: logging.LogRecord) -> None:
        step: Step | None = getattr(record, "progress", None)
        if step is None:
            if record.levelno >= logging.WARNING:
                self.bars.console.print(record.getMessage(), style="yellow", markup=False, highlight=False)
            return
        if step.slide_id not in self.tasks:
            self.tasks[step.slide_id] = self.bars.add_task("")
        task, name = self.tasks[step.slide_id], f"{step.slide_id} · {step.stage}"
        self.bars.update(task, description=name, completed=step.done, total=max(step.total, 1))
        if step.stage == ENDED:
            self.bars.remove_task(self.tasks.pop(step.slide_id))


@contextmanager
def showing_progress(console: Console, level: int = logging.INFO) -> Iterator[None]:
    """Show the run's progress on ``console``: bars on a terminal, a log line a stage otherwise.

    Parameters
    ----------
    level
        What is shown of our log: warnings alone; stages, as bars on a terminal; or all of it, in lines.
    """
    if console.is_terminal and level == logging.INFO:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with (
            Progress(*columns, console=console, transient=True) as bars,
            _listening(_Bars(bars), logging.DEBUG),
        ):
            yield
    else:
        lines = logging.StreamHandler(console.file)
        lines.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        with _listening(lines, level):
            yield


@contextmanager
def _listening(handler: logging.Handler, level: int) -> Iterator[None]:
    """Send our log to ``handler`` alone for a while."""
    logger = logging.getLogger("her2core")
    before = logger.level, logger.propagate
    logger.setLevel(level)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before


DROPPED_FIRST = (
    "H-score", "stained %", "updated", "chunks", "objects", "HER2 copies", "≥2+ %", "cells", "specimen",
    "shards", "as lz4", "HER2/CEP17", "case", "class", "site", "stage", "3+ %", "source", "HER2 class",
    "CPU", "pyramid",
)  # fmt: skip
"""Columns that a narrow terminal does without, in this order; a table's file has all. Ours."""
PROSE = ("why", "conflicts")
"""Columns of sentences, which are wrapped."""
LEAST_PROSE = 24
"""Fewest characters that sentences are wrapped to. Ours."""
GAP = 2
"""Characters between columns, and about a table."""


def row_table(rows: Sequence[Mapping[str, str]], width: int) -> Table:
    """Rows of text as a table of at most ``width`` characters, coloured by how a slide ended.

    Empty columns are left out, and of a narrow table those that matter least; ids and numbers are
    never cut in two.
    """
    names = [name for name in (rows[0] if rows else {}) if any(row[name] not in ("", "–") for row in rows)]
    if "case" in names and all(row["case"] == row.get("slide") for row in rows):
        names.remove("case")
    widest = {name: max(cell_len(text) for text in (name, *(row[name] for row in rows))) for name in names}
    for name in PROSE:
        if name in widest:
            widest[name] = min(widest[name], LEAST_PROSE)
    for name in DROPPED_FIRST:
        if sum(widest.values()) + GAP * len(widest) > width:
            widest.pop(name, None)
    table = Table(box=None)
    for name in widest:
        prose = name in PROSE
        table.add_column(name, no_wrap=not prose, overflow="fold" if prose else "ellipsis")
    for row in rows:
        cells = (Text(row[name]) for name in widest)
        table.add_row(*cells, style=STATE_COLOURS.get(row.get("state", "")))
    return table
