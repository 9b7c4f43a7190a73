"""The cohort flow: one Prefect task a slide, a bounded number in flight, one Dask client for all of them.

Chunks are never Prefect tasks. A slide task drives its chunk tasks on the Dask cluster from a thread of
the flow's process; what it returns is a small record. The store is the truth: whatever Prefect believes of
a task, a slide is done when its record is published, and running the flow again picks up from there.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Any

from distributed import Client
from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.states import Completed, Failed
from prefect.utilities.annotations import quote

from flows import artifacts
from flows.cluster import connect
from her2core.cohort import CohortSummary, publish
from her2core.errors import SlideError
from her2core.pipeline import ended, score_slide
from her2core.records import SlideRow, SlideState
from her2core.stages.run import Run, open_run
from her2core.stages.slide import SlideFinished
from her2core.stages.steps import clear_scratch


def worth_retrying(task: Any, task_run: Any, state: State[Any]) -> bool:
    """Tell Prefect to retry what may pass the second time; a broken slide stays broken."""
    error = state.result(raise_on_failure=False)
    return not isinstance(error, SlideError)


@task(
    name="slide",
    tags=["her2"],
    retry_condition_fn=worth_retrying,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def slide(run: Run, row: SlideRow, client: Client) -> SlideFinished:
    """Take one slide through all its stages."""
    return score_slide(run, row, client)


@task(
    name="tables",
    tags=["her2"],
    retries=3,
    retry_delay_seconds=5,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def tables(run: Run, results: Sequence[SlideFinished]) -> CohortSummary:
    """Commit the lake tables: one writer, one commit a table, the ``runs`` row last."""
    return publish(run, results)


@flow(name="her2-cohort", persist_result=False)
def cohort(
    manifest: str, out: str, config: str | None = None, cluster: str = "local"
) -> State[CohortSummary]:
    """Score every slide of a manifest and publish the cohort's tables.

    The flow run ends ``Completed`` if no slide failed; as ``Partial``, a completed state of another name, if
    some did: everything that can be had is in the tables, and their task runs are ``Failed``; and ``Failed``
    if nothing could be measured at all, or the run itself could not be carried out.

    Parameters
    ----------
    manifest
        Path or ``s3://`` URI of the manifest (CSV).
    out
        Folder or ``s3://`` URI that receives pyramids, tables and pictures.
    config
        Path or URI of a YAML configuration; the defaults apply without one.
    cluster
        ``local``, or the address of a Dask scheduler.

    Returns
    -------
    The final state; its data is the run's `CohortSummary`.
    """
    _let_stages_log()
    run = open_run(manifest, out, config)
    get_run_logger().info("run %s: %d slides to %s", run.run_id, len(run.rows), out)
    with connect(cluster, run.config.run.workers) as client:
        results = _score_all(run, client)
        client.run(clear_scratch, run.config.run.scratch())
    summary = tables(run, results)
    artifacts.show_cohort(run, summary)
    return ending(summary)


def _let_stages_log() -> None:
    """Lower the bar of our log to INFO where nobody has set one: Prefect's extra loggers keep the root's."""
    log = logging.getLogger("her2core")
    if log.level == logging.NOTSET:
        log.setLevel(logging.INFO)


def ending(summary: CohortSummary) -> State[CohortSummary]:
    """Final state of the flow run, as honest as the tables."""
    message = artifacts.ending_in_words(summary)
    if summary.complete:
        return Completed(message=message, data=summary)
    if summary.states[SlideState.SCORED] or summary.states[SlideState.INDETERMINATE]:
        return Completed(name="Partial", message=message, data=summary)
    return Failed(message=message, data=summary)


def _score_all(run: Run, client: Client) -> list[SlideFinished]:
    """Fan the slides out, ``slides_in_flight`` at a time, and turn every failure into a row."""
    settings = run.config.run
    per_slide = slide.with_options(retries=settings.retries, retry_delay_seconds=settings.retry_delay_s)
    progress = artifacts.ProgressBar(run)
    # Prefect looks for futures in what a task is given: in the whole manifest, again for every slide.
    unsearched: Any = quote(run)
    results: dict[str, SlideFinished] = {}
    futures: dict[PrefectFuture[SlideFinished], SlideRow] = {}
    finished: SimpleQueue[PrefectFuture[SlideFinished]] = SimpleQueue()
    waiting = iter(run.rows)

    def submit_next() -> None:
        for row in waiting:
            future = per_slide.with_options(task_run_name=row.slide_id).submit(unsearched, row, client)
            futures[future] = row
            future.add_done_callback(finished.put)
            return

    for _ in range(settings.slides_in_flight):
        submit_next()
    while futures:
        future = finished.get()
        row = futures.pop(future)
        future.wait()
        outcome = future.state.result(raise_on_failure=False)
        results[row.slide_id] = outcome if isinstance(outcome, SlideFinished) else ended(run, row, outcome)
        progress.advance()
        submit_next()
    return [results[row.slide_id] for row in run.rows]
