"""One slide through its stages: inspect, pyramid, profile, cells, slide.

`score_slide` runs in the driver and touches no pixel: it sends tasks to the Dask cluster, and gets small
records back. Every stage has a content key; a stage whose record is published is not done again, which is
all there is to resuming, to retries and to cohorts that grow.

::

    stage     key digests                                  record
    outlines  kernel parameters, file of nuclei, size      OutlinesRef, where the manifest names cells_uri
    pyramid   pyramid parameters, slide identity, µm/px    PyramidRef
    profile   profile parameters, pyramid key              SlideProfile
    cells     kernel parameters, profile and outlines key  CellsRef
    contours  cells key                                    ContoursRef, where outlines.keep is all
    slide     score parameters, manifest row, cells key    SlideFinished
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import PurePosixPath
from typing import TypeVar

from botocore.exceptions import BotoCoreError
from pydantic import TypeAdapter

from her2core.cases.specimens import SlideOutcome
from her2core.errors import Reason, SlideError, StoreError
from her2core.intake.inspect import require_scorable
from her2core.intake.roi import roi_identity
from her2core.profile import build as profile
from her2core.pyramid import writer as pyramid
from her2core.records import Assay, PyramidRef, SlideProfile, SlideRow, SlideState
from her2core.scoring.keyed import Judging
from her2core.stages import cells, contours, outlines, prepare
from her2core.stages.contours import ContoursPart, ContoursRef
from her2core.stages.failures import SlideFailedError, cleaned, failure_of
from her2core.stages.fanout import RunOverError, Workers, fan_out
from her2core.stages.outlines import OutlinesRef
from her2core.stages.progress import ENDED, Published, report, report_published
from her2core.stages.run import Run
from her2core.stages.slide import CellsRef, SlideFinished, SlideJob
from her2core.stages.slide_ihc import finish_ihc
from her2core.stages.slide_ish import finish_ish
from her2core.storage.journal import last_stage, write_status
from her2core.storage.store import content_key, record_of

log = logging.getLogger(__name__)

T = TypeVar("T")


def score_slide(run: Run, row: SlideRow, workers: Workers) -> SlideFinished:
    """Take one slide from its file to its published rows and picture; nothing of one that is excluded.

    Raises
    ------
    SlideFailedError
        Why it has no result, in words, and whether trying again may help.
    """
    if row.exclude:
        return record_failure(run, row, left_out(row))
    try:
        return _Slide(run, row, workers).score()
    except Exception as error:  # noqa: BLE001, the one place where a failure becomes words
        why = _why(run, row, error)
        if why.again and (lacking := store_trouble(run)):
            why = _why(run, row, RunOverError(str(lacking)))
            why.trouble = lacking
        raise why from None


def record_failure(run: Run, row: SlideRow, error: object) -> SlideFinished:
    """Turn the error that ended a slide into its outcome, and write it into the journal."""
    why = _why(run, row, error if isinstance(error, BaseException) else TypeError(str(error)))
    try:
        if not why.store_is_gone:  # else every try takes minutes
            stage = last_stage(run.store, run.run_id, row)
            write_status(run.store, run.run_id, row, why.state, stage, reason=why.reason, message=why.message,
                 details=why.details)  # fmt: skip
    except (OSError, BotoCoreError, StoreError) as trouble:  # the tables tell it as well
        log.warning("%s: not noted in the journal: %s", row.slide_id, cleaned(str(trouble)))
    about = {"slide_id": row.slide_id}
    log.warning("%s: %s, %s: %s", row.slide_id, why.state, why.reason, why.message, extra=about)
    if why.details:
        log.info("%s: traceback\n%s", row.slide_id, why.details, extra=about)
    report(row.slide_id, ENDED, 1, 1, why.state)
    return not_scored(run, row, why)


def store_trouble(run: Run) -> StoreError | None:
    """What is wrong with the output store, checked after an unexpected error: it may be the cause."""
    try:
        run.store.probe()
    except StoreError as error:
        return error
    return None


def _why(run: Run, row: SlideRow, error: BaseException) -> SlideFailedError:
    """What an error means for a slide, with the names that it may be reported with."""
    return failure_of(error, run.places(row)).told(partial(run.hide, row=row))


def not_scored(run: Run, row: SlideRow, why: SlideFailedError) -> SlideFinished:
    """Outcome of a slide without a result."""
    return SlideFinished(
        SlideOutcome(run.shown(row), why.state, reason=why.reason, message=why.message), None
    )


def left_out(row: SlideRow) -> SlideError:
    """Why an excluded slide has no result."""
    return SlideError(Reason.EXCLUDED, f"the manifest leaves it out: {row.exclude}")


def published_slide(run: Run, row: SlideRow, key: str | None) -> SlideFinished | None:
    """A slide's published result, without a look at the slide; None if it is not there."""
    if row.exclude:
        return record_failure(run, row, left_out(row))
    try:
        data = run.store.read_bytes(record_of("slide", str(key)))
    except FileNotFoundError:
        return None
    adapter: TypeAdapter[SlideFinished] = _adapter(SlideFinished)
    return adapter.validate_json(data)


