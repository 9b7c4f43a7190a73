"""What all pictures share: colours, the slide behind, its scale bar, the heading, the file.

Drawn with Matplotlib's object interface on Agg, without global state, so any thread may draw; the same
input gives the same bytes.
"""

from __future__ import annotations

import math
import struct
import zlib
from typing import Any

import cv2
import imagecodecs
import numpy as np
from matplotlib.artist import Artist
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.markers import MarkerStyle
from matplotlib.patches import Rectangle
from matplotlib.path import Path
from matplotlib.transforms import (
    Bbox,
    BboxTransformFrom,
    BboxTransformTo,
    BlendedAffine2D,
    IdentityTransform,
    TransformedBbox,
)
from numpy.typing import NDArray

from her2core.guidelines.rules_ihc import CellClass
from her2core.pictures.letters import Plate, Words, write
from her2core.profile.sampling import LevelReader, Pixels
from her2core.records import PyramidRef

CLASS_MEANING = {
    CellClass.C0: "0  none",
    CellClass.C1: "1  faint or incomplete",
    CellClass.C2U: "2u  intense, incomplete",
    CellClass.C2: "2  weak to moderate, complete",
    CellClass.C3: "3  intense, complete",
}
INK = "#222222"
DPI = 100
PANEL_IN = 7.0  # longest edge of a panel, inches
THUMBNAIL_PX = 1400
JPEG_QUALITY = 90  # ours: letters and contours are as in a PNG file to the eye
UP_FILTER, TRUE_COLOUR = 2, 2  # as the PNG specification numbers them (sections 9.2, 11.2.1)
FRAME, FRAME_POINTS, FRAME_ORDER = "#BBBBBB", 0.8, 2.5  # around a panel, below its text


def read_thumbnail(
    reader: LevelReader, ref: PyramidRef, longest_px: int = THUMBNAIL_PX
) -> tuple[Pixels, float]:
    """The finest level whose longer edge is at most ``longest_px`` (else the coarsest), and its µm/px."""
    fitting = [k for k, shape in enumerate(ref.shapes) if max(shape) <= longest_px]
    level = fitting[0] if fitting else len(ref.shapes) - 1
    out = np.empty((*ref.shapes[level], len(ref.channels)), ref.dtype)
    reader.read(level, 0, 0, out)
    return out, ref.mpp * 2**level


def _circle() -> Path:
    style = MarkerStyle("o")
    return style.get_path().transformed(style.get_transform())


