"""Verbs that look before anything is done: ``inspect`` and ``plan``."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, Any

import typer
from rich.table import Table

from flows.cli.common import OK, PARTIAL, ConfigFile, Json, app, console, errors
from her2core.errors import SlideError
from her2core.records import Assay


@app.command("inspect")
def inspect_command(
    slides: Annotated[
        list[str], typer.Argument(metavar="SLIDE...", help="Slide files, folders or s3:// URIs.")
    ],
    scene: Annotated[
        str | None, typer.Option(help="Number of the image, of a file that holds several.")
    ] = None,
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


def _plan_table(plan: Any) -> Table:
    table = Table(
        "slide", "size", "µm/px", "shards", "chunks", "objects", "source", "pyramid", "CPU", box=None
    )
    for slide in plan.slides:
        table.add_row(*slide.cells())
    return table