@cache
def _adapter(kind: type[T]) -> TypeAdapter[T]:
    """What writes and reads records of a kind."""
    return TypeAdapter(kind)


@dataclass(frozen=True, slots=True)
class _Slide:
    """The driver's side of one slide."""

    run: Run
    row: SlideRow
    workers: Workers

    def score(self) -> SlideFinished:
        row, config = self.row, self.run.config
        endpoint, scratch = config.run.endpoint_url, config.run.scratch()
        deadline = time.monotonic() + config.run.slide_timeout_s
        on_cluster = partial(self._on_cluster, deadline=deadline)

        write_status(self.run.store, self.run.run_id, row, SlideState.RUNNING, "inspect")
        source = on_cluster("inspect", partial(prepare.inspect, row, scratch, endpoint, config.roi))
        info = source.info
        given_key, given_nuclei = self._outlines(source, deadline)
        settled = pyramid.settle(info, config.pyramid)

        named = [row.slide_id, *pyramid.key_inputs(info)]  # the image is called by the slide's id
        pyramid_key = content_key("pyramid", pyramid.VERSION, config.pyramid, named)
        path = f"pyramids/{pyramid_key}"
        ref = self._published(
            "pyramid", pyramid_key, PyramidRef, lambda: self._pyramid(source, path, settled, deadline)
        )
        colour = replace(config.profile, background=row.background or config.profile.background)
        profile_key = content_key("profile", profile.VERSION, colour, [pyramid_key, row.assay])
        job = partial(prepare.profile, self.run.store, ref, colour, row.assay, f"tissue-{profile_key[:8]}")
        frozen = self._published("profile", profile_key, SlideProfile, lambda: on_cluster("profile", job))

        ihc = row.assay == Assay.IHC
        kernel = config.ihc if ihc else config.ish
        cells_key = content_key("cells", cells.VERSION, kernel, [profile_key, *given_key])
        at = given_nuclei.path if given_nuclei else None
        folder, contours_key = None, []
        if ihc and config.outlines.keep == "all":
            contours_key = [content_key("contours", contours.VERSION, {}, [cells_key])]
            folder = f"{contours.FOLDER}/{contours_key[0]}"
        units = partial(
            cells.units, self.run.store, ref, frozen, kernel, f"parts/cells/{cells_key}", at, folder
        )
        measured = self._published("cells", cells_key, CellsRef, lambda: self._cells(units(), deadline))
        for key in contours_key:
            self._published("contours", key, ContoursRef, lambda: self._contours(units(), deadline))
        shown = replace(info, uri=self.run.names.of(info.uri), problems=tuple(map(self._hide, info.problems)))
        given = (self.run.store, self.run.shown(row), shown, ref, frozen, measured)
        region = None if row.roi_uri is None else roi_identity(row.roi_uri, endpoint)
        rest = (endpoint, config.heterogeneity, config.roi, row.roi_uri, given_nuclei, region)
        judging = Judging(config.score, config.ish_score).of(row)
        finish: Callable[[str], SlideFinished]
        if ihc:
            ihc_job = SlideJob(*given, judging.score, config.ihc, *rest, contours=folder)
            slide_key, finish = ihc_job.key(cells_key), partial(finish_ihc, ihc_job)
        else:
            ish_job = SlideJob(*given, judging.ish, config.ish, *rest)
            slide_key, finish = ish_job.key(cells_key), partial(finish_ish, ish_job)
        finished = self._published(
            "slide",
            slide_key,
            SlideFinished,
            lambda: on_cluster("slide", partial(finish, slide_key)),
        )
        outcome = finished.outcome
        write_status(self.run.store, self.run.run_id, row, outcome.state, "slide", score=outcome.headline)
        report(row.slide_id, ENDED, 1, 1, outcome.state)
        keys = [
            ("pyramid", pyramid_key),
            ("profile", profile_key),
            ("cells", cells_key),
            ("slide", slide_key),
        ]
        keys += [("outlines", key) for key in given_key]
        keys += [("contours", key) for key in contours_key]
        return replace(finished, rests_on=tuple(record_of(*each) for each in keys))

    def _hide(self, text: str) -> str:
        return self.run.hide(text, self.row)

    def _published(self, stage: str, key: str, kind: type[T], make: Callable[[], T]) -> T:
        """Return the stage's published record, or make it, publish it and return it."""
        adapter: TypeAdapter[T] = _adapter(kind)  # type: ignore[arg-type]  # classes can be hashed
        path = record_of(stage, key)
        if self.run.store.exists(path):
            return adapter.validate_json(self.run.store.read_bytes(path))
        write_status(self.run.store, self.run.run_id, self.row, SlideState.RUNNING, stage)
        begun = time.monotonic()
        record = make()
        text = adapter.dump_json(record, indent=1)
        self.run.store.write_bytes(path, text)
        written = len(text) + (record.bytes_written if isinstance(record, PyramidRef) else 0)
        seconds = time.monotonic() - begun
        report_published(Published(self.row.slide_id, stage, key, seconds, written))
        return record

    def _on_cluster(self, stage: str, job: Callable[[], T], *, deadline: float) -> T:
        """Run one task on the cluster and wait for it."""
        report(self.row.slide_id, stage, 0, 1)
        result = self._one(stage, job, deadline)
        report(self.row.slide_id, stage, 1, 1)
        return result

    def _one(self, name: str, job: Callable[[], T], deadline: float) -> T:
        (result,) = fan_out(
            self.workers, prepare.run_task, [job], keys=[self._name(name, 0)], window=1, deadline=deadline
        )
        return result

    def _pyramid(
        self, source: prepare.Source, path: str, settled: pyramid.Settled, deadline: float
    ) -> PyramidRef:
        store, params, info = self.run.store, settled.params, source.info
        grid = pyramid.grid_of(info.height, info.width, params)
        tasks = [task for task in grid.tasks() if not pyramid.shard_done(store, path, *task)]
        shards = [partial(prepare.shard, source, store, path, grid, params, task) for task in tasks]
        self._fan("pyramid", shards, deadline)
        top = partial(prepare.finish_pyramid, source, store, path, grid, settled)
        return self._one("pyramid-top", top, deadline)

    def _outlines(self, source: prepare.Source, deadline: float) -> tuple[list[str], OutlinesRef | None]:
        """Another program's nuclei, once they are published, and their key; nothing without any."""
        row, config = self.row, self.run.config
        if row.cells_uri is None:
            return [], None
        info = source.info
        size = outlines.SlideSize(info.height, info.width, require_scorable(info, row.assay))
        named = [source.outlines, *map(str, size)]
        key = content_key("outlines", outlines.VERSION, config.ihc, named)
        job = partial(
            outlines.publish,
            self.run.store,
            f"outlines/{key}.parquet",
            size,
            row.cells_uri,
            source.outlines,
            config.ihc,
            config.run.endpoint_url,
        )

        def make() -> OutlinesRef:
            made = self._on_cluster("outlines", job, deadline=deadline)
            return replace(made, used=replace(made.used, source=self.run.names.of(str(row.cells_uri))))

        return [key], self._published("outlines", key, OutlinesRef, make)

    def _cells(self, work: Sequence[cells.Unit], deadline: float) -> CellsRef:
        shown = "cells" if self.row.assay == Assay.IHC else "nuclei"
        counts = self._fan(shown, [partial(cells.measure, unit) for unit in work], deadline)
        return CellsRef(tuple(sorted(unit.part for unit in work)), sum(counts))

    def _contours(self, work: Sequence[cells.Unit], deadline: float) -> ContoursRef:
        """Outlines beside the cells; units that were measured before these were kept are measured again."""
        there = set(self.run.store.list(str(PurePosixPath(str(work[0].contours)).parent))) if work else set()
        lacking = [unit for unit in work if unit.contours not in there]
        if lacking:
            self._fan("contours", [partial(cells.measure, unit) for unit in lacking], deadline)
        parts = (ContoursPart(str(unit.contours), unit.box_px0) for unit in work)
        return ContoursRef(tuple(sorted(parts, key=lambda part: part.path)))

    def _fan(self, stage: str, jobs: Sequence[Callable[[], T]], deadline: float) -> list[T]:
        """Run a stage's tasks on the cluster, a window at a time, telling progress."""
        results: list[T] = []
        report(self.row.slide_id, stage, 0, len(jobs))
        names = [self._name(stage, i) for i in range(len(jobs))]
        window = self.run.config.run.tasks_in_flight
        for result in fan_out(
            self.workers, prepare.run_task, jobs, keys=names, window=window, deadline=deadline
        ):
            results.append(result)
            report(self.row.slide_id, stage, len(results), len(jobs))
        return results

    def _name(self, stage: str, index: int) -> str:
        return f"{stage}-{self.row.slide_id}-{self.run.run_id}-{index}"
