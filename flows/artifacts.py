"""What a run shows in Prefect: its progress while it works, then slides, specimens and pictures.

Artifacts inform people; nothing is read back from them. They are small whatever the size of the cohort: rows
beyond `MOST_ROWS` are left to the lake tables.
"""

from __future__ import annotations

import base64
import itertools
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from her2core.cohort import CohortSummary
from her2core.lake.rows import Row
from her2core.publish import PICTURE
from her2core.records import SlideState
from her2core.stages.progress import COHORT, SLIDES, report
from her2core.stages.run import Run
from her2core.text import HIDDEN, counted

PROGRESS, TABLE, CASES, PICTURES = "her2-progress", "her2-cohort", "her2-cases", "her2-pictures"
REPORT = "her2-report"
"""Keys of the artifacts; Prefect keeps every run's version of each."""

MOST_ROWS = 500
"""Rows of an artifact (ours): about 100 kB in the server's database, and still a page for people."""
MOST_BYTES = 300_000
"""Largest picture put into an artifact (ours); of about 50 specimens. A larger one is only named."""


class ProgressBar:
    """Share of a run's slides that have ended, however they ended."""

    def __init__(self, run: Run, total: int) -> None:
        self.total, self.done = total, 0
        report(COHORT, SLIDES, 0, self.total)
        self.artifact: Any = create_progress_artifact(
            progress=0.0, key=PROGRESS, description=f"slides finished, run {run.run_id}"
        )

    def advance(self) -> None:
        """Report that one more slide has ended."""
        self.done += 1
        report(COHORT, SLIDES, self.done, self.total)
        update_progress_artifact(artifact_id=self.artifact, progress=100.0 * self.done / self.total)


def show_cohort(run: Run, summary: CohortSummary) -> None:
    """Publish a table of the slides, one of the specimens, a page of pictures, and a link to the report."""
    if run.names.pseudonyms:
        summary = replace(summary, out=HIDDEN)
    lines = dict(zip((row["slide_id"] for row in summary.slides), summary.table(), strict=True))
    shown = listed(summary)
    missing = len(summary.slides) - len(shown)
    more = f"; {missing} more slides are in {summary.out}/tables/slides" if missing else ""
    create_table_artifact(
        key=TABLE,
        table=[lines[row["slide_id"]] for row in shown],
        description=f"run {run.run_id}: {ending_in_words(summary)}{more}. Research use only.",
    )
    cases, missing = summary.case_table()[:MOST_ROWS], max(len(summary.cases) - MOST_ROWS, 0)
    more = f"; {counted(missing, 'more specimen')} in {summary.out}/tables/cases" if missing else ""
    create_table_artifact(
        key=CASES,
        table=cases,
        description=f"run {run.run_id}: {counted(len(summary.cases), 'specimen')}{more}. Research use only.",
    )
    create_markdown_artifact(
        key=PICTURES,
        markdown=pictures_page(run, summary),
        description=f"pictures and tables of run {run.run_id}",
    )
    page = address(run, summary.report) if summary.report else None
    if page is not None:
        ended = f"run {run.run_id}: {ending_in_words(summary)}"
        create_link_artifact(
            key=REPORT,
            link=page,
            link_text=f"report of run {run.run_id}",
            description=f"{ended}. {how_to_open(page)}Research use only.",
        )


def ending_in_words(summary: CohortSummary) -> str:
    """How the slides ended, as ``7 slides: 5 scored, 1 indeterminate, 1 quarantined``."""
    counts = [f"{summary.states[state]} {state}" for state in SlideState if summary.states[state]]
    return f"{counted(len(summary.slides), 'slide')}: {', '.join(counts)}"


def listed(summary: CohortSummary) -> list[Row]:
    """Rows of the slides that are shown: all in the manifest's order, or of many the unscored first."""
    if len(summary.slides) <= MOST_ROWS:
        return list(summary.slides)
    first = [row for row in summary.slides if row["state"] != SlideState.SCORED]
    rest = (row for row in summary.slides if row["state"] == SlideState.SCORED)
    return [*first[:MOST_ROWS], *itertools.islice(rest, max(MOST_ROWS - len(first), 0))]


def pictures_page(run: Run, summary: CohortSummary) -> str:
    """Markdown with the cohort's picture, and links to the pictures of every listed slide.

    Pictures are named by their place in the store, for who may read it, and never by signed addresses, which
    would be credentials in the server's database.
    """
    picture = run.store.read_bytes(PICTURE)
    inside = [f"![every specimen](data:image/png;base64,{base64.b64encode(picture).decode()})"]
    lines = [*(f"    {line}" for line in summary.lines()), ""]
    lines += [f"Report: {_link(run, summary.report)}", ""] if summary.report else []
    lines += [*(inside if len(picture) <= MOST_BYTES else []), "", _link(run, PICTURE), ""]
    lines += ["| slide | assay | result | picture | regions |", "|---|---|---|---|---|"]
    for row in listed(summary):
        group = row["ish_group"] and f"ISH group {row['ish_group']}"
        links = (_link(run, row[name]) for name in ("picture", "regions_picture", "fields_picture"))
        result = row["score"] or group or row["state"]
        lines.append(f"| {row['slide_id']} | {row['assay']} | {result} | {' | '.join(links)} |")
    return "\n".join(lines)


def _link(run: Run, path: str | None) -> str:
    """Link to something in the store, named by its file; a dash where there is nothing."""
    if path is None:
        return "–"
    name, target = path.rpartition("/")[2], address(run, path)
    return name if target is None else f"[{name}]({target})"


def how_to_open(page: str) -> str:
    """What to do where a browser does not follow a link: from a server's page to a file of its machine."""
    if not page.startswith("file://"):
        return ""
    return (
        f"Browsers open a file only from their address bar: paste {page} there, or set run.browse_url to "
        "where the output is served. "
    )


def address(run: Run, path: str) -> str | None:
    """Where a browser opens something of the output, for who may read it; never a signed address.

    Under ``run.browse_url`` if it is set. Else the file of a folder, and of a bucket its endpoint's address
    or AWS's console; none where pseudonyms keep the names of folders out of Prefect.
    """
    base, store = run.config.run.browse_url, run.store
    if base is not None:
        return f"{base.rstrip('/')}/{quote(path)}"
    if run.names.pseudonyms:
        return None
    if store.is_local:
        return f"file://{quote(store.uri(path))}"
    bucket, _, key = store.uri(path).removeprefix("s3://").partition("/")
    if store.endpoint_url is not None:
        return f"{store.endpoint_url.rstrip('/')}/{bucket}/{quote(key)}"
    return f"https://console.aws.amazon.com/s3/object/{bucket}?prefix={quote(key)}"
