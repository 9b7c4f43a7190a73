"""What the manifests no longer say goes from the tables, and nothing else.

The table ``slides`` says of every slide which case, specimen, site and patient it belongs to, as the last
manifest that named it has it. A row of ``cases`` is true if all slides that it was made of still belong
there; one of ``patients`` if its specimens do; comparisons stand and fall with the row that they belong to.
So a corrected id takes the old rows with it, and rows that nothing contradicts stay, whosever they are.

A slide that a manifest no longer names goes if an earlier run of the same cohort named it last.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from her2core.lake.schema import CASES, PATIENTS, RUNS, SLIDES
from her2core.lake.tables import Keep, read_rows
from her2core.storage.store import Store

_SPECIMEN = ("case_id", "specimen_id", "site")


def dropped_slides(store: Store, cohort: str, named: Iterable[str]) -> set[str]:
    """Slides that the last run of a cohort named, that this manifest does not, and no other cohort since.

    Parameters
    ----------
    cohort
        `stages.run.Run.cohort`.
    named
        Slides of the manifest.
    """
    runs = read_rows(store, RUNS, ("cohort", "finished_at", "run_id", "inputs")).to_pylist()
    kept = set(named)
    for run in sorted(runs, key=lambda run: (run["finished_at"], run["run_id"]), reverse=True):
        slides = {entry["slide_id"] for entry in json.loads(run["inputs"])}
        if run["cohort"] == cohort:
            return slides - kept
        kept |= slides
    return set()


def true_cases(store: Store) -> Keep:
    """Rows of ``cases`` all of whose slides still belong to that specimen."""
    stated = {
        row["slide_id"]: row
        for row in read_rows(store, SLIDES, ("slide_id", "patient_id", *_SPECIMEN)).to_pylist()
    }

    def true(row: Mapping[str, Any]) -> bool:
        found = [stated.get(slide) for slide in row["slides"] or ()]
        here = [s for s in found if s is not None and all(s[name] == row[name] for name in _SPECIMEN)]
        patients = {s["patient_id"] for s in here} - {None}
        return bool(here) and len(here) == len(found) and patients == {row["patient_id"]} - {None}

    return _each((*_SPECIMEN, "patient_id", "slides"), true)


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


def _each(columns: Sequence[str], true: Callable[[Mapping[str, Any]], bool]) -> Keep:
    """A test of rows, by some of their columns, as a test of tables."""
    return lambda rows: pa.array([true(row) for row in rows.select(columns).to_pylist()], pa.bool_())


def _name(row: Mapping[str, Any]) -> str:
    """Case, specimen and site in one word, as ``patients.specimens`` has them."""
    return "/".join(part for name in _SPECIMEN if (part := row[name]))
