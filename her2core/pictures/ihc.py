"""The picture of an IHC slide: what was seen, and how every cell was classified."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from matplotlib.collections import RegularPolyCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from her2core.guidelines.rules_ihc import CellClass
from her2core.pictures.canvas import (
    CLASS_MEANING,
    DPI,
    INK,
    PANEL_IN,
    Backdrop,
    Panel,
    heading,
    jpeg_bytes,
    scale_bar,
    shortened,
)
from her2core.pictures.colours import CLASS_COLOURS, OTHER_COLOUR, ink_on
from her2core.pictures.letters import ColourBar, Key, Legend, Plate, Words
from her2core.profile.sampling import Pixels

RANK = np.array([0.0, 1.0, 2.0, 2.0, 3.0])  # of CellClass 0 ... 4 on the heat map
CELL_UM = 11.0  # drawn diameter of a cell
MIN_DOT_PX = 4.0  # smaller dots cannot be distinguished: hexagons then
HEX_PX = 11.0  # least distance of hexagon centres
HEX_CELLS = 3  # hexagons with fewer tumour cells stay empty


@dataclass(frozen=True, slots=True)
class PictureSummary:
    """What the heading and the bar of a slide's picture show.

    Attributes
    ----------
    counts
        Evaluable tumour cells of class 0, 1, 2u, 2 and 3.
    note
        A short remark: reason codes, QC verdict, mask source.
    """

    slide_id: str
    score: str | None
    state: str
    h_score: float | None
    counts: tuple[int, int, int, int, int]
    note: str = ""

    @property
    def n(self) -> int:
        return sum(self.counts)


@dataclass(frozen=True, slots=True)
class PictureCells:
    """Cells to draw, columns of equal length: position in µm, `CellClass`, and whether they count."""

    y_um: npt.NDArray[np.float64]
    x_um: npt.NDArray[np.float64]
    cell_class: npt.NDArray[np.int64]
    counted: npt.NDArray[np.bool_]


def slide_picture(thumbnail: Pixels, um_px: float, cells: PictureCells, summary: PictureSummary) -> bytes:
    """JPEG of a slide: the plain thumbnail, and beside it the same, faded, under its cells' classes.

    Cells are dots in the colour of their class where dots are distinct, else hexagons in the colour of
    the mean class of their counted cells.

    Parameters
    ----------
    thumbnail
        (h, w, 3) uint8 at ``um_px``.
    """
    height_um, width_um = thumbnail.shape[0] * um_px, thumbnail.shape[1] * um_px
    inch_um = PANEL_IN / max(height_um, width_um)
    panel_w, panel_h = max(width_um * inch_um, 2.0), max(height_um * inch_um, 1.0)
    beside = panel_w <= 1.4 * panel_h
    gap, top, bottom = 0.25, 1.05, 1.15
    wide = max(2 * panel_w + 3 * gap if beside else panel_w + 2 * gap, 10.0)
    high = top + bottom + (panel_h if beside else 2 * panel_h + gap)
    figure = Figure(figsize=(wide, high), dpi=DPI, facecolor="white")
    left = (wide - (2 * panel_w + gap if beside else panel_w)) / 2
    corners = (
        (left, bottom if beside else bottom + panel_h + gap),
        (left + panel_w + gap if beside else left, bottom),
    )
    whole = (0, width_um), (height_um, 0)
    panels = [Panel(figure, (x, y, panel_w, panel_h), *whole, equal=True) for x, y in corners]
    Backdrop(panels[0], thumbnail, um_px)
    grey = cv2.cvtColor(thumbnail, cv2.COLOR_RGB2GRAY)
    faded = 255 - (255 - grey.astype(np.int16)) * 2 // 5
    Backdrop(panels[1], faded.astype(np.uint8), um_px)
    px_um = inch_um * DPI
    _class_bar(figure, summary, (left, 0.12, wide - 2 * left, bottom - 0.3), wide)
    if CELL_UM * px_um >= MIN_DOT_PX:
        _draw_dots(panels[1], cells, CELL_UM * px_um * 72 / DPI)
    else:
        _draw_hexagons(panels[1], cells, HEX_PX / px_um, px_um)
        _colour_scale(figure, panels[1])
    scale_bar(panels[0], width_um)
    scale_bar(panels[1], width_um)
    _heading(figure, summary, left / wide)
    return jpeg_bytes(figure)


def _draw_dots(panel: Panel, cells: PictureCells, points: float) -> None:
    """One dot a cell, ``points`` wide; higher classes on top."""
    other = ~cells.counted | (cells.cell_class < 0)
    panel.dots(cells.x_um[other], cells.y_um[other], points / 2, OTHER_COLOUR)
    for cell_class, colour in CLASS_COLOURS.items():
        here = ~other & (cells.cell_class == cell_class)
        panel.dots(cells.x_um[here], cells.y_um[here], points, colour)


def _heat_map() -> LinearSegmentedColormap:
    shades = [CLASS_COLOURS[c] for c in (CellClass.C0, CellClass.C1, CellClass.C2, CellClass.C3)]
    return LinearSegmentedColormap.from_list("her2", shades)


def _draw_hexagons(panel: Panel, cells: PictureCells, spacing_um: float, px_um: float) -> None:
    """Hexagons with at least `HEX_CELLS` counted cells, coloured by their mean class."""
    use = cells.counted & (cells.cell_class >= 0)
    row_um = spacing_um * math.sqrt(3) / 2
    row = np.rint(cells.y_um[use] / row_um).astype(np.int64)
    column = np.rint(cells.x_um[use] / spacing_um - 0.5 * (row % 2)).astype(np.int64)
    _, first, index, counts = np.unique(
        (row << 32) + column, return_index=True, return_inverse=True, return_counts=True
    )
    if not len(first):
        return
    means = np.bincount(index, RANK[cells.cell_class[use]], minlength=len(first)) / counts
    kept = counts >= HEX_CELLS
    row, column = row[first[kept]], column[first[kept]]
    y = row * row_um
    x = (column + 0.5 * (row % 2)) * spacing_um
    radius_points = spacing_um * px_um / math.sqrt(3) * 72 / DPI
    panel.add(
        RegularPolyCollection(
            6, sizes=(math.pi * radius_points**2,), offsets=np.stack([x, y], axis=1),
            offset_transform=panel.transData, array=means[kept], cmap=_heat_map(), norm=Normalize(0, 3),
            linewidths=0,
        )
    )  # fmt: skip


def _colour_scale(figure: Figure, panel: Panel) -> None:
    """Key of the heat map on a white plate in the panel's lower right corner."""
    inch_x, inch_y = panel.inch
    width, height = min(2.1 * inch_x, 0.95 - 1.0 * inch_x), 0.55 * inch_y
    x0, y0 = 1 - 0.12 * inch_x - width, 0.12 * inch_y
    plate = Plate((x0, y0, width, height), "#FFFFFF", alpha=0.85)
    plate.set_transform(panel.transAxes)
    panel.add(plate, clip=False)
    place = panel.part(x0 + 0.15 * inch_x, y0 + 0.22 * inch_y, width - 0.3 * inch_x, 0.11 * inch_y)
    left, low, wide, high = (
        part * edge for part, edge in zip(place, 2 * (*figure.get_size_inches(),), strict=True)
    )
    panel.add(ColourBar(figure, (left, low, wide, high), _heat_map(), 3.0, (0, 1, 2, 3), 8), clip=False)
    title = Words(x0 + width / 2, y0 + 0.37 * inch_y, "mean class, tumour cells", 8, INK, across="center")
    title.set_transform(panel.transAxes)
    panel.add(title, clip=False)


