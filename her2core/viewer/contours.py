"""Contours of cells close by: what was measured of the membrane, and the nucleus, block by block.

They are those that the run stored, else the kernel outlines the block again (`her2core.export.contours`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from her2core.export.contours import TILE_PX, OutlinedAgain, has_contours
from her2core.export.finished import FinishedRun, Row
from her2core.records import Assay, Box
from her2core.stages.contours import CellOutlines, open_contours, outlines_within
from her2core.viewer.cells import Cells


class SlideContours:
    """Contours of one slide.

    Attributes
    ----------
    block_px
        Edge of a block in level-0 pixels.

    Raises
    ------
    ConfigError, StoreError
        If there are none, or what is stored is gone.
    """

    def __init__(self, run: FinishedRun, slide: Row) -> None:
        self._run = run
        self._stored = open_contours(run.store, slide["contours"]) if slide["contours"] else None
        self._again = None if self._stored else OutlinedAgain(run, slide)
        self._scale = 2**self._again.level if self._again else 1
        self.block_px = TILE_PX * self._scale

    def block(self, row: int, column: int, cells: Cells) -> list[dict[str, Any]]:
        """Contours of the cells whose centroid lies in a block, as the page draws them.

        Returns
        -------
        Of each cell its place among the classes (`Cells.code`), its measure, and its corners along the 36
        rays as ``x, y, x, y, ...``; ``stain`` has a letter a ray: 1 stained, 0 not, - not evaluable.
        """
        edge = self.block_px
        box = Box(row * edge, column * edge, (row + 1) * edge, (column + 1) * edge)
        found = self._outlines(box)
        rows = cells.within(box.y0, box.x0, box.y1, box.x1)
        place = dict(zip(cells.ids[rows].tolist(), rows.tolist(), strict=True))
        signs = np.where(found.evaluable, np.where(found.dab_od > 0, "1", "0"), "-")
        made = []
        for i, cell_id in enumerate(found.ids.tolist()):
            at = place.get(cell_id)
            if at is None:
                continue
            value = float(cells.value[at])
            made.append(
                {
                    "code": int(cells.code[at]),
                    "value": round(value, 3) if np.isfinite(value) else None,
                    "contour": _flat(found.contour_px0[i : i + 1]),
                    "nucleus": _flat(found.nucleus_px0[i : i + 1]),
                    "stain": "".join(signs[i]),
                }
            )
        return made

    def _outlines(self, box: Box) -> CellOutlines:
        if self._again is None:
            assert self._stored is not None
            return outlines_within(self._run.store, self._stored, box)
        sides = (side // self._scale for side in (box.y0, box.x0, box.y1, box.x1))
        return self._again.of(Box(*sides))


def can_have_contours(slide: Row) -> bool:
    """Whether contours of a slide's cells can be had at all."""
    return slide["assay"] == Assay.IHC and has_contours(slide)


def _flat(corners: np.ndarray[Any, np.dtype[np.float64]]) -> list[float]:
    out: list[float] = corners[0, :, ::-1].round(1).ravel().tolist()
    return out
