"""The cohort flow: one Prefect task a slide, a bounded number in flight, one Dask client for all of them.

Chunks are never Prefect tasks. A slide task drives its chunk tasks on the Dask cluster from a thread of
the flow's process; what it returns is a small record. The store is the truth: whatever Prefect believes of
a task, a slide is done when its record is published, and running the flow again picks up from there.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from distributed import Client
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture

from flows.cluster import connect
from her2core.cohort import CohortSummary, publish
from her2core.errors import SlideError
from her2core.pipeline import ended, score_slide
from her2core.records import SlideRow
from her2core.run import Run, open_run
from her2core.slide import SlideFinished


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
def cohort(manifest: str, out: str, config: str | None = None, cluster: str = "local") -> CohortSummary:
    """Score every slide of a manifest and publish the cohort's tables.

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
    """
    run = open_run(manifest, out, config)
    get_run_logger().info("run %s: %d slides to %s", run.run_id, len(run.rows), out)
    with connect(cluster, run.config.run.workers) as client:
        results = _score_all(run, client)
    summary = tables(run, results)
    create_table_artifact(
        key="her2-cohort",
        table=summary.table(),
        description=f"HER2 cohort, run {run.run_id} (research use only)",
    )
    return summary


def _score_all(run: Run, client: Client) -> list[SlideFinished]:
    """Fan the slides out, ``slides_in_flight`` at a time, and turn every failure into a row."""
    per_slide = slide.with_options(
        retries=run.config.run.retries, retry_delay_seconds=run.config.run.retry_delay_s
    )
    progress: Any = create_progress_artifact(progress=0.0, key="her2-progress", description="slides finished")
    slots = threading.Semaphore(run.config.run.slides_in_flight)
    futures: list[PrefectFuture[SlideFinished]] = []
    for row in run.rows:
        slots.acquire()
        future = per_slide.with_options(task_run_name=row.slide_id).submit(run, row, client)
        future.add_done_callback(lambda _: slots.release())
        futures.append(future)
    results = []
    for done, (row, future) in enumerate(zip(run.rows, futures, strict=True), start=1):
        future.wait()
        outcome = future.state.result(raise_on_failure=False)
        results.append(outcome if isinstance(outcome, SlideFinished) else ended(run, row, outcome))
        update_progress_artifact(artifact_id=progress, progress=100.0 * done / len(run.rows))
    return results
