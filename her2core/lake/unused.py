"""What of an output no result rests on any more: records of stages, pyramids, parts, outlines and maps.

A result is in use if the table ``slides`` or one of the last runs of a cohort names it; a run lists for every
slide which records it rests on. What was written lately is kept as well: a slide that failed, or a run that
was interrupted, takes up again from it.

Whoever removes holds the lease of the output, so no run is at work, and one that begins meanwhile waits; and
what is in use is looked up while it is held. A record goes before what it stands for: nothing is ever named
that is not there.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from her2core.errors import StoreError
from her2core.lake.ghosts import UNFINISHED, inputs_of, newest_first
from her2core.lake.schema import RUNS, SLIDES
from her2core.lake.tables import read_rows, require_written
from her2core.storage.lease import Lease
from her2core.storage.listing import walk_folder
from her2core.storage.store import Store, record_of

log = logging.getLogger(__name__)

KEPT_DAYS = 7.0
"""What was written in so many days is kept. Ours: a run that was interrupted is taken up within a week."""
FOLDERS = {
    "pyramid": "pyramids",
    "cells": "parts/cells",
    "outlines": "outlines",
    "contours": "contours",
    "slide": "regions",
}
"""Stages whose outputs lie under their content key, and where."""
ENDINGS = {"outlines": ".parquet", "slide": ".zarr.zip"}
"""Of outputs that are one object; others are folders."""
RECORDS = "stages"
_IN_USE = ("pyramid", "score_key")
"""Columns of ``slides`` that name outputs in use."""


@dataclass(frozen=True, slots=True)
class Unused:
    """One thing that no result rests on.

    Attributes
    ----------
    path
        A record, a folder or a file.
    what
        ``records``, ``pyramids``, ``parts``, ``outlines``, ``contours`` or ``regions``.
    """

    path: str
    what: str
    size: int
    objects: int
    is_folder: bool


def find_unused(store: Store, *, runs: int = 1, days: float = KEPT_DAYS) -> list[Unused]:
    """What may be removed, records first.

    Parameters
    ----------
    runs
        How many of the last runs of each cohort that came to their end are kept.
    days
        What was written in so many days is kept.

    Raises
    ------
    StoreError
        If a run that is kept does not record what its results rest on, or tables of an older version lack
        columns by which that is known.
    """
    used = _used(store, runs)
    before = time.time() - days * 86_400
    return [each for each, changed in _everything(store) if changed < before and each.path not in used]


def remove(store: Store, unused: Iterable[Unused], lease: Lease, removed: Callable[[Unused], None]) -> None:
    """Remove what `find_unused` found while this lease was held.

    Raises
    ------
    LeaseLostError
        If another has taken over; the rest stays.
    """
    for each in unused:
        lease.check()
        store.delete(each.path, recursive=each.is_folder)
        removed(each)


def _used(store: Store, runs: int) -> set[str]:
    """Paths of all that is in use."""
    require_written(store, RUNS, ("cohort",))
    require_written(store, SLIDES, _IN_USE)
    records: set[str] = set()
    kept: Counter[str] = Counter()
    for run in newest_first(store):
        if kept[run["cohort"]] >= runs:
            continue
        finished = run["state"] not in UNFINISHED
        kept[run["cohort"]] += finished
        for entry in inputs_of(store, run):
            if finished and entry.get("score_key") and not entry.get("rests_on"):
                raise StoreError(
                    f"{store.uri()}: run {run['run_id']} is of a version that kept no record of what its "
                    "results rest on; nothing is removed. Run the cohort once more with this version"
                )
            records.update(entry.get("rests_on") or ())
    used = set(records)
    for record in records:
        _, stage, name = record.split("/")
        if stage in FOLDERS:
            used |= _outputs(stage, PurePosixPath(name).stem)
    for row in read_rows(store, SLIDES, _IN_USE).to_pylist():
        if row["pyramid"]:
            used |= {row["pyramid"], record_of("pyramid", PurePosixPath(row["pyramid"]).name)}
        if row["score_key"]:
            used |= {record_of("slide", row["score_key"]), *_outputs("slide", row["score_key"])}
    return used


def _outputs(stage: str, key: str) -> set[str]:
    """Where the output of a stage lies, and where earlier versions put it: in a folder."""
    return {f"{FOLDERS[stage]}/{key}{ENDINGS.get(stage, '')}", f"{FOLDERS[stage]}/{key}"}


def _everything(store: Store) -> Iterator[tuple[Unused, float]]:
    """All records, and then all outputs, each with the time when the last of its objects was written."""
    for each in walk_folder(store, RECORDS):
        yield Unused(each.path, "records", each.size, 1, False), each.changed
    for folder in FOLDERS.values():
        what = folder.partition("/")[0]
        whole: dict[str, tuple[int, int, float]] = {}
        for each in walk_folder(store, folder):
            name = f"{folder}/{each.path.removeprefix(f'{folder}/').partition('/')[0]}"
            size, objects, latest = whole.get(name, (0, 0, 0.0))
            whole[name] = (size + each.size, objects + 1, max(latest, each.changed))
        for name, (size, objects, latest) in sorted(whole.items()):
            yield Unused(name, what, size, objects, not name.endswith((*ENDINGS.values(),))), latest


def summed(unused: Iterable[Unused]) -> Mapping[str, tuple[int, int, int]]:
    """Number, objects and bytes of what is unused, by what it is."""
    found: dict[str, tuple[int, int, int]] = {}
    for each in unused:
        number, objects, size = found.get(each.what, (0, 0, 0))
        found[each.what] = (number + 1, objects + each.objects, size + each.size)
    return found
