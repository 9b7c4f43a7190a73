"""Last step of a run: specimens are pooled, and the lake tables are committed, ``runs`` last."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from her2core.cases.comparisons import Comparer
from her2core.cases.patients import by_patient, score_patients
from her2core.cases.specimens import CaseScore, SlideOutcome, score_cases
from her2core.guidelines.rules_ihc import load_rules
from her2core.lake import schema
from her2core.lake.cube import write_cohort_cube
from her2core.lake.ghosts import (
    clear_pictures,
    dropped_slides,
    of_cases,
    of_patients,
    true_cases,
    true_patients,
)
from her2core.lake.rows import Row, RunRecord, case_row, patient_row, run_row, slide_row
from her2core.lake.rows_metrics import (
    case_metric_rows,
    case_wide_row,
    metric_rows,
    patient_metric_rows,
    patient_wide_row,
    wide_row,
)
from her2core.lake.rows_regions import block_sums
from her2core.lake.schema import Table
from her2core.lake.slide_files import DataFile
from her2core.lake.tables import Keep, commit_files, commit_rows
from her2core.pictures.cohort import cohort_picture
from her2core.records import Assay, SlideState
from her2core.scoring.keyed import Judging
from her2core.stages.run import Run
from her2core.stages.slide import SlideFinished
from her2core.storage.store import Store

LIBRARIES = ("her2cohort", "dask", "distributed", "imagecodecs", "numba", "numpy", "opencv-python-headless",
             "openslide-python", "prefect", "pyarrow", "tifffile", "zarr")  # fmt: skip
"""Whose versions a run records."""
TRUE: dict[Table, Callable[[Store], Keep]] = {
    schema.CASES: true_cases,
    schema.CASE_HETEROGENEITY: of_cases,
    schema.CASE_HETEROGENEITY_WIDE: of_cases,
    schema.PATIENTS: true_patients,
    schema.PATIENT_HETEROGENEITY: of_patients,
    schema.PATIENT_HETEROGENEITY_WIDE: of_patients,
}
"""Tables of specimens and patients, in the order of their commits, and which of their older rows stay."""
PICTURE = "pictures/cohort.png"
"""Picture of the cohort, as the last run left it."""


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
    """

    run_id: str
    out: str
    slides: tuple[Row, ...]
    cases: tuple[Row, ...]
    trouble: str = ""
    committed: bool = True

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
                "ISH result": row["ish_result"] or "–",
                "conflicts": "; ".join(row["conflicts"]) or "–",
            }
            for row in self.cases
        ]

    def lines(self) -> list[str]:
        """Where everything is, in a few lines of text."""
        names = ",".join(name for name in schema.TABLES if "heterogeneity" not in name)
        states = ", ".join(f"{count} {state}" for state, count in sorted(self.states.items()))
        if not self.committed:
            return [
                f"run {self.run_id}: {len(self.slides)} slides ({states}) of the manifest",
                f"pictures  {self.out}/pictures",
                "The tables are as they were; run without --only to pool specimens and commit.",
                "Research use only, not for diagnosis.",
            ]
        return [
            f"run {self.run_id}: {len(self.slides)} slides ({states}), {len(self.cases)} specimens",
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
            "slides": list(self.slides),
            "cases": list(self.cases),
        }


def preview(run: Run, finished: Sequence[SlideFinished]) -> CohortSummary:
    """The slides' rows as a run over the whole manifest would commit them; nothing is committed or pooled."""
    config, judging = run.config, Judging(run.config.score, run.config.ish_score)
    outcomes = [result.outcome for result in finished]
    slides = tuple(slide_row(o, judging.of(o.slide).score, config.ihc.ladder_od) for o in outcomes)
    return CohortSummary(run.run_id, run.store.uri(), slides, (), committed=False)


