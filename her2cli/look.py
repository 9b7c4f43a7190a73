"""Verbs that look before anything is done: ``inspect``, ``manifest`` and ``plan``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from her2cli.common import (
    EXIT_CODES,
    OK,
    PARTIAL,
    ConfigFile,
    Json,
    app,
    complain,
    console,
    say,
    showing_warnings,
)
from her2core.errors import ManifestError, SlideError
from her2core.records import Assay
from her2core.text import counted

if TYPE_CHECKING:
    from her2core.config import Config
    from her2core.records import SlideRow


@app.command("inspect", epilog=EXIT_CODES)
def inspect_command(
    slides: Annotated[
        list[str], typer.Argument(metavar="SLIDE...", help="Slide files, folders of slides or s3:// URIs.")
    ],
    scene: Annotated[
        str | None, typer.Option(help="Number of the image, of a file that holds several.")
    ] = None,
    mpp: Annotated[float | None, typer.Option(help="µm/px, where the file does not state it.")] = None,
    assay: Annotated[
        Assay | None, typer.Option(help="As in a manifest; HER2-FISH is read by channels.")
    ] = None,
    channels: Annotated[str | None, typer.Option(help="Which is which: DAPI=2;HER2=0;CEP17=1.")] = None,
    as_json: Json = False,
) -> None:
    """Show format, size, levels, µm/px and its source, scenes, assay guess, and what is wrong."""
    from her2core.config import load_config
    from her2core.intake.draft import find_slides, is_folder
    from her2core.intake.inspect import describe, inspect_slide
    from her2core.storage.s3check import check_bucket

    settings = load_config().run
    endpoint = settings.endpoint_url
    uris: list[str] = []
    found: list[dict[str, Any]] = []
    for uri in slides:
        check_bucket(uri, endpoint)
        try:
            uris += find_slides(uri, endpoint) if is_folder(uri, endpoint) else [uri]
        except ManifestError as error:
            if len(slides) == 1:
                raise
            found.append({"uri": uri, "error": str(error), "reason": None})
            if not as_json:
                complain("error", str(error))
    broken = len(found)
    for uri in uris:
        try:
            info = inspect_slide(
                uri,
                scene=scene,
                mpp=mpp,
                assay=assay,
                channels=channels,
                endpoint_url=endpoint,
                scratch=settings.scratch(),
            )
        except SlideError as error:
            broken += 1
            found.append({"uri": uri, "error": error.message, "reason": error.reason})
            if not as_json:
                complain(error.reason, error.message)
        else:
            found.append(dataclasses.asdict(info))
            if not as_json:
                console.print(describe(info), markup=False, highlight=False)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    raise typer.Exit(PARTIAL if broken else OK)


@app.command("manifest", epilog=EXIT_CODES)
def manifest_command(
    folder: Annotated[str, typer.Argument(help="Folder of slides, or s3://bucket/prefix.")],
) -> None:
    """Draft a manifest (CSV, to the screen or > manifest.csv) from names and headers; complete it by hand."""
    from her2core.config import load_config
    from her2core.intake.draft import as_csv, draft, find_slides

    settings = load_config().run
    with showing_warnings():
        uris = find_slides(folder, settings.endpoint_url)
        drafted = list(draft(uris, settings.scratch(), settings.endpoint_url))
    typer.echo(as_csv(drafted), nl=False)
    unknown = sum(not one.assay_from for one in drafted)
    broken = sum(one.info is None for one in drafted)
    say(
        f"{counted(len(drafted), 'slide')}, {unknown} of unknown assay, {broken} that cannot be read "
        "(x_problem). Fill in case_id, and patient_id and specimen_id where you have them; check assay; "
        "then: her2 plan MANIFEST"
    )
    raise typer.Exit(PARTIAL if broken else OK)


@app.command("plan", epilog=EXIT_CODES)
def plan_command(
    manifest: Annotated[str, typer.Argument(help="Manifest CSV, or a folder of slides (path or s3://).")],
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Show bytes, objects, requests, CPU time and cost before a run, from the slides' headers alone."""
    from her2core.config import load_config
    from her2core.intake.draft import draft, find_slides, is_folder
    from her2core.stages.run import read_inputs
    from her2core.storage.s3check import check_bucket

    with showing_warnings():
        settings = load_config(config)
        endpoint = settings.run.endpoint_url
        check_bucket(manifest, endpoint)
        if is_folder(manifest, endpoint):
            uris = find_slides(manifest, endpoint)
            rows: Sequence[SlideRow] = [one.row for one in draft(uris, settings.run.scratch(), endpoint)]
            say(f"{manifest} is a folder: planned as her2 manifest would draft it")
        else:
            settings, rows = read_inputs(manifest, config)
        show_plan(rows, settings, as_json)


def show_plan(rows: Sequence[SlideRow], config: Config, as_json: bool) -> None:
    """Print the plan of a manifest, and end with its exit code."""
    from flows.show import row_table
    from her2core.plan import plan_cohort

    plan = plan_cohort(rows, config)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(plan) | {"problems": plan.problems}, indent=1))
    else:
        console.print(row_table([slide.cells() for slide in plan.slides], console.width))
        for line in plan.lines():
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        if codecs := plan.codec_cells():
            console.print(row_table(codecs, console.width))
            console.print(
                "* chosen (pyramid.codec); as lz4: slides that the codec cannot hold, stored so.\n"
                "A whole run, if three fifths is tissue: its requests, its processor time, and\n"
                "keeping its pyramids for a month, at the configuration's prices.",
                highlight=False,
                soft_wrap=True,
            )
    raise typer.Exit(PARTIAL if plan.problems else OK)
