"""Verbs of a run: ``run`` and ``status``."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from typing import Annotated

import typer
from rich.table import Table

from flows import run_cohort
from flows.cli.common import (
    BAD_INPUT,
    INTERRUPTED,
    OK,
    PARTIAL,
    UNUSABLE,
    ConfigFile,
    Endpoint,
    Json,
    app,
    console,
    errors,
)
from flows.cli.look import plan_command


@app.command("run")
def run_command(
    manifest: Annotated[str, typer.Argument(help="Manifest CSV (path or s3://).")],
    out: Annotated[
        str, typer.Option("--out", "-o", help="Folder or s3:// URI for pyramids, tables, pictures.")
    ],
    config: ConfigFile = None,
    cluster: Annotated[str, typer.Option(help="local, tcp://HOST:PORT or tls://HOST:PORT.")] = "local",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, show the plan.")] = False,
    as_json: Json = False,
) -> None:
    """Score a cohort. Run the same command again to resume, or after adding slides to the manifest."""
    if dry_run:
        from her2core.config import load_config
        from her2core.storage.store import Store

        Store(out, endpoint_url=load_config(config).run.endpoint_url).probe()
        plan_command(manifest, config, as_json)
        return
    _run(manifest, out, config, cluster, as_json)


def _run(manifest: str, out: str, config: str | None, cluster: str, as_json: bool) -> None:
    from flows.cluster import check_address
    from flows.interrupt import ending_quickly
    from flows.show import row_table, showing_progress
    from her2core.stages.run import open_run

    check_address(cluster)
    open_run(manifest, out, config)  # all that can be refused is refused before a server starts
    errors.print("starting Prefect and the Dask workers")

    def last_word() -> None:
        errors.print("interrupted; run the same command again to resume")

    try:
        with ending_quickly(INTERRUPTED, last_word), showing_progress(errors):
            summary = run_cohort(manifest=manifest, out=out, config=config, cluster=cluster)
    except KeyboardInterrupt:
        last_word()
        sys.stderr.flush()
        os._exit(INTERRUPTED)  # without waiting for threads that nobody needs any more
    if as_json:
        typer.echo(json.dumps(summary.as_dict(), indent=1))
    else:
        console.print(row_table(summary.table()))
        console.print(row_table(summary.case_table()))
        for line in summary.lines():
            console.print(line, highlight=False, soft_wrap=True)
    if summary.trouble:
        errors.print(f"[red]error[/red] {summary.trouble}", highlight=False)
        raise typer.Exit(UNUSABLE)
    raise typer.Exit(OK if summary.complete else PARTIAL)


@app.command("status")
def status_command(
    out: Annotated[str, typer.Argument(metavar="URI", help="The run's output folder or s3:// URI.")],
    endpoint_url: Endpoint = None,
    as_json: Json = False,
) -> None:
    """Show every slide of a store and its stage: scored, running, failed, quarantined, skipped."""
    from her2core.storage.journal import cohort_status
    from her2core.storage.store import Store

    entries = cohort_status(Store(out, endpoint_url=endpoint_url))
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(entry) for entry in entries], indent=1))
        return
    if not entries:
        errors.print(
            f"{out} holds no run yet; start one with: her2 run MANIFEST --out {out}", highlight=False
        )
        raise typer.Exit(BAD_INPUT)
    table = Table("slide", "case", "state", "stage", "score", "updated", "why", box=None)
    for entry in entries:
        why = f"{entry.reason}: {entry.message}" if entry.reason else ""
        table.add_row(
            entry.slide_id, entry.case_id, entry.state, entry.stage, entry.score, entry.updated, why
        )
    console.print(table)
