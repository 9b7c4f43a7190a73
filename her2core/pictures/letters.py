"""Words, plates, legends and colour bars of pictures.

Matplotlib lays out and draws text glyph by glyph, legends as trees of boxes and colour bars as axes: half of
what a slide's pictures took. Here a string is one raster on whole pixels, the rest rectangles and lines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.backend_bases import RendererBase
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.path import Path
from matplotlib.transforms import Affine2D, Bbox, IdentityTransform
from PIL import Image, ImageDraw, ImageFont

Across = Literal["left", "center", "right"]
Up = Literal["baseline", "bottom", "center", "top"]

KEPT = 256
"""Rasters of strings that a process keeps, about 20 kB each. Ours."""
ASCENT, DESCENT = 1556 / 2048, 492 / 2048
"""Above and below the baseline, of the font's size: DejaVu Sans, OS/2 sTypoAscender and sTypoDescender."""
POINTS_IN = 72
KEY_EM, KEY_HIGH_EM, ROW_EM = 1.0, 0.7, 1.5
"""Width and height of a legend's colour, and from row to row, in sizes of its font: as Matplotlib's."""
MARK_POINTS, DOT_EDGE_POINTS = 8.0, 0.6
"""Width of a legend's dots and outlines, and of the line around a dot."""
UNDER_POINTS = 0.8
"""So much wider is the line below a line."""
ARROW = 0.05
"""Length of a colour bar's arrow, of that of the colours: as Matplotlib's."""
TICK_POINTS, TICK_PAD_POINTS = 2.0, 1.0
BLACK = "#000000"
_SQUARE = Path([(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)], closed=True)


@cache
def _font(size_px: float, bold: bool) -> ImageFont.FreeTypeFont:
    found = findfont(FontProperties(weight="bold" if bold else "normal"))
    return ImageFont.truetype(found, size_px, layout_engine=ImageFont.Layout.BASIC)


@dataclass(frozen=True, slots=True)
class _Raster:
    """A string in its colour: (h, w, 4) with the lowest row first, and where that lies from its beginning."""

    rgba: npt.NDArray[np.uint8]
    left: int
    low: int


@lru_cache(KEPT)
def _raster(text: str, size_px: float, bold: bool, colour: str) -> _Raster:
    font = _font(size_px, bold)
    left, top, right, bottom = (int(edge) for edge in font.getbbox(text, anchor="ls"))
    ink = Image.new("L", (right - left, bottom - top))
    if ink.width and ink.height:
        ImageDraw.Draw(ink).text((-left, -top), text, fill=255, font=font, anchor="ls")
    rgba = np.empty((ink.height, ink.width, 4), np.uint8)
    rgba[..., :3] = np.rint(np.array(to_rgba(colour)[:3]) * 255)
    rgba[..., 3] = np.asarray(ink)
    return _Raster(rgba[::-1], left, -bottom)


def _pixels(renderer: RendererBase, points: float) -> float:
    return float(renderer.points_to_pixels(points))  # type: ignore[arg-type]  # of a number it is one


class Words(Artist):
    """A line of text, drawn on whole pixels.

    Parameters
    ----------
    x, y
        Where it is drawn, in pixels of the figure unless a transform is set.
    across, up
        What of it lies there.
    """

    zorder = 3

    def __init__(
        self,
        x: float,
        y: float,
        text: str,
        points: float,
        colour: str,
        *,
        across: Across = "left",
        up: Up = "baseline",
        bold: bool = False,
    ) -> None:
        super().__init__()
        self._at, self._text, self._points, self._colour = (x, y), text, points, colour
        self._across, self._up, self._bold = across, up, bold

    def get_text(self) -> str:
        """What is written."""
        return self._text

    def _start(self, dpi: float) -> tuple[float, float, float, float]:
        """Where its baseline begins, its length and the size of its font, in pixels."""
        size = self._points * dpi / POINTS_IN
        wide = _font(size, self._bold).getlength(self._text)
        x, y = self.get_transform().transform(self._at)
        x -= {"left": 0.0, "center": wide / 2, "right": wide}[self._across]
        up = {"baseline": 0.0, "bottom": DESCENT, "center": (DESCENT - ASCENT) / 2, "top": -ASCENT}
        return x, y + size * up[self._up], wide, size

    def get_window_extent(self, renderer: RendererBase | None = None) -> Bbox:
        """Its box in pixels."""
        figure = self.get_figure(root=True)
        assert figure is not None
        x, y, wide, size = self._start(figure.dpi)
        return Bbox.from_extents(x, y - DESCENT * size, x + wide, y + ASCENT * size)

    def draw(self, renderer: RendererBase) -> None:
        """Called by the figure."""
        x, y, _, size = self._start(_pixels(renderer, POINTS_IN))
        raster = _raster(self._text, size, self._bold, self._colour)
        if raster.rgba.size:
            pen = renderer.new_gc()
            renderer.draw_image(pen, round(x) + raster.left, round(y) + raster.low, raster.rgba)


