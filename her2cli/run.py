"""Verbs of a run: ``run`` and ``status``."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import json
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows import run_with
from her2cli.common import (
    BAD_INPUT,
    EXIT_CODES,
    INTERRUPTED,
    OK,
    PARTIAL,
    UNUSABLE,
    ConfigFile,
    Endpoint,
    Json,
    Quiet,
    Verbose,
    Verbosity,
    app,
    complain,
    console,
    errors,
    say,
    showing_warnings,
)
from her2cli.look import show_plan

if TYPE_CHECKING:
    from her2core.storage.journal import SlideStatus
    from her2core.storage.store import Store


@app.command("run", epilog=EXIT_CODES)
def run_command(
    manifest: Annotated[str, typer.Argument(help="Manifest CSV (path or s3://).")],
    out: Annotated[
        str, typer.Option("--out", "-o", help="Folder or s3:// URI for pyramids, tables, pictures.")
    ],
    config: ConfigFile = None,
    cluster: Annotated[
        str, typer.Option(help="local, kubernetes, or tcp:// or tls://HOST:PORT, several with commas.")
    ] = "local",
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="SLIDE", help="This slide alone (repeat for more); tables stay as they are."),
    ] = None,
    new_only: Annotated[
        bool, typer.Option("--new-only", help="Leave out what ingest found as the last run left it.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, show the plan.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Score a cohort. Run the same command again to resume, or after adding slides to the manifest."""
    if dry_run:
        _check(manifest, out, config, cluster, only or (), as_json)
    else:
        _run(manifest, out, config, cluster, only or (), as_json, new_only)


def _check(
    manifest: str, out: str, config: str | None, cluster: str, only: Sequence[str], as_json: bool
) -> None:
    """All that a run checks before it begins, and the plan."""
    from flows.clusters import open_clusters
    from flows.environment import check_server, prepare_environment
    from her2core.stages.run import open_run

    with showing_warnings():
        run = open_run(manifest, out, config, only)
        for each in {id(one): one for one in open_clusters(cluster)}.values():
            each.check()
    if os.environ.get("PREFECT_API_URL"):
        prepare_environment()
        check_server()
    show_plan(run.rows, run.config, as_json)


def _refuse_early(manifest: str, out: str, config: str | None, cluster: str, only: Sequence[str]) -> None:
    """Refuse what can be refused before the server begins."""
    from flows.clusters import check_address
    from her2core.stages.run import open_run
    from her2core.storage.lease import refuse_if_busy

    check_address(cluster)
    with showing_warnings():
        refuse_if_busy(open_run(manifest, out, config, only).store)


def _run(
    manifest: str,
    out: str,
    config: str | None,
    cluster: str,
    only: Sequence[str],
    as_json: bool,
    new_only: bool,
) -> None:
    from flows.environment import prepare_environment
    from flows.interrupt import ending_quickly, leave
    from flows.memory import loading
    from flows.nursery import open_nursery

    def last_word() -> None:
        errors.print("interrupted; run the same command again to resume")

    try:
        with ending_quickly(INTERRUPTED, last_word), ExitStack() as stack:
            with loading():
                if not all(Path(name).is_file() for name in (manifest, config) if name and "://" not in name):
                    _refuse_early(manifest, out, config, cluster, only)  # before anything loads
                prepare_environment()
                if cluster == "local":
                    stack.enter_context(open_nursery(also=["her2cli"]))
                from flows.server import prefect_server

                wait_for_server = stack.enter_context(prefect_server())  # it loads while we look
                _refuse_early(manifest, out, config, cluster, only)
                from flows.show import row_table, showing_progress
            say("starting Prefect and the Dask workers")
            stack.enter_context(showing_progress(errors, Verbosity.level))
            summary = run_with(wait_for_server, manifest, out, config, cluster, only, new_only)
    except KeyboardInterrupt:
        last_word()
        leave(INTERRUPTED)
    if as_json:
        typer.echo(json.dumps(summary.as_dict(), indent=1))
    else:
        for rows in (summary.table(), summary.case_table()):
            if rows:
                console.print(row_table(rows, console.width))
        for line in summary.lines():
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    if summary.trouble:
        complain("error", summary.trouble)
        raise typer.Exit(UNUSABLE)
    raise typer.Exit(OK if summary.complete else PARTIAL)


@app.command("status", epilog=EXIT_CODES)
def status_command(
    out: Annotated[str, typer.Argument(metavar="URI", help="The run's output folder or s3:// URI.")],
    slide: Annotated[
        str | None, typer.Argument(metavar="[SLIDE]", help="One slide, with the traceback of its error.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Rate, time to go and what waits for what, until the run ends.")
    ] = False,
    every_s: Annotated[float, typer.Option("--every", min=1, help="Seconds between two looks.")] = 10.0,
    endpoint_url: Endpoint = None,
    as_json: Json = False,
) -> None:
    """Show every slide of a store and its stage (scored, running, failed, ...), or all of one slide."""
    from her2core.storage.journal import cohort_status
    from her2core.storage.store import Store

    store = Store(out, endpoint_url=endpoint_url)
    store.reach()
    if watch:
        _watch(store, every_s)
        return
    every = cohort_status(store)
    entries = [entry for entry in every if slide in (None, entry.slide_id)]
    if as_json:
        found = [dataclasses.asdict(entry) | entry.found for entry in entries]
        typer.echo(json.dumps(found, indent=1))
    if not entries:
        if every:
            near = difflib.get_close_matches(str(slide), [entry.slide_id for entry in every], n=1)
            complain(
                "error", f"{out} holds no slide {slide}" + (f"; did you mean {near[0]}?" if near else "")
            )
        else:
            complain("error", f"{out} holds no run yet; start one with: her2 run MANIFEST --out {out}")
        raise typer.Exit(BAD_INPUT)
    if as_json:
        return
    if slide is not None:
        _show_slide(entries[0])
        return
    from flows.show import row_table

    console.print(row_table([_status_row(entry) for entry in entries], console.width))


def _watch(store: Store, every_s: float) -> None:
    """Show how far the run is until no run is at work any more, or until Ctrl-C."""
    from rich.live import Live
    from rich.text import Text

    from her2core.lake.watch import Watch

    eye = Watch(store)
    with contextlib.suppress(KeyboardInterrupt), Live(console=console, auto_refresh=False) as live:
        while True:
            seen = eye.look()
            text = "\n".join(seen.lines())
            if console.is_terminal:
                live.update(Text(text), refresh=True)
            else:
                typer.echo(text)
            if seen.holder is None:
                return
            time.sleep(every_s)


def _status_row(entry: SlideStatus) -> dict[str, str]:
    found = entry.found
    return {
        "slide": entry.slide_id,
        "case": entry.case_id,
        "state": entry.state,
        "stage": entry.stage,
        "score": found["score"] or "–",
        "ISH group": found["ish_group"] or "–",
        "updated": entry.updated.removesuffix("+00:00"),
        "why": ": ".join(filter(None, (entry.reason, entry.message))),
    }


def _show_slide(entry: SlideStatus) -> None:
    """Everything the journal holds on one slide."""
    known: dict[str, Any] = dataclasses.asdict(entry) | entry.found
    details = known.pop("details")
    for name, value in known.items():
        if value:
            console.print(f"{name:>9}  {value}", markup=False, highlight=False, soft_wrap=True)
    if details:
        console.print(f"\n{details}", markup=False, highlight=False, soft_wrap=True)
