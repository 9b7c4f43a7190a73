"""Six fields of an IHC slide at full resolution, plain beside outlined: what the kernel took for a cell."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from matplotlib.artist import Artist
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from her2core.pictures.canvas import DPI, INK, Backdrop, Panel, jpeg_bytes, pixels_of, scale_bar
from her2core.pictures.letters import write
from her2core.profile.sampling import Pixels

ARC_COLOURS = ("#9A9A9A", "#56B4E9", "#F0E442", "#E69F00", "#D62728")
ARC_NAMES = ("not stained", "faint", "weak", "moderate", "strong")
NUCLEUS, POCKET, EXCLUDED = "#1F3FBF", "#C030C0", "#000000"
ZOOM = 4  # pictures of a field are enlarged so many times before lines are drawn
FIELD_IN = 3.2  # edge of a field in the picture, inches


@dataclass(frozen=True, slots=True)
class FieldCells:
    """Outlines of the cells of a field.

    Attributes
    ----------
    nucleus_um, contour_um
        float64 ``(n, ray, 2)``: y and x of the outlines, µm from the field's first corner.
    arc
        int8 ``(n, ray)``: stain of the contour, an index of `ARC_NAMES`.
    pocket, counted
        bool ``(n,)``: found by its membrane; an evaluable tumour cell.
    """

    nucleus_um: NDArray[np.float64]
    contour_um: NDArray[np.float64]
    arc: NDArray[np.int8]
    pocket: NDArray[np.bool_]
    counted: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class PicturedField:
    """One field: why it is shown, its pixels (h, w, 3) uint8 at ``um_px``, and its cells."""

    name: str
    rgb: Pixels
    um_px: float
    cells: FieldCells


def fields_picture(slide_id: str, fields: list[PicturedField]) -> bytes:
    """JPEG of the fields, two in a row, each plain beside outlined, arcs in the colour of their stain."""
    rows = -(-len(fields) // 2)
    gap, top, bottom = 0.16, 0.62, 0.42
    wide, high = 4 * FIELD_IN + 5 * gap, top + bottom + rows * (FIELD_IN + 0.3)
    figure = Figure(figsize=(wide, high), dpi=DPI, facecolor="white")
    write(figure, gap, high - 0.3, f"{slide_id}: fields at full resolution", 13, INK)
    for k, one in enumerate(fields):
        left = gap + (k % 2) * 2 * (FIELD_IN + gap)
        low = high - top - (k // 2 + 1) * (FIELD_IN + 0.3)
        height_um, width_um = (edge * one.um_px for edge in one.rgb.shape[:2])
        for pixels, x in ((one.rgb, left), (_outlined(one), left + FIELD_IN + gap)):
            panel = Panel(figure, (x, low, FIELD_IN, FIELD_IN), (0, width_um), (height_um, 0))
            Backdrop(panel, pixels, width_um / pixels.shape[1])
            if x == left:
                scale_bar(panel, width_um)
        n, counted = len(one.cells.pocket), int(one.cells.counted.sum())
        title = f"{one.name}: {n} cells, {counted} counted"
        write(figure, left, low + FIELD_IN + 0.06, title, 9, INK)
    figure.add_artist(_Keys(wide, bottom))
    return jpeg_bytes(figure)


class _Keys(Artist):
    """The legend along the lower edge: the same below all such pictures, and so drawn once in a process."""

    def __init__(self, wide: float, high: float) -> None:
        super().__init__()
        self._pixels = _keys(wide, high)
        self.set_zorder(-1)  # below the frames that reach into it

    def draw(self, renderer: RendererBase) -> None:
        """Called by the figure."""
        renderer.draw_image(renderer.new_gc(), 0, 0, self._pixels)


@cache
def _keys(wide: float, high: float) -> NDArray[np.uint8]:
    """(h, w, 4) of the legend on white, the lowest row first; its size in inches."""
    figure = Figure(figsize=(wide, high), dpi=DPI, facecolor="white")
    lines = [Line2D([], [], color=c, lw=2.5) for c in (*ARC_COLOURS, NUCLEUS, POCKET, EXCLUDED)]
    names = [f"contour: {ARC_NAMES[0]}", *ARC_NAMES[1:], "nucleus", "pocket (no nucleus seen)", "not counted"]
    figure.legend(lines, names, loc="lower center", ncol=len(names), frameon=False, fontsize=8)
    return pixels_of(figure)[::-1].copy()


def _outlined(one: PicturedField) -> NDArray[np.uint8]:
    """The field enlarged, with nuclei and contours."""
    out = cv2.resize(one.rgb, None, fx=ZOOM, fy=ZOOM, interpolation=cv2.INTER_CUBIC)
    per_um, sixteenth = ZOOM / one.um_px, 4  # lines are placed to a sixteenth of a pixel

    def places(yx_um: NDArray[np.float64]) -> NDArray[np.int32]:
        return np.asarray(np.rint(yx_um[..., ::-1] * per_um * 2**sixteenth), np.int32)

    cells = one.cells
    arcs, (nucleus, pocket, excluded) = (
        [_rgb(colour) for colour in colours] for colours in (ARC_COLOURS, (NUCLEUS, POCKET, EXCLUDED))
    )
    rings, borders = places(cells.nucleus_um), places(cells.contour_um)
    sides = np.stack([borders, np.roll(borders, -1, axis=1)], axis=2)
    for i in range(len(cells.pocket)):
        colour = pocket if cells.pocket[i] else nucleus
        line = colour if cells.counted[i] else excluded
        cv2.polylines(out, [rings[i]], True, line, 2, cv2.LINE_AA, sixteenth)
        turns = np.flatnonzero(np.diff(cells.arc[i])) + 1  # sides of one colour in a row are drawn at once
        for some in np.split(np.arange(len(sides[i])), turns):
            arc = arcs[cells.arc[i, some[0]]]
            cv2.polylines(out, list(sides[i, some]), False, arc, 3, cv2.LINE_AA, sixteenth)
    return np.asarray(out, np.uint8)


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
