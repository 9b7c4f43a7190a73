"""Contours of cells, which tables do not keep: the kernel outlines them again on the pyramid that it
measured.

The same pixels and parameters give the same cells, which are known again by their ids. A cell of the table
that is not found again is an error and not a gap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from her2core.errors import ConfigError
from her2core.export.finished import FinishedRun, Row
from her2core.kernels.ihc.kernel import IHCKernel
from her2core.kernels.polar import N_RAYS
from her2core.lake.rows import cell_ids
from her2core.pyramid.reader import PyramidReader
from her2core.records import Box, StainProfile
from her2core.stages.cells import working_level

TILE_PX = 1024
"""Edge of what is outlined at once, in pixels of the level that is worked on: some 20 MB. Ours."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Contours:
    """Outlines of some cells, in level-0 px from the slide's corner.

    Attributes
    ----------
    ids
        Their ``cell_id``, shape ``(n,)``, ascending.
    cell_px0, nucleus_px0
        Shape ``(n, N_RAYS, 2)``, each ``(y, x)``.
    """

    ids: NDArray[np.int64]
    cell_px0: Floats
    nucleus_px0: Floats


def outline_cells(run: FinishedRun, slide: Row, ids: NDArray[np.int64]) -> Iterator[Contours]:
    """Contours of these cells of a slide, tile by tile from the top; memory holds one tile.

    Raises
    ------
    ConfigError
        If the slide's cells were measured on another program's outlines, or are not those that the kernel
        finds.
    """
    if slide.get("cells_source"):
        raise ConfigError(
            f"{slide['slide_id']}: its cells were measured on another program's outlines; take their "
            f"contours from "
            "that file, or export without contours"
        )
    outcome, params = run.record(slide).outcome, run.ihc_params
    ref, profile = outcome.pyramid, outcome.profile
    if ref is None or profile is None or not isinstance(profile.stain, StainProfile):
        raise ConfigError(f"{slide['slide_id']}: no IHC slide that was measured; it has no contours")
    level = working_level(ref.mpp, params)
    kernel = IHCKernel(params, profile.stain, ref.mpp * 2**level)
    reader = PyramidReader(run.store, ref)
    turn = 2 * np.pi * np.arange(N_RAYS) / N_RAYS
    towards = np.stack([np.sin(turn), np.cos(turn)], axis=1)
    missing = set(ids.tolist())
    for box in _tiles(ids, level):
        around = box.grown(kernel.halo_px)
        region = np.empty((around.height, around.width, 3), np.uint8)
        reader.read(level, around.y0, around.x0, region)
        rows, lines = kernel.outline(region, (around.y0, around.x0), box)
        y_px0, x_px0 = ((rows[axis] + 0.5) * 2**level - 0.5 for axis in ("y_px0", "x_px0"))
        found = cell_ids(y_px0, x_px0)
        wanted = np.flatnonzero(np.isin(found, ids))
        wanted = wanted[np.argsort(found[wanted])]
        if not len(wanted):
            continue
        missing -= set(found[wanted].tolist())
        start = (np.stack([lines.y_px, lines.x_px], axis=1)[wanted] + 0.5) * 2**level
        yield Contours(
            found[wanted],
            start[:, None] + towards * (lines.contour_um[wanted] / ref.mpp)[..., None],
            start[:, None] + towards * (lines.nucleus_um[wanted] / ref.mpp)[..., None],
        )
    if missing:
        raise ConfigError(
            f"{slide['slide_id']}: {len(missing)} cells of the table are not found again; it was measured "
            f"by another "
            "version. Run again, or export without contours"
        )


def _tiles(ids: NDArray[np.int64], level: int) -> Iterator[Box]:
    """Tiles that hold the centroid of a cell, from the top; centroids are in sixteenths from the corner."""
    edge = TILE_PX * 2**level * 16
    places = np.unique(np.stack([(ids >> 32) // edge, (ids & 0xFFFFFFFF) // edge], axis=1), axis=0)
    for row, column in places.tolist():
        yield Box(row * TILE_PX, column * TILE_PX, (row + 1) * TILE_PX, (column + 1) * TILE_PX)
