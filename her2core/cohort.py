"""What a run leaves for people and scripts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from her2core.lake import schema
from her2core.lake.rows import Row, slide_row
from her2core.records import SlideState
from her2core.scoring.keyed import Judging
from her2core.stages.finished import SlideFinished
from her2core.stages.run import Run
from her2core.text import counted


@dataclass(frozen=True, slots=True)
class CohortSummary:
    """What a run leaves for people and scripts.

    Attributes
    ----------
    slides, cases
        Rows of the tables, as they were committed.
    committed
        Whether the tables hold them; not if only some slides of the manifest were worked on.
    trouble
        What disk, store or cluster lacked, so that slides were not done; empty if nothing.
    report
        The report's page in the output; empty if none was written.
    """

    run_id: str
    out: str
    slides: Sequence[Row]
    cases: Sequence[Row]
    trouble: str = ""
    committed: bool = True
    report: str = ""

    @property
    def states(self) -> Counter[str]:
        """Number of slides by how they ended."""
        return Counter(row["state"] for row in self.slides)

    @property
    def complete(self) -> bool:
        """Whether no slide failed or was quarantined, and nothing was lacking."""
        return not self.trouble and not self.states.keys() & {SlideState.FAILED, SlideState.QUARANTINED}

    def table(self) -> list[dict[str, str]]:
        """One line a slide: what a terminal and Prefect's artifact show."""
        return [
            {
                "slide": row["slide_id"],
                "case": row["case_id"],
                "state": row["state"],
                "score": row["score"] or "–",
                "class": row["her2_class"] or "–",
                "cells": _whole(row["n_scored"]),
                "3+ %": _percent(row["p3_pct"]),
                "≥2+ %": _percent(row["p2_pct"]),
                "stained %": _percent(row["p_any_pct"]),
                "H-score": _percent(row["h_score"]),
                "ISH group": row["ish_group"] or "–",
                "HER2/CEP17": _number(row["ish_ratio"]),
                "HER2 copies": _number(row["ish_her2_mean"]),
                "why": row["message"] or ", ".join(row["reasons"]),
            }
            for row in self.slides
        ]

    def case_table(self) -> list[dict[str, str]]:
        """One line a specimen: IHC and ISH beside each other, and what they come to."""
        return [
            {
                "case": row["case_id"],
                "specimen": row["specimen_id"] or "–",
                "site": row["site"] or "–",
                "HER2 status": row["her2_status"],
                "HER2 class": row["her2_class"] or "–",
                "IHC": row["score"] or "–",
                "ISH group": row["ish_group"] or "–",
                "ISH result": row["ish_result"] or ("external" if row["ish_arm_source"] else "–"),
                "conflicts": "; ".join(row["conflicts"]) or "–",
            }
            for row in self.cases
        ]

    def lines(self) -> list[str]:
        """Where everything is, in a few lines of text."""
        if self.committed and not self.slides:
            return [f"run {self.run_id}: nothing new; the tables are as they were"]
        names = ",".join(name for name in schema.TABLES if "heterogeneity" not in name)
        states = ", ".join(f"{count} {state}" for state, count in sorted(self.states.items()))
        if not self.committed:
            return [
                f"run {self.run_id}: {counted(len(self.slides), 'slide')} ({states}) of the manifest",
                f"pictures  {self.out}/pictures",
                "The tables are as they were; run without --only to pool specimens and commit.",
                "Research use only, not for diagnosis.",
            ]
        return [
            f"run {self.run_id}: {counted(len(self.slides), 'slide')} ({states}), "
            f"{counted(len(self.cases), 'specimen')}",
            *([f"report    {self.out}/{self.report}"] if self.report else []),
            f"tables    {self.out}/tables/{{{names}}} (Delta)",
            f"          {self.out}/tables/{{,case_,patient_}}heterogeneity{{,_wide}}",
            f"pictures  {self.out}/pictures (cohort.png shows all specimens)",
            f"pyramids  {self.out}/pyramids (OME-Zarr{self._growth()})",
            "Research use only, not for diagnosis.",
        ]

    def _growth(self) -> str:
        """Size of the pyramids against their slides, in words."""
        made = [row for row in self.slides if row["pyramid_bytes"] is not None]
        if not made:
            return ""
        stored, source = (sum(row[name] for row in made) for name in ("pyramid_bytes", "source_bytes"))
        return f", {stored / 1e6:,.0f} MB from {source / 1e6:,.0f} MB of slides, ×{stored / source:.1f}"

    def as_dict(self) -> dict[str, Any]:
        """The summary as JSON-ready data."""
        return {
            "run_id": self.run_id,
            "out": self.out,
            "states": dict(self.states),
            "complete": self.complete,
            "trouble": self.trouble,
            "committed": self.committed,
            "report": self.report,
            "slides": list(self.slides),
            "cases": list(self.cases),
        }


def preview(run: Run, finished: Sequence[SlideFinished]) -> CohortSummary:
    """The slides' rows as a run over the whole manifest would commit them; nothing is committed or pooled."""
    config, judging = run.config, Judging(run.config.ihc_score, run.config.ish_score)
    outcomes = [result.outcome for result in finished]
    slides = tuple(slide_row(o, judging.of(o.slide).score, config.ihc.ladder_od) for o in outcomes)
    return CohortSummary(run.run_id, run.store.uri(), slides, (), committed=False)


def _whole(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
