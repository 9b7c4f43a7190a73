"""The verb that converts slides alone: ``pyramid``."""

from __future__ import annotations

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any

import typer

from her2cli.common import EXIT_CODES, PARTIAL, ConfigFile, Json, app, complain, console, say
from her2core.errors import SlideError, StoreError
from her2core.records import Assay
from her2core.text import counted

if TYPE_CHECKING:
    from her2core.config import Config
    from her2core.records import PyramidRef, SlideRow
    from her2core.storage.store import Store

MAX_THREADS = 4
"""Shards converted at once; each holds some 100 MB (ours)."""


@app.command("pyramid", epilog=EXIT_CODES)
def pyramid_command(
    slides: Annotated[list[str], typer.Argument(metavar="SLIDE...", help="Slide files or s3:// URIs.")],
    out: Annotated[str, typer.Option("--out", "-o", help="Folder or s3:// URI; a pyramid a slide in it.")],
    codec: Annotated[
        str | None, typer.Option(help="source, blosc-lz4, zstd, htj2k, or jpeg-90; else the configuration's.")
    ] = None,
    scene: Annotated[
        str | None, typer.Option(help="Number of the image, of a file that holds several.")
    ] = None,
    mpp: Annotated[float | None, typer.Option(help="µm/px, where the file does not state it.")] = None,
    assay: Annotated[
        Assay, typer.Option(help="HER2-FISH is stored by channels, all others in colour.")
    ] = Assay.IHC,
    channels: Annotated[str | None, typer.Option(help="Which is which: DAPI=2;HER2=0;CEP17=1.")] = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Convert slides to OME-Zarr pyramids, and do nothing else."""
    from her2core.config import load_config
    from her2core.intake.draft import slide_id_of
    from her2core.pyramid.codecs import require_codec
    from her2core.records import SlideRow
    from her2core.stages.run import reach_slides
    from her2core.storage.store import Store

    settings = load_config(config)
    if codec is not None:
        require_codec(codec)
        settings = settings.model_copy(update={"pyramid": replace(settings.pyramid, codec=codec)})
    store = Store(out, endpoint_url=settings.run.endpoint_url)
    store.probe()
    reach_slides(slides, settings.run.endpoint_url)
    taken: set[str] = set()
    names = [slide_id_of(PurePosixPath(uri.rstrip("/")).name, taken) for uri in slides]
    _require_new(store, names)
    made: list[dict[str, Any]] = []
    for uri, name in zip(slides, names, strict=True):
        say(f"{uri}: converting")
        try:
            row = SlideRow(name, name, uri, assay, scene=scene, mpp=mpp, channels=channels)
            ref = _convert(store, settings, row)
        except SlideError as error:
            complain("error", str(error))
            continue
        made.append({"uri": store.uri(ref.path), **dataclasses.asdict(ref)})
        if not as_json:
            console.print(_line(store, ref), highlight=False, markup=False, soft_wrap=True)
    if as_json:
        typer.echo(json.dumps(made, indent=1))
    if len(made) < len(slides):
        raise typer.Exit(PARTIAL)


def _require_new(store: Store, names: list[str]) -> None:
    """Refuse to replace a pyramid, before the first slide is converted."""
    for path in map(_path, names):
        if store.exists(f"{path}/zarr.json"):
            raise StoreError(f"{store.uri(path)} is there already; delete it, or give another --out")


def _path(name: str) -> str:
    return f"{name}.zarr"


def _convert(store: Store, settings: Config, row: SlideRow) -> PyramidRef:
    """Convert one slide, shards side by side in threads."""
    from dask.system import cpu_count

    from her2core.pyramid.writer import grid_of, settle
    from her2core.stages import prepare

    path, run = _path(row.slide_id), settings.run
    source = prepare.inspect(row, run.scratch(), run.endpoint_url, settings.roi)
    settled = settle(source.info, settings.pyramid)
    grid = grid_of(source.info.height, source.info.width, settled.params)
    task = partial(prepare.shard, source, store, path, grid, settled.params)
    with ThreadPoolExecutor(min(cpu_count(), MAX_THREADS)) as pool:
        for _ in pool.map(task, grid.tasks()):
            pass
    return prepare.finish_pyramid(source, store, path, grid, settled)


def _line(store: Store, ref: PyramidRef) -> str:
    """What became of a slide, in a line."""
    lines = [
        f"{store.uri(ref.path)}: {ref.codec}, {ref.bytes_written / 1e6:,.1f} MB in "
        f"{counted(ref.objects, 'object')}"
    ]
    if ref.fallback:
        lines.append(f"  stored without loss: {ref.fallback}")
    if ref.tiles_encoded:
        lines.append(f"  {ref.tiles_encoded} tiles could not be copied, and are stored without loss")
    return "\n".join(lines)
