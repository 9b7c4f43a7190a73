"""``make demo``: a synthetic cohort with planted truth, scored on an embedded default.

Phantoms prove plumbing and arithmetic, not clinical validity.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from flows import run_cohort

FOLDER = Path("demo")


def main() -> int:
    """Make the slides (once), score them, and print the cohort beside its planted truth."""
    from flows.show import showing_progress
    from her2core.phantom import synth_cohort

    console = Console(width=None if sys.stdout.isatty() else 140)
    slides = FOLDER / "slides"
    if not (slides / "truth.csv").exists():
        console.print(f"drawing a synthetic cohort into {slides} (about a minute, once)")
        synth_cohort(slides)
    with showing_progress(console):
        summary = run_cohort(manifest=str(slides / "manifest.csv"), out=str(FOLDER / "out"))
    with (slides / "truth.csv").open(newline="", encoding="utf-8") as file:
        truth = {row["slide_id"]: row for row in csv.DictReader(file)}
    table = Table(
        "slide", "planted score", "score", "planted class", "class",
        "planted 3+ %", "3+ %", "planted stained %", "stained %", "cells", box=None,
        title="measured beside planted",
    )  # fmt: skip
    right = 0
    for row, line in zip(summary.slides, summary.table(), strict=True):
        planted = truth[row["slide_id"]]
        same = (row["score"], row["her2_class"]) == (planted["planted_score"], planted["her2_class"])
        right += same
        table.add_row(
            row["slide_id"], planted["planted_score"], line["score"], planted["her2_class"], line["class"],
            f"{100 * float(planted['p3']):.1f}", line["3+ %"], f"{100 * float(planted['p1']):.1f}",
            line["stained %"], line["cells"], style="green" if same else "red",
        )  # fmt: skip
    console.print(table)
    console.print(f"{right} of {len(truth)} slides have the planted score and class")
    for text in summary.lines():
        console.print(text, highlight=False, soft_wrap=True)
    return 0 if summary.complete and right == len(truth) else 1


if __name__ == "__main__":
    sys.exit(main())
