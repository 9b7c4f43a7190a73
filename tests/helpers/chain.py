"""One slide through every stage in this process, without Dask: the cluster's tasks, in any order."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from her2core.intake.outlines import outlines_identity
from her2core.params import (
    HeterogeneityParams,
    IHCParams,
    ISHParams,
    ISHScoreParams,
    ProfileParams,
    PyramidParams,
    ScoreParams,
)
from her2core.pictures import canvas
from her2core.pixels import PixelFormat
from her2core.pyramid import writer as pyramid
from her2core.readers import MemoryReader, SlideReader
from her2core.records import Assay, Box, CellsRef, ContoursPart, ContoursRef, SlideProfile, SlideRow
from her2core.stages import cells, outlines, prepare
from her2core.stages.finished import SlideFinished
from her2core.stages.slide import SlideJob
from her2core.stages.slide_ihc import finish_ihc
from her2core.stages.slide_ish import finish_ish
from her2core.storage.store import Store, record_of

Cut = Callable[[tuple[cells.Unit, ...]], Sequence[cells.Unit]]

BLANK = np.zeros((1, 1, 4), np.uint8)
"""What pictures are made of: no test of the chain looks at one, and to draw them takes half of its time."""

HETEROGENEITY = HeterogeneityParams(replicates=99, permutations=99, biopsies=99)
"""Few draws: most tests of the chain look elsewhere."""


def score(
    reader: SlideReader,
    folder: Path,
    params: PyramidParams,
    *,
    order: int = 0,
    cut: Cut = tuple,
    score_params: ScoreParams | None = None,
    row: SlideRow | None = None,
    assay: Assay = Assay.IHC,
    cells_uri: str | None = None,
    keep: bool = False,
) -> tuple[SlideProfile, pa.Table, SlideFinished]:
    """Score a slide with tasks in a shuffled order, and work units cut as asked.

    With ``keep`` the outlines of all cells are stored, as ``contours/k``.

    Returns
    -------
    profile, cells, finished
        ``cells`` are the rows of the slide's lake file: cells or nuclei.
    """
    shuffled = random.Random(order)
    store, info, path = Store(str(folder)), reader.info, "pyramids/p"
    params = pyramid.settle(info, params).params
    grid = pyramid.grid_of(info.height, info.width, params)
    tasks = list(grid.tasks())
    shuffled.shuffle(tasks)
    for task in tasks:
        pyramid.write_shards(reader, store, path, grid, params, [task])
    pixels = PixelFormat.of(info)
    pyramid.write_top(store, path, grid, params, pixels=pixels)
    ref = pyramid.finalise(store, path, grid, params, identity="test", mpp=info.mpp or 0.25, pixels=pixels)
    profile = prepare.profile(store, ref, ProfileParams(), assay, "tissue")
    kernel = IHCParams() if assay == Assay.IHC else ISHParams()
    given = None
    if cells_uri is not None:
        digest = outlines_identity(cells_uri)
        size = outlines.SlideSize(info.height, info.width, ref.mpp)
        given = outlines.publish(store, "outlines/k.parquet", size, cells_uri, digest, IHCParams(), None)
    place = given.path if given else None
    kept = "contours/k" if keep else None
    units = list(cut(cells.units(store, ref, profile, kernel, "parts/cells/k", place, kept)))
    shuffled.shuffle(units)
    count = cells.measure(units)
    if keep:
        parts = tuple(ContoursPart(str(unit.contours), unit.box_px0) for unit in units)
        record = TypeAdapter(ContoursRef).dump_json(ContoursRef(parts))
        store.write_bytes(record_of("contours", "k"), record)
    measured = CellsRef(tuple(sorted(cells.by_part(units))), count)
    row = row or SlideRow("s1", "c1", "memory", assay)
    inputs = (store, row, info, ref, profile, measured)
    with patch.object(canvas, "pixels_of", lambda figure: BLANK):
        if isinstance(kernel, IHCParams):
            rules = score_params or ScoreParams()
            ihc = SlideJob(*inputs, rules, kernel, None, HETEROGENEITY, outlines=given, contours=kept)
            finished = finish_ihc(ihc, "0123456789ab")
        else:
            ish = SlideJob(*inputs, ISHScoreParams(), kernel, None, HETEROGENEITY)
            finished = finish_ish(ish, "0123456789ab")
    assert finished.cells is not None
    table = "cells" if assay == Assay.IHC else "nuclei"
    return profile, pq.read_table(folder / "tables" / table / finished.cells.path), finished


def at_lines(rows: Sequence[int], columns: Sequence[int]) -> Cut:
    """Cut the plane at these pixel rows and columns instead of at shards."""

    def cut(units: tuple[cells.Unit, ...]) -> list[cells.Unit]:
        one = units[0]
        height, width = one.pyramid.shapes[one.level]
        ys = [0, *sorted({y for y in rows if 0 < y < height}), height]
        xs = [0, *sorted({x for x in columns if 0 < x < width}), width]
        return [
            replace(
                one,
                box=Box(y0, x0, y1, x1),
                part=f"parts/cells/k/{i:05d}-{j:05d}.parquet",
                contours=one.contours and f"contours/k/{i:05d}-{j:05d}.parquet",
            )
            for i, (y0, y1) in enumerate(pairwise(ys))
            for j, (x0, x1) in enumerate(pairwise(xs))
        ]

    return cut


def memory_slide(pixels: np.ndarray, mpp: float = 0.25) -> MemoryReader:
    """An array as a slide: RGB, or DAPI, HER2 and CEP17 where it is uint16."""
    if pixels.dtype == np.uint16:
        return MemoryReader(pixels, mpp, channels=("DAPI", "HER2", "CEP17")[: pixels.shape[2]])
    return MemoryReader(pixels, mpp)
