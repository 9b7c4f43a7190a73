"""What workers do for one slide before its cells: one small function a task, each free to run again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TypeVar

from her2core.errors import Reason, SlideError
from her2core.grid import Grid
from her2core.intake.inspect import inspect_row, require_scorable
from her2core.intake.outlines import check_outlines, outlines_identity
from her2core.intake.roi import read_roi
from her2core.params import ProfileParams, PyramidParams, RoiParams
from her2core.pixels import PixelFormat
from her2core.profile.build import build_profile
from her2core.pyramid import writer as pyramid
from her2core.pyramid.labels import write_label
from her2core.pyramid.reader import PyramidReader
from her2core.readers import SlideReader, shared_reader
from her2core.readers.icc import carried_profile
from her2core.records import Assay, PyramidRef, SlideInfo, SlideProfile, SlideRow
from her2core.storage.sources import Scratch, file_identity, file_stamp
from her2core.storage.store import Store

T = TypeVar("T")

STAGED_READERS = frozenset({"openslide", "dicom"})
"""Readers that need the whole file on a disk; the others read remote slides by ranges."""


@dataclass(frozen=True, slots=True)
class Source:
    """A slide file as a worker opens it; ``stamp`` is `file_stamp` from before it was inspected.

    ``outlines`` is the identity of the file of nuclei that the manifest names, if it does.
    """

    info: SlideInfo
    row: SlideRow
    scratch: Scratch
    endpoint_url: str | None
    stamp: str
    outlines: str = ""

    @contextmanager
    def opened(self) -> Iterator[SlideReader]:
        """Lend the process's reader of this slide, over a staged copy where the format needs one."""
        info = self.info
        staged = info.reader in STAGED_READERS and info.uri.startswith("s3://")
        place = self.scratch.stage(info.uri, self.endpoint_url) if staged else nullcontext(info.uri)
        with (
            place as path,
            shared_reader(
                path,
                identity=info.identity,
                scene=info.scene,
                mpp=info.mpp,
                uri=info.uri,
                assay=self.row.assay,
                channels=self.row.channels,
                endpoint_url=self.endpoint_url,
            ) as reader,
        ):
            yield reader

    def require_unchanged(self) -> None:
        """Refuse a file that is another one now than when it was inspected."""
        if file_stamp(self.info.uri, self.endpoint_url) == self.stamp:
            return
        if (
            file_identity(self.info.uri, self.endpoint_url)[1] != self.info.identity
        ):  # else it was only touched
            raise SlideError(
                Reason.FILE_CHANGED,
                f"{self.info.uri}: replaced while it was read; run again when it is complete.",
            )


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


def clear_scratch(scratch: Scratch) -> None:
    """Remove this machine's staged slides that no task uses."""
    scratch.clear()


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """What a run wants to know of a worker: the version of this package, and some of its environment."""

    version: str
    environment: Mapping[str, str | None]


def worker_facts(variables: Sequence[str]) -> WorkerFacts:
    """What this worker is."""
    return WorkerFacts(version("her2cohort"), {name: os.environ.get(name) for name in variables})


def run_task(job: Callable[[], T]) -> T:
    """Run one task: the one function that is sent to the cluster."""
    return job()


def shard(
    source: Source, store: Store, path: str, grid: Grid, params: PyramidParams, task: tuple[int, int]
) -> pyramid.ShardWritten:
    """Write one shard of level 0 and its part of the levels above."""
    try:
        with source.opened() as reader:
            return pyramid.write_shard(reader, store, path, grid, params, task)
    finally:  # what half of another file looks like is no reason either
        try:
            source.require_unchanged()
        except SlideError:
            pyramid.undo_shard(store, path, *task)
            raise


def finish_pyramid(
    source: Source, store: Store, path: str, grid: Grid, settled: pyramid.Settled
) -> PyramidRef:
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
