"""What a terminal shows of a run: bars while it works, a table when it is done; plain log lines elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

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
def showing_progress(console: Console) -> Iterator[None]:
    """Show the run's progress on ``console``: bars on a terminal, a log line a stage otherwise."""
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with (
            Progress(*columns, console=console, transient=True) as bars,
            _listening(_Bars(bars), logging.DEBUG),
        ):
            yield
    else:
        lines = logging.StreamHandler(console.file)
        lines.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        with _listening(lines, logging.INFO):
            yield


@contextmanager
def _listening(handler: logging.Handler, level: int) -> Iterator[None]:
    """Let ``handler``, and nobody else, hear our log for a while."""
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


def row_table(rows: Sequence[Mapping[str, str]]) -> Table:
    """Rows of text as a table, without columns that say nothing; coloured by how a slide ended."""
    names = [name for name in (rows[0] if rows else {}) if any(row[name] != "–" for row in rows)]
    table = Table(*names, box=None)
    for row in rows:
        table.add_row(*(row[name] for name in names), style=STATE_COLOURS.get(row.get("state", "")))
    return table
