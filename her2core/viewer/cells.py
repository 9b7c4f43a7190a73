"""Cells of a slide as transparent tiles: rings close by, binned colours from afar, so that a million pan.

A bin has the colour of its most frequent class (of equals the stronger), or of the mean of the measure.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw

from her2core.export.finished import of_slide
from her2core.lake.finished import finished_table
from her2core.lake.schema import CELLS, NUCLEI, Table
from her2core.pictures.colours import CLASS_COLOURS, OTHER_COLOUR
from her2core.records import Assay
from her2core.storage.store import Store
from her2core.viewer.tiles import TILE_PX

RADIUS_UM = 4.5
"""Of a cell's ring: about a nucleus, so that the membrane stays in sight. Ours."""
RING_PX, DOT_PX = 5.0, 1.5
"""From these radii on a cell is a ring, or a dot; smaller ones are binned. Ours."""
BIN_PX = 4
"""Edge of a bin; divides a tile, so that tiles have no seams."""
NEAR_UM = 15.0
"""How far from a cell's centre a click still means it; ours."""
SMOOTH = 2
"""Rings are drawn this much larger and shrunk: smooth edges."""
RAMP = ("#FDF2C0", "#F0B040", "#C0504A", "#7A1F6A", "#2A0845")
"""Colours of a measure from 0 to its top, evenly spaced, light to dark."""
STEPS = 64

COPIES = (("< 4", 0, "#8CC8EE"), ("4 to < 6", 4, "#C97B12"), ("≥ 6", 6, "#33084A"))
"""HER2 signals a nucleus, by the cuts of ASCO/CAP 2018: label, from how many on, colour."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How the cells of an assay are shown.

    Attributes
    ----------
    classes
        Label and colour of each, weakest first.
    measure, top
        Name of the measure, and its value at the dark end.
    """

    table: Table
    key: str
    classes: tuple[tuple[str, str], ...]
    column: str
    measure: str
    top: float
    shown: tuple[str, ...]


IHC = Kind(
    CELLS,
    "cell_id",
    tuple((of.label or "", colour) for of, colour in CLASS_COLOURS.items()),
    "membrane_od_mean",
    "membrane OD",
    1.0,
    ("cell_class", "membrane_od_mean", "membrane_od_median", "completeness", "nucleus_area_um2",
     "is_tumour", "seed_source", "qc_flag"),
)  # fmt: skip
ISH = Kind(
    NUCLEI,
    "nucleus_id",
    tuple((label, colour) for label, _, colour in COPIES),
    "her2_signals",
    "HER2 signals",
    12.0,
    ("her2_signals", "cep17_signals", "nucleus_area_um2", "is_tumour", "flags"),
)


def kind_of(assay: str) -> Kind:
    """How a slide's cells are shown."""
    return IHC if assay == Assay.IHC else ISH


@dataclass(frozen=True, slots=True)
class Cells:
    """Cells of one slide, from the top.

    Attributes
    ----------
    code
        Class of each, counted in its kind; the number of classes where it is not counted.
    value
        The measure; NaN where there is none.
    """

    kind: Kind
    mpp: float
    ids: NDArray[np.int64]
    y: NDArray[np.float64]
    x: NDArray[np.float64]
    code: NDArray[np.uint8]
    value: NDArray[np.float32]

    def within(self, y0: float, x0: float, y1: float, x1: float) -> NDArray[np.int64]:
        """Rows of the cells with their centre in a box, level-0 px from the slide's corner."""
        first, last = np.searchsorted(self.y, (y0, y1))
        x = self.x[first:last]
        found: NDArray[np.int64] = np.flatnonzero((x >= x0) & (x < x1)) + first
        return found

    def nearest(self, y: float, x: float) -> int | None:
        """Row of the cell at a place; None if none is near."""
        far = NEAR_UM / self.mpp
        rows = self.within(y - far, x - far, y + far, x + far)
        if not len(rows):
            return None
        away = np.hypot(self.y[rows] - y, self.x[rows] - x)
        best = int(np.argmin(away))
        return int(rows[best]) if away[best] <= far else None


def read_cells(store: Store, slide: dict[str, Any], mpp: float) -> Cells:
    """Places and colours of a slide's cells."""
    kind = kind_of(slide["assay"])
    extra = ["cell_class"] if kind is IHC else ["flags"]
    columns = [kind.key, "y_px0", "x_px0", "is_tumour", kind.column, *extra]
    table = finished_table(store, kind.table, columns, of_slide(slide["slide_id"]))
    y, x = (table[name].to_numpy() + 0.5 for name in ("y_px0", "x_px0"))
    value = np.asarray(table[kind.column].cast(pa.float32()).to_numpy(zero_copy_only=False), np.float32)
    counted = np.asarray(table["is_tumour"].to_pylist(), bool)
    code = np.full(len(table), len(kind.classes), np.uint8)
    if kind is IHC:
        place = {name: i for i, (name, _) in enumerate(kind.classes)}
        codes = np.asarray([place.get(c, len(place)) for c in table["cell_class"].to_pylist()], np.uint8)
        code[counted] = codes[counted]
    else:
        counted &= np.asarray([flag == 0 for flag in table["flags"].to_pylist()], bool)
        cuts = [low for _, low, _ in COPIES[1:]]
        with np.errstate(invalid="ignore"):
            codes = np.digitize(np.nan_to_num(value), cuts).astype(np.uint8)
        code[counted] = codes[counted]
    order = np.argsort(y, kind="stable")
    ids = table[kind.key].to_numpy()
    return Cells(kind, mpp, ids[order], y[order], x[order], code[order], value[order])


