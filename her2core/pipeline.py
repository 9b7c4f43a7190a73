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
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from botocore.exceptions import BotoCoreError

from her2core.cases.specimens import SlideOutcome
from her2core.errors import Reason, SlideError, StoreError
from her2core.grid import BLOCK
from her2core.records import Assay, CellsRef, OutlinesRef, PyramidRef, SlideProfile, SlideRow, SlideState
from her2core.stages import tasks
from her2core.stages.failures import SlideFailedError, cleaned, failure_of
from her2core.stages.fanout import RunOverError, Workers, fan_out
from her2core.stages.finished import SlideFinished
from her2core.stages.parts import PART_SHARDS
from her2core.stages.progress import ENDED, Published, report, report_published
from her2core.stages.run import Run
from her2core.stages.tasks import (
    Inspected,
    Keys,
    Made,
    Measured,
    Share,
    SlideWork,
    publish_cells,
    publish_contours,
    published_result,
)
from her2core.stages.workers import run_task
from her2core.storage.journal import last_stage, write_status

log = logging.getLogger(__name__)

T = TypeVar("T")

MOST_SHARDS = 32
"""Level-0 shards of a pyramid that one task writes at most, but for a block, which is not cut: some seconds,
which a lost worker costs. Ours."""


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
        deadline = time.monotonic() + run.config.run.slide_timeout_s
        work = SlideWork(run.store, run.config, row, run.shown(row))
        return _Slide(run, row, workers, work, deadline).score()
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
    except (OSError, BotoCoreError, StoreError) as trouble:  # the tables show it as well
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
    return failure_of(error, run.places(row)).hiding(partial(run.hide, row=row))


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
    return None if key is None else published_result(run.store, key)


