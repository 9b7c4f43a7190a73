"""The verb ``ingest``: what arrived becomes rows of the manifest."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from her2cli.clinical import mapping_of
from her2cli.common import (
    EXIT_CODES,
    OK,
    PARTIAL,
    Endpoint,
    Json,
    app,
    console,
    say,
    showing_warnings,
)
from her2core.records import Assay

MOST_SHOWN = 50
"""Most slides of a kind that a terminal lists; --json has all. Ours."""


@app.command("ingest", epilog=EXIT_CODES)
def ingest_command(
    place: Annotated[str, typer.Argument(metavar="URI", help="Folder of slides, or s3://bucket/prefix.")],
    manifest: Annotated[
        str, typer.Option("--manifest", "-m", help="Manifest to build or extend (path or s3://).")
    ],
    rule: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX", help="Naming rule with named groups: '(?P<case_id>B\\d+)-(?P<block_id>\\w+)'."
        ),
    ] = None,
    table: Annotated[
        str | None, typer.Option(help="Sidecar table with one row a slide: CSV, TSV or XLSX (path or s3://).")
    ] = None,
    mapping: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="WHAT=COLUMN", help='Its column names: --map case_id="Case no."'),
    ] = None,
    file_column: Annotated[
        str | None, typer.Option(help="Its column that names the slide's file; found by its name otherwise.")
    ] = None,
    assay: Annotated[
        Assay | None, typer.Option(help="Of all slides for which neither rule nor table gives it.")
    ] = None,
    settle_s: Annotated[
        float, typer.Option("--settle", min=0, help="Seconds without a change before a slide has arrived.")
    ] = 600.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report, and write nothing.")] = False,
    endpoint_url: Endpoint = None,
    as_json: Json = False,
) -> None:
    """Find new, changed, vanished and doubled slides, and bring the manifest up to date.

    Ends with 1 if a person has something to decide: slides refused, unclear, doubled, vanished, without a
    case.
    """
    from flows.show import row_table
    from her2core.intake.ingest import Kind, ingest
    from her2core.intake.request import open_intake

    with showing_warnings():
        intake = open_intake(
            place,
            manifest,
            rule=rule,
            table=table,
            mapping=mapping_of(mapping or []),
            file_column=file_column,
            assay=assay,
            settle_s=settle_s,
            endpoint_url=endpoint_url,
        )
        if intake.sidecar is not None and not as_json:
            used = ", ".join(f"{column} from {name!r}" for column, name in intake.sidecar.used.items())
            say(f"{table}: {used or 'no column of a manifest'}")
        report = ingest(intake, dry_run=dry_run)
    if as_json:
        typer.echo(json.dumps(report.as_dict(), indent=1))
    else:
        shown = [entry for kind in Kind for entry in report.of(kind)[:MOST_SHOWN]]
        rows = [{"what": str(e.kind), "slide": e.slide_id, "uri": e.uri, "why": e.why} for e in shown]
        if rows:
            console.print(row_table(rows, console.width))
        if len(shown) < len(report.entries):
            console.print(f"... and {len(report.entries) - len(shown)} more; --json lists all")
        for line in report.lines():
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(PARTIAL if report.needs_a_person else OK)