def no_cells(store: Store, slide: dict[str, Any], mpp: float) -> Cells:
    """Of a slide without any, whose run may have no such table."""
    whole, real = np.empty(0, np.int64), np.empty(0)
    kind = kind_of(slide["assay"])
    return Cells(kind, mpp, whole, real, real, np.empty(0, np.uint8), np.empty(0, np.float32))


def read_cell(store: Store, slide: dict[str, Any], cells: Cells, row: int) -> dict[str, Any]:
    """What the table holds of one cell."""
    kind = cells.kind
    where = f"{of_slide(slide['slide_id'])} AND {kind.key} = {int(cells.ids[row])}"
    found: list[dict[str, Any]] = finished_table(store, kind.table, kind.shown, where).to_pylist()
    return {
        "id": str(cells.ids[row]),
        "y": float(cells.y[row]),
        "x": float(cells.x[row]),
        "values": found[0] if found else {},
    }


def palette(kind: Kind, by_class: bool) -> NDArray[np.uint8]:
    """Colours by code, the last of cells that are not counted."""
    if by_class:
        colours = [ImageColor.getrgb(colour) for _, colour in kind.classes]
    else:
        stops = np.asarray([ImageColor.getrgb(colour) for colour in RAMP], float)
        at = np.linspace(0, len(stops) - 1, STEPS)
        channels = [np.interp(at, np.arange(len(stops)), stops[:, c]) for c in range(3)]
        colours = [tuple(round(v) for v in rgb) for rgb in zip(*channels, strict=True)]
    return np.asarray([*colours, ImageColor.getrgb(OTHER_COLOUR)], np.uint8)


def draw_tile(cells: Cells, by_class: bool, others: bool, level: int, row: int, column: int) -> bytes:
    """A tile of the overlay as PNG.

    Parameters
    ----------
    by_class
        Whether colours are of classes; else of the measure.
    others
        Whether cells that are not counted are drawn too, in grey.
    """
    scale = 2**level
    radius = RADIUS_UM / (cells.mpp * scale)
    around = radius + 2 if radius >= DOT_PX else 0
    y0, x0 = row * TILE_PX, column * TILE_PX
    box = np.asarray([y0 - around, x0 - around, y0 + TILE_PX + around, x0 + TILE_PX + around]) * scale
    rows = cells.within(*box)
    uncounted = cells.code[rows] == len(cells.kind.classes)
    colours = palette(cells.kind, by_class)
    if by_class:
        code = cells.code[rows].astype(np.int64)
    else:
        value = np.nan_to_num(cells.value[rows] / cells.kind.top)
        code = np.rint(np.clip(value, 0, 1) * (STEPS - 1)).astype(np.int64)
        uncounted |= np.isnan(cells.value[rows])
    code[uncounted] = len(colours) - 1
    if not others:
        rows, code = rows[~uncounted], code[~uncounted]
    y, x = cells.y[rows] / scale - y0, cells.x[rows] / scale - x0
    if radius < DOT_PX:
        return _png(Image.fromarray(_binned(y, x, code, colours, by_class)))
    return _png(_rings(y, x, code, colours, radius))


def _binned(
    y: NDArray[np.float64], x: NDArray[np.float64], code: NDArray[np.int64], colours: NDArray[np.uint8],
    by_class: bool,
) -> NDArray[np.uint8]:  # fmt: skip
    side, other = TILE_PX // BIN_PX, len(colours) - 1
    place = (y // BIN_PX).astype(np.int64) * side + (x // BIN_PX).astype(np.int64)
    inside = (place >= 0) & (place < side * side)
    place, code = place[inside], code[inside]
    counted = code < other
    found = np.full(side * side, -1, np.int64)
    found[place[~counted]] = other
    place, code = place[counted], code[counted]
    n = np.bincount(place, minlength=side * side)
    if by_class:
        table = np.bincount(place * other + code, minlength=side * side * other).reshape(-1, other)
        most = other - 1 - np.argmax(table[:, ::-1], axis=1)  # of equals the stronger
    else:
        total = np.bincount(place, code, minlength=side * side)
        most = np.rint(total / np.maximum(n, 1)).astype(np.int64)
    found[n > 0] = most[n > 0]
    rgba = np.zeros((side * side, 4), np.uint8)
    rgba[found >= 0, :3] = colours[found[found >= 0]]
    rgba[found >= 0, 3] = 255
    grid = rgba.reshape(side, side, 4)
    return np.asarray(grid.repeat(BIN_PX, axis=0).repeat(BIN_PX, axis=1))


def _rings(
    y: NDArray[np.float64], x: NDArray[np.float64], code: NDArray[np.int64], colours: NDArray[np.uint8],
    radius: float,
) -> Image.Image:  # fmt: skip
    image = Image.new("RGBA", (TILE_PX * SMOOTH, TILE_PX * SMOOTH))
    draw = ImageDraw.Draw(image)
    ring, r = radius >= RING_PX, radius * SMOOTH
    order = np.argsort(code == len(colours) - 1, kind="stable")[::-1]  # counted cells over the others
    for cy, cx, of in zip(y[order] * SMOOTH, x[order] * SMOOTH, code[order], strict=True):
        colour = (*(int(v) for v in colours[of]), 255)
        box = (cx - r, cy - r, cx + r, cy + r)
        if ring:
            wide = (cx - r - 1.5, cy - r - 1.5, cx + r + 1.5, cy + r + 1.5)
            draw.ellipse(wide, outline=(255, 255, 255, 190), width=round(2.5 * SMOOTH) + 2)
            draw.ellipse(box, outline=colour, width=round(2 * SMOOTH))
        else:
            draw.ellipse(box, fill=colour, outline=(255, 255, 255, 255), width=1)  # dark ones on dark
    return image.resize((TILE_PX, TILE_PX), Image.Resampling.BOX)


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)
    return out.getvalue()
