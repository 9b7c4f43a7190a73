"""Contours of cells, which the tables do not keep: those that the run stored, or else the kernel outlines the
cells again on the pyramid that it measured.

The same pixels and parameters give the same cells, which are known again by their ids. A cell of the table
that is not found again is an error and not a gap.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from her2core.errors import ConfigError
from her2core.export.finished import FinishedRun, Row
from her2core.kernels.ihc.kernel import IHCKernel
from her2core.lake.rows_cells import PLACE_PARTS, cell_places
from her2core.pyramid.reader import PyramidReader
from her2core.records import Box, StainProfile
from her2core.stages.cells import working_level
from her2core.stages.contours import CellOutlines, open_contours, outlined, outlines_by_part
from her2core.text import counted

TILE_PX = 1024
"""Edge of what is outlined at once, in pixels of the level that is worked on: some 20 MB. Ours."""


def has_contours(slide: Row) -> bool:
    """Whether contours of a slide's cells can be had: stored, or of nuclei that the kernel finds itself."""
    return bool(slide["contours"]) or not slide["cells_source"]


def outline_cells(run: FinishedRun, slide: Row, ids: NDArray[np.int64]) -> Iterator[CellOutlines]:
    """Contours of these cells of a slide, part by part from the top; memory holds one part.

    Raises
    ------
    ConfigError
        If the slide's cells were measured on another program's outlines and their contours are not stored, or
        if cells are not those that the kernel finds.
    StoreError
        If stored contours are gone.
    """
    if not has_contours(slide):
        raise ConfigError(
            f"{slide['slide_id']}: its cells were measured on another program's outlines, and their contours "
            "are not stored; run again with outlines.keep: all, take them from that program, or export "
            "without contours"
        )
    missing = set(ids.tolist())
    for part in _stored(run, slide) if slide["contours"] else _outlined_again(run, slide, ids):
        found = part.where(np.isin(part.ids, ids))
        if len(found):
            missing -= set(found.ids.tolist())
            yield found
    if missing:
        raise ConfigError(
            f"{slide['slide_id']}: not found again: {counted(len(missing), 'cell')} of the table; it was "
            "measured by another version. Run again, or export without contours"
        )


def _stored(run: FinishedRun, slide: Row) -> Iterator[CellOutlines]:
    return outlines_by_part(run.store, open_contours(run.store, slide["contours"]))


def _outlined_again(run: FinishedRun, slide: Row, ids: NDArray[np.int64]) -> Iterator[CellOutlines]:
    again = OutlinedAgain(run, slide)
    for box in _tiles(ids, again.level):
        yield again.of(box)


class OutlinedAgain:
    """Outlines of a slide's cells as its kernel makes them again, box by box.

    Attributes
    ----------
    level
        Of the pyramid, in whose pixels boxes are.

    Raises
    ------
    ConfigError
        If it is no IHC slide that was measured.
    """

    def __init__(self, run: FinishedRun, slide: Row) -> None:
        outcome, params = run.record(slide).outcome, run.ihc_params
        ref, profile = outcome.pyramid, outcome.profile
        if ref is None or profile is None or not isinstance(profile.stain, StainProfile):
            raise ConfigError(f"{slide['slide_id']}: no IHC slide that was measured; it has no contours")
        self.level = working_level(ref.mpp, params)
        self._mpp = ref.mpp
        self._kernel = IHCKernel(params, profile.stain, ref.mpp * 2**self.level)
        self._reader = PyramidReader(run.store, ref)

    def of(self, box: Box) -> CellOutlines:
        """Outlines of the cells whose centroid lies in a box."""
        around = box.grown(self._kernel.halo_px)
        region = np.empty((around.height, around.width, 3), np.uint8)
        self._reader.read(self.level, around.y0, around.x0, region)
        rows, lines = self._kernel.outline(region, (around.y0, around.x0), box)
        for axis in ("y_px0", "x_px0"):
            rows[axis] = (rows[axis] + 0.5) * 2**self.level - 0.5
        return outlined(rows, lines, self.level, self._mpp)


def _tiles(ids: NDArray[np.int64], level: int) -> Iterator[Box]:
    """Tiles that hold the centroid of a cell, from the top; centroids are in sixteenths from the corner."""
    edge = TILE_PX * 2**level * PLACE_PARTS
    for row, column in np.unique(cell_places(ids) // edge, axis=0).tolist():
        yield Box(row * TILE_PX, column * TILE_PX, (row + 1) * TILE_PX, (column + 1) * TILE_PX)
