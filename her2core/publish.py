"""What a run leaves in the lake: batches of slides while it goes on, specimens and its own row at the end.

The row of a run that goes on is ``running`` and names the tables as they were before it began. So whoever
goes by ``runs``, whichever row, finds whole tables.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import pyarrow as pa
from botocore.exceptions import BotoCoreError
from deltalake.exceptions import DeltaError
from numpy.typing import NDArray

from her2core.cases.comparisons import Comparer
from her2core.cases.patients import by_patient, score_patients
from her2core.cases.specimens import CaseScore, SlideOutcome, score_cases
from her2core.cohort import CohortSummary
from her2core.errors import Her2Error, Reason
from her2core.guidelines.rules_ihc import load_rules
from her2core.lake import schema
from her2core.lake.batches import OWN_FILES, SlideTable
from her2core.lake.ghosts import (
    COMPLETE,
    INTERRUPTED,
    PARTIAL,
    RUNNING,
    clear_pictures,
    dropped_slides,
    of_cases,
    of_patients,
    pictured,
    true_cases,
    true_patients,
)
from her2core.lake.lineage import absolute, event, report_event
from her2core.lake.packed import ArrowRows, Gathered, Packed
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
from her2core.lake.tables import Keep, commit_rows, find_table, make_tables, read_rows, sorted_by_key
from her2core.records import Assay, SlideRow, SlideState
from her2core.scoring.keyed import Judging
from her2core.stages.finished import SlideFinished
from her2core.stages.run import Run
from her2core.stages.unchanged import Division, input_of, row_digests
from her2core.storage.lease import Lease, LeaseLostError
from her2core.storage.store import Store, record_of
from her2core.storage.waiting import begin, side_by_side
from her2core.text import cleaned

log = logging.getLogger(__name__)

LIBRARIES = ("her2cohort", "dask", "distributed", "imagecodecs", "numba", "numpy", "opencv-python-headless",
             "openslide-python", "prefect", "pyarrow", "tifffile", "zarr")  # fmt: skip
"""Whose versions a run records."""
ROWS = (schema.HETEROGENEITY, schema.HETEROGENEITY_WIDE, schema.SLIDES)
"""Tables of slides whose rows the driver writes, in the order of their commits."""
TRUE: dict[Table, Callable[[Store], Keep]] = {
    schema.CASES: true_cases,
    schema.CASE_HETEROGENEITY: of_cases,
    schema.CASE_HETEROGENEITY_WIDE: of_cases,
    schema.PATIENTS: true_patients,
    schema.PATIENT_HETEROGENEITY: of_patients,
    schema.PATIENT_HETEROGENEITY_WIDE: of_patients,
}
"""Tables of specimens and patients, and which of their older rows stay."""
IN_TURN = (
    (schema.CASES,),
    (schema.CASE_HETEROGENEITY, schema.CASE_HETEROGENEITY_WIDE, schema.PATIENTS),
    (schema.PATIENT_HETEROGENEITY, schema.PATIENT_HETEROGENEITY_WIDE),
)
"""When they are committed: older rows of each are held against one of an earlier turn, none against one of
its own. Where no table has older rows, as in a new output, all go at once."""
PICTURE = "pictures/cohort.png"
"""Picture of the cohort, as the last run left it."""
BATCH_SLIDES = 100
"""Slides that are committed together while a run goes on: ours, their commits take some seconds."""
BATCH_S = 600.0
"""A batch that is smaller is committed after so many seconds, at the next slide. Ours."""
REPORT_SHARE = 0.01
"""Share of a cohort after which the row of a run at work is written anew: it names every slide. Ours."""
CHUNK_SLIDES = 200
"""Slides, with all of their patients', whose specimens are pooled together. Ours: bounds memory."""
COMPARED_AT_ONCE = 8
"""Patients whose slides' regions are read from a bucket at the same time. Ours: a read waits some 30 ms."""
COUNTED = {
    "n_scored": SlideState.SCORED,
    "n_indeterminate": SlideState.INDETERMINATE,
    "n_failed": SlideState.FAILED,
    "n_quarantined": SlideState.QUARANTINED,
    "n_skipped": SlideState.SKIPPED,
}
"""Columns of ``runs`` that count slides by how they ended."""


def publish(run: Run, finished: Sequence[SlideFinished]) -> CohortSummary:
    """Commit all results of a run at once, and then the one row that states it all happened."""
    publisher = Publisher(run)
    for result in finished:
        publisher.add(result)
    return publisher.finish()


