"""What a run shows in Prefect: its progress while it works, then the cohort's table and its pictures.

Artifacts inform people; nothing is read back from them. They are small whatever the size of the cohort: rows
beyond `MOST_ROWS` are left to the lake tables.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from her2core.cohort import CohortSummary
from her2core.progress import COHORT, SLIDES, report
from her2core.records import SlideState
from her2core.rows import Row
from her2core.run import Run

PROGRESS, TABLE, PICTURES = "her2-progress", "her2-cohort", "her2-pictures"
"""Keys of the artifacts; Prefect keeps every run's version of each."""

MOST_ROWS = 500
"""Slides listed in an artifact (ours): about 100 kB in the server's database, and still a page for people."""


class ProgressBar:
    """Share of a run's slides that have ended, however they ended."""

    def __init__(self, run: Run) -> None:
        self.total, self.done = len(run.rows), 0
        report(COHORT, SLIDES, 0, self.total)
        self.artifact: Any = create_progress_artifact(
            progress=0.0, key=PROGRESS, description=f"slides finished, run {run.run_id}"
        )

    def advance(self) -> None:
        """Tell that one more slide has ended."""
        self.done += 1
        report(COHORT, SLIDES, self.done, self.total)
        update_progress_artifact(artifact_id=self.artifact, progress=100.0 * self.done / self.total)


def show_cohort(run: Run, summary: CohortSummary) -> None:
    """Publish the cohort's table, and a page of where its tables and pictures are."""
    lines = dict(zip((row["slide_id"] for row in summary.slides), summary.table(), strict=True))
    shown = listed(summary)
    missing = len(summary.slides) - len(shown)
    more = f"; {missing} more slides are in {summary.out}/tables/slides" if missing else ""
    create_table_artifact(
        key=TABLE,
        table=[lines[row["slide_id"]] for row in shown],
        description=f"run {run.run_id}: {ending_in_words(summary)}{more}. Research use only.",
    )
    create_markdown_artifact(
        key=PICTURES,
        markdown=pictures_page(run, summary),
        description=f"pictures and tables of run {run.run_id}",
    )


def ending_in_words(summary: CohortSummary) -> str:
    """How the slides ended, as ``7 slides: 5 scored, 1 indeterminate, 1 quarantined``."""
    counts = [f"{summary.states[state]} {state}" for state in SlideState if summary.states[state]]
    return f"{len(summary.slides)} slides: {', '.join(counts)}"


def listed(summary: CohortSummary) -> list[Row]:
    """Rows of the slides that are shown: all in the manifest's order, or of many the unscored first."""
    rows = list(summary.slides)
    if len(rows) > MOST_ROWS:
        rows.sort(key=lambda row: bool(row["state"] == SlideState.SCORED))
    return rows[:MOST_ROWS]


def pictures_page(run: Run, summary: CohortSummary) -> str:
    """Markdown with a link to every listed slide's picture.

    Pictures are named by their place in the store, for who may read it, and never by signed addresses, which
    would be credentials in the server's database.
    """
    lines = [*(f"    {line}" for line in summary.lines()), "", "| slide | score | picture |", "|---|---|---|"]
    for row in listed(summary):
        picture = "–" if row["picture"] is None else _link(run.store.uri(row["picture"]))
        lines.append(f"| {row['slide_id']} | {row['score'] or row['state']} | {picture} |")
    return "\n".join(lines)


def _link(uri: str) -> str:
    target = uri if "://" in uri else f"file://{uri}"
    return f"[{uri}]({quote(target, safe=':/')})"
