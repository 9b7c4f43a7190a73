"""What workers do for one slide before its cells: one small function a task, each free to run again."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from her2core.errors import SlideError
from her2core.grid import Grid
from her2core.intake.inspect import inspect_row, require_scorable
from her2core.intake.outlines import check_outlines, outlines_identity
from her2core.intake.roi import read_roi
from her2core.params import ProfileParams, PyramidParams, RoiParams, Settled
from her2core.pixels import PixelFormat
from her2core.profile.build import build_profile
from her2core.pyramid import writer as pyramid
from her2core.pyramid.labels import write_label
from her2core.pyramid.reader import PyramidReader
from her2core.readers.icc import carried_profile
from her2core.records import Assay, PyramidRef, SlideProfile, SlideRow
from her2core.stages.source import Source
from her2core.storage.sources import Scratch, file_stamp
from her2core.storage.store import Store


def inspect(row: SlideRow, scratch: Scratch, endpoint_url: str | None, roi: RoiParams) -> Source:
    """Read a slide's header and its region of interest, and refuse what cannot be scored."""
    stamp = file_stamp(row.uri, endpoint_url)
    info = inspect_row(row, scratch, endpoint_url)
    if row.roi_uri is not None:  # now, and not when all its cells are measured
        mpp = require_scorable(info, row.assay)
        read_roi(row.roi_uri, info.height, info.width, mpp, roi, endpoint_url=endpoint_url)
    outlines = ""
    if row.cells_uri is not None:
        check_outlines(row.cells_uri, endpoint_url)
        outlines = outlines_identity(row.cells_uri, endpoint_url)
    return Source(info, row, scratch, endpoint_url, stamp, outlines)


def shard(
    source: Source, store: Store, path: str, grid: Grid, params: PyramidParams, task: tuple[int, int]
) -> None:
    """Write what one task of the pyramid writes."""
    shards(source, store, path, grid, params, [task], frozenset())


def shards(
    source: Source,
    store: Store,
    path: str,
    grid: Grid,
    params: PyramidParams,
    tasks: Sequence[tuple[int, int]],
    there: Collection[tuple[int, int]] | None = None,
) -> None:
    """Write what some tasks of the pyramid write, those left out that are there.

    Parameters
    ----------
    there
        Those that are there; by default they are listed once.

    Raises
    ------
    SlideError
        If the slide cannot be read, or was replaced meanwhile; then none of them is done.
    """
    if there is None:
        there = pyramid.shards_done(store, path, grid)
    missing = [task for task in tasks if task not in there]
    if not missing:
        return
    try:
        with source.opened() as reader:
            pyramid.write_shards(reader, store, path, grid, params, missing)
    finally:  # what half of another file looks like is no reason either
        try:
            source.require_unchanged()
        except SlideError:
            for task in tasks:
                pyramid.undo_shard(store, path, grid, task)
            raise


def finish_pyramid(source: Source, store: Store, path: str, grid: Grid, settled: Settled) -> PyramidRef:
    """Write the top levels and then the metadata."""
    pixels, params = PixelFormat.of(source.info), settled.params
    pyramid.write_top(store, path, grid, params, pixels=pixels)
    mpp = require_scorable(source.info, source.row.assay)
    return pyramid.finalise(
        store,
        path,
        grid,
        params,
        identity=source.info.identity,
        mpp=mpp,
        pixels=pixels,
        icc_profile=_icc_profile(source),
        name=source.row.slide_id,
        fallback=settled.fallback,
    )


def _icc_profile(source: Source) -> bytes:
    """The slide's colour profile; a file that is known to have none is not opened."""
    if source.info.colour_profile is None:
        return b""
    with source.opened() as reader:
        return carried_profile(reader)


def profile(store: Store, ref: PyramidRef, params: ProfileParams, assay: Assay, label: str) -> SlideProfile:
    """Freeze everything slide-global, and store the tissue mask as a label of the pyramid."""
    found, mask = build_profile(PyramidReader(store, ref), ref, params, assay)
    write_label(store, ref, label, mask, found.tissue_level)
    return replace(found, tissue_label=label)
