"""The verb that writes a finished run in the forms of other programs: ``export``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from her2cli.common import EXIT_CODES, Endpoint, Json, RunOutput, app, console
from her2core.errors import ConfigError
from her2core.text import counted

if TYPE_CHECKING:
    from her2core.export.finished import FinishedRun, Selection
    from her2core.storage.store import Store


class Form(StrEnum):
    """What a run is written as."""

    CSV = "csv"
    XLSX = "xlsx"
    QUPATH = "qupath"
    ANNDATA = "anndata"
    SPATIALDATA = "spatialdata"
    LABELS = "labels"
    CBIOPORTAL = "cbioportal"
    CRATE = "ro-crate"
    DICOM = "dicom"


_OF_CELLS = frozenset({Form.QUPATH, Form.ANNDATA, Form.SPATIALDATA, Form.LABELS, Form.DICOM})
_TAKEN_BY: Mapping[str, frozenset[Form]] = {
    **dict.fromkeys(("--slide", "--case", "--cell-class", "--box", "--tumour"), _OF_CELLS),
    "--contours": frozenset({Form.QUPATH, Form.SPATIALDATA, Form.LABELS}),
    "--regions-um": frozenset({Form.QUPATH}),
    "--cells": frozenset({Form.CSV}),
    "--viewer": frozenset({Form.CBIOPORTAL}),
}
"""Forms that an option acts on; others refuse it, so that no more is given away than was chosen."""


@app.command("export", epilog=EXIT_CODES)
def export_command(
    run: RunOutput,
    form: Annotated[Form, typer.Argument(help="What it is written as.")],
    out: Annotated[str, typer.Option("--out", "-o", help="Folder or s3:// address for the files.")],
    slide: Annotated[list[str] | None, typer.Option(help="This slide alone (repeat for more).")] = None,
    case: Annotated[list[str] | None, typer.Option(help="Slides of this case (repeat for more).")] = None,
    cell_class: Annotated[
        list[str] | None, typer.Option(help="Cells of this class alone: 0, 1, 2u, 2, 3 (repeat for more).")
    ] = None,
    box: Annotated[
        str | None, typer.Option(metavar="X,Y,WIDTH,HEIGHT", help="Cells in this box, in level-0 px.")
    ] = None,
    tumour: Annotated[bool, typer.Option("--tumour", help="Tumour cells alone.")] = False,
    contours: Annotated[
        bool, typer.Option("--contours", help="Cells with their contours: stored ones, or outlined again.")
    ] = False,
    regions_um: Annotated[
        float | None, typer.Option(help="qupath: regions of this size as annotations, in µm.")
    ] = None,
    cells: Annotated[bool, typer.Option("--cells", help="csv: the tables of cells and nuclei too.")] = False,
    study: Annotated[str, typer.Option(help="cbioportal: identifier of the study.")] = "her2cohort",
    viewer: Annotated[
        str | None, typer.Option(help="cbioportal: address of a viewer, with {slide_id} in it.")
    ] = None,
    endpoint_url: Endpoint = None,
    as_json: Json = False,
) -> None:
    """Write a finished run for other programs: spreadsheets, QuPath, AnnData, cBioPortal, RO-Crate, DICOM."""
    from her2core.export.finished import FinishedRun, Selection
    from her2core.storage.store import Store

    given = {
        "--slide": slide, "--case": case, "--cell-class": cell_class, "--box": box, "--tumour": tumour,
        "--contours": contours, "--regions-um": regions_um, "--cells": cells, "--viewer": viewer,
    }  # fmt: skip
    for option, value in given.items():
        if value and form not in _TAKEN_BY[option]:
            forms = ", ".join(sorted(_TAKEN_BY[option]))
            raise ConfigError(f"{option} does nothing for {form}; it is for {forms}")
    store, place = Store(run, endpoint_url=endpoint_url), Store(out, endpoint_url=endpoint_url)
    store.reach()
    place.reach("write to")
    chosen = Selection(tuple(slide or ()), tuple(case or ()), tuple(cell_class or ()), _box(box), tumour)
    finished = FinishedRun(store)
    if form is Form.QUPATH:
        from her2core.export.qupath import export_qupath

        written = export_qupath(finished, place, chosen, contours, regions_um)
    elif form is Form.CBIOPORTAL:
        from her2core.export.cbioportal import export_cbioportal

        written = export_cbioportal(finished, place, study, study, viewer=viewer)
    elif form is Form.CSV:
        from her2core.export.tables import export_csv

        written = export_csv(finished, place, cells)
    else:
        written = _others(form, finished, place, chosen, contours)
    if as_json:
        typer.echo(json.dumps({"out": place.uri(), "files": written}, indent=1))
        return
    for path in written[:20]:
        console.print(path, markup=False, highlight=False, soft_wrap=True)
    console.print(
        f"{counted(len(written), 'file or folder', 'files or folders')}: {place.uri()}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _others(form: Form, run: FinishedRun, out: Store, chosen: Selection, contours: bool) -> list[str]:
    if form is Form.XLSX:
        from her2core.export.tables import export_xlsx

        return export_xlsx(run, out)
    if form is Form.ANNDATA:
        from her2core.export.single_cell import export_anndata

        return export_anndata(run, out, chosen)
    if form is Form.SPATIALDATA:
        from her2core.export.single_cell import export_spatialdata

        return export_spatialdata(run, out, chosen, contours)
    if form is Form.LABELS:
        from her2core.export.labels import export_labels

        return export_labels(run, out, chosen)
    if form is Form.DICOM:
        from her2core.export.dicom import export_dicom

        return export_dicom(run, out, chosen)
    from importlib.resources import files

    from her2core.export.crate import export_crate

    return export_crate(run, out, (files("flows") / "cohort.py").read_bytes())


def _box(text: str | None) -> tuple[float, float, float, float] | None:
    if text is None:
        return None
    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--box {text}: expected X,Y,WIDTH,HEIGHT in level-0 px") from None
    if not (width > 0 and height > 0):
        raise ConfigError(f"--box {text}: width and height are above 0")
    return x, y, width, height