class Panel(Artist):
    """A place for a slide in µm: what axes without ticks are, at a twentieth of their time; the same pixels.

    Parameters
    ----------
    box
        ``(left, bottom, width, height)`` in inches.
    x_um, y_um
        First and last µm from left to right and from below to above.
    equal
        Shrink the panel around its middle until a µm is as long in either direction.
    facecolor
        Colour of what nothing covers.
    framed
        Whether a thin line runs around it.

    Attributes
    ----------
    bbox
        Where it lies, in pixels.
    inch
        An inch across and up as fractions of the panel.
    transAxes, transData
        From fractions of the panel, and from µm, to pixels.
    """

    def __init__(
        self,
        figure: Figure,
        box: tuple[float, float, float, float],
        x_um: tuple[float, float],
        y_um: tuple[float, float],
        *,
        equal: bool = False,
        facecolor: str | None = None,
        framed: bool = True,
    ) -> None:
        super().__init__()
        wide, high = figure.get_size_inches()
        x, y, w, h = box
        place = Bbox.from_bounds(x / wide, y / high, w / wide, h / high)
        extent = TransformedBbox(place, figure.transSubfigure)
        self.inch = DPI / extent.width, DPI / extent.height
        if equal:
            ratio = abs(y_um[1] - y_um[0]) / abs(x_um[1] - x_um[0])
            whole = Bbox.unit().transformed(figure.transSubfigure)
            place = place.shrunk_to_aspect(ratio, place, whole.height / whole.width).anchored("C", place)
        self.bbox = TransformedBbox(place, figure.transSubfigure)
        self.transAxes = BboxTransformTo(self.bbox)
        seen = Bbox.from_extents(x_um[0], y_um[0], x_um[1], y_um[1])
        self.transData = BboxTransformFrom(seen) + self.transAxes
        self._seen, self._framed = seen, framed
        self._drawn: list[Artist] = []
        figure.add_artist(self)
        if facecolor is not None:
            here = self.transAxes
            self.add(Rectangle((0, 0), 1, 1, transform=here, facecolor=facecolor, lw=0, zorder=-1))

    def add(self, artist: Artist, *, clip: bool = True) -> None:
        """Draw something in the panel, in µm unless it has a place of its own; later ones on top."""
        artist.set_figure(self.get_figure(root=True))  # type: ignore[arg-type]
        if not artist.is_transform_set():
            artist.set_transform(self.transData)
        if clip:
            artist.set_clip_box(self.bbox)
        self._drawn.append(artist)

    def dots(
        self,
        x_um: NDArray[np.float64],
        y_um: NDArray[np.float64],
        points: float,
        facecolor: str,
        edgecolor: str = "face",
        linewidth: float = 0.0,
    ) -> None:
        """Draw circles of one size, ``points`` wide, and one colour."""
        circles = PathCollection(
            (_circle(),), (points**2,), offsets=np.stack([x_um, y_um], axis=1),
            offset_transform=self.transData, facecolors=facecolor, edgecolors=edgecolor,
            linewidths=linewidth,
        )  # fmt: skip
        circles.set_transform(IdentityTransform())
        self.add(circles)

    def part(self, x: float, y: float, w: float, h: float) -> tuple[float, float, float, float]:
        """A part of the panel, given in fractions of it, in fractions of the figure: place for axes."""
        figure = self.get_figure(root=True)
        assert figure is not None
        place = TransformedBbox(Bbox.from_bounds(x, y, w, h), self.transAxes - figure.transSubfigure)
        left, low, width, height = place.bounds
        return left, low, width, height

    def get_children(self) -> list[Artist]:
        """What is drawn in the panel."""
        return self._drawn

    def draw(self, renderer: RendererBase) -> None:
        """Called by the figure."""
        ordered = sorted(self._drawn, key=lambda each: each.get_zorder())
        below = [each for each in ordered if each.get_zorder() <= FRAME_ORDER]
        for artist in below:
            artist.draw(renderer)
        if self._framed:
            self._draw_frame(renderer)
        for artist in ordered[len(below) :]:
            artist.draw(renderer)

    def _draw_frame(self, renderer: RendererBase) -> None:
        pen = renderer.new_gc()
        pen.set_linewidth(FRAME_POINTS)
        pen.set_capstyle("projecting")
        pen.set_foreground(FRAME)
        across, up = self._seen.intervalx, self._seen.intervaly
        upright = BlendedAffine2D(self.transAxes, self.transData)
        level = BlendedAffine2D(self.transData, self.transAxes)
        for at in (0.0, 1.0):
            renderer.draw_path(pen, Path([(at, end) for end in up]), upright)
            renderer.draw_path(pen, Path([(end, at) for end in across]), level)
        pen.restore()


class Backdrop(Artist):
    """A slide that fills its place on a panel, resampled by area: `Axes.imshow` in a tenth of its time.

    Parameters
    ----------
    panel
        Where it is drawn; its first corner lies at the panel's zero.
    pixels
        (h, w, 3) or grey (h, w) uint8 at ``um_px``.
    """

    def __init__(self, panel: Panel, pixels: Pixels, um_px: float) -> None:
        super().__init__()
        self._panel, self._pixels, self._um_px = panel, pixels, um_px
        panel.add(self)

    def draw(self, renderer: RendererBase) -> None:
        """Called by the panel."""
        height, width = self._pixels.shape[:2]
        ends = np.array([(0.0, height), (width, 0.0)]) * self._um_px
        (left, low), (right, high) = np.rint(self._panel.transData.transform(ends)).astype(int)
        size = max(right - left, 1), max(high - low, 1)
        how = cv2.INTER_AREA if size[0] < width else cv2.INTER_LINEAR
        scaled = cv2.resize(self._pixels, size, interpolation=how)
        code = cv2.COLOR_GRAY2RGBA if scaled.ndim == 2 else cv2.COLOR_RGB2RGBA
        renderer.draw_image(renderer.new_gc(), left, low, cv2.cvtColor(scaled, code)[::-1])


