"""What all pictures share: colours, the slide behind, its scale bar, the heading, the file.

Drawn with Matplotlib's object interface on Agg, without global state, so any thread may draw; the same
input gives the same bytes.
"""

from __future__ import annotations

import math

import cv2
import imagecodecs
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from her2core.guidelines.rules_ihc import CellClass
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


def read_thumbnail(
    reader: LevelReader, ref: PyramidRef, longest_px: int = THUMBNAIL_PX
) -> tuple[Pixels, float]:
    """The finest level whose longer edge is at most ``longest_px`` (else the coarsest), and its µm/px."""
    fitting = [k for k, shape in enumerate(ref.shapes) if max(shape) <= longest_px]
    level = fitting[0] if fitting else len(ref.shapes) - 1
    out = np.empty((*ref.shapes[level], len(ref.channels)), ref.dtype)
    reader.read(level, 0, 0, out)
    return out, ref.mpp * 2**level


class Backdrop(Artist):
    """A slide that fills its place on axes in µm, resampled by area: `Axes.imshow` in a tenth of its time.

    Parameters
    ----------
    pixels
        (h, w, 3) or grey (h, w) uint8 at ``um_px``; its first corner lies at the axes' zero.
    """

    def __init__(self, pixels: Pixels, um_px: float) -> None:
        super().__init__()
        self._pixels, self._um_px = pixels, um_px
        self.set_zorder(0)

    def draw(self, renderer: RendererBase) -> None:
        """Called by the figure, when the axes have their final place."""
        if self.axes is None:
            return
        height, width = self._pixels.shape[:2]
        ends = np.array([(0.0, height), (width, 0.0)]) * self._um_px
        (left, low), (right, high) = np.rint(self.axes.transData.transform(ends)).astype(int)
        size = max(right - left, 1), max(high - low, 1)
        how = cv2.INTER_AREA if size[0] < width else cv2.INTER_LINEAR
        scaled = cv2.resize(self._pixels, size, interpolation=how)
        code = cv2.COLOR_GRAY2RGBA if scaled.ndim == 2 else cv2.COLOR_RGB2RGBA
        renderer.draw_image(renderer.new_gc(), left, low, cv2.cvtColor(scaled, code)[::-1])


def bare_axes(figure: Figure, box: tuple[float, float, float, float], wide: float, high: float) -> Axes:
    """Axes at ``(left, bottom, width, height)`` in inches, without ticks."""
    x, y, w, h = box
    axes = figure.add_axes((x / wide, y / high, w / wide, h / high))
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#BBBBBB")
    return axes


def scale_bar(axes: Axes, width_um: float) -> None:
    """Bar of a round length, about a fifth of the width, on a white plate in the lower left corner."""
    length = _round_length(width_um / 5)
    box = axes.get_window_extent()
    inch_x, inch_y = DPI / box.width, DPI / box.height  # one inch as a fraction of the panel
    bar = length / width_um
    plate = max(bar + 0.2 * inch_x, 0.75 * inch_x)
    x0, y0 = 0.12 * inch_x, 0.12 * inch_y
    middle = x0 + plate / 2
    here = axes.transAxes
    axes.add_patch(
        Rectangle((x0, y0), plate, 0.42 * inch_y, transform=here, facecolor="white", alpha=0.85, lw=0)
    )
    axes.add_patch(
        Rectangle(
            (middle - bar / 2, y0 + 0.08 * inch_y),
            bar,
            0.04 * inch_y,
            transform=here,
            facecolor="black",
            lw=0,
        )
    )
    text = f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} µm"
    axes.text(middle, y0 + 0.15 * inch_y, text, transform=here, ha="center", va="bottom", fontsize=9)


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
    high = figure.get_figheight()
    y_title, y_line = 1 - top_in / high, 1 - (top_in + 0.38) / high
    figure.text(left, y_title, title, fontsize=17, weight="bold", va="center", color=INK, parse_math=False)
    figure.text(left, y_line, line, fontsize=10.5, va="center", color="#444444", parse_math=False)
    figure.text(
        1 - left, y_title, "research use only", fontsize=8.5, ha="right", va="center", color="#888888"
    )


def shortened(text: str, longest: int) -> str:
    """The text, its middle left out where it is too long."""
    if len(text) <= longest:
        return text
    half = (longest - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def png_bytes(figure: Figure) -> bytes:
    """The file of a figure without transparent parts."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    drawn = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    rgb = cv2.cvtColor(drawn, cv2.COLOR_RGBA2RGB)
    return bytes(imagecodecs.png_encode(rgb, level=1, filter=imagecodecs.PNG.FILTER.SUB))