@dataclass(frozen=True, slots=True)
class _Slide:
    """The driver's side of one slide."""

    run: Run
    row: SlideRow
    workers: Workers
    work: SlideWork
    deadline: float

    def score(self) -> SlideFinished:
        """Every stage in turn; each method has its record made, unless it was found."""
        write_status(self.run.store, self.run.run_id, self.row, SlideState.RUNNING, "inspect")
        found = self._one("inspect", partial(tasks.inspect, self.work))
        if found.finished is not None:
            return self._ended(found.keys, found.finished)
        outlines = self._outlines(found)
        pyramid = self._pyramid(found)
        frozen = self._profile(found, pyramid)
        cells = self._cells(found, pyramid, frozen, outlines)
        return self._ended(*self._result(found, pyramid, frozen, cells, outlines))

    def _outlines(self, found: Inspected) -> OutlinesRef | None:
        """Another program's nuclei, where the manifest names them."""
        key = found.keys.outlines
        if key is None or found.outlines is not None:
            return found.outlines
        job = partial(tasks.outline, self.work, found.source, key)
        return self._made("outlines", key, lambda: self._one("outlines", job))

    def _pyramid(self, found: Inspected) -> PyramidRef:
        key = found.keys.pyramid
        to = (self.run.store, found.source, f"pyramids/{key}", found.settled)

        def convert() -> Made[PyramidRef]:
            whole = BLOCK**2 if found.blocks < found.shards else 1  # a block cannot be cut
            most = max(MOST_SHARDS // whole, 1)
            self._fan("pyramid", partial(tasks.convert, *to), found.blocks, most)
            return self._one("pyramid-top", partial(tasks.finish_pyramid, *to, key))

        return found.pyramid or self._made("pyramid", key, convert)

    def _profile(self, found: Inspected, pyramid: PyramidRef) -> SlideProfile:
        key = found.keys.profile
        job = partial(tasks.profile, self.work, pyramid, key)
        return found.profile or self._made("profile", key, lambda: self._one("profile", job))

    def _cells(
        self, found: Inspected, pyramid: PyramidRef, frozen: SlideProfile, outlines: OutlinesRef | None
    ) -> CellsRef:
        """Cells or nuclei; of cells their outlines too, where these are kept."""
        store, key, contours = self.run.store, found.keys.cells, found.keys.contours
        given = (self.work.kernel, key, outlines.path if outlines else None, contours)
        job = partial(tasks.measure, store, pyramid, frozen, *given)
        measured: list[Measured] = []

        def measure(stage: str) -> list[Measured]:
            parts = math.ceil(found.shards / PART_SHARDS)
            measured[:] = measured or self._fan(stage, job, parts, 1)
            return measured

        shown = "cells" if self.row.assay == Assay.IHC else "nuclei"
        cells = found.cells or self._made("cells", key, lambda: publish_cells(store, key, measure(shown)))
        if contours is not None and found.contours is None:
            # Cells that were measured before their outlines were kept are measured again.
            self._made("contours", contours, lambda: publish_contours(store, contours, measure("contours")))
        return cells

    def _result(
        self,
        found: Inspected,
        pyramid: PyramidRef,
        frozen: SlideProfile,
        cells: CellsRef,
        outlines: OutlinesRef | None,
    ) -> tuple[Keys, SlideFinished]:
        """What the slide leaves behind, and its keys: that of the result is made anew with it."""
        run, info, keys = self.run, found.source.info, found.keys
        problems = tuple(run.hide(text, self.row) for text in info.problems)
        shown = replace(info, uri=run.names.of(info.uri), problems=problems)
        job = partial(tasks.finish, self.work, shown, pyramid, frozen, cells, outlines, keys.cells)

        def finish() -> Made[SlideFinished]:
            nonlocal keys
            key, made = self._one("slide", job)
            keys = replace(keys, slide=key)
            return made

        finished = self._made("slide", keys.slide, finish)
        return keys, finished

    def _ended(self, keys: Keys, finished: SlideFinished) -> SlideFinished:
        """Report how the slide ended."""
        outcome = finished.outcome
        why = "" if outcome.state is SlideState.SCORED else ", ".join(outcome.reasons)
        about = (self.run.store, self.run.run_id, self.row, outcome.state, "slide")
        write_status(*about, message=why, score=outcome.headline)
        report(self.row.slide_id, ENDED, 1, 1, outcome.state)
        return replace(finished, rests_on=keys.records())

    def _made(self, stage: str, key: str, make: Callable[[], Made[T]]) -> T:
        """Report that a stage is at work, have it made, and report that it is published."""
        write_status(self.run.store, self.run.run_id, self.row, SlideState.RUNNING, stage)
        begun = time.monotonic()
        made = make()
        seconds = time.monotonic() - begun
        report_published(Published(self.row.slide_id, stage, key, seconds, made.bytes_written))
        return made.record

    def _one(self, stage: str, job: Callable[[], T]) -> T:
        """Run one task on the cluster and wait for it."""
        (result,) = self._run(stage, [job])
        return result

    def _fan(self, stage: str, job: Callable[[Share], T], items: int, most: int) -> list[T]:
        """Run a stage's work on the cluster in shares, as many as keep its workers busy."""
        count = shares(items, most, self.workers.tasks_a_slide())
        return self._run(stage, [partial(job, Share(number, count)) for number in range(count)])

    def _run(self, stage: str, jobs: Sequence[Callable[[], T]]) -> list[T]:
        """Run tasks on the cluster, a window at a time, telling progress."""
        results: list[T] = []
        report(self.row.slide_id, stage, 0, len(jobs))
        # By these names the scheduler learns how long tasks of a stage take: what it may not know comes last.
        names = [f"{stage}-{i}-{self.row.slide_id}-{self.run.run_id}" for i in range(len(jobs))]
        window = self.run.config.run.tasks_in_flight
        for result in fan_out(
            self.workers, run_task, jobs, keys=names, window=window, deadline=self.deadline
        ):
            results.append(result)
            report(self.row.slide_id, stage, len(results), len(jobs))
        return results


def shares(items: int, most: int, tasks_a_slide: int) -> int:
    """Number of tasks that a slide's work is cut into.

    Parameters
    ----------
    items
        Level-0 shards, or blocks of them: what there is to do.
    most
        Of these in one task at most: what a lost worker costs.
    tasks_a_slide
        Tasks that the slide should have on the cluster.
    """
    return max(min(items, max(tasks_a_slide, -(-items // most))), 1)
