"""The cohort flow: one Prefect task a slide, a bounded number in flight, one Dask client for all of them.

Chunks are never Prefect tasks. A slide task drives its chunk tasks on the Dask cluster from a thread of
the flow's process; what it returns is a small record. The store is the truth: whatever Prefect shows of
a task, a slide is done when its record is published, and running the flow again picks up from there.
"""

from __future__ import annotations

import logging
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from queue import SimpleQueue
from typing import Any

from botocore.exceptions import BotoCoreError
from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.states import Completed, Failed
from prefect.utilities.annotations import quote

from flows import artifacts
from flows.clusters import open_clusters
from flows.clusters.local import useful_workers
from flows.interrupt import rearm
from flows.memory import give_memory_back
from flows.metrics import observed
from flows.report_process import write_apart
from her2core.cohort import CohortSummary, preview
from her2core.errors import Her2Error, StoreError
from her2core.lake.tables import kept_open
from her2core.pipeline import not_scored, published_slide, record_failure, score_slide, store_trouble
from her2core.publish import Publisher
from her2core.records import SlideRow, SlideState
from her2core.stages.compiled import make_ready, missing, parts_of
from her2core.stages.failures import SlideFailedError, cleaned, disk_full, failure_of
from her2core.stages.fanout import Crews, RunOverError, Workers
from her2core.stages.finished import SlideFinished
from her2core.stages.names import Names
from her2core.stages.run import Run, open_run
from her2core.stages.unchanged import divide
from her2core.stages.workers import clear_scratch
from her2core.storage.journal import beating
from her2core.storage.lease import LeaseLostError, held
from her2core.storage.patience import in_trouble
from her2core.storage.s3check import outage

log = logging.getLogger("her2core.cohort")

UPKEEP_WAIT_S = 1800.0
"""How long a run waits for upkeep of its output (`her2 lake maintain`, `her2 gc`) to end. Ours."""


def worth_retrying(task: Any, task_run: Any, state: State[Any]) -> bool:
    """Tell Prefect to retry what may pass the second time; a broken slide stays broken."""
    error = state.result(raise_on_failure=False)
    return not isinstance(error, SlideFailedError) or error.again


def worth_committing_again(task: Any, task_run: Any, state: State[Any]) -> bool:
    """Tell Prefect that a full disk stays full, and that a store was waited for before it was given up."""
    error = state.result(raise_on_failure=False)
    return not (isinstance(error, StoreError) or in_trouble(error) or disk_full(error))