def write(
    figure: Figure, x_in: float, y_in: float, text: str, points: float, colour: str, **how: Any
) -> None:
    """Write a line on the figure; ``how`` as `Words`."""
    words = Words(x_in * figure.dpi, y_in * figure.dpi, text, points, colour, **how)
    words.set_transform(IdentityTransform())
    figure.add_artist(words)


class Plate(Artist):
    """A rectangle, in pixels of the figure unless a transform is set.

    Parameters
    ----------
    box
        Left, low, width and height.
    edge
        Colour of a line of a point around it.
    """

    zorder = 1

    def __init__(
        self,
        box: tuple[float, float, float, float],
        colour: str,
        *,
        alpha: float = 1.0,
        edge: str | None = None,
    ) -> None:
        super().__init__()
        self._box, self._edge, self.colour = box, edge, colour
        self._face = to_rgba(colour, alpha)

    def draw(self, renderer: RendererBase) -> None:
        """Called by the figure."""
        x, y, w, h = self._box
        corners = self.get_transform().transform([(x, y), (x + w, y), (x + w, y + h), (x, y + h), (x, y)])
        pen = renderer.new_gc()
        pen.set_linewidth(0.0 if self._edge is None else 1.0)
        if self._edge is not None:
            pen.set_foreground(self._edge)
        renderer.draw_path(pen, Path(corners, closed=True), IdentityTransform(), self._face)


class Outline(Artist):
    """A circle or a square, filled or not, in pixels of the figure unless a transform is set.

    Parameters
    ----------
    centre, reach
        Its middle, and from there to its edge.
    points
        Width of its line.
    under
        Colour of a wider, half transparent line below it, which sets it off.
    """

    zorder = 2

    def __init__(
        self,
        shape: Literal["circle", "square"],
        centre: tuple[float, float],
        reach: float,
        colour: str,
        points: float,
        *,
        face: str | None = None,
        under: str | None = None,
    ) -> None:
        super().__init__()
        self._place = Affine2D().scale(reach).translate(*centre)
        self._path = Path.unit_circle() if shape == "circle" else _SQUARE
        self._lines = [] if under is None else [(under, points + UNDER_POINTS, 0.5)]
        self._lines.append((colour, points, 1.0))
        self._face = None if face is None else to_rgba(face)

    def draw(self, renderer: RendererBase) -> None:
        """Called by the figure."""
        for colour, points, alpha in self._lines:
            pen = renderer.new_gc()
            pen.set_foreground(colour)
            pen.set_alpha(alpha)
            pen.set_linewidth(points)
            pen.set_clip_rectangle(self.get_clip_box())
            renderer.draw_path(pen, self._path, self._place + self.get_transform(), self._face)


@dataclass(frozen=True, slots=True)
class Key:
    """A colour of a legend, and its words.

    Attributes
    ----------
    edge
        Colour of the line around it.
    mark
        What it is the colour of; ``words``: of nothing.
    """

    colour: str
    text: str
    edge: str | None = None
    mark: Literal["plate", "dot", "circle", "square", "words"] = "plate"


def _drawn(key: Key, corner: tuple[int, int], em: float, dpi: float) -> Sequence[Plate | Outline]:
    """A colour of a legend above and right of its corner, in pixels."""
    wide, high = round(em * KEY_EM), round(em * KEY_HIGH_EM)
    if key.mark == "plate":
        return [Plate((*corner, wide, high), key.colour, edge=key.edge)]
    if key.mark == "words":
        return []
    centre, reach = (corner[0] + wide / 2, corner[1] + high / 2), MARK_POINTS / 2 * dpi / POINTS_IN
    if key.mark == "dot":
        return [Outline("circle", centre, reach, key.edge or BLACK, DOT_EDGE_POINTS, face=key.colour)]
    return [Outline(key.mark, centre, reach, key.colour, 1.0)]