def scale_bar(panel: Panel, width_um: float) -> None:
    """Bar of a round length, about a fifth of the width, on a white plate in the lower left corner."""
    length = _round_length(width_um / 5)
    inch_x, inch_y = panel.inch
    bar = length / width_um
    plate = max(bar + 0.2 * inch_x, 0.75 * inch_x)
    x0, y0 = 0.12 * inch_x, 0.12 * inch_y
    middle = x0 + plate / 2
    left, low, thick = middle - bar / 2, y0 + 0.08 * inch_y, 0.04 * inch_y
    high, base = 0.42 * inch_y, y0 + 0.15 * inch_y
    text = f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} µm"
    for part in (
        Plate((x0, y0, plate, high), "#FFFFFF", alpha=0.85),
        Plate((left, low, bar, thick), "#000000"),
        Words(middle, base, text, 9, "#000000", across="center", up="bottom"),
    ):
        part.set_transform(panel.transAxes)
        panel.add(part, clip=False)


def _round_length(um: float) -> float:
    """Largest of 1, 2, 5 times a power of ten that is at most ``um``."""
    power = 10.0 ** math.floor(math.log10(um))
    return max(step * power for step in (1.0, 2.0, 5.0) if step * power <= um)


def heading(figure: Figure, left: float, title: str, line: str, top_in: float = 0.36) -> None:
    """A title ``top_in`` inches from the top, a line below it, and on the right what this is not for.

    Parameters
    ----------
    left
        Margin to both sides, as a fraction of the figure's width.
    """
    wide, high = figure.get_size_inches()
    y_title, y_line, right = high - top_in, high - top_in - 0.38, (1 - left) * wide
    write(figure, left * wide, y_title, title, 17, INK, up="center", bold=True)
    write(figure, left * wide, y_line, line, 10.5, "#444444", up="center")
    write(figure, right, y_title, "research use only", 8.5, "#888888", across="right", up="center")


def shortened(text: str, longest: int) -> str:
    """The text, its middle left out where it is too long."""
    if len(text) <= longest:
        return text
    half = (longest - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def pixels_of(figure: Figure) -> NDArray[np.uint8]:
    """The (h, w, 4) pixels of a figure, its upper row first."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]


def png_bytes(figure: Figure) -> bytes:
    """The file of a figure without transparent parts."""
    return encode_png(cv2.cvtColor(pixels_of(figure), cv2.COLOR_RGBA2RGB))


def jpeg_bytes(figure: Figure) -> bytes:
    """The file of a figure that is mostly tissue: 0.4 of the bytes of `png_bytes` in a third of its time."""
    rgb = cv2.cvtColor(pixels_of(figure), cv2.COLOR_RGBA2RGB)
    return bytes(imagecodecs.jpeg8_encode(rgb, level=JPEG_QUALITY, subsampling="444"))


def encode_png(rgb: NDArray[Any]) -> bytes:
    """A PNG file of (h, w, 3): every row less the one above it, deflated by libdeflate.

    Half of libpng's time at its quickest level, and a sixteenth fewer bytes.
    """
    height, width = rgb.shape[:2]
    rows: Any = np.empty((height, 1 + 3 * width), np.uint8)
    rows[:, 0] = UP_FILTER
    flat = rgb.reshape(height, 3 * width)
    rows[0, 1:] = flat[0]
    np.subtract(flat[1:], flat[:-1], out=rows[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 8, TRUE_COLOUR, 0, 0, 0)
    deflated = bytes(imagecodecs.deflate_encode(rows, level=1))
    chunks = (b"IHDR", header), (b"IDAT", deflated), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, body) for name, body in chunks)


def _chunk(name: bytes, body: bytes) -> bytes:
    check = zlib.crc32(body, zlib.crc32(name))
    return b"".join((struct.pack(">I", len(body)), name, body, struct.pack(">I", check)))
