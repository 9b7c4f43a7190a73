"""A slide as the page shows it: how far it came, and why no further."""

from __future__ import annotations

from collections.abc import Mapping

from her2core.cases.clinical_words import reader_conflict
from her2core.records import SlideState
from her2core.report.run_tables import ADDRESSES, MEASURES, Row, RunTables, specimen_key
from her2core.report.words import (
    FLAGS,
    HER2_CLASSES,
    NOTES,
    PENDING,
    REASONS,
    SLIDE_CLASSES,
    STAGES,
    STATES,
    in_words,
    without_folders,
)

RECEIVED, READABLE, SCORED, CALLED = range(len(STAGES))
CALLS = ("Positive", "Negative")
"""HER2 statuses that answer the question; Equivocal and Indeterminate leave it to a person."""
ASKED = {
    "slide_id": "slide",
    "case_id": "case",
    "patient_id": "patient",
    "specimen_id": "specimen",
    "block_id": "block",
    "site": "site",
    "collection_date": "collected",
    "tumour_type": "tumour",
    "specimen_type": "specimen type",
    "scanner": "scanner",
    "laboratory": "laboratory",
    "antibody_clone": "clone",
    "fixative": "fixative",
    "assay": "assay",
    "state": "state",
    "score": "IHC",
    "her2_class": "class",
    "reader_score": "reader",
    "ish_group": "ISH group",
    "qc_verdict": "QC",
    "n_scored": "cells",
    "p3_pct": "3+ %",
    "p2_pct": "≥2+ %",
    "p_any_pct": "stained %",
    "h_score": "H-score",
    "membrane_od_mean": "membrane OD",
    "completeness_mean": "completeness",
    "n_ish": "nuclei",
    "ish_ratio": "HER2/CEP17",
    "ish_her2_mean": "HER2 copies",
    "ish_cep17_mean": "CEP17 copies",
    "tissue_area_mm2": "tissue, mm²",
    "mpp": "µm/px",
    "rules": "IHC rules",
    "ish_rules": "ISH rules",
}
"""Columns of ``slides`` that the page takes as they are, and their headings."""
SHARES = ("n0", "n1", "n2u", "n2", "n3")
INTERVALS = tuple(
    f"{name}_{end}{unit}"
    for unit, names in {"_pct": ("p3", "p2", "p_any"), "": ("ish_ratio", "ish_her2_mean")}.items()
    for name in names
    for end in ("low", "high")
)


def slide_views(tables: RunTables) -> tuple[Row, ...]:
    """Rows of the slides for the page, in the order of the table.

    Each has `ASKED`, and ``stage`` and ``left`` (`how_far`), ``specimen_row`` (its place among the specimens;
    null if it has none), ``reader`` and ``machine`` (`reader_level`, `machine_level`), ``notes`` (its reasons
    in words), ``calibrated`` and `MEASURES`.
    """
    places = {specimen_key(case): at for at, case in enumerate(tables.cases)}
    return tuple(_view(row, tables, places) for row in tables.slides)


def _view(row: Row, tables: RunTables, places: Mapping[tuple[str, str, str], int]) -> Row:
    at = places.get(specimen_key(row))
    case = None if at is None else tables.cases[at]
    stage, left = how_far(row, case)
    reasons = list(row["reasons"] or ())
    measures = tables.measures.get(row["slide_id"], {})
    return {
        **{name: row.get(name) for name in (*ASKED, *SHARES, *INTERVALS)},
        "specimen_row": at,
        "stage": stage,
        "left": left,
        "state_words": STATES[row["state"]],
        "reader": reader_level(row),
        "machine": machine_level(row),
        "notes": [reason_words(reason) for reason in reasons],
        "message": message_of(row),
        "possible": " or ".join(row["possible_scores"] or ()) if row["borderline"] else None,
        "calibrated": None if row["uncalibrated"] is None else not row["uncalibrated"],
        "borderline": bool(row["borderline"]),
        "ish_elsewhere": row["external_ish_status"] or row["external_ish_group"],
        "preanalytic": list(row["preanalytic"] or ()),
        **{name: measures.get(name) for name in MEASURES},
    }


def how_far(row: Row, case: Row | None) -> tuple[int, str | None]:
    """The stage that a slide reached, and in words why it came no further.

    A slide is readable if it was read and measured, scored if it has a score or an ISH group of its own, and
    called if its specimen is positive or negative.
    """
    if row["state"] == SlideState.SCORED:
        if case is not None and case["her2_status"] in CALLS:
            return CALLED, None
        return SCORED, _no_call(case)
    cause = _cause(list(row["reasons"] or ()))
    if row["state"] == SlideState.INDETERMINATE:
        return READABLE, cause or STATES[row["state"]]
    return RECEIVED, cause or STATES[row["state"]]


def reader_level(row: Row) -> str | None:
    """The reader's score, its 0 split as the reader did: ``0``, ``0 null``, ``0 ultralow``, ``1+``, ..."""
    return None if row["reader_score"] is None else str(row["reader_score"]).replace("_", " ")


def machine_level(row: Row) -> str | None:
    """The computed score in the words of `reader_level`."""
    split = row["score"] == "0" and row["her2_class"] in ("null", "ultralow")
    return f"0 {row['her2_class']}" if split else row["score"]


def reader_differs(row: Row) -> str | None:
    """That a slide has two scores that differ, as `cases.conflicts` words it; None if it has not."""
    return reader_conflict(row["slide_id"], row["reader_score"], row["score"], row["her2_class"])


def _no_call(case: Row | None) -> str:
    if case is None:
        return "no specimen"
    if case["pending"]:
        return PENDING.get(case["pending"], in_words(case["pending"]))
    if case["her2_status"] == "Equivocal":
        return "IHC equivocal, no ISH result"
    if case["conflicts"]:
        return "statements contradict each other"
    if case["borderline"]:
        return "more than one score is possible"
    return "other slides of the specimen have no score" if case["incomplete"] else "specimen indeterminate"


def _cause(reasons: list[str]) -> str | None:
    """The first reason in words, one that casts doubt on a result before a note; None without any."""
    heavy = [reason for reason in reasons if reason not in NOTES]
    return reason_words((heavy or reasons)[0]) if reasons else None


def message_of(row: Row) -> str | None:
    """A slide's message, without the folders of its files."""
    if row["message"] is None:
        return None
    return without_folders(row["message"], [row[name] for name in ADDRESSES if row[name]])


def reason_words(code: str) -> str:
    """A reason in words."""
    return REASONS.get(code, in_words(code))


def flag_words(code: str) -> str:
    """A specimen's flag in words."""
    return FLAGS.get(code, in_words(code))


def class_words(code: str) -> str:
    """A class in words."""
    return (HER2_CLASSES | SLIDE_CLASSES).get(code, in_words(code))