def _class_bar(
    figure: Figure, summary: PictureSummary, box: tuple[float, float, float, float], wide: float
) -> None:
    """Stacked bar of the counted cells by class, which is the legend at once."""
    x, y, w, h = box
    bar = Panel(figure, (x, y + 0.42, w, h - 0.5), (0, 100), (0, 1), framed=False)

    def write(at: float, text: str, ink: str) -> None:
        bar.add(Words(at, 0.48, text, 9.5, ink, across="center", up="center"), clip=False)

    start = 0.0
    for cell_class, count in zip(CLASS_COLOURS, summary.counts, strict=True):
        share = 100 * count / max(summary.n, 1)
        colour = CLASS_COLOURS[cell_class]
        bar.add(Plate((start, 0.0, share, 1.0), colour), clip=False)
        if share >= 5:
            write(start + share / 2, f"{share:.0f} %", ink_on(colour))
        start += share
    if not summary.n:
        bar.add(Plate((0.0, 0.0, 100, 1.0), "#F0F0F0"), clip=False)
        write(50, "no tumour cell could be judged", INK)
    keys = [
        Key(colour, f"{CLASS_MEANING[cell_class]}: {_percent(count, summary.n)}")
        for (cell_class, colour), count in zip(CLASS_COLOURS.items(), summary.counts, strict=True)
    ]
    keys.append(Key(OTHER_COLOUR, "not counted"))
    points, columns = (9.0, 6) if wide >= 13 else (8.0, 3)
    Legend(figure, keys, (wide / 2, 0.12), points, columns, centred=True, apart=1.4, pad=0.8)


def _percent(count: int, n: int) -> str:
    return "–" if n == 0 else f"{100 * count / n:.1f} %"


def _heading(figure: Figure, summary: PictureSummary, left: float) -> None:
    score = f"score {summary.score}" if summary.score else summary.state
    most = int(figure.get_figwidth() * (1 - 2 * left) * 5) - len(score) - 6  # characters, at 17 points
    title = f"{shortened(summary.slide_id, most)}    {score}"
    parts = [
        "H-score –" if summary.h_score is None else f"H-score {summary.h_score:.0f}",
        f"{summary.n:,} tumour cells judged",
    ]
    line = "   ·   ".join([*parts, summary.note] if summary.note else parts)
    heading(figure, left, title, line)
