"""What of a cohort is as the last run left it, so that the next one need not touch it.

The ``runs`` row of a run lists for every slide what its result rests on. A slide is carried over if its row
of the manifest, the configuration, the versions of the stages, the identity that ingest wrote into the
manifest (``x_identity``), and the files of its region and nuclei are the same. Nothing of the slide itself is
read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from her2core.lake import schema
from her2core.lake.ghosts import last_run
from her2core.records import SlideRow, SlideState, keyed_fields
from her2core.stages.finished import SlideFinished
from her2core.stages.run import Run
from her2core.storage.store import content_key
from her2core.versions import CELLS, CONTOURS, OUTLINES, PROFILE, PYRAMID, SLIDE

STAGES = (PYRAMID, PROFILE, CELLS, OUTLINES, CONTOURS, SLIDE)
"""Versions of the stages that decide a result."""
STAND = frozenset({SlideState.SCORED, SlideState.INDETERMINATE, SlideState.SKIPPED})
"""How slides ended whose results stand; others are tried again."""


@dataclass(frozen=True, slots=True)
class Division:
    """A cohort as one run sees it.

    Attributes
    ----------
    work
        Slides that go through the stages.
    beside
        Slides of the same cases and patients, with the keys of their published results.
    known
        What the last run recorded of slides, by slide.
    carried
        What it recorded of all others, whose rows stay as they are.
    dropped
        Whether the manifest does not name a slide any more that it named then.
    fresh
        Slides of ``work`` that no run has tried as they are now; the others failed then.
    """

    work: tuple[SlideRow, ...]
    beside: tuple[tuple[SlideRow, str | None], ...]
    known: Mapping[str, Mapping[str, Any]]
    carried: tuple[Mapping[str, Any], ...]
    dropped: bool = False
    fresh: tuple[str, ...] = ()

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.work and not self.dropped


def divide(run: Run) -> Division:
    """Separate what is new or changed in a manifest from what is as the last run of the cohort left it."""
    last = last_run(run.store, run.cohort)
    known: dict[str, dict[str, Any]] = {entry["slide_id"]: entry for entry in last}
    digests = row_digests(run)
    changed = {row.slide_id for row in run.rows if not _stands(run, row, digests, known.get(row.slide_id))}
    named = {row.slide_id for row in run.rows}
    touched = {_patient(row.case_id, row.patient_id) for row in run.rows if row.slide_id in changed}
    cases = {row.case_id for row in run.rows if row.slide_id in changed}
    for name, entry in known.items():  # where a slide was before it was moved or dropped
        if (name in changed or name not in named) and entry.get("case_id"):
            touched.add(_patient(entry["case_id"], entry.get("patient_id")))
            cases.add(entry["case_id"])
    work, beside, carried = [], [], []
    for row in run.rows:
        if row.slide_id in changed:
            work.append(row)
        elif row.case_id in cases or _patient(row.case_id, row.patient_id) in touched:
            beside.append((row, known[row.slide_id]["score_key"]))
        else:
            carried.append(known[row.slide_id])
    dropped = bool(known.keys() - named)
    fresh = [row.slide_id for row in work if not _was_tried(run, row, digests, known.get(row.slide_id))]
    return Division(tuple(work), tuple(beside), known, tuple(carried), dropped, tuple(fresh))


def input_of(result: SlideFinished, digest: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """What the row of a run records of a slide.

    Parameters
    ----------
    digest
        Of `row_digests`.
    known
        What an earlier run recorded of it, for a result that was read and not made.
    """
    outcome = result.outcome
    return {
        "slide_id": outcome.slide.slide_id,
        "uri": outcome.slide.uri,
        "identity": outcome.info.identity if outcome.info else None,
        "score_key": outcome.score_key,
        "case_id": outcome.slide.case_id,
        "patient_id": outcome.slide.patient_id,
        "state": str(outcome.state),
        "made_of": digest,
        "roi_uri": outcome.slide.roi_uri,
        "roi": outcome.roi.digest if outcome.roi else None,
        "cells_uri": outcome.slide.cells_uri,
        "cells": outcome.outlines.digest if outcome.outlines else None,
        "table": schema.CELLS.name if outcome.slide.assay == "HER2-IHC" else schema.NUCLEI.name,
        "rows": result.cells.rows if result.cells else 0,
        "rests_on": list(result.rests_on or known.get("rests_on") or ()),
    }


def row_digests(run: Run) -> dict[str, str]:
    """Digest, by slide, of its manifest row and all that decides its result beside the slide itself."""
    settings = run.config.resolved()
    settings.pop("run")
    settings["score"] = settings.pop("ihc_score")  # as it was called when recipes began
    recipe = content_key("recipe", 1, {}, [json.dumps([settings, list(STAGES)], sort_keys=True, default=str)])
    texts = {row.slide_id: json.dumps(keyed_fields(row), sort_keys=True, default=str) for row in run.rows}
    return {slide_id: content_key("row", 1, {}, [recipe, text]) for slide_id, text in texts.items()}


def _stands(run: Run, row: SlideRow, digests: Mapping[str, str], entry: Mapping[str, Any] | None) -> bool:
    """Whether the last result of a slide is what a run would give it now."""
    if entry is None or entry.get("made_of") != digests[row.slide_id] or entry["state"] not in STAND:
        return False
    if entry["state"] == SlideState.SKIPPED:
        return True
    if entry["identity"] is None or run.identities.get(row.slide_id) != entry["identity"]:
        return False
    from her2core.intake.outlines import outlines_identity
    from her2core.intake.roi import roi_identity

    endpoint = run.config.run.endpoint_url
    if row.roi_uri is not None and roi_identity(row.roi_uri, endpoint) != entry["roi"]:
        return False
    return row.cells_uri is None or outlines_identity(row.cells_uri, endpoint) == entry["cells"]


def _was_tried(run: Run, row: SlideRow, digests: Mapping[str, str], entry: Mapping[str, Any] | None) -> bool:
    """Whether the last run tried a slide as it is now, and failed."""
    if entry is None or entry.get("made_of") != digests[row.slide_id] or entry["state"] in STAND:
        return False
    return entry["identity"] in (None, run.identities.get(row.slide_id))


def _patient(case_id: str, patient_id: str | None) -> str:
    return patient_id or case_id
