"""The ``her2`` command line: ``inspect``, ``plan``, ``run``, ``status``, ``synth``.

Exit codes
----------
0
    Everything asked for was done; for ``run``, no slide failed. A slide may still be *indeterminate*
    (read, measured, and not scorable for a stated reason) or *skipped* (the manifest excludes it).
1
    ``run``, ``inspect`` and ``plan``: done, but one or more slides failed or were quarantined.
2
    Bad input: command line, manifest or configuration. Nothing was started.
3
    The output store, the Dask cluster or the Prefect server cannot be used.
130
    Interrupted. Run the same command again to resume.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from flows import run_cohort
from flows.environment import ServerError
from her2core.errors import ClusterError, ConfigError, Her2Error, ManifestError, SlideError, StoreError
from her2core.records import Assay

app = typer.Typer(
    name="her2",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Score HER2 IHC and ISH slide cohorts from object storage. Research use only, not for diagnosis.",
)
console = Console(width=None if sys.stdout.isatty() else 200)
errors = Console(stderr=True, soft_wrap=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
ConfigFile = Annotated[str | None, typer.Option("--config", "-c", help="YAML configuration (path or s3://).")]
Endpoint = Annotated[str | None, typer.Option(help="S3 endpoint; by default from AWS_ENDPOINT_URL.")]

OK, PARTIAL, BAD_INPUT, UNUSABLE, INTERRUPTED = 0, 1, 2, 3, 130


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"her2cohort {metadata.version('her2cohort')}")
        raise typer.Exit(OK)


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command("inspect")
def inspect_command(
    slides: Annotated[
        list[str], typer.Argument(metavar="SLIDE...", help="Slide files, folders or s3:// URIs.")
    ],
    scene: Annotated[str | None, typer.Option(help="Scene of a file that holds several.")] = None,
    mpp: Annotated[float | None, typer.Option(help="µm/px, where the file does not say.")] = None,
    assay: Annotated[
        Assay | None, typer.Option(help="As in a manifest; HER2-FISH is read by channels.")
    ] = None,
    channels: Annotated[str | None, typer.Option(help="Which is which: DAPI=2;HER2=0;CEP17=1.")] = None,
    as_json: Json = False,
) -> None:
    """Show format, size, levels, µm/px and its source, scenes, assay guess, and what is wrong."""
    from her2core.config import load_config
    from her2core.inspect import describe, inspect_slide

    settings = load_config().run
    broken = 0
    found: list[dict[str, Any]] = []
    for uri in slides:
        try:
            info = inspect_slide(
                uri,
                scene=scene,
                mpp=mpp,
                assay=assay,
                channels=channels,
                endpoint_url=settings.endpoint_url,
                scratch=settings.scratch(),
            )
        except SlideError as error:
            broken += 1
            found.append({"uri": uri, "error": error.message, "reason": error.reason})
            if not as_json:
                errors.print(f"[red]{error.reason}[/red] {error.message}", highlight=False)
        else:
            found.append(dataclasses.asdict(info))
            if not as_json:
                console.print(describe(info), markup=False, highlight=False)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    raise typer.Exit(PARTIAL if broken else OK)


@app.command("plan")
def plan_command(
    manifest: Annotated[str, typer.Argument(help="Manifest CSV (path or s3://).")],
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Show slides, chunks, bytes, objects and estimated CPU time, from the slides' headers alone."""
    from her2core.config import load_config
    from her2core.manifest import read_manifest
    from her2core.plan import plan_cohort

    settings = load_config(config)
    plan = plan_cohort(read_manifest(manifest), settings)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(plan), indent=1))
    else:
        console.print(_plan_table(plan))
        for line in plan.lines():
            console.print(line, highlight=False)
    raise typer.Exit(PARTIAL if plan.problems else OK)


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
    from flows.show import row_table, showing_progress
    from her2core.stages.run import open_run

    check_address(cluster)
    open_run(manifest, out, config)  # all that can be refused is refused before a server starts
    errors.print("starting Prefect and the Dask workers")
    try:
        with showing_progress(errors):
            summary = run_cohort(manifest=manifest, out=out, config=config, cluster=cluster)
    except KeyboardInterrupt:
        errors.print("interrupted; run the same command again to resume")
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        typer.echo(json.dumps(summary.as_dict(), indent=1))
    else:
        console.print(row_table(summary.table()))
        console.print(row_table(summary.case_table()))
        for line in summary.lines():
            console.print(line, highlight=False, soft_wrap=True)
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


@app.command("synth")
def synth_command(
    folder: Annotated[Path, typer.Argument(help="Where the slides, manifest.csv and truth.csv go.")],
    seed: Annotated[int, typer.Option(help="Same seed, same pixels.")] = 1,
) -> None:
    """Make a synthetic cohort with planted truth: pyramidal JPEG-tiled TIFFs, manifest and truth."""
    from her2core.phantom import synth_cohort

    manifest = synth_cohort(folder, seed=seed)
    console.print(f"manifest: {manifest}", highlight=False, soft_wrap=True)


def _plan_table(plan: Any) -> Table:
    table = Table(
        "slide", "size", "µm/px", "shards", "chunks", "objects", "source", "pyramid", "CPU", box=None
    )
    for slide in plan.slides:
        table.add_row(*slide.cells())
    return table


def main() -> None:
    """Entry point: turn the errors that a user can act on into one line and an exit code."""
    logging.getLogger("her2core").addHandler(logging.NullHandler())
    try:
        app()
    except (ConfigError, ManifestError, SlideError) as error:
        _fail(error, BAD_INPUT)
    except (StoreError, ClusterError, ServerError) as error:
        _fail(error, UNUSABLE)


def _fail(error: Her2Error, code: int) -> None:
    errors.print(f"[red]error[/red] {error}", highlight=False)
    sys.exit(code)


if __name__ == "__main__":
    main()
