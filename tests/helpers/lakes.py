"""Finished runs without slides: the tables that analyses read, written as a run commits them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from her2core.config import Config
from her2core.lake.batches import commit_files
from her2core.lake.rows import slide_row
from her2core.lake.schema import CASES, CELLS, HETEROGENEITY, PATIENTS, REGIONS, RUNS, SLIDES
from her2core.lake.tables import commit_rows
from her2core.params import IHCParams, PyramidParams, ScoreParams
from her2core.phantom.render import render_field
from her2core.phantom.spec import PhantomSpec
from her2core.records import Assay, SlideRow
from her2core.stages.finished import SlideFinished
from her2core.storage.store import Store
from tests.helpers.chain import memory_slide, score
from tests.helpers.report_run import blank

SCORES = {"pos_IHC3": "3+", "pos_IHC2_ISHpos": "2+", "low_2plus": "2+", "low_1plus": "1+", "equivocal": "2+"}
STATUSES = {"pos_IHC3": "Positive", "pos_IHC2_ISHpos": "Positive", "equivocal": "Equivocal"}


def write_run(folder: Path, specimens: Iterable[Mapping[str, Any]]) -> Path:
    """An output with one IHC slide a specimen.

    A specimen: ``case_id``, ``her2_class`` and, where known, ``patient_id``, ``specimen_id``, ``site``,
    ``collection_date``, ``reader_score``, ``membrane_od_mean`` and ``metrics`` (name and size -> value).
    """
    store = Store(folder)
    slides, cases, metrics = [], [], []
    for one in specimens:
        ids = {k: one.get(k) for k in ("case_id", "patient_id", "specimen_id", "site", "collection_date")}
        found = one["her2_class"]
        score = SCORES.get(found, "0" if found != "indeterminate" else None)
        name = "-".join(str(ids[k]) for k in ("case_id", "specimen_id") if ids[k])
        own = {"score": score, "membrane_od_mean": one.get("membrane_od_mean"), "h_score": one.get("h_score")}
        state = "scored" if score else "indeterminate"
        slides.append(
            blank(SLIDES, slide_id=name, assay="HER2-IHC", uri=f"slides/{name}.tif", state=state,
                n_scored=1000, reader_score=one.get("reader_score"), her2_class=found, **ids, **own)
        )  # fmt: skip
        status = STATUSES.get(found, "Indeterminate" if found == "indeterminate" else "Negative")
        cases.append(blank(CASES, her2_status=status, her2_class=found, **ids, **own))
        for (metric, scale), value in one.get("metrics", {}).items():
            metrics.append(
                blank(HETEROGENEITY, slide_id=name, case_id=ids["case_id"], metric=metric, scale_um=scale,
                    value=value, n=1000, status="ok")
            )  # fmt: skip
    for table, rows in ((SLIDES, slides), (CASES, cases), (HETEROGENEITY, metrics)):
        commit_rows(store, table, rows)
    return folder


def write_scored_run(folder: Path, *, keep: bool = False) -> Path:
    """An output with one phantom slide, ``s1`` of case ``c1``, through all stages: pyramid, record and
    tables; with ``keep`` the outlines of its cells too."""
    mix = (0.2, 0.2, 0.1, 0.3, 0.2)
    spec = PhantomSpec(seed=3, height_px=640, width_px=640, mix=mix, pattern="mosaic")
    rgb, _ = render_field(spec)
    store = Store(folder)
    ids = {"patient_id": "p1", "specimen_id": "core", "site": "primary", "collection_date": "2020-03-04"}
    where = SlideRow("s1", "c1", "slides/Anna_Smith.svs", Assay.IHC, **ids)
    _, _, finished = score(
        memory_slide(rgb), folder, PyramidParams(chunk=256, shard=1024), row=where, keep=keep
    )
    assert finished.cells is not None
    assert finished.regions is not None
    key = finished.outcome.score_key
    store.write_bytes(f"stages/slide/{key}.json", TypeAdapter(SlideFinished).dump_json(finished))
    commit_files(store, CELLS, [finished.cells], ["s1"])
    commit_files(store, REGIONS, [finished.regions], ["s1"])
    slide = slide_row(finished.outcome, ScoreParams(), IHCParams().ladder_od)
    commit_rows(store, SLIDES, [slide])
    names = ("case_id", *ids, "score", "her2_class", "membrane_od_mean", "n_scored")
    own = {name: slide[name] for name in names}
    commit_rows(store, CASES, [blank(CASES, her2_status="Positive", slides=["s1"], **own)])
    commit_rows(store, HETEROGENEITY, [
        blank(HETEROGENEITY, slide_id="s1", case_id="c1", metric="rao_q", value=0.25, n=900, status="ok"),
        blank(HETEROGENEITY, slide_id="s1", case_id="c1", metric="eta2", scale_um=250.0, status="degenerate"),
    ])  # fmt: skip
    commit_rows(store, PATIENTS, [blank(PATIENTS, patient_id="p1", index_basis="only_specimen")])
    known = {
        "run_id": "20260102T030000Z-abcdef",
        "started_at": datetime(2026, 1, 2, 3, tzinfo=UTC),
        "finished_at": datetime(2026, 1, 2, 4, tzinfo=UTC),
        "state": "complete",
        "configuration": json.dumps(Config().resolved()),
        "manifest_uri": "lab/Anna_Smith/manifest.csv",
        "manifest_sha256": "0" * 64,
        "n_slides": 1,
        "n_scored": 1,
        "versions": '{"her2cohort": "0.1.0"}',
        "inputs": json.dumps([{"slide_id": "s1", "uri": "slides/Anna_Smith.svs", "identity": "12-abc"}]),
        "slides_version": 0,
        "cases_version": 0,
        "cells_version": 0,
    }
    commit_rows(store, RUNS, [blank(RUNS, **known)])
    return folder
