"""Verb ``report``: one page of a run, or of what changed between two."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Annotated

import typer

from her2cli.common import EXIT_CODES, Endpoint, Json, app, console
from her2core.errors import ConfigError

if TYPE_CHECKING:
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
    endpoint_url: Endpoint = None,
    as_json: Json = False,
) -> None:
    """Write one HTML page of a run that opens without network, and its data as CSV and Parquet."""
    from her2core.storage.store import Store

    wanted = 2 if compare else 1
    if len(runs) != wanted:
        told = "--compare takes two runs" if compare else "one run a report, or two with --compare"
        raise ConfigError(f"{len(runs)} runs given; {told}")
    into = None if out is None else Store(out, endpoint_url=endpoint_url)
    opened = [_opened(run, endpoint_url) for run in runs]
    if compare:
        _compare(opened[0], opened[1], into, as_json)
    else:
        _report(*opened[0], into, round(pictures * MB), as_json)


def _report(store: Store, run_id: str | None, into: Store | None, picture_bytes: int, as_json: bool) -> None:
    from her2core.report.build import write_report

    made = write_report(store, run_id, into, picture_bytes)
    lines = [
        f"page  {made.uri} ({made.size_bytes / MB:.1f} MB)",
        f"      carries {made.n_thumbnails} thumbnails, and the full pictures of {made.n_full} of "
        f"{made.n_pictured} slides",
    ]
    _show({"run_id": made.run_id, "page": made.uri, "bytes": made.size_bytes}, lines, as_json)


def _compare(before: Opened, after: Opened, into: Store | None, as_json: bool) -> None:
    from her2core.report.compare import write_comparison

    made = write_comparison(before, after, into)
    changed = {"slides_changed": made.slides_changed, "specimens_changed": made.specimens_changed}
    lines = [
        f"{made.slides_changed} slides and {made.specimens_changed} specimens have another result",
        f"page  {made.uri} ({made.size_bytes / MB:.1f} MB)",
    ]
    _show({"page": made.uri, "bytes": made.size_bytes} | changed, lines, as_json)


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
    page = str(found["page"])
    told = [
        f"data  {page.rpartition('/')[0]}/data (CSV and Parquet)",
        "Research use only, not for diagnosis.",
    ]
    for line in [*lines, *told]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