class Publisher:
    """The lake as one run fills it; used by one thread.

    Memory grows by a slide's row and what a specimen is pooled from, both compressed; metrics and files of
    rows go with their batch. See `benchmarks/bench_tables.py`.

    Parameters
    ----------
    lease
        Called whenever a commit is planned: one that was planned before another took over is planned anew.
    division
        What the run works on, if not on its whole manifest: the rest stands as the last run left it.
    """

    def __init__(self, run: Run, lease: Lease | None = None, division: Division | None = None) -> None:
        self.run, self.store, self.lease = run, run.store, lease
        self.division = division
        self.judging = Judging(run.config.ihc_score, run.config.ish_score)
        self.results: Packed[SlideFinished] = Packed()
        self.rows, self.row_at = Gathered(schema.SLIDES), dict[str, int]()
        self.inputs: dict[str, Mapping[str, Any]] = {}
        self.reported = 0
        self.buffer: list[SlideFinished] = []
        self.ahead: Future[list[str]] | None = None
        self.last, self.due = time.monotonic(), BATCH_SLIDES
        self.digests = row_digests(run)
        kinds = (*OWN_FILES, *ROWS, schema.RUNS)
        looks = [partial(SlideTable, run.store, table, self._check) for table in kinds]
        tables = {table.table: table for table in side_by_side(run.store, looks)}
        self.files = {table.name: tables[table] for table in OWN_FILES}
        self.own = {table.name: tables[table] for table in ROWS}
        self.runs = tables[schema.RUNS]
        versions = side_by_side(run.store, [partial(_version, run.store, table) for table in TRUE])
        found = {table: slides.version for table, slides in tables.items()}
        found |= dict(zip(TRUE, versions, strict=True))
        self.before = {name: found[table] for name, table in schema.COMMITTED.items()}

    def begin(self) -> None:
        """Write that the run goes on, and that earlier runs whose rows still state that do not.

        What the end needs and slides do not change is begun meanwhile.
        """
        self._end_dead_runs()
        self._say_running()
        if not self.store.is_local:
            self.ahead = begin(self._look_ahead)
        self._trace("START", self.run.run_id, self.before)

    def add(self, result: SlideFinished) -> None:
        """Take how a slide ended; every `BATCH_SLIDES` or `BATCH_S` what came is committed."""
        slide = result.outcome.slide.slide_id
        result = self._whole(result)
        self.buffer.append(result)
        self.results[slide] = replace(result, metrics=(), rests_on=())
        self.inputs[slide] = self._input(result)
        late = time.monotonic() - self.last > BATCH_S
        if len(self.buffer) >= self.due or late:
            try:
                self._flush()
                if late or len(self.inputs) - self.reported >= len(self.run.rows) * REPORT_SHARE:
                    self._say_running()
            except LeaseLostError:
                raise
            except (Her2Error, OSError, BotoCoreError, DeltaError) as error:  # the next one tries again
                if self.lease is not None and self.lease.lost.is_set():
                    self._check()
                log.warning("a batch of results is not committed yet: %s", cleaned(str(error)))
            self.last, self.due = time.monotonic(), len(self.buffer) + BATCH_SLIDES

    def finish(self) -> CohortSummary:
        """Commit what is left, pool specimens, and commit the row that records the run.

        Specimens are pooled over the slides of this manifest, so a case whose slides arrive over time is
        always scored from all that its manifest names.
        """
        run, store = self.run, self.store
        all_ids = [row.slide_id for row in run.rows]
        dropped = self._dropped()
        versions = self._flush(dropped, everything=True)
        slides_now = None if store.is_local else begin(partial(pictured, store))
        rows_of = self._pool()
        cases = ArrowRows(sorted_by_key(schema.CASES, rows_of[schema.CASES]))
        cube = partial(write_cube, store, run.run_id, all_ids)
        if store.is_local:
            versions |= self._commit_in_turn(rows_of)
            cube()
            picture = cohort_picture(self._all_cases(cases))
        else:  # what computes goes on while the store is waited for
            with ThreadPoolExecutor(2) as beside:
                turns, drawn = beside.submit(self._commit_in_turn, rows_of), beside.submit(cube)
                if self._carried():  # what stays of other specimens is known then
                    wait((turns,))
                picture = cohort_picture(self._all_cases(cases))
            versions |= turns.result()
            drawn.result()
        store.write_bytes(PICTURE, picture)
        inputs = [*self.inputs.values(), *self._carried()]
        states = Counter(entry["state"] for entry in inputs)
        whole = set(states) <= {SlideState.SCORED, SlideState.SKIPPED}
        self._commit_run(COMPLETE if whole else PARTIAL, versions, inputs)
        ended = [slide for slide in all_ids if slide in self.results]
        rows = pictured(store) if slides_now is None else slides_now.result()
        last: list[Callable[[], object]] = [partial(self._trace, "COMPLETE", run.run_id, versions)]
        last.append(partial(clear_pictures, store, rows, ended, dropped))
        side_by_side(store, last)
        slides = self.rows.rows().take([self.row_at[slide] for slide in ended])
        return CohortSummary(run.run_id, store.uri(), ArrowRows(slides), cases)

    def _look_ahead(self) -> list[str]:
        """Create tables that are not there, and find the slides that the manifest no longer names."""
        new = [schema.COMMITTED[name] for name, version in self.before.items() if version is None]
        make_tables(self.store, new)
        return sorted(dropped_slides(self.store, self.run.cohort, [row.slide_id for row in self.run.rows]))

    def _dropped(self) -> list[str]:
        """What was looked for ahead; looked for now, if the store broke off then."""
        if self.ahead is not None:
            with suppress(Her2Error, OSError, BotoCoreError, DeltaError):
                return self.ahead.result()
        return self._look_ahead()

    def _pool(self) -> dict[Table, pa.Table]:
        """Rows of specimens and patients, pooled a few hundred slides at a time."""
        made = {table: Gathered(table) for table in TRUE}
        for slides in _together(self.run.rows, CHUNK_SLIDES):
            finished = [self.results[slide] for slide in slides if slide in self.results]
            specimens = pooled([result.outcome for result in finished], self.judging)
            made[schema.CASES].add(case_row(c, load_rules(c.rules)) for c in specimens)
            made[schema.PATIENTS].add(patient_row(p) for p in score_patients(specimens))
            for table, rows in _between(self.run, finished, specimens).items():
                made[table].add(rows)
        pa.default_memory_pool().release_unused()
        return {table: rows.rows() for table, rows in made.items()}

    # batches

    def _whole(self, result: SlideFinished) -> SlideFinished:
        """A result, if its files of rows are in the store; else a failure, and its record goes.

        Somebody vacuumed a table with another program, or cleared it by hand: the next run writes them again.
        """
        outcome = result.outcome
        files = {name: file for name in self.files if (file := _file(name, result)) is not None}
        looks = [
            partial(self.files[name].lacks, outcome.slide.slide_id, file) for name, file in files.items()
        ]
        lacking = side_by_side(self.store, looks)
        gone = [name for name, lacks in zip(files, lacking, strict=True) if lacks]
        if not gone:
            return result
        self.store.delete(record_of("slide", str(outcome.score_key)))
        why = f"its rows of {', '.join(gone)} are no longer in the store (vacuumed?); run again"
        log.warning("%s: %s", outcome.slide.slide_id, why)
        lost = SlideOutcome(outcome.slide, SlideState.FAILED, reason=Reason.INTERNAL, message=why)
        return SlideFinished(lost, None)

    def _flush(self, dropped: Sequence[str] = (), *, everything: bool = False) -> dict[str, int]:
        """Commit the results that wait, slides last; the tables' versions."""
        batch, ids = self.buffer, [*dropped]
        ids += [result.outcome.slide.slide_id for result in batch]
        for name, table in self.files.items():
            of = dict.fromkeys(dropped) | {r.outcome.slide.slide_id: _file(name, r) for r in batch}
            table.add_files(of)
        slides = [self._slide_row(result.outcome) for result in batch]
        given = {
            schema.HETEROGENEITY: [row for r in batch for row in metric_rows(r.outcome.slide, r.metrics)],
            schema.HETEROGENEITY_WIDE: [wide_row(r.outcome.slide, r.metrics) for r in batch if r.metrics],
            schema.SLIDES: slides,
        }
        written = [partial(self.own[table.name].add_rows, rows, ids) for table, rows in given.items()]
        side_by_side(self.store, written)
        self.row_at |= {row["slide_id"]: at for at, row in enumerate(slides, len(self.rows))}
        self.rows.add(slides)
        self.buffer = []
        last = schema.SLIDES.name
        before = {name: table for name, table in (self.files | self.own).items() if name != last}
        jobs = [partial(table.commit, everything=everything) for table in before.values()]
        versions = dict(zip(before, side_by_side(self.store, jobs), strict=True))
        versions |= {last: self.own[last].commit(everything=everything)}
        pa.default_memory_pool().release_unused()
        return versions

    def _commit_in_turn(self, rows_of: dict[Table, pa.Table]) -> dict[str, int]:
        """Commit the tables of specimens and patients, and let go of their rows; the tables' versions."""
        versions: dict[str, int] = {}
        held = any(self.before[table.name] for table in TRUE)  # version 0 is of a table without rows
        for tables in IN_TURN if held else [tuple(TRUE)]:
            # read once for tables that are held against the same one, while these are opened
            true = {of: begin(partial(of, self.store)) for of in {TRUE[table] for table in tables} if held}
            jobs = []
            for table in tables:
                keep = partial(self._kept_by, TRUE[table], true.get(TRUE[table]))
                jobs.append(partial(commit_rows, self.store, table, rows_of.pop(table), keep=keep))
            versions |= dict(zip((t.name for t in tables), side_by_side(self.store, jobs), strict=True))
        return versions

    def _kept_by(
        self, of: Callable[[Store], Keep], begun: Future[Keep] | None, before: pa.Table
    ) -> pa.BooleanArray:
        """Which rows of a table stay, by a test that is being made; called while a commit is planned."""
        self._check()
        if not len(before):
            return pa.array([], pa.bool_())
        return (of(self.store) if begun is None else begun.result())(before)

    def _slide_row(self, outcome: SlideOutcome) -> Row:
        return slide_row(outcome, self.judging.of(outcome.slide).score, self.run.config.ihc.ladder_od)

    def _check(self) -> None:
        if self.lease is not None:
            self.lease.check()

    # the run's own row

    def _say_running(self) -> None:
        """Write the run's row while it goes on: how far it is, and the tables as they were before."""
        done = list(self.inputs.values())
        self.reported = len(done)
        done += [{**entry, "carried": True} for entry in self._carried()]
        ended = {entry["slide_id"] for entry in done}
        waiting: list[Mapping[str, Any]] = [
            {"slide_id": row.slide_id, "state": RUNNING} for row in self.run.rows if row.slide_id not in ended
        ]
        self._commit_run(RUNNING, self.before, done + waiting)

    def _commit_run(
        self, state: str, versions: Mapping[str, int | None], inputs: Sequence[Mapping[str, Any]]
    ) -> None:
        run = self.run
        states = Counter(entry["state"] for entry in inputs)
        counts = Counter[str]()
        for entry in inputs:
            counts[entry.get("table") or ""] += entry.get("rows") or 0
        record = RunRecord(
            run_id=run.run_id,
            started_at=datetime.fromisoformat(run.started),
            finished_at=datetime.now(UTC),
            state=state,
            cohort=run.cohort,
            manifest_uri=run.names.of(run.manifest_uri),
            manifest_sha256=run.manifest_sha256,
            n_slides=len(inputs),
            n_cells=counts[schema.CELLS.name],
            n_nuclei=counts[schema.NUCLEI.name],
            table_versions={name: number for name, number in versions.items() if number is not None},
            configuration=run.configuration(),
            versions={"python": sys.version.split()[0]} | _versions(),
            inputs=sorted(inputs, key=lambda entry: str(entry["slide_id"])),
            columns_added=run.columns_added,
            **{column: states[counted] for column, counted in COUNTED.items()},
        )
        self.runs.add_rows([run_row(record)], [run.run_id])
        self.runs.commit(everything=True)

    def _end_dead_runs(self) -> None:
        """Mark other runs that are still ``running`` as interrupted: one works here at a time."""
        names = [column.name for column in schema.RUNS.columns]
        found = read_rows(self.store, schema.RUNS, ("run_id", "state"), {"state": [RUNNING]}).to_pylist()
        dead = [row["run_id"] for row in found if row["run_id"] != self.run.run_id]
        if dead and self.lease is not None:
            rows = read_rows(self.store, schema.RUNS, names, {"run_id": dead}).to_pylist()
            self.runs.add_rows([row | {"state": INTERRUPTED} for row in rows], dead)
            for run_id in dead:
                self._trace("ABORT", run_id, {})

    def _trace(self, kind: str, run_id: str, versions: Mapping[str, int | None]) -> None:
        """Leave an event of lineage; one that cannot be left costs nothing else."""
        names, manifest = self.run.names, self.run.manifest_uri
        shown = names.of(manifest) if names.pseudonyms else absolute(manifest)
        place = None if names.pseudonyms else self.store.uri()
        reported = event(kind, run_id, self.run.cohort, shown, place, versions)
        try:
            report_event(self.store, run_id, reported)
        except (OSError, BotoCoreError) as error:
            log.warning("no lineage of %s was left: %s", run_id, cleaned(str(error)))

    def _input(self, result: SlideFinished) -> dict[str, Any]:
        slide = result.outcome.slide.slide_id
        known = self.division.known.get(slide, {}) if self.division else {}
        return input_of(result, self.digests.get(slide, ""), known)

    def _carried(self) -> Sequence[Mapping[str, Any]]:
        return self.division.carried if self.division else ()

    def _all_cases(self, cases: Sequence[Row]) -> Sequence[Row]:
        """Specimens of the whole cohort, those included that this run did not look at."""
        others = {entry["case_id"] for entry in self._carried()} - {row["case_id"] for row in cases}
        if not others:
            return cases
        names = [column.name for column in schema.CASES.columns]
        stored = read_rows(self.store, schema.CASES, names, {"case_id": sorted(others)})
        return sorted([*cases, *stored.to_pylist()], key=lambda r: (r["case_id"], r["specimen_id"] or ""))