def publish(run: Run, finished: Sequence[SlideFinished]) -> CohortSummary:
    """Commit the run's tables, and then the one row that says it all happened.

    Specimens are pooled over the slides of this manifest, so a case whose slides arrive over time is always
    judged by all that its manifest names.
    """
    config, store = run.config, run.store
    outcomes = [result.outcome for result in finished]
    judging = Judging(config.score, config.ish_score)
    slides = [slide_row(o, judging.of(o.slide).score, config.ihc.ladder_od) for o in outcomes]
    specimens = _specimens(outcomes, judging)
    cases = [case_row(c, load_rules(c.rules)) for c in specimens]
    patients = [patient_row(p) for p in score_patients(specimens)]
    all_ids = [row.slide_id for row in run.rows]
    dropped = sorted(dropped_slides(store, run.cohort, all_ids))
    replaced = [*all_ids, *dropped]
    files = _files(run, finished)
    versions = {table: commit_files(store, schema.TABLES[table], files[table], replaced) for table in files}
    metrics = [row for r in finished for row in metric_rows(r.outcome.slide, r.metrics)]
    wide = [wide_row(r.outcome.slide, r.metrics) for r in finished if r.metrics]
    for table, rows in ((schema.HETEROGENEITY, metrics), (schema.HETEROGENEITY_WIDE, wide)):
        versions[table.name] = commit_rows(store, table, rows, replaced)
    write_cohort_cube(store, run.run_id, metrics)
    store.write_bytes(PICTURE, cohort_picture(cases))
    versions[schema.SLIDES.name] = commit_rows(store, schema.SLIDES, slides, replaced)
    rows_of = {schema.CASES: cases, schema.PATIENTS: patients} | _between(run, finished, specimens)
    for table, true in TRUE.items():  # in this order: each is held against one before
        versions[table.name] = commit_rows(store, table, rows_of[table], keep=true(store))
    states = Counter(o.state for o in outcomes)
    record = RunRecord(
        run_id=run.run_id,
        started_at=datetime.fromisoformat(run.started),
        finished_at=datetime.now(UTC),
        state="complete" if set(states) <= {SlideState.SCORED, SlideState.SKIPPED} else "partial",
        cohort=run.cohort,
        manifest_uri=run.names.of(run.manifest_uri),
        manifest_sha256=run.manifest_sha256,
        n_slides=len(outcomes),
        n_scored=states[SlideState.SCORED],
        n_indeterminate=states[SlideState.INDETERMINATE],
        n_failed=states[SlideState.FAILED],
        n_quarantined=states[SlideState.QUARANTINED],
        n_skipped=states[SlideState.SKIPPED],
        n_cells=sum(file.rows for file in files[schema.CELLS.name]),
        n_nuclei=sum(file.rows for file in files[schema.NUCLEI.name]),
        table_versions=versions,
        configuration=run.configuration(),
        versions={"python": sys.version.split()[0]} | {name: version(name) for name in LIBRARIES},
        inputs=[_input(o) for o in outcomes],
    )
    commit_rows(store, schema.RUNS, [run_row(record)])
    clear_pictures(store, all_ids, dropped)
    return CohortSummary(run.run_id, store.uri(), tuple(slides), tuple(cases))


def _files(run: Run, finished: Sequence[SlideFinished]) -> dict[str, list[DataFile]]:
    """Files that workers wrote, by table."""
    ihc = {row.slide_id for row in run.rows if row.assay == Assay.IHC}
    files: dict[str, list[DataFile]] = {"cells": [], "nuclei": [], "regions": []}
    for result in finished:
        if result.cells is not None:
            files["cells" if result.outcome.slide.slide_id in ihc else "nuclei"].append(result.cells)
        if result.regions is not None:
            files["regions"].append(result.regions)
    return files


def _specimens(outcomes: Sequence[SlideOutcome], judging: Judging) -> tuple[CaseScore, ...]:
    """Specimens of the cohort, each by the rules that are for it."""
    alike: dict[Judging, list[SlideOutcome]] = {}
    for outcome in outcomes:
        alike.setdefault(judging.of(outcome.slide), []).append(outcome)
    found = [case for by, some in alike.items() for case in score_cases(some, by.score, by.rules, by.ish)]
    return tuple(sorted(found, key=lambda c: (c.case_id, c.specimen_id or "", c.site or "")))


def _between(
    run: Run, finished: Sequence[SlideFinished], specimens: Sequence[CaseScore]
) -> dict[Table, list[Row]]:
    """Rows of how slides and blocks of a specimen, and lesions of a patient, differ."""
    config = run.config
    by_id = {result.outcome.slide.slide_id: result for result in finished}

    def blocks_of(name: str) -> NDArray[np.float64]:
        result = by_id[name]
        if result.regions is None:
            raise ValueError(f"{name}: has cells and no regions")
        size, assay = config.heterogeneity.region_um, result.outcome.slide.assay
        return block_sums(run.store, result.regions, size, assay)

    comparer = Comparer(
        outcomes={name: result.outcome for name, result in by_id.items()},
        blocks_of=blocks_of,
        params=config.heterogeneity,
        score=config.score,
        ish_score=config.ish_score,
    )
    found: dict[Table, list[Row]] = {
        schema.CASE_HETEROGENEITY: [],
        schema.CASE_HETEROGENEITY_WIDE: [],
        schema.PATIENT_HETEROGENEITY: [],
        schema.PATIENT_HETEROGENEITY_WIDE: [],
    }
    for patient, cases in by_patient(specimens).items():
        compared = comparer.compare(cases)
        for case, metrics in compared.specimens:
            found[schema.CASE_HETEROGENEITY] += case_metric_rows(case, metrics)
            found[schema.CASE_HETEROGENEITY_WIDE].append(case_wide_row(case, metrics))
        found[schema.PATIENT_HETEROGENEITY] += patient_metric_rows(patient, compared.lesions)
        found[schema.PATIENT_HETEROGENEITY_WIDE].append(patient_wide_row(patient, compared.lesions))
    return found


def _input(outcome: SlideOutcome) -> dict[str, str | None]:
    identity = outcome.info.identity if outcome.info else None
    slide = outcome.slide
    return {
        "slide_id": slide.slide_id,
        "uri": slide.uri,
        "identity": identity,
        "score_key": outcome.score_key,
    }


def _whole(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
