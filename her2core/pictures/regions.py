"""The picture of a slide's regions: the slide, and maps of its hexagons.

Beside the thumbnail: mean expression, what follows from it, and where high or low values gather. Colours run
over fixed ranges, so that two slides can be laid side by side. Numbers are drawn in cividis, which is even to
the eye and safe for colour-blind readers; scores in the colours of `canvas`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize, to_hex
from matplotlib.figure import Figure

from her2core.guidelines.rules_ihc import SCORES
from her2core.heterogeneity.lattice import DISCOVERY, hot_and_cold
from her2core.heterogeneity.regions import UNSCORED, Hexes, NucleusRegions, Regions
from her2core.params import HeterogeneityParams
from her2core.pictures.canvas import (
    DPI,
    INK,
    Backdrop,
    Panel,
    heading,
    scale_bar,
    shortened,
)
from her2core.pictures.colours import SCORE_COLOURS as SCORE_COLOUR
from her2core.pictures.ish import composite
from her2core.pictures.letters import ColourBar, Key, Legend, write
from her2core.profile.sampling import Pixels
from her2core.records import RGB

Reals = npt.NDArray[np.float64]
AnyRegions = TypeVar("AnyRegions", bound=Hexes)

MAP_UM = 250.0  # width of the hexagons that are drawn, or the nearest of the sweep
COLOURS = "cividis"
TOP_OD = 0.8  # membrane OD at the end of the colours: strong staining begins at 0.6
TOP_COPIES = 12.0  # HER2 copies a nucleus there: twice what is amplified beyond doubt
TOP_RATIO = 4.0  # HER2/CEP17 there: twice what is amplified
HOT, COLD = "#D55E00", "#0072B2"  # Okabe and Ito's vermilion and blue
NEITHER = "#D9D9D9"
FEW = "#F2F2F2"  # hexagons with too few cells
FEW_EDGE = "#C4C4C4"
SCORE_COLOURS = tuple(SCORE_COLOUR[score] for score in SCORES)
PANEL_IN = 5.6  # longest edge of a panel, inches
STRIP_IN = 8.0  # the same of slides so long that their panels lie all beside or all below each other
TALL, WIDE = 2.0, 3.0  # height over width, and width over height, from which they do
MIN_W_IN, MIN_H_IN = 3.6, 0.8  # of a panel: its title and legend fit
EDGE_PX = 12.0  # hexagons from this size on are set apart by white lines
TITLE_IN, KEY_IN, GAP_IN, TOP_IN, BOTTOM_IN = 0.34, 0.6, 0.3, 0.95, 0.1


@dataclass(frozen=True, slots=True)
class _Key:
    """One colour of a legend, its words, and the number of hexagons."""

    colour: str
    text: str
    count: int


@dataclass(frozen=True, slots=True)
class _Map:
    """One panel of hexagons: colours, and what explains them.

    Either numbers from 0 to ``top`` (``beyond``: and above) with ``ticks``, or ``keys``.
    """

    title: str
    hexes: Hexes
    colours: npt.NDArray[np.str_]
    top: float | None = None
    beyond: bool = True
    ticks: Sequence[float] = ()
    keys: tuple[_Key, ...] = ()


def regions_figure(
    thumbnail: Pixels,
    um_px: float,
    channels: tuple[str, ...],
    sweep: Sequence[Regions | NucleusRegions],
    params: HeterogeneityParams,
    slide_id: str,
) -> Figure:
    """A slide and maps of its regions.

    IHC: mean membrane OD, regional score, hot and cold hexagons by OD. ISH: mean HER2 copies, HER2/CEP17
    (amplified nuclei with a single probe), hot and cold hexagons by copies. Hexagons with fewer than
    ``region_cells`` cells are pale. They are about `MAP_UM` wide, or smaller where too few of that size take
    part in metrics, as on a core of a tissue array; scores are those of the larger ones.

    Parameters
    ----------
    thumbnail
        ``(h, w, channel)`` of the whole slide at ``um_px``.
    channels
        What a pixel holds, as in `PyramidRef`.
    sweep
        Regions of the slide by ascending size, at least one of each.
    """
    height_um, width_um = thumbnail.shape[0] * um_px, thumbnail.shape[1] * um_px
    columns = 4 if height_um > TALL * width_um else 1 if width_um > WIDE * height_um else 2
    inch_um = (PANEL_IN if columns == 2 else STRIP_IN) / max(height_um, width_um)
    panel_w, panel_h = max(width_um * inch_um, MIN_W_IN), max(height_um * inch_um, MIN_H_IN)
    step_h = TITLE_IN + panel_h + KEY_IN
    wide = columns * panel_w + (columns + 1) * GAP_IN
    saved = KEY_IN - 0.1 if columns == 1 else 0.0  # the slide has no key, and nothing lies beside it
    high = TOP_IN + 4 // columns * step_h - saved + BOTTOM_IN
    figure = Figure(figsize=(wide, high), dpi=DPI, facecolor="white")

    bright = channels == RGB
    shown = thumbnail if bright else composite(thumbnail, channels)
    maps = _maps(sweep, params)
    faded = _backdrop(shown, bright=bright)
    for i, drawn in enumerate((None, *maps)):
        row, column = divmod(i, columns)
        left = GAP_IN + column * (panel_w + GAP_IN)
        bottom = high - TOP_IN - row * step_h + (saved if row else 0.0) - TITLE_IN - panel_h
        spare_x, spare_y = panel_w / inch_um - width_um, panel_h / inch_um - height_um
        x_um, y_um = (-spare_x / 2, width_um + spare_x / 2), (height_um + spare_y / 2, -spare_y / 2)
        panel = Panel(figure, (left, bottom, panel_w, panel_h), x_um, y_um)
        Backdrop(panel, shown if drawn is None else faded, um_px)
        title = drawn.title if drawn is not None else "slide"
        write(figure, left, bottom + panel_h + 0.1, title, 10.5, INK)
        if drawn is None:
            scale_bar(panel, panel_w / inch_um)
            continue
        _draw(panel, drawn.hexes, drawn.colours, inch_um * DPI)
        _explain(figure, drawn, (left, bottom - 0.08, panel_w), params)
    _heading(figure, to_draw(sweep, params), params, slide_id, wide)
    return figure


def to_draw(
    sweep: Sequence[Regions | NucleusRegions], params: HeterogeneityParams
) -> Regions | NucleusRegions:
    """Regions of about `MAP_UM`; the next smaller ones of which enough take part in metrics, if there are."""
    usual = _nearest(sweep)
    for regions in reversed(sweep):
        enough = np.count_nonzero(regions.n >= params.region_cells) >= params.min_regions
        if enough and regions.grid.size_um <= usual.grid.size_um:
            return regions
    return usual


def _nearest(sweep: Sequence[AnyRegions]) -> AnyRegions:
    return min(sweep, key=lambda regions: abs(regions.grid.size_um - MAP_UM))


def _maps(sweep: Sequence[Regions | NucleusRegions], params: HeterogeneityParams) -> tuple[_Map, _Map, _Map]:
    """The three maps of an assay."""
    regions = to_draw(sweep, params)
    valid = regions.n >= params.region_cells
    if isinstance(regions, NucleusRegions):
        values, what = regions.copies_mean, "copies"
        first = _shaded("mean HER2 copies a nucleus", regions, values, valid, TOP_COPIES, range(0, 13, 2))
        if regions.cep17 is None:
            share, ticks = regions.amplified_fraction, (0.0, 0.25, 0.5, 0.75, 1.0)
            second = _shaded("fraction of amplified nuclei", regions, share, valid, 1.0, ticks, beyond=False)
        else:
            ratio = regions.her2 / np.maximum(regions.cep17, 0.5)  # of none at all: beyond the colours
            second = _shaded("HER2/CEP17", regions, ratio, valid, TOP_RATIO, range(5))
    else:
        values, what = regions.od_mean, "OD"
        first = _shaded("mean membrane OD", regions, values, valid, TOP_OD, (0.0, 0.2, 0.4, 0.6, 0.8))
        usual = _nearest([each for each in sweep if isinstance(each, Regions)])
        second = _scores(usual, params, alike=usual is regions)
    return first, second, _gatherings(regions, values, valid, what, params)


def _shaded(
    title: str,
    hexes: Hexes,
    values: Reals,
    valid: npt.NDArray[np.bool_],
    top: float,
    ticks: Sequence[float],
    *,
    beyond: bool = True,
) -> _Map:
    """A map of numbers from 0 to ``top``."""
    shades = colormaps[COLOURS](Normalize(0, top, clip=True)(values))
    colours = np.array([to_hex(shade) for shade in shades], "U7")
    return _Map(title, hexes, np.where(valid, colours, FEW), top, beyond, ticks)


def _scores(regions: Regions, params: HeterogeneityParams, *, alike: bool) -> _Map:
    """Scores of the regions; the title gives their size unless all maps are ``alike``."""
    colours = np.array([*SCORE_COLOURS, FEW])[regions.score]  # UNSCORED is the last
    named = zip(SCORE_COLOURS, SCORES, strict=True)
    keys = [_Key(c, s, int((regions.score == i).sum())) for i, (c, s) in enumerate(named)]
    keys.append(
        _Key(FEW, f"fewer than {params.region_score_cells} cells", int((regions.score == UNSCORED).sum()))
    )
    title = "score of the region" if alike else f"score of regions of {regions.grid.size_um:g} µm"
    return _Map(title, regions, colours, keys=tuple(keys))


def _gatherings(
    regions: Regions | NucleusRegions,
    values: Reals,
    valid: npt.NDArray[np.bool_],
    what: str,
    params: HeterogeneityParams,
) -> _Map:
    """Where high and low values gather, among the valid hexagons, if there are enough of them."""
    colours = np.full(len(regions), FEW)
    m = int(np.count_nonzero(valid))
    if m < params.min_regions:
        return _Map(f"hot and cold: insufficient ({m} of {params.min_regions} regions)", regions, colours)
    near = Hexes(regions.grid, regions.q[valid], regions.r[valid]).neighbours()
    kind = hot_and_cold(values[valid], near)
    colours[valid] = np.array([NEITHER, HOT, COLD])[kind]  # -1 is the last
    keys = [
        _Key(colour, word, int(np.count_nonzero(kind == sign)))
        for colour, word, sign in ((HOT, "hot", 1), (COLD, "cold", -1), (NEITHER, "neither", 0))
    ]
    return _Map(f"hot and cold by {what}: Gi*, FDR {DISCOVERY:g}", regions, colours, keys=tuple(keys))


def _backdrop(shown: npt.NDArray[np.uint8], *, bright: bool) -> npt.NDArray[np.uint8]:
    """(h, w) the slide in light grey on white, whatever its assay."""
    grey = cv2.cvtColor(np.ascontiguousarray(shown), cv2.COLOR_RGB2GRAY).astype(np.int16)
    dark = 255 - grey if bright else grey
    return (255 - dark * 2 // 5).astype(np.uint8)


def _draw(panel: Panel, hexes: Hexes, colours: npt.NDArray[np.str_], px_um: float) -> None:
    """Every hexagon in its colour and at its size, on the slide's own scale."""
    angle = np.radians(30 + 60 * np.arange(6))
    corners = np.stack([np.cos(angle), np.sin(angle)], axis=1) * hexes.grid.size_um / math.sqrt(3)
    centres = np.stack([hexes.x_um, hexes.y_um], axis=1)
    apart = hexes.grid.size_um * px_um >= EDGE_PX
    few = colours == FEW
    for here, edges in ((few, FEW_EDGE), (~few, "white" if apart else "face")):
        panel.add(
            PolyCollection(
                centres[here, np.newaxis] + corners,  # type: ignore[arg-type]  # faster than a list of them
                facecolors=colours[here].tolist(), edgecolors=edges,
                linewidths=0.8 if apart else 0.3,
            )
        )  # fmt: skip


