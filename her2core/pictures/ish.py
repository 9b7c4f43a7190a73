"""The picture of an ISH slide: where its nuclei are and how each counts, and some of them close up.

Left, the slide with a dot a nucleus; right, nuclei at full resolution, in the order of their HER2 copies, a
ring around every signal that was found. So one glance shows what was measured and whether to trust it.

Signals differ by shape as well as by colour: HER2 in circles, CEP17 in squares. Colours are Okabe and
Ito's (jfly.uni-koeln.de/color), safe for colour-blind readers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from her2core.pictures.canvas import (
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
from her2core.pictures.colours import OTHER_COLOUR
from her2core.pictures.letters import Key, Legend, Outline, write
from her2core.profile.sampling import LevelReader, Pixels
from her2core.records import RGB, Box, PyramidRef
from her2core.text import counted

AMPLIFIED, NOT_AMPLIFIED = "#E69F00", "#56B4E9"
PROBE_NAMES = ("HER2", "CEP17")
PROBE_SHAPES: tuple[Literal["circle"], Literal["square"]] = ("circle", "square")
PROBE_COLOURS = ("#D55E00", "#009E73")  # rings on bright field
PROBE_GLOW = ("#FFB070", "#7DF0C8")  # rings on the dark of fluorescence: the same hues, lighter
TINTS = {"DAPI": (25, 45, 150), "HER2": (255, 110, 30), "CEP17": (0, 230, 110)}  # light added a channel, RGB
AMPLIFIED_RATIO = 2  # HER2 signals a CEP17 signal, from which a nucleus is drawn as amplified (ASCO/CAP 2018)
AMPLIFIED_COPIES = 6  # HER2 signals a nucleus, likewise, with a single probe (ASCO/CAP 2018)
GALLERY = 12
COLUMNS = 4
KEYS_IN = 0.48  # upper edge of the legends
TILE_IN = 2.2  # edge of a close-up on the page
CROP_UM = 16.0  # and on the slide: a tumour nucleus is 8-14 µm wide
DOT_UM = 11.0  # drawn diameter of a nucleus
MIN_DOT_PX = 2.5
OPEN_DOT_PX = 14.0  # larger dots are drawn open, so that the nucleus shows
RING = 1.5  # radius of a ring, in radii of its signal
MIN_RING_UM = 0.55
CONTRAST_SAMPLES = 1_000_000  # pixels from which contrast is taken, about
DAPI_PERCENT = (1.0, 99.5)  # percentiles shown as black and as full light
PROBE_PERCENT = (85.0, 99.9)  # likewise: black is what a nucleus shows of itself


@dataclass(frozen=True, slots=True)
class ISHNuclei:
    """Nuclei of a slide, columns of equal length.

    Attributes
    ----------
    y_um, x_um
        Centroids.
    her2, cep17
        Copies as the score counts them; ``cep17`` is None with a single probe.
    evaluable
        Whether the score may count the nucleus.
    """

    y_um: npt.NDArray[np.float64]
    x_um: npt.NDArray[np.float64]
    her2: npt.NDArray[np.int64]
    cep17: npt.NDArray[np.int64] | None
    evaluable: npt.NDArray[np.bool_]

    @property
    def amplified(self) -> npt.NDArray[np.bool_]:
        """Evaluable nuclei of ratio 2 or more; with a single probe, of 6 copies or more."""
        many = self.her2 >= AMPLIFIED_COPIES
        if self.cep17 is not None:
            many = self.her2 >= AMPLIFIED_RATIO * self.cep17
        return many & self.evaluable


@dataclass(frozen=True, slots=True)
class CloseUp:
    """One nucleus of the gallery, and its signals in pixels of the crop.

    Attributes
    ----------
    pixels
        ``(h, w, channel)``, nucleus in the middle.
    her2, cep17
        Copies as the score counts them; ``cep17`` is None with a single probe.
    probe
        0 for HER2, 1 for CEP17, a signal.
    """

    pixels: Pixels
    her2: int
    cep17: int | None
    probe: npt.NDArray[np.int64]
    y_px: npt.NDArray[np.float64]
    x_px: npt.NDArray[np.float64]
    diameter_px: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ISHSummary:
    """Text of the heading. ``result`` is the ISH result, None where there is none; ``note`` its reasons."""

    slide_id: str
    state: str
    result: str | None
    group: str | None
    ratio: float | None
    ratio_interval: tuple[float, float] | None
    her2_mean: float | None
    cep17_mean: float | None
    note: str = ""


def gallery(nuclei: ISHNuclei, count: int = GALLERY) -> npt.NDArray[np.int64]:
    """Nuclei to show: evaluable ones, evenly spread over the ranks of their HER2 copies, fewest first.

    The same nuclei in any order give the same choice: equals rank by CEP17, then by place.
    """
    index = np.flatnonzero(nuclei.evaluable)
    keys: list[npt.NDArray[np.generic]] = [nuclei.x_um[index], nuclei.y_um[index]]
    if nuclei.cep17 is not None:
        keys.append(-nuclei.cep17[index])
    ranked = index[np.lexsort((*keys, nuclei.her2[index]))]
    shown = min(count, len(ranked))
    at = (2 * np.arange(shown) + 1) * len(ranked) // (2 * max(shown, 1))
    return ranked[at]


def crop_box(y_px0: float, x_px0: float, mpp: float) -> Box:
    """Square of about `CROP_UM` around a place, level-0 pixels; may reach beyond the slide."""
    half = max(round(CROP_UM / mpp / 2), 1)
    y, x = round(y_px0), round(x_px0)
    return Box(y - half, x - half, y + half, x + half)


def read_crops(reader: LevelReader, ref: PyramidRef, boxes: Sequence[Box]) -> list[Pixels]:
    """Pixels of every box at full resolution."""
    crops = []
    for box in boxes:
        out = np.empty((box.height, box.width, len(ref.channels)), ref.dtype)
        reader.read(0, box.y0, box.x0, out)
        crops.append(out)
    return crops


def ish_picture(
    thumbnail: Pixels,
    um_px: float,
    channels: tuple[str, ...],
    nuclei: ISHNuclei,
    close_ups: Sequence[CloseUp],
    mpp: float,
    summary: ISHSummary,
) -> bytes:
    """JPEG of a slide.

    Parameters
    ----------
    thumbnail
        ``(h, w, channel)`` of the whole slide at ``um_px``.
    channels
        What a pixel holds, as in `PyramidRef`.
    close_ups
        At most `GALLERY` nuclei at ``mpp``.
    """
    bright = channels == RGB
    height_um, width_um = thumbnail.shape[0] * um_px, thumbnail.shape[1] * um_px
    inch_um = PANEL_IN / max(height_um, width_um)
    panel_w, panel_h = max(width_um * inch_um, 2.0), max(height_um * inch_um, 1.0)
    tile, caption, gap, top, bottom = TILE_IN, 0.27, 0.25, 1.05, 0.75
    gallery_w = COLUMNS * tile + (COLUMNS - 1) * 0.1
    rows = -(-max(len(close_ups), 1) // COLUMNS)
    gallery_h = rows * (tile + caption)
    wide = panel_w + gallery_w + 3 * gap
    body = max(panel_h, gallery_h)
    high = top + body + bottom
    figure = Figure(figsize=(wide, high), dpi=DPI, facecolor="white")

    place = gap, bottom + body - panel_h, panel_w, panel_h
    ground = "white" if bright else "black"
    left = Panel(figure, place, (0, width_um), (height_um, 0), equal=True, facecolor=ground)
    Backdrop(left, thumbnail if bright else composite(thumbnail, channels), um_px)
    _draw_nuclei(left, nuclei, inch_um * DPI)
    scale_bar(left, width_um)

    x0 = panel_w + 2 * gap
    for i, close in enumerate(close_ups[:GALLERY]):
        row, column = divmod(i, COLUMNS)
        corner = (x0 + column * (tile + 0.1), bottom + body - row * (tile + caption) - tile)
        _draw_close_up(figure, (*corner, tile, tile), close, channels, mpp)
        middle, below = corner[0] + tile / 2, corner[1] - 0.04
        write(figure, middle, below, _counts(close), 8.5, INK, across="center", up="top")
    if not len(close_ups):
        middle, text = x0 + gallery_w / 2, "no nucleus could be judged"
        write(figure, middle, bottom + body - 1.0, text, 11, "#666666", across="center")
    _legends(figure, nuclei, (gap, x0))
    _heading(figure, summary, nuclei, gap / wide)
    return jpeg_bytes(figure)


def composite(pixels: Pixels, channels: tuple[str, ...]) -> npt.NDArray[np.uint8]:
    """(h, w, 3) uint8 colours of a fluorescence picture: DAPI blue, HER2 orange, CEP17 green, added up.

    Contrast is the picture's own: it shows where signals are, and nothing about how bright they are.
    """
    step = max(pixels.shape[0] * pixels.shape[1] // CONTRAST_SAMPLES, 1)
    out = np.zeros((*pixels.shape[:2], 3), np.float32)
    for c, channel in enumerate(channels):
        plane = pixels[..., c].astype(np.float32)
        percent = DAPI_PERCENT if channel == "DAPI" else PROBE_PERCENT
        low, high = np.percentile(plane.ravel()[::step], percent)
        light = np.clip((plane - low) / max(high - low, 1), 0, 1)
        out += light[..., np.newaxis] * np.array(TINTS[channel], np.float32)
    return np.minimum(out, 255).astype(np.uint8)


def _draw_nuclei(panel: Panel, nuclei: ISHNuclei, px_um: float) -> None:
    """One dot a nucleus: those that count above those that do not, amplified ones on top."""
    diameter = max(DOT_UM * px_um, MIN_DOT_PX)
    points, hollow = diameter * 72 / DPI, diameter > OPEN_DOT_PX
    amplified = nuclei.amplified
    for colour, here, size in (
        (OTHER_COLOUR, ~nuclei.evaluable, 0.6),
        (NOT_AMPLIFIED, nuclei.evaluable & ~amplified, 1.0),
        (AMPLIFIED, amplified, 1.0),
    ):
        panel.dots(
            nuclei.x_um[here], nuclei.y_um[here], size * points,
            facecolor="none" if hollow else colour, edgecolor=colour if hollow else INK,
            linewidth=1.6 if hollow else 0.08 * points,
        )  # fmt: skip


def _draw_close_up(
    figure: Figure,
    box: tuple[float, float, float, float],
    close: CloseUp,
    channels: tuple[str, ...],
    mpp: float,
) -> None:
    """One nucleus at ``(left, bottom, width, height)`` in inches, its signals ringed."""
    height, width = close.pixels.shape[:2]
    panel, bright = Panel(figure, box, (0, width), (height, 0)), channels == RGB
    Backdrop(panel, close.pixels if bright else composite(close.pixels, channels), 1.0)
    colours, under = (PROBE_COLOURS, "white") if bright else (PROBE_GLOW, "black")
    for probe, y, x, wide in zip(close.probe, close.y_px, close.x_px, close.diameter_px, strict=True):
        reach = max(RING * wide / 2, MIN_RING_UM / mpp)
        centre = x + 0.5, y + 0.5  # of a pixel, whose place is that of its middle
        panel.add(Outline(PROBE_SHAPES[probe], centre, reach, colours[probe], 1.0, under=under))


def _counts(close: CloseUp) -> str:
    """``HER2 12 in 3  CEP17 2``: copies, and the signals they were seen in where these are fewer or more."""
    parts = []
    for probe, copies in enumerate((close.her2, close.cep17)):
        if copies is None:
            continue
        seen = int(np.count_nonzero(close.probe == probe))
        parts.append(f"{PROBE_NAMES[probe]} {copies}" + ("" if seen == copies else f" in {seen}"))
    return "   ".join(parts)


def _legends(figure: Figure, nuclei: ISHNuclei, left: tuple[float, float]) -> None:
    """Below the slide its nuclei by state, below the gallery its rings."""
    total, evaluable = len(nuclei.her2), int(np.count_nonzero(nuclei.evaluable))
    many = int(np.count_nonzero(nuclei.amplified))
    rule = f"HER2/CEP17 ≥ {AMPLIFIED_RATIO}" if nuclei.cep17 is not None else f"HER2 ≥ {AMPLIFIED_COPIES}"
    dots = [
        Key(AMPLIFIED, f"{rule}: {many:,}", INK, "dot"),
        Key(NOT_AMPLIFIED, f"below: {evaluable - many:,}", INK, "dot"),
        Key(OTHER_COLOUR, f"not evaluable: {total - evaluable:,}", INK, "dot"),
    ]
    probes = 2 if nuclei.cep17 is not None else 1
    rings = [Key(PROBE_COLOURS[k], PROBE_NAMES[k], mark=PROBE_SHAPES[k]) for k in range(probes)]
    rings.append(Key(INK, f"each {CROP_UM:g} µm across, by HER2 copies", mark="words"))
    for keys, x in zip((dots, rings), left, strict=True):
        Legend(figure, keys, (x, KEYS_IN), 9, len(keys), apart=1.4, pad=0.5)


def _heading(figure: Figure, summary: ISHSummary, nuclei: ISHNuclei, left: float) -> None:
    verdict = summary.result or summary.state
    if summary.group:
        verdict += f"   group {summary.group}" if summary.group.isdigit() else ""
    most = int(figure.get_figwidth() * (1 - 2 * left) * 5) - len(verdict) - 6  # characters, at 17 points
    title = f"{shortened(summary.slide_id, most)}    {verdict}"
    parts = []
    if summary.ratio is not None:
        between = summary.ratio_interval
        interval = "" if between is None else f" (95 %: {between[0]:.2f}–{between[1]:.2f})"
        parts.append(f"HER2/CEP17 {summary.ratio:.2f}{interval}")
    for probe, mean in zip(PROBE_NAMES, (summary.her2_mean, summary.cep17_mean), strict=True):
        if mean is not None:
            parts.append(f"{probe} {mean:.1f} a nucleus")
    parts.append(f"{counted(int(np.count_nonzero(nuclei.evaluable)), 'nucleus', 'nuclei')} judged")
    if summary.note:
        parts.append(summary.note)
    line = shortened("   ·   ".join(parts), int(figure.get_figwidth() * (1 - 2 * left) * 11))
    heading(figure, left, title, line)
