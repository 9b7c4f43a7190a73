"""Verb ``report``: one page of a run, or of what changed between two."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Annotated

import typer

from her2cli.common import EXIT_CODES, Endpoint, Json, app, console
from her2core.errors import ConfigError
from her2core.text import counted

if TYPE_CHECKING:
    from her2core.analysis.rna import RnaValue
    from her2core.analysis.treatments import Line
    from her2core.report.build import Report
    from her2core.storage.store import Store

    Opened = tuple[Store, str | None]

_RUN = re.compile(r"(?P<out>.+)@(?P<run>\d{8}T\d{6}Z-[0-9a-f]+)")
MB = 10**6


@app.command("report", epilog=EXIT_CODES)
def report_command(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...", help="Output of a run (folder or s3://): its last run, or URI@RUN_ID."
        ),
    ],
    compare: Annotated[
        bool, typer.Option("--compare", help="What changed from the first run to the second.")
    ] = False,
    out: Annotated[
        str | None, typer.Option("--out", "-o", help="Folder or s3:// URI; by default report/ of the output.")
    ] = None,
    pictures: Annotated[
        float, typer.Option("--pictures", min=0, help="MB of pictures at full size that the page carries.")
    ] = 12.0,
    clinical: Annotated[
        str | None, typer.Option(help="Table of her2 outcome: the page shows whose outcome is known.")
    ] = None,
    rna: Annotated[
        str | None, typer.Option(help="Table of her2 rna: the page shows which specimens have RNA.")
    ] = None,
    viewer: Annotated[
        str | None,
        typer.Option(
            help="Address of a viewer with {slide_id} in it, which rows link to, such as "
            "'http://127.0.0.1:8765/#slide={slide_id}' of her2 view --port 8765."
        ),
    ] = None,
    endpoint_url: Endpoint = None,
    as_json: Json = False,
) -> None:
    """Write one HTML page of a run that opens without network, and its data as CSV and Parquet."""
    from her2core.storage.store import Store

    expected = 2 if compare else 1
    if len(runs) != expected:
        notes = "--compare takes two runs" if compare else "one run a report, or two with --compare"
        raise ConfigError(f"{len(runs)} runs given; {notes}")
    if compare and (clinical or rna or viewer):
        raise ConfigError("--compare takes none of --clinical, --rna and --viewer")
    _check_viewer(viewer)
    into = None if out is None else Store(out, endpoint_url=endpoint_url)
    if into is not None:
        into.reach("write to")
    opened = [_opened(run, endpoint_url) for run in runs]
    if compare:
        _compare(opened[0], opened[1], into, as_json)
    else:
        from her2core.report.build import write_report

        lines, values = _beside(clinical, rna, endpoint_url)
        _report(write_report(*opened[0], into, round(pictures * MB), lines, values, viewer), as_json)


def _check_viewer(viewer: str | None) -> None:
    from her2core.text import check_viewer

    try:
        if viewer is not None:
            check_viewer(viewer, "--viewer")
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _beside(
    clinical: str | None, rna: str | None, endpoint_url: str | None
) -> tuple[tuple[Line, ...] | None, tuple[RnaValue, ...] | None]:
    """Lines of therapy and values of RNA, where tables of them are named."""
    from her2core.analysis.rna import read_rna
    from her2core.analysis.treatments import read_lines

    lines = read_lines(clinical, endpoint_url) if clinical else None
    return lines, read_rna(rna, endpoint_url) if rna else None


def _report(made: Report, as_json: bool) -> None:
    lines = [
        f"page  {made.uri} ({made.size_bytes / MB:.1f} MB)",
        f"      carries {counted(made.n_thumbnails, 'thumbnail')}, and the full pictures of {made.n_full} of "
        f"{counted(made.n_pictured, 'slide')}",
        *(
            f"      {name}: {sum(of.has)} of {counted(len(of.has), 'specimen')}, by {of.used} of "
            f"{counted(of.rows, 'row')}"
            for name, of in made.linked.items()
        ),
    ]
    found = {"run_id": made.run_id, "page": made.uri, "data": made.data_uri, "bytes": made.size_bytes}
    _show(found, lines, as_json)


def _compare(before: Opened, after: Opened, into: Store | None, as_json: bool) -> None:
    from her2core.report.compare import write_comparison

    made = write_comparison(before, after, into)
    changed = {"slides_changed": made.slides_changed, "specimens_changed": made.specimens_changed}
    lines = [
        f"another result: {counted(made.slides_changed, 'slide')}, "
        f"{counted(made.specimens_changed, 'specimen')}",
        f"page  {made.uri} ({made.size_bytes / MB:.1f} MB)",
    ]
    _show({"page": made.uri, "data": made.data_uri, "bytes": made.size_bytes} | changed, lines, as_json)


def _opened(run: str, endpoint_url: str | None) -> tuple[Store, str | None]:
    """The output of a run, and which run of it; None for the last."""
    from her2core.storage.store import Store

    named = _RUN.fullmatch(run)
    store = Store(named["out"] if named else run, endpoint_url=endpoint_url)
    store.reach()
    return store, named["run"] if named else None


def _show(found: dict[str, object], lines: list[str], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    notes = [
        f"data  {found['data']} (CSV and Parquet)",
        "Research use only, not for diagnosis.",
    ]
    for line in [*lines, *notes]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
