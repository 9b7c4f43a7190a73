"""What a terminal shows of a run: bars while it works, a table when it is done; plain log lines elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from her2core.progress import STAGES
from her2core.progress import Progress as Step

STATE_COLOURS = {
    "scored": "green",
    "indeterminate": "yellow",
    "failed": "red",
    "quarantined": "magenta",
    "skipped": "cyan",
}


class _Bars(logging.Handler):
    """One bar a slide in flight, with its stage; gone when the slide is done."""

    def __init__(self, bars: Progress) -> None:
        super().__init__(logging.DEBUG)
        self.bars = bars
        self.tasks: dict[str, TaskID] = {}

    def emit(self, record: logging.LogRecord) -> None:
        step: Step | None = getattr(record, "progress", None)
        if step is None:
            return
        name = f"{step.slide_id} · {step.stage}"
        if step.slide_id not in self.tasks:
            self.tasks[step.slide_id] = self.bars.add_task(name)
        task = self.tasks[step.slide_id]
        self.bars.update(task, description=name, completed=step.done, total=max(step.total, 1))
        if step.stage == STAGES[-1] and step.done >= step.total:
            self.bars.remove_task(self.tasks.pop(step.slide_id))
            self.bars.console.print(f"{step.slide_id} done", highlight=False)


@contextmanager
def showing_progress(console: Console) -> Iterator[None]:
    """Show the run's progress on ``console``: bars on a terminal, a log line a stage otherwise."""
    logger = logging.getLogger("her2core")
    handler: logging.Handler
    before, logger.propagate = logger.level, False
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as bars:
            handler = _Bars(bars)
            logger.setLevel(logging.DEBUG)
            logger.addHandler(handler)
            try:
                yield
            finally:
                logger.removeHandler(handler)
                logger.setLevel(before)
    else:
        handler = logging.StreamHandler(console.file)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(before)


class _Summary(Protocol):
    """What `cohort_table` needs of a run's summary."""

    def table(self) -> list[dict[str, str]]: ...


def cohort_table(summary: _Summary) -> Table:
    """Return the cohort as a table: a row a slide, coloured by how it ended."""
    rows = summary.table()
    table = Table(*(rows[0] if rows else ("slide",)), box=None)
    for row in rows:
        table.add_row(*row.values(), style=STATE_COLOURS.get(row.get("state", "")))
    return table