@task(
    name="slide",
    tags=["her2"],
    retry_condition_fn=worth_retrying,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def slide(run: Run, row: SlideRow, workers: Workers) -> SlideFinished:
    """Take one slide through all its stages."""
    return score_slide(run, row, workers)


@task(
    name="tables",
    tags=["her2"],
    retry_condition_fn=worth_committing_again,
    retries=3,
    retry_delay_seconds=5,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def tables(publisher: Publisher) -> CohortSummary:
    """Commit what is not committed yet: one writer, one commit a table, the ``runs`` row last."""
    return publisher.finish()


@task(name="report", tags=["her2"], retries=1, cache_policy=NO_CACHE, persist_result=False)
def report(run: Run) -> str:
    """Write the report beside the run's outputs: the path of its page."""
    return write_apart(run.store, run.run_id)


@flow(name="her2-cohort", persist_result=False)
def cohort(
    manifest: str,
    out: str,
    config: str | None = None,
    cluster: str = "local",
    only: Sequence[str] = (),
    new_only: bool = False,
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
        ``local``, the address of a Dask scheduler, several with commas, or ``kubernetes``; see
        `flows.clusters.open_clusters`.
    only
        Slides of the manifest to work on; then nothing is committed to the tables. All without any.
    new_only
        Leave alone what is as the last run left it, by what ingest wrote into the manifest; see
        `her2core.stages.unchanged`.

    Returns
    -------
    The final state; its data is the run's `CohortSummary`.
    """
    _let_stages_log()
    rearm()  # Prefect has taken SIGTERM for itself
    give_memory_back()
    names = Names({given(name): name for name in (manifest, out, config or "") if name in _stand_ins})
    try:
        run = open_run(given(manifest), given(out), config and given(config), only)
        names = run.names
        get_run_logger().info("run %s: %d slides", run.run_id, len(run.rows))
        try:
            return _carry_out(run, cluster, whole=not only, new_only=new_only)
        except (OSError, BotoCoreError) as error:
            lacking = outage(error, run.store.uri(), run.store.endpoint_url)
            if lacking is None:
                raise
            raise StoreError(f"{lacking} What was scored is kept.") from error
    except Exception as error:
        if not names.pseudonyms:
            raise
        message = names.hide(cleaned(f"{type(error).__name__}: {error}"))
        return Failed(message=message, data=error)  # whoever called gets the error as it is


_stand_ins: dict[str, str] = {}


def stand_in(name: str) -> str:
    """What a flow of this process may be given for a name that Prefect's database is not to hold."""
    pseudonym = f"given-{secrets.token_hex(6)}"
    _stand_ins[pseudonym] = name
    return pseudonym


def given(name: str) -> str:
    """The name itself, of a stand-in or of what is none."""
    return _stand_ins.get(name, name)


def _carry_out(run: Run, cluster: str, *, whole: bool, new_only: bool) -> State[CohortSummary]:
    at_work: list[Workers] = []

    def cut_off(error: LeaseLostError) -> None:
        for workers in at_work:
            workers.stop(error)

    with (
        observed(run),
        held(run.store, run.run_id, patience_s=UPKEEP_WAIT_S, when_lost=cut_off) as lease,
        kept_open(run.store),
        beating(run.store, run.run_id),
    ):
        division = divide(run) if whole and new_only else None
        if division is not None and division.is_idle:
            return Completed(message="nothing new", data=CohortSummary(run.run_id, run.store.uri(), (), ()))
        publisher = Publisher(run, lease, division) if whole else None
        alone: list[SlideFinished] = []
        keep = alone.append if publisher is None else publisher.add
        rows = list(run.rows if division is None else division.work)
        if publisher is not None:
            publisher.begin()
        for row, key in () if division is None else division.beside:
            found = published_slide(run, row, key)
            if found is None:
                rows.append(row)
            else:
                keep(found)
        count = run.config.run.workers
        if cluster == "local":
            _compile(rows, count)
            count = count or useful_workers(rows)
        with ExitStack() as stack:
            for chosen in open_clusters(cluster, count):
                workers = Workers(stack.enter_context(chosen.connect()), chosen.title)
                at_work.append(workers)
                stack.enter_context(workers.watched())
            trouble = _score_all(run, rows, Crews(at_work, run.config.run.slides_in_flight), keep)
            for workers in at_work:
                workers.tidy(clear_scratch, run.config.run.scratch())
        if publisher is None:
            of = {result.outcome.slide.slide_id: result for result in alone}
            ordered = [of[row.slide_id] for row in rows]
            return ending(replace(preview(run, ordered), trouble=str(trouble or "")), run.hide)
        lease.check()
        summary = _publish(run, publisher, trouble)
        del publisher, keep  # what is known of thousands of slides makes room for the report
        summary = _reported(run, summary)
    artifacts.show_cohort(run, summary)
    return ending(summary, run.hide)


def _compile(rows: Sequence[SlideRow], workers: int | None) -> None:
    """Have what this machine's workers call compiled once, and not by each of them."""
    needed = parts_of(row.assay for row in rows if not row.exclude)
    failed = make_ready(missing(needed), workers)
    if failed:
        log.warning("kernels were not compiled beforehand (%s); workers compile them", ", ".join(failed))


def _publish(run: Run, publisher: Publisher, trouble: Her2Error | None) -> CohortSummary:
    """Commit what there is; when a disk is full or a store is gone, it may be that nothing can be."""
    if trouble is not None and (lacking := store_trouble(run)):
        raise type(lacking)(f"{lacking} (the tables could not be written; what was scored is kept)")
    try:
        unsearched: Any = quote(publisher)
        summary = tables(unsearched)
    except Exception as error:
        why = trouble or disk_full(error) or outage(error, run.store.uri(), run.store.endpoint_url)
        if why is None:
            raise
        raise StoreError(f"{why} (the tables could not be written; what was scored is kept)") from None
    return summary if trouble is None else replace(summary, trouble=str(trouble))


def _reported(run: Run, summary: CohortSummary) -> CohortSummary:
    """The summary with its report; a report that cannot be written costs no result."""
    if not run.config.run.report:
        return summary
    state: State[str] = report(quote(run), return_state=True)
    if state.is_completed():
        return replace(summary, report=state.result())
    log.warning(
        "the report could not be written (%s); her2 report writes it again", run.hide(str(state.message))
    )
    return summary


def _let_stages_log() -> None:
    """Lower the level of our log to INFO where none is set: Prefect's extra loggers keep the root's."""
    log = logging.getLogger("her2core")
    if log.level == logging.NOTSET:
        log.setLevel(logging.INFO)


def ending(summary: CohortSummary, hide: Callable[[str], str] = str) -> State[CohortSummary]:
    """Final state of the flow run, as honest as the tables; ``hide`` keeps names out of its message."""
    message = artifacts.ending_in_words(summary)
    if summary.trouble:
        return Failed(message=f"{message}; {hide(summary.trouble)}", data=summary)
    if summary.complete:
        return Completed(message=message, data=summary)
    if summary.states[SlideState.SCORED] or summary.states[SlideState.INDETERMINATE]:
        return Completed(name="Partial", message=message, data=summary)
    return Failed(message=message, data=summary)


def _score_all(
    run: Run, rows: Sequence[SlideRow], crews: Crews, keep: Callable[[SlideFinished], None]
) -> Her2Error | None:
    """Fan slides out, as many at a time as the clusters take, and turn every failure into a row.

    What ends the run (a full disk, a lost scheduler, a store that answers no more) leaves the slides that are
    not done to the next run; so does an interruption, which goes on to the caller.

    Parameters
    ----------
    keep
        Given one result a slide, as they come.

    Returns
    -------
    Her2Error or None
        What disk, store or cluster lacked, if anything.
    """
    settings = run.config.run
    per_slide = slide.with_options(retries=settings.retries, retry_delay_seconds=settings.retry_delay_s)
    progress = artifacts.ProgressBar(run, len(rows))
    # Prefect looks for futures in what a task is given: in the whole manifest, again for every slide.
    unsearched: Any = quote(run)
    done: set[str] = set()
    trouble: list[Her2Error] = []
    futures: dict[PrefectFuture[SlideFinished], tuple[SlideRow, Workers]] = {}
    finished: SimpleQueue[PrefectFuture[SlideFinished] | None] = SimpleQueue()
    waiting = deque(rows)

    def fill() -> None:
        while waiting and crews.over is None and (workers := crews.take()) is not None:
            row = waiting.popleft()
            future = per_slide.with_options(task_run_name=row.slide_id).submit(unsearched, row, workers)
            futures[future] = row, workers
            future.add_done_callback(finished.put)

    crews.when_resized(lambda: finished.put(None))
    try:
        fill()
        while futures:
            future = finished.get()
            if future is None:
                fill()
                continue
            row, workers = futures.pop(future)
            future.wait()
            crews.give_back(workers)
            outcome = future.state.result(raise_on_failure=False)
            if not isinstance(outcome, SlideFinished):
                why = failure_of(outcome, run.places(row))
                if why.trouble is not None:
                    trouble.append(why.trouble)
                    if why.ends_run:
                        crews.stop(why.trouble)
                outcome = record_failure(run, row, why)
            done.add(row.slide_id)
            keep(outcome)
            progress.advance()
            fill()
    except BaseException:
        crews.stop(RunOverError("interrupted"))
        raise
    if crews.over is not None:
        trouble.insert(0, crews.over)
    rest = failure_of(crews.over or RunOverError("the run ended")).hiding(run.hide)
    for row in rows:
        if row.slide_id not in done:
            keep(not_scored(run, row, rest))
    return trouble[0] if trouble else None
