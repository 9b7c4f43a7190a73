"""The verb that makes a laboratory's own tumour model: ``learn-tumour``."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from her2cli.common import EXIT_CODES, ConfigFile, Endpoint, Json, app, console, folder_of
from her2core.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from her2core.analysis.learn_tumour import Assessment, Confusion, LearnedModel

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@app.command("learn-tumour", epilog=EXIT_CODES)
def learn_tumour_command(
    manifest: Annotated[
        str, typer.Argument(help="Manifest whose roi_uri names regions of tumour and of other tissue.")
    ],
    run: Annotated[str, typer.Option(help="Output of the run that measured these slides (path or s3://).")],
    out: Annotated[str, typer.Option("--out", "-o", help="JSON file of the model (path or s3://).")],
    name: Annotated[str | None, typer.Option(help="Name of the model; by default that of the file.")] = None,
    config: ConfigFile = None,
    endpoint_url: Endpoint = None,
    as_json: Json = False,
) -> None:
    """Learn a model of tumour cells from drawn regions, cross-validated, for ihc_score.tumour_model."""
    from her2core.analysis.learn_tumour import learn_tumour, model_at
    from her2core.config import load_config
    from her2core.intake.manifest import read_manifest
    from her2core.storage.store import Store

    file = out.rpartition("/")[2]
    if not file.endswith(".json"):
        raise ConfigError(f"--out {out}: expected the address of a .json file")
    called = name or PurePosixPath(file).stem
    if not NAME.fullmatch(called):
        raise ConfigError(f"--name {called}: expected letters, digits, '.', '_' and '-', 64 at most")
    settings = load_config(config)
    endpoint = endpoint_url or settings.run.endpoint_url
    store = Store(run, endpoint_url=endpoint)
    store.reach()
    place = Store(folder_of(out), endpoint_url=endpoint)
    place.reach("write to")
    rows = read_manifest(manifest, endpoint)
    before = model_at(out, called, endpoint)
    learned = learn_tumour(rows, store, called, settings.roi, before=before, endpoint_url=endpoint)
    try:
        place.write_bytes(file, learned.json.encode())
    except OSError as error:
        raise StoreError(f"--out {out}: cannot be written: {error.strerror or error}") from error
    if as_json:
        typer.echo(json.dumps({"out": out, **json.loads(learned.json)}, indent=1))
        return
    _show(learned, out)


def _show(learned: LearnedModel, out: str) -> None:
    own, shipped = learned.cross_validated, learned.shipped
    console.print(_matrix(own))
    console.print(
        _means(f"{learned.model.name}, each patient left out", own), highlight=False, soft_wrap=True
    )
    console.print(_means(f"{learned.shipped_name}, as shipped", shipped), highlight=False, soft_wrap=True)
    if own.balanced_accuracy <= shipped.balanced_accuracy:
        console.print(
            f"The shipped model does as well or better on these slides: draw more, or keep "
            f"{learned.shipped_name}.",
            highlight=False,
            soft_wrap=True,
        )
    console.print(
        f"{learned.model.label}: {out}\n"
        f"Use it with ihc_score.tumour_model: {out}. Research use only, not for diagnosis.",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _matrix(confusion: Assessment) -> Table:
    title = "Drawn cells by what a model without their patient makes of them"
    kinds = list(asdict(confusion.total))[1:]
    columns = ("slide", *(kind.replace("_", ", ") for kind in kinds), "sensitivity", "specificity")
    shown = Table(*columns, box=None, title=title, title_justify="left")
    for slide in (*confusion.slides, confusion.total):
        shown.add_row(*_cells(slide, kinds))
    return shown


def _cells(slide: Confusion, kinds: list[str]) -> list[str]:
    rates = ("–" if rate is None else f"{rate:.2f}" for rate in (slide.sensitivity, slide.specificity))
    return [slide.slide_id, *(str(getattr(slide, kind)) for kind in kinds), *rates]


def _means(what: str, confusion: Assessment) -> str:
    return (
        f"mean over slides, {what}: sensitivity {confusion.sensitivity:.2f}, specificity "
        f"{confusion.specificity:.2f}, balanced accuracy {confusion.balanced_accuracy:.2f}"
    )