def _explain(
    figure: Figure,
    drawn: _Map,
    place: tuple[float, float, float],
    params: HeterogeneityParams,
) -> None:
    """Colour bar or keys below a panel; ``place`` is left, top and width in inches."""
    left, top, width = place
    if drawn.top is not None:
        length = min(width - 1.65, 3.2)
        left += 0.12  # space for the first tick's label
        bar = left, top - 0.14, length, 0.13
        shades = ColourBar(figure, bar, colormaps[COLOURS], drawn.top, drawn.ticks, 9, beyond=drawn.beyond)
        figure.add_artist(shades)
        few = _Key(FEW, f"fewer than {params.region_cells}", int(np.count_nonzero(drawn.colours == FEW)))
        _legend(figure, [few], (left + length + 0.1, top + 0.03))
    elif drawn.keys:
        _legend(figure, drawn.keys, (left, top + 0.03), columns=3 if width < 4.5 else 5)


def _legend(figure: Figure, keys: Sequence[_Key], place: tuple[float, float], columns: int = 1) -> None:
    shown = [
        Key(key.colour, f"{key.text}: {key.count:,}", FEW_EDGE if key.colour == FEW else None) for key in keys
    ]
    Legend(figure, shown, (place[0] + 0.03, place[1] - 0.03), 9, columns)


def _heading(
    figure: Figure,
    regions: Regions | NucleusRegions,
    params: HeterogeneityParams,
    slide_id: str,
    wide: float,
) -> None:
    cells = "tumour cells" if isinstance(regions, Regions) else "nuclei"
    valid = int(np.count_nonzero(regions.n >= params.region_cells))
    parts = [
        f"hexagons of {regions.grid.size_um:g} µm",
        f"{valid:,} of {len(regions):,} with {params.region_cells} {cells} or more",
    ]
    most = int((wide - 2.2) * 5.5) - 11  # characters at 17 points beside the words
    title = f"{shortened(slide_id, most)}    regions"
    heading(figure, GAP_IN / wide, title, "   ·   ".join(parts), top_in=0.32)
