"""Rows of what the manifests no longer list are removed from the tables, and nothing else.

The table ``slides`` holds for every slide the case, specimen, site and patient it belongs to, as the last
manifest that named it has it. A row of ``cases`` is true if all slides that it was made of still belong
there; one of ``patients`` if its specimens do; comparisons stand and fall with the row that they belong to.
So a corrected id takes the old rows with it, and rows that nothing contradicts stay, whosever they are.
Pictures follow the rows: of a slide that is scored again only those that its row names stay.

A slide that a manifest no longer names goes if an earlier run of the same cohort named it last.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from her2core.lake.schema import CASES, PATIENTS, RUNS, SLIDES
from her2core.lake.tables import Keep, read_rows
from her2core.storage.store import Store

FINISHED = COMPLETE, PARTIAL = "complete", "partial"
"""States of a run that came to its end: its versions hold it whole."""
RUNNING, INTERRUPTED = "running", "interrupted"
UNFINISHED = frozenset({RUNNING, INTERRUPTED})
"""States of runs that did not come to their end."""
PICTURES = ("picture", "regions_picture", "fields_picture")
"""Columns of ``slides`` that name a slide's pictures."""
_SPECIMEN = ("case_id", "specimen_id", "site")
_LISTS = tuple(f"slides_{how}" for how in ("pooled", "ish", "indeterminate", "failed", "skipped"))
"""Columns of ``cases`` that name its slides by how they took part."""
_OF_SLIDE = re.compile(r"(?P<slide>.+?)(?P<shown>-regions|-fields)?-(?P<key>[0-9a-f]{8})")
"""A picture's name without its ending: the slide's id, what is shown, and the start of the result's key."""


def dropped_slides(store: Store, cohort: str, named: Iterable[str]) -> set[str]:
    """Slides that the last run of a cohort named, that this manifest does not, and no other cohort since.

    Parameters
    ----------
    cohort
        `stages.run.Run.cohort`.
    named
        Slides of the manifest.
    """
    kept, dropped = set(named), set[str]()
    for run in newest_first(store):
        slides = {entry["slide_id"] for entry in inputs_of(store, run)}
        if run["cohort"] != cohort:
            kept |= slides
            continue
        dropped |= slides - kept
        if run["state"] not in UNFINISHED:
            break
    return dropped


def last_run(store: Store, cohort: str) -> list[dict[str, Any]]:
    """What the last finished run of a cohort records of its slides; nothing if there is none.

    Slides that another run has named since, or one that did not come to its end, are left out: their rows may
    be of that run.
    """
    touched: set[str] = set()
    for run in newest_first(store):
        inputs = inputs_of(store, run)
        if run["cohort"] == cohort and run["state"] not in UNFINISHED:
            return [entry for entry in inputs if entry["slide_id"] not in touched]
        touched.update(entry["slide_id"] for entry in inputs)
    return []


def newest_first(store: Store) -> list[dict[str, Any]]:
    """Runs of every cohort and state, without what they record of their slides."""
    found = read_rows(store, RUNS, ("cohort", "finished_at", "run_id", "state")).to_pylist()
    return sorted(found, key=lambda run: (run["finished_at"], run["run_id"]), reverse=True)


def inputs_of(store: Store, run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a run records of its slides: one file is opened for it."""
    (row,) = read_rows(store, RUNS, ("inputs",), {"run_id": [run["run_id"]]}).to_pylist()
    entries: list[dict[str, Any]] = json.loads(row["inputs"])
    return entries


def slides_of(case: Mapping[str, Any]) -> list[str]:
    """All slides of a specimen; tables of earlier versions name only those that took part."""
    if case["slides"] is not None:
        return list(case["slides"])
    return [name for column in _LISTS for name in case[column] or ()]


def true_cases(store: Store) -> Keep:
    """Rows of ``cases`` all of whose slides still belong to that specimen."""
    stated = {
        row["slide_id"]: row
        for row in read_rows(store, SLIDES, ("slide_id", "patient_id", *_SPECIMEN)).to_pylist()
    }

    def true(row: Mapping[str, Any]) -> bool:
        found = [stated.get(slide) for slide in slides_of(row)]
        here = [s for s in found if s is not None and all(s[name] == row[name] for name in _SPECIMEN)]
        patients = {s["patient_id"] for s in here} - {None}
        return bool(here) and len(here) == len(found) and patients == {row["patient_id"]} - {None}

    return _each((*_SPECIMEN, "patient_id", "slides", *_LISTS), true)


def true_patients(store: Store) -> Keep:
    """Rows of ``patients`` all of whose specimens are still theirs."""
    theirs = {
        (row["patient_id"] or row["case_id"], _name(row))
        for row in read_rows(store, CASES, ("patient_id", *_SPECIMEN)).to_pylist()
    }
    names = ("patient_id", "specimens")
    return _each(names, lambda row: all((row["patient_id"], name) in theirs for name in row["specimens"]))


def of_cases(store: Store) -> Keep:
    """Rows of comparisons whose specimen is in ``cases``."""
    known = {tuple(row[name] for name in _SPECIMEN) for row in read_rows(store, CASES, _SPECIMEN).to_pylist()}
    return _each(_SPECIMEN, lambda row: tuple(row[name] for name in _SPECIMEN) in known)


def of_patients(store: Store) -> Keep:
    """Rows of comparisons whose patient is in ``patients``."""
    known = {row["patient_id"] for row in read_rows(store, PATIENTS, ("patient_id",)).to_pylist()}
    return _each(("patient_id",), lambda row: row["patient_id"] in known)


def pictured(store: Store) -> pa.Table:
    """Slides and the pictures that their rows name, for `clear_pictures`."""
    return read_rows(store, SLIDES, ("slide_id", *PICTURES))


def clear_pictures(store: Store, rows: pa.Table, run: Iterable[str], dropped: Iterable[str]) -> int:
    """Remove pictures of earlier results of a run's slides that have newer ones, and all of dropped slides.

    The record of an earlier result goes with its pictures, so that a return to it draws them again.

    Parameters
    ----------
    rows
        What the table ``slides`` holds, as `pictured` reads it.

    Returns
    -------
    int
        How many were removed.
    """
    held = rows.to_pylist()
    named = {PurePosixPath(row[name]).stem for row in held for name in PICTURES if row[name]}
    slides = {row["slide_id"] for row in held if row["picture"]}.intersection(run) | set(dropped)
    gone = 0
    keys: set[str] = set()
    for path in store.list("pictures"):
        stem = PurePosixPath(path).stem
        of = _OF_SLIDE.fullmatch(stem)
        if of is None or stem in named:
            continue
        if {of["slide"], of["slide"] + (of["shown"] or "")} & slides:
            store.delete(path)
            gone, keys = gone + 1, keys | {of["key"]}
    keys -= {stem[-8:] for stem in named}
    for path in store.list("stages/slide") if keys else ():
        if PurePosixPath(path).name[:8] in keys:
            store.delete(path)
    return gone


def _each(columns: Sequence[str], true: Callable[[Mapping[str, Any]], bool]) -> Keep:
    """A test of rows, by some of their columns, as a test of tables."""
    return lambda rows: pa.array([true(row) for row in rows.select(columns).to_pylist()], pa.bool_())


def _name(row: Mapping[str, Any]) -> str:
    """Case, specimen and site in one word, as ``patients.specimens`` has them."""
    return "/".join(part for name in _SPECIMEN if (part := row[name]))
