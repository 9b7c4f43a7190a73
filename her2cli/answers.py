"""Verbs that answer questions from finished tables: ``agreement``, ``outcome`` and ``rna``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer

from her2cli.common import EXIT_CODES, Endpoint, Json, RunOutput, app, console
from her2core.errors import ManifestError
from her2core.text import counted

if TYPE_CHECKING:
    from rich.console import Console

    from her2core.analysis.results import Answer
    from her2core.storage.store import Store

Out = Annotated[
    str, typer.Option("--out", "-o", help="Folder or s3:// address for tables, figures and text.")
]


@app.command("agreement", epilog=EXIT_CODES)
def agreement_command(
    out: Out,
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN...]", help="Outputs of finished runs, each a machine: URI or NAME=URI."),
    ] = None,
    readers: Annotated[
        str | None, typer.Option(help="CSV of reads: slide_id, reader, score; or slide_id and x_reader_NAME.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="Rater whose levels count as true, or majority (of the readers).")
    ] = None,
    endpoint_url: Endpoint = None,
    as_json: Json = False,
) -> None:
    """Compare readers and machines: kappas, agreement at each cut, panels, repeated reads."""
    machines = named_runs(runs or [], endpoint_url)
    place = answer_place(out, endpoint_url, readers)
    from her2core.analysis.agreement import compute_agreement
    from her2core.analysis.agreement_report import report_agreement
    from her2core.analysis.reads import gather

    reads = gather(machines, readers, endpoint_url)
    leave(report_agreement(compute_agreement(reads, reference)), place, as_json)


def named_runs(words: Sequence[str], endpoint_url: str | None) -> dict[str, Store]:
    """Outputs by name: ``NAME=URI``, or the last part of the address."""
    from her2core.storage.store import Store

    found: dict[str, Store] = {}
    for word in words:
        name, equals, uri = word.partition("=")
        if not equals or "/" in name:
            uri = word
            path = PurePosixPath(uri.removeprefix("s3://").rstrip("/"))
            name = f"{path.parent.name}/{path.name}".strip("/") if path.name == "out" else path.name or uri
        if name in found:
            raise ManifestError(f"two runs are called {name}; name them: NAME=URI")
        found[name] = Store(uri, endpoint_url=endpoint_url)
        found[name].reach()
    return found


def answer_place(out: str, endpoint_url: str | None, *read: str | None) -> Store:
    """Where an answer goes, before it is worked out: servers of this and of what is read answer.

    Called before the libraries of statistics are imported, which takes seconds.
    """
    from her2core.storage.s3check import check_bucket
    from her2core.storage.store import Store

    for uri in read:
        if uri is not None:
            check_bucket(uri, endpoint_url)
    place = Store(out, endpoint_url=endpoint_url)
    place.reach("write to")
    return place


def leave(answer: Answer, place: Store, as_json: bool) -> None:
    """Write an answer, and show its text or its tables."""
    from her2core.analysis.results import write_answer

    written = write_answer(place, answer)
    if as_json:
        tables = {table.name: table.arrow().to_pylist() for table in answer.tables}
        typer.echo(
            json.dumps({"title": answer.title, "files": written, "tables": tables}, indent=1, default=str)
        )
        return
    show(answer.text, console)
    console.print(
        f"{counted(len(written), 'file')}: {place.uri()}", markup=False, highlight=False, soft_wrap=True
    )


def show(text: str, to: Console) -> None:
    """Print an answer's Markdown: as it is to a file, laid out to its width on a terminal."""
    from her2cli.laid_out import LaidOut

    if to.is_terminal:
        to.print(LaidOut(text, hyperlinks=False))
    else:
        to.print(text, markup=False, highlight=False, soft_wrap=True)


@app.command("outcome", epilog=EXIT_CODES)
def outcome_command(
    run: RunOutput,
    clinical: Annotated[
        str, typer.Argument(metavar="CLINICAL", help="CSV with a row a line of therapy (path or s3://).")
    ],
    out: Out,
    biopsies: Annotated[
        str | None, typer.Option(help="CSV of days of biopsies: case_id, specimen_id, biopsy_date.")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Measure of heterogeneity, such as rao_q or eta2_250um (repeat for more)."),
    ] = None,
    cut_point: Annotated[
        list[str] | None, typer.Option(help="Measure whose cut-point is searched (repeat for more).")
    ] = None,
    endpoint_url: Endpoint = None,
    as_json: Json = False,
) -> None:
    """Relate HER2 and its heterogeneity to outcome under each class of therapy."""
    place = answer_place(out, endpoint_url, run, clinical, biopsies)
    from her2core.analysis.outcome import DEFAULT_METRICS, MEAN, compute_outcome
    from her2core.analysis.outcome_report import report_outcome
    from her2core.analysis.samples import join, read_biopsies, read_samples
    from her2core.analysis.treatments import read_lines
    from her2core.extras import need
    from her2core.storage.store import Store

    for package in ("lifelines", "statsmodels"):
        need("analysis", package)
    metrics = tuple(dict.fromkeys(metric or DEFAULT_METRICS))
    cuts = tuple(dict.fromkeys(cut_point or ()))
    lines = read_lines(clinical, endpoint_url)
    dates = read_biopsies(biopsies, endpoint_url) if biopsies else None
    store = Store(run, endpoint_url=endpoint_url)
    store.reach()
    samples = read_samples(store, (*metrics, *cuts), dates)
    found = compute_outcome(join(lines, samples), [m for m in metrics if m != MEAN], cuts)
    leave(report_outcome(found), place, as_json)


@app.command("rna", epilog=EXIT_CODES)
def rna_command(
    run: RunOutput,
    table: Annotated[
        str, typer.Argument(metavar="TABLE", help="CSV of ERBB2: case_id, value, unit, platform, ...")
    ],
    out: Out,
    cut: Annotated[
        float | None, typer.Option(help="Value from which on RNA counts as positive, as in the table.")
    ] = None,
    endpoint_url: Endpoint = None,
    as_json: Json = False,
) -> None:
    """Set ERBB2 by RNA beside HER2: correlation, AUC, agreement, specimens off the line."""
    place = answer_place(out, endpoint_url, run, table)
    from her2core.analysis.rna import compute_rna, read_rna
    from her2core.analysis.rna_report import report_rna
    from her2core.analysis.samples import read_samples
    from her2core.storage.store import Store

    store = Store(run, endpoint_url=endpoint_url)
    store.reach()
    found = compute_rna(read_rna(table, endpoint_url), read_samples(store, ()), cut)
    leave(report_rna(found), place, as_json)