class Legend(Artist):
    """Colours and their words in columns, filled one after the other.

    Parameters
    ----------
    place
        Inches from the figure's left and lower edge: of the upper left corner, or (``centred``) of the middle
        of the lower edge.
    apart
        Between columns, in sizes of the font.
    pad
        Between a colour and its words, likewise.
    """

    def __init__(
        self,
        figure: Figure,
        keys: Sequence[Key],
        place: tuple[float, float],
        points: float,
        columns: int,
        *,
        centred: bool = False,
        apart: float = 1.0,
        pad: float = 0.4,
    ) -> None:
        super().__init__()
        em = points * figure.dpi / POINTS_IN
        columns = min(columns, len(keys))
        rows, extra = divmod(len(keys), columns)
        sizes = [rows + (k < extra) for k in range(columns)]
        font, first = _font(em, False), 0
        x, y = (inches * figure.dpi for inches in place)
        lists = []
        for size in sizes:
            column = keys[first : first + size]
            lists.append((column, max(font.getlength(key.text) for key in column)))
            first += size
        wide = sum(w for _, w in lists) + em * (columns * (KEY_EM + pad) + (columns - 1) * apart)
        high = em * (ROW_EM * (max(sizes) - 1) + ASCENT + DESCENT)
        x, top = (x - wide / 2, y + high) if centred else (x, y)
        self._box = Bbox.from_extents(x, top - high, x + wide, top)
        self.plates: list[Plate | Outline] = []
        self.words: list[Words] = []
        for column, longest in lists:
            for row, key in enumerate(column):
                base = round(top - em * (ASCENT + ROW_EM * row))
                self.plates += _drawn(key, (round(x), base), em, figure.dpi)
                self.words.append(Words(x + em * (KEY_EM + pad), base, key.text, points, BLACK))
            x += longest + em * (KEY_EM + pad + apart)
        for part in self.get_children():
            part.set_figure(figure)
            part.set_transform(IdentityTransform())
        figure.add_artist(self)

    def get_children(self) -> list[Artist]:
        """Its plates and words."""
        return [*self.plates, *self.words]

    def get_window_extent(self, renderer: RendererBase | None = None) -> Bbox:
        """Its box in pixels."""
        return self._box

    def draw(self, renderer: RendererBase) -> None:
        """Called by the figure."""
        for part in self.get_children():
            part.draw(renderer)


class ColourBar(Artist):
    """Colours of numbers from 0 to ``top``, with ticks below.

    Parameters
    ----------
    box
        Left, low, width and height of the colours, inches from the figure's left and lower edge.
    colours
        From an array of fractions to RGBA.
    beyond
        Whether an arrow states that the last colour is that of greater numbers too.
    """

    zorder = 3

    def __init__(
        self,
        figure: Figure,
        box: tuple[float, float, float, float],
        colours: Callable[[Any], Any],
        top: float,
        ticks: Sequence[float],
        points: float,
        *,
        beyond: bool = False,
    ) -> None:
        super().__init__()
        left, low, wide, high = (round(inches * figure.dpi) for inches in box)
        self._arrow = round(wide - wide / (1 + ARROW)) if beyond else 0
        self._box, self._colours = (left, low, wide - self._arrow, high), colours
        self._ticks = [left + self._box[2] * tick / top for tick in ticks]
        places = max(len(f"{tick:g}".partition(".")[2]) for tick in ticks)
        below = low - (TICK_POINTS + TICK_PAD_POINTS) * figure.dpi / POINTS_IN
        self._words = [
            Words(x, below, f"{tick:.{places}f}", points, BLACK, across="center", up="top")
            for x, tick in zip(self._ticks, ticks, strict=True)
        ]
        for words in self._words:
            words.set_figure(figure)
            words.set_transform(IdentityTransform())

    def get_children(self) -> list[Artist]:
        """The numbers at its ticks."""
        return [*self._words]

    def draw(self, renderer: RendererBase) -> None:
        """Called by the figure."""
        left, low, wide, high = self._box
        row = np.rint(self._colours((np.arange(wide) + 0.5) / wide) * 255).astype(np.uint8)
        renderer.draw_image(renderer.new_gc(), left, low, np.repeat(row[np.newaxis], high, axis=0))
        here = Affine2D().translate(left + 0.5, low + 0.5)  # lines of a pixel lie on its middle
        pen, bare = renderer.new_gc(), renderer.new_gc()
        pen.set_linewidth(1.0 / _pixels(renderer, 1.0))
        pen.set_foreground(BLACK)
        bare.set_linewidth(0.0)
        tip = [(wide + self._arrow, high / 2)] if self._arrow else []
        end = [(wide, 0), *tip, (wide, high)]
        renderer.draw_path(bare, Path([*end, end[0]], closed=True), here, tuple(self._colours(1.0)))
        renderer.draw_path(pen, Path([(0, 0), *end, (0, high), (0, 0)], closed=True), here)
        reach = _pixels(renderer, TICK_POINTS)
        for x in self._ticks:
            at = round(x) - left
            renderer.draw_path(pen, Path([(at, 0), (at, -reach)]), here)
        for words in self._words:
            words.draw(renderer)
