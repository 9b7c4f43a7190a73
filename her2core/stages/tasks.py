"""The tasks that a run sends to its workers, and the records that come back.

The driver names these functions and loads nothing that computes: what a task needs is imported where it runs.
Each is free to run again. What a stage makes is published by the task that made it, and a stage whose record
is there is not done again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter

from her2core import versions
from her2core.config import Config
from her2core.params import IHCParams, ISHParams, ProfileParams, Settled
from her2core.records import (
    Assay,
    CellsRef,
    ContoursPart,
    ContoursRef,
    OutlinesRef,
    PyramidRef,
    SlideInfo,
    SlideProfile,
    SlideRow,
)
from her2core.scoring.keyed import Judging
from her2core.stages.finished import SlideFinished
from her2core.stages.source import Source
from her2core.storage.store import Store, content_key, record_of
from her2core.storage.waiting import side_by_side

T = TypeVar("T")

CONTOURS = "contours"
"""Folder of the outlines of cells, where they are kept."""


@dataclass(frozen=True, slots=True)
class SlideWork:
    """What every task of one slide is given; ``shown`` is its row as tables and records show it."""

    store: Store
    config: Config
    row: SlideRow
    shown: SlideRow

    @property
    def kernel(self) -> IHCParams | ISHParams:
        """Parameters of what measures its cells or nuclei."""
        return self.config.ihc if self.row.assay == Assay.IHC else self.config.ish

    @property
    def judging(self) -> Judging:
        """Parameters of its score, with the rules that are for it."""
        return Judging(self.config.ihc_score, self.config.ish_score).of(self.row)


@dataclass(frozen=True, slots=True)
class Keys:
    """Content keys of a slide's stages.

    ``outlines`` only where the manifest names another program's, ``contours`` only where they are kept.
    """

    pyramid: str
    profile: str
    cells: str
    slide: str
    outlines: str | None = None
    contours: str | None = None

    def records(self) -> tuple[str, ...]:
        """Places of the records that a result is made of, and its own."""
        stages = ("pyramid", "profile", "cells", "slide", "outlines", "contours")
        made = ((stage, getattr(self, stage)) for stage in stages)
        return tuple(record_of(stage, key) for stage, key in made if key is not None)


@dataclass(frozen=True, slots=True)
class Inspected:
    """A slide that was inspected, and what is published of it already.

    Attributes
    ----------
    settled
        How its pyramid is stored.
    shards
        Level-0 shards of it: what there is to do.
    blocks
        Tasks of the pyramid's grid, which cannot be cut.
    finished
        Its result; with it nothing else was looked for.
    """

    source: Source
    keys: Keys
    settled: Settled
    shards: int
    blocks: int
    outlines: OutlinesRef | None = None
    pyramid: PyramidRef | None = None
    profile: SlideProfile | None = None
    cells: CellsRef | None = None
    contours: ContoursRef | None = None
    finished: SlideFinished | None = None


@dataclass(frozen=True, slots=True)
class Made(Generic[T]):
    """A record that was published just now, and how many bytes were written for it."""

    record: T
    bytes_written: int


@dataclass(frozen=True, slots=True)
class Measured:
    """Parts that were measured, how many rows these hold, and files of outlines of their cells."""

    parts: tuple[str, ...]
    rows: int
    contours: tuple[ContoursPart, ...]


@dataclass(frozen=True, slots=True)
class Share:
    """The ``number``-th of ``count`` shares of a slide's work: what one task does."""

    number: int
    count: int

    def slice(self, items: Sequence[T]) -> Sequence[T]:
        """Its share in one piece: neighbours are read together."""
        return items[len(items) * self.number // self.count : len(items) * (self.number + 1) // self.count]

    def deal(self, items: Sequence[T]) -> Sequence[T]:
        """Every ``count``-th of them: what lies close together is about equally much work."""
        return items[self.number :: self.count]


def inspect(work: SlideWork) -> Inspected:
    """Read a slide's header and its region of interest, refuse what cannot be scored, and look up the rest.

    Raises
    ------
    SlideError
        As `prepare.inspect`.
    """
    from her2core.pyramid import writer
    from her2core.stages import prepare

    row, config, endpoint = work.row, work.config, work.config.run.endpoint_url
    source = prepare.inspect(row, config.run.scratch(), endpoint, config.roi)
    info = source.info
    settled = writer.settle(info, config.pyramid)
    grid = writer.grid_of(info.height, info.width, settled.params)
    size = sum(1 for _ in grid.shards(0)), len(grid.tasks())

    outlines = _outlines_key(work, source)
    named = [row.slide_id, *writer.key_inputs(info)]  # the image is called by the slide's id
    pyramid = content_key("pyramid", versions.PYRAMID, config.pyramid, named)
    profile = content_key("profile", versions.PROFILE, _colour(work), [pyramid, row.assay])
    given = [] if outlines is None else [outlines]
    cells = content_key("cells", versions.CELLS, work.kernel, [profile, *given])
    contours = _contours_key(work, cells)
    keys = Keys(pyramid, profile, cells, _result_key(work, cells, _region(work)), outlines, contours)

    if (done := published_result(work.store, keys.slide)) is not None:
        return Inspected(source, keys, settled, *size, finished=done)
    records: dict[str, tuple[str | None, type[Any]]] = {
        "outlines": (outlines, OutlinesRef),
        "pyramid": (pyramid, PyramidRef),
        "profile": (profile, SlideProfile),
        "cells": (cells, CellsRef),
        "contours": (contours, ContoursRef),
    }
    keyed = {stage: (key, kind) for stage, (key, kind) in records.items() if key is not None}
    looks = [partial(_found, work.store, stage, key, kind) for stage, (key, kind) in keyed.items()]
    found: dict[str, Any] = dict(zip(keyed, side_by_side(work.store, looks), strict=True))
    return replace(Inspected(source, keys, settled, *size), **found)


def outline(work: SlideWork, source: Source, key: str) -> Made[OutlinesRef]:
    """Read another program's nuclei once, for all work units."""
    from her2core.stages import outlines

    made = outlines.publish(
        work.store,
        f"outlines/{key}.parquet",
        _size(work, source),
        str(work.row.cells_uri),
        source.outlines,
        work.config.ihc,
        work.config.run.endpoint_url,
    )
    made = replace(made, used=replace(made.used, source=str(work.shown.cells_uri)))
    return _publish(work.store, "outlines", key, made)


def convert(store: Store, source: Source, path: str, settled: Settled, share: Share) -> int:
    """Write a share of a pyramid's blocks, those left out that are there; how many it is."""
    from her2core.pyramid.writer import grid_of
    from her2core.stages import prepare

    grid = grid_of(source.info.height, source.info.width, settled.params)
    tasks = share.slice(grid.tasks())
    prepare.shards(source, store, path, grid, settled.params, tasks)
    return len(tasks)


def finish_pyramid(store: Store, source: Source, path: str, settled: Settled, key: str) -> Made[PyramidRef]:
    """Write the top levels and the metadata of a pyramid whose shards are there."""
    from her2core.pyramid.writer import grid_of
    from her2core.stages import prepare

    grid = grid_of(source.info.height, source.info.width, settled.params)
    ref = prepare.finish_pyramid(source, store, path, grid, settled)
    made = _publish(store, "pyramid", key, ref)
    return replace(made, bytes_written=made.bytes_written + ref.bytes_written)


def profile(work: SlideWork, ref: PyramidRef, key: str) -> Made[SlideProfile]:
    """Freeze everything slide-global."""
    from her2core.stages import prepare

    found = prepare.profile(work.store, ref, _colour(work), work.row.assay, f"tissue-{key[:8]}")
    return _publish(work.store, "profile", key, found)


def measure(
    store: Store,
    ref: PyramidRef,
    frozen: SlideProfile,
    params: IHCParams | ISHParams,
    key: str,
    outlines: str | None,
    contours_key: str | None,
    share: Share,
) -> Measured:
    """Measure a share of a slide's parts, work unit by work unit; those that are done are only counted."""
    from her2core.stages import cells

    folder, kept = f"parts/cells/{key}", _contours_folder(contours_key)
    parts = cells.by_part(cells.units(store, ref, frozen, params, folder, outlines, kept))
    mine = share.deal(sorted(parts))
    units = [unit for part in mine for unit in parts[part]]
    there = {name for place in (folder, kept) if place and units for name in store.list(place)}
    count = cells.measure(units, there)
    lines = (ContoursPart(unit.contours, unit.box_px0) for unit in units if unit.contours is not None)
    return Measured(tuple(mine), count, tuple(lines))


def finish(
    work: SlideWork,
    info: SlideInfo,
    ref: PyramidRef,
    frozen: SlideProfile,
    measured: CellsRef,
    outlines: OutlinesRef | None,
    cells_key: str,
) -> tuple[str, Made[SlideFinished]]:
    """Score a slide from its cells or nuclei; the key of the result, and the result.

    The key is made now: a region of interest may have been drawn anew since the slide was inspected.
    """
    from her2core.stages.slide import SlideJob
    from her2core.stages.slide_ihc import finish_ihc
    from her2core.stages.slide_ish import finish_ish

    config, row = work.config, work.row
    endpoint = config.run.endpoint_url
    region = _region(work)
    key = _result_key(work, cells_key, region)
    if (done := published_result(work.store, key)) is not None:
        return key, Made(done, 0)
    given = (work.store, work.shown, info, ref, frozen, measured)
    rest = (endpoint, config.heterogeneity, config.roi, row.roi_uri, outlines, region or None)
    if row.assay == Assay.IHC:
        kept = _contours_folder(_contours_key(work, cells_key))
        made = finish_ihc(SlideJob(*given, work.judging.score, config.ihc, *rest, contours=kept), key)
    else:
        made = finish_ish(SlideJob(*given, work.judging.ish, config.ish, *rest), key)
    return key, _publish(work.store, "slide", key, made)


def _colour(work: SlideWork) -> ProfileParams:
    """Parameters of the profile, with the background that the manifest states."""
    params = work.config.profile
    return replace(params, background=work.row.background or params.background)


def _region(work: SlideWork) -> str:
    """Identity of the region's file; empty without one."""
    from her2core.intake.roi import roi_identity

    uri = work.row.roi_uri
    return "" if uri is None else roi_identity(uri, work.config.run.endpoint_url)


def _contours_key(work: SlideWork, cells_key: str) -> str | None:
    """Key of the outlines of a slide's cells, if the configuration keeps them."""
    if work.row.assay != Assay.IHC or work.config.outlines.keep != "all":
        return None
    return content_key("contours", versions.CONTOURS, {}, [cells_key])


def _contours_folder(key: str | None) -> str | None:
    """Where outlines of a key lie; None without a key."""
    return None if key is None else f"{CONTOURS}/{key}"


def _result_key(work: SlideWork, cells_key: str, region: str) -> str:
    from her2core.stages.slide import result_key

    config, judging = work.config, work.judging
    params = judging.score if work.row.assay == Assay.IHC else judging.ish
    kept = _contours_folder(_contours_key(work, cells_key))
    return result_key(work.shown, cells_key, params, config.heterogeneity, config.roi, region, kept)


def _size(work: SlideWork, source: Source) -> Any:
    from her2core.intake.inspect import require_scorable
    from her2core.stages.outlines import SlideSize

    info = source.info
    return SlideSize(info.height, info.width, require_scorable(info, work.row.assay))


def _outlines_key(work: SlideWork, source: Source) -> str | None:
    """Key of another program's nuclei, if the manifest names them."""
    if work.row.cells_uri is None:
        return None
    named = [source.outlines, *map(str, _size(work, source))]
    return content_key("outlines", versions.OUTLINES, work.config.ihc, named)


@cache
def _adapter(kind: type[T]) -> TypeAdapter[T]:
    """What writes and reads records of a kind."""
    return TypeAdapter(kind)


def _found(store: Store, stage: str, key: str, kind: type[T]) -> T | None:
    """The published record of a stage; None if it is not there."""
    try:
        data = store.read_bytes(record_of(stage, key))
    except FileNotFoundError:
        return None
    made: TypeAdapter[T] = _adapter(kind)  # type: ignore[arg-type]  # classes can be hashed
    return made.validate_json(data)


def _publish(store: Store, stage: str, key: str, record: T) -> Made[T]:
    """Publish what a stage made: from now on it is done."""
    made: TypeAdapter[T] = _adapter(type(record))  # type: ignore[arg-type]
    text = made.dump_json(record, indent=1)
    store.write_bytes(record_of(stage, key), text)
    return Made(record, len(text))


def publish_cells(store: Store, key: str, shares: Sequence[Measured]) -> Made[CellsRef]:
    """Publish the parts of a slide's cells or nuclei, when all are there."""
    parts = tuple(sorted(part for share in shares for part in share.parts))
    return _publish(store, "cells", key, CellsRef(parts, sum(share.rows for share in shares)))


def publish_contours(store: Store, key: str, shares: Sequence[Measured]) -> Made[ContoursRef]:
    """Publish the outlines of a slide's cells, when all are there."""
    parts = sorted((part for share in shares for part in share.contours), key=lambda part: part.path)
    return _publish(store, "contours", key, ContoursRef(tuple(parts)))


def published_result(store: Store, key: str) -> SlideFinished | None:
    """A slide's published result; None if it is not there."""
    return _found(store, "slide", key, SlideFinished)
