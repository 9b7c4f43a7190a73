"""What a slide leaves behind when all its stages are done: what the tables are made of."""

from __future__ import annotations

from dataclasses import dataclass

from her2core.cases.specimens import SlideOutcome
from her2core.heterogeneity.metrics import Metric
from her2core.lake.slide_files import DataFile


@dataclass(frozen=True, slots=True)
class SlideFinished:
    """What a slide leaves behind: the facts of its table row, and a file of rows that waits to be committed.

    Attributes
    ----------
    cells
        File of the table ``cells`` (IHC) or ``nuclei`` (ISH), by its assay; None without any.
    regions
        File of the table ``regions``; None without any.
    metrics
        Heterogeneity: its rows of that table.
    rests_on
        Places in the store of the records that it was made of, and its own; not part of the published record.
    """

    outcome: SlideOutcome
    cells: DataFile | None
    regions: DataFile | None = None
    metrics: tuple[Metric, ...] = ()
    rests_on: tuple[str, ...] = ()
