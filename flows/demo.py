"""``make demo``: a synthetic cohort with planted truth, scored on an embedded default.

Phantoms prove plumbing and arithmetic, not clinical validity.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flows import run_cohort

FOLDER = Path("demo")

Rows = dict[str, dict[str, str]]


def main() -> int:
    """Make the slides (once), score them, and print slides and cases beside their planted truth."""
    from flows.nursery import open_nursery
    from flows.show import showing_progress
    from her2core.phantom import synth_cohort

    console = Console(width=None if sys.stdout.isatty() else 140)
    slides = FOLDER / "slides"
    if not (slides / "truth_ish.csv").exists():
        console.print(f"drawing a synthetic cohort into {slides} (about a minute, once)")
        synth_cohort(slides)
    with open_nursery(), showing_progress(console):
        summary = run_cohort(manifest=str(slides / "manifest.csv"), out=str(FOLDER / "out"))
    rows = {row["slide_id"]: row for row in summary.slides}
    ihc, right_ihc = _ihc_table(_planted(slides / "truth.csv", "slide_id"), rows)
    ish, right_ish = _ish_table(_planted(slides / "truth_ish.csv", "slide_id"), rows)
    cases = {f"{row['case_id']} {row['site']}": row for row in summary.cases}
    specimens, right_cases = _case_table(_planted(slides / "truth_cases.csv", "case_id", "site"), cases)
    for table in (ihc, ish, specimens):
        console.print(table)
    right, all_ = right_ihc + right_ish + right_cases, ihc.row_count + ish.row_count + specimens.row_count
    console.print(
        f"{right_ihc} of {ihc.row_count} IHC slides have the planted score and class, {right_ish} of "
        f"{ish.row_count} ISH slides the planted group, {right_cases} of {specimens.row_count} specimens the "
        "planted status and class"
    )
    for text in summary.lines():
        console.print(text, highlight=False, soft_wrap=True)
    return 0 if summary.complete and right == all_ else 1


def _planted(path: Path, *key: str) -> Rows:
    with path.open(newline="", encoding="utf-8") as file:
        return {" ".join(row[name] for name in key): row for row in csv.DictReader(file)}


def _ihc_table(truth: Rows, rows: dict[str, dict[str, Any]]) -> tuple[Table, int]:
    table = Table(
        "slide", "planted score", "score", "planted class", "class",
        "planted 3+ %", "3+ %", "planted stained %", "stained %", "cells", box=None,
        title="IHC slides, measured beside planted",
    )  # fmt: skip
    right = 0
    for slide, planted in truth.items():
        row = rows[slide]
        same = (row["score"], row["her2_class"]) == (planted["planted_score"], planted["her2_class"])
        right += same
        table.add_row(
            slide, planted["planted_score"], row["score"] or "–", planted["her2_class"], row["her2_class"],
            f"{100 * float(planted['p3']):.1f}", _one(row["p3_pct"]), f"{100 * float(planted['p1']):.1f}",
            _one(row["p_any_pct"]), f"{row['n_scored'] or 0:,}", style=_colour(same),
        )  # fmt: skip
    return table, right


def _ish_table(truth: Rows, rows: dict[str, dict[str, Any]]) -> tuple[Table, int]:
    table = Table(
        "slide", "planted group", "group", "planted ratio", "ratio", "95 %", "planted HER2", "HER2",
        "planted CEP17", "CEP17", "nuclei", box=None, title="ISH slides, measured beside planted",
    )  # fmt: skip
    right = 0
    for slide, planted in truth.items():
        row = rows[slide]
        same = row["ish_group"] == planted["ish_group"]
        right += same
        table.add_row(
            slide, planted["ish_group"], row["ish_group"] or "–", _two(planted["ish_ratio"]),
            _two(row["ish_ratio"]), f"{_two(row['ish_ratio_low'])}–{_two(row['ish_ratio_high'])}",
            _two(planted["ish_her2_mean"]), _two(row["ish_her2_mean"]), _two(planted["ish_cep17_mean"]),
            _two(row["ish_cep17_mean"]), f"{row['n_nuclei_evaluable'] or 0:,}", style=_colour(same),
        )  # fmt: skip
    return table, right


def _case_table(truth: Rows, cases: dict[str, dict[str, Any]]) -> tuple[Table, int]:
    table = Table(
        "case", "site", "planted status", "status", "planted class", "class", "IHC", "ISH group",
        "ISH result",
        box=None, title="specimens, scored beside planted",
    )  # fmt: skip
    right = 0
    for name, planted in truth.items():
        row = cases[name]
        same = all(row[key] == planted[key] for key in ("her2_status", "her2_class"))
        right += same
        table.add_row(
            planted["case_id"], planted["site"], planted["her2_status"], row["her2_status"],
            planted["her2_class"], row["her2_class"] or "–", row["score"] or "–", row["ish_group"] or "–",
            row["ish_result"] or "–", style=_colour(same),
        )  # fmt: skip
    return table, right


def _colour(same: bool) -> str:
    return "green" if same else "red"


def _one(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _two(value: str | float | None) -> str:
    return "–" if value is None else f"{float(value):.2f}"


if __name__ == "__main__":
    sys.exit(main())