def _together(rows: Sequence[SlideRow], most: int) -> Iterator[list[str]]:
    """Slides in portions of about so many, in which all slides of a patient and of a case are together."""
    patients: dict[str, str] = {}
    for row in rows:  # the rows of a case may name its patient once
        if row.patient_id or row.case_id not in patients:
            patients[row.case_id] = row.patient_id or row.case_id
    slides: dict[str, list[str]] = {}
    for row in rows:
        slides.setdefault(patients[row.case_id], []).append(row.slide_id)
    portion: list[str] = []
    for own in slides.values():
        portion += own
        if len(portion) >= most:
            yield portion
            portion = []
    if portion:
        yield portion


def _file(table: str, result: SlideFinished) -> Any:
    """The file of a table that a slide's workers wrote, if any."""
    if table == schema.REGIONS.name:
        return result.regions
    ihc = result.outcome.slide.assay == Assay.IHC
    return result.cells if ihc == (table == schema.CELLS.name) else None


def _versions() -> dict[str, str]:
    """Versions of `LIBRARIES`; a run that another orchestrator carries out has no Prefect."""
    found = {}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _version(store: Store, table: Table) -> int | None:
    delta = find_table(store, table)
    return None if delta is None else int(delta.version())


def pooled(outcomes: Sequence[SlideOutcome], judging: Judging) -> tuple[CaseScore, ...]:
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
        score=config.ihc_score,
        ish_score=config.ish_score,
    )
    found: dict[Table, list[Row]] = {
        schema.CASE_HETEROGENEITY: [],
        schema.CASE_HETEROGENEITY_WIDE: [],
        schema.PATIENT_HETEROGENEITY: [],
        schema.PATIENT_HETEROGENEITY_WIDE: [],
    }
    patients = by_patient(specimens)
    jobs = [partial(comparer.compare, cases) for cases in patients.values()]
    for patient, compared in zip(patients, side_by_side(run.store, jobs, COMPARED_AT_ONCE), strict=True):
        for case, metrics in compared.specimens:
            found[schema.CASE_HETEROGENEITY] += case_metric_rows(case, metrics)
            found[schema.CASE_HETEROGENEITY_WIDE].append(case_wide_row(case, metrics))
        found[schema.PATIENT_HETEROGENEITY] += patient_metric_rows(patient, compared.lesions)
        found[schema.PATIENT_HETEROGENEITY_WIDE].append(patient_wide_row(patient, compared.lesions))
    return found


def cohort_picture(cases: Sequence[Row]) -> bytes:
    """Every specimen in one picture; what draws is loaded now."""
    from her2core.pictures.cohort import COLUMNS, cohort_picture

    return cohort_picture([{name: row[name] for name in COLUMNS} for row in cases])


def write_cube(store: Store, run_id: str, slides: Sequence[str]) -> None:
    """The metrics of a run as arrays; what writes them is loaded now."""
    from her2core.lake.cube import write_cube_of_table

    write_cube_of_table(store, run_id, slides)
