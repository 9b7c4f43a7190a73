"""Maps of regions: every hexagon in the colour of its number, where it lies, and explained below."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from her2core.guidelines.rules_ihc import CellClass, load_rules
from her2core.guidelines.rules_ish import load_ish_rules
from her2core.heterogeneity.regions import NucleusRegions, Regions, regions_of_cells, regions_of_nuclei
from her2core.params import HeterogeneityParams, ISHScoreParams
from her2core.pictures.canvas import Panel, png_bytes
from her2core.pictures.colours import CLASS_COLOURS
from her2core.pictures.letters import Legend, Words
from her2core.pictures.regions import (
    COLD,
    COLOURS,
    FEW,
    HOT,
    NEITHER,
    TOP_COPIES,
    TOP_OD,
    TOP_RATIO,
    regions_figure,
    to_draw,
)
from her2core.records import RGB
from her2core.scoring.ihc import MeasuredCells
from her2core.scoring.ish_nuclei import MeasuredNuclei

PARAMS = HeterogeneityParams()
RULES = load_rules("breast_asco_cap_2018")
FISH = ("DAPI", "HER2", "CEP17")
Pixels = npt.NDArray[np.generic]
Reals = npt.NDArray[np.float64]


def sheet(height_um: float, width_um: float, step_um: float = 20.0) -> tuple[Reals, Reals]:
    """Places of cells on a square lattice, 156 a hexagon of 250 µm at 20 µm."""
    y, x = np.mgrid[10.0:height_um:step_um, 10.0:width_um:step_um]
    return y.ravel(), x.ravel()


def ihc(y: Reals, x: Reals, od: Reals, classes: npt.NDArray[np.int64]) -> list[Regions]:
    everyone, measured = np.ones(len(y), np.bool_), od.astype(np.float32)
    cells = MeasuredCells(y, x, *[measured] * 4, everyone, everyone, np.ones_like(measured), measured)
    found = classes.astype(np.int8)
    return [regions_of_cells(cells, found, size, RULES, 100) for size in PARAMS.sweep_um]


def ish(y: Reals, x: Reals, her2: npt.NDArray[np.int64], *, dual: bool = True) -> list[NucleusRegions]:
    n, params = len(y), ISHScoreParams()
    cep17 = np.full(n, 2) if dual else None
    nuclei = MeasuredNuclei(
        np.arange(n), y, x, np.zeros(n, np.uint8), np.ones(n, np.bool_), her2, her2, cep17, cep17
    )
    rules = load_ish_rules(params.rules)
    return [regions_of_nuclei(nuclei, size, params, rules) for size in PARAMS.sweep_um]


def two_corners(height_um: float = 4000.0, width_um: float = 5000.0) -> list[Regions]:
    """A strong corner above on the left, one without stain below on the right, and an even rest."""
    y, x = sheet(height_um, width_um)
    strong, bare = (y < 1000) & (x < 1000), (y > height_um - 1000) & (x > width_um - 1000)
    od = np.select([strong, bare], [0.7, 0.0], 0.3) + 0.02 * ((y + 3 * x) % 7 - 3) / 3
    return ihc(y, x, od, np.select([strong, bare], [4, 0], 1))


def blank(height_um: float, width_um: float, um_px: float, channels: tuple[str, ...] = RGB) -> Pixels:
    shape = (max(round(height_um / um_px), 1), max(round(width_um / um_px), 1), len(channels))
    return np.full(shape, 200, np.uint8 if channels == RGB else np.uint16)


def drawn(figure: Figure) -> npt.NDArray[np.uint8]:
    """(h, w, 3) pixels; row 0 is the lowest, as in Matplotlib's coordinates."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[::-1, :, :3]


def panels_of(figure: Figure) -> list[Panel]:
    return [each for each in figure.artists if isinstance(each, Panel)]


def legends_of(figure: Figure) -> list[Legend]:
    return [each for each in figure.artists if isinstance(each, Legend)]


def words_of(figure: Figure) -> list[str]:
    return [each.get_text() for each in figure.findobj(Words) if isinstance(each, Words)]


def maps(figure: Figure) -> list[Panel]:
    return panels_of(figure)[1:]  # the slide is the first


def collections(panel: Panel) -> list[PolyCollection]:
    return [each for each in panel.get_children() if isinstance(each, PolyCollection)]


def at_centres(image: npt.NDArray[np.uint8], axes: Panel, regions: Regions | NucleusRegions) -> list[str]:
    """Colour of the picture at the centre of every region, and none outside the panel."""
    places = axes.transData.transform(np.stack([regions.x_um, regions.y_um], axis=1))
    box = axes.bbox.padded(-3)
    return [
        to_hex(image[int(y), int(x)] / 255).upper() if box.contains(x, y) else "" for x, y in places.tolist()
    ]


def test_every_hexagon_has_the_colour_of_its_number_where_it_lies() -> None:
    sweep = two_corners()
    regions = sweep[1]
    figure = regions_figure(blank(4000, 5000, 10), 10.0, RGB, sweep, PARAMS, "s1")
    image = drawn(figure)
    shades, scores, gatherings = (at_centres(image, axes, regions) for axes in maps(figure))
    valid = regions.n >= PARAMS.region_cells
    strong = (regions.y_um < 700) & (regions.x_um < 700)
    bare = (regions.y_um > 3300) & (regions.x_um > 4300)
    assert np.count_nonzero(strong & valid) > 5
    kinds = [CLASS_COLOURS[c].upper() for c in (CellClass.C0, CellClass.C1, CellClass.C2, CellClass.C3)]
    for i in np.flatnonzero(valid).tolist():
        if not shades[i]:  # centre outside the slide
            continue
        assert shades[i] == to_hex(colormaps[COLOURS](regions.od_mean[i] / TOP_OD)).upper()
        assert scores[i] == (kinds[regions.score[i]] if regions.score[i] >= 0 else FEW)
        if strong[i] or bare[i]:
            assert gatherings[i] == (HOT if strong[i] else COLD)
    assert gatherings.count(NEITHER) > 200
    for shown, few in ((shades, ~valid), (scores, regions.score < 0)):
        assert all(shown[i] in ("", FEW) for i in np.flatnonzero(few))


def test_legends_count_the_hexagons_of_their_colours() -> None:
    figure = regions_figure(blank(4000, 5000, 10), 10.0, RGB, two_corners(), PARAMS, "s1")
    faces = [
        [to_hex(face).upper() for part in collections(axes) for face in part.get_facecolor()]
        for axes in maps(figure)
    ]
    legends = legends_of(figure)
    assert len(legends) == 3
    for legend, colours in zip(legends, faces, strict=True):
        handles = [plate.colour for plate in legend.plates]
        counts = [int(words.get_text().rsplit(": ", 1)[1].replace(",", "")) for words in legend.words]
        assert [colours.count(handle) for handle in handles] == counts
    assert sum(len(colours) for colours in faces) == 3 * len(two_corners()[1])
    assert len(set(faces[1]) | set(faces[2])) > 4


def test_signals_are_drawn_as_copies_and_ratio_or_amplified_fraction() -> None:
    y, x = sheet(3000, 3000)
    her2 = np.where((y < 1000) & (x < 1000), 9, 2)
    for dual in (True, False):
        sweep = ish(y, x, her2, dual=dual)
        regions, channels = sweep[1], FISH if dual else FISH[:2]
        figure = regions_figure(blank(3000, 3000, 10, channels), 10.0, channels, sweep, PARAMS, "s1")
        image = drawn(figure)
        copies, second, gatherings = (at_centres(image, axes, regions) for axes in maps(figure))
        cep17 = regions.cep17
        share = regions.amplified_fraction if cep17 is None else regions.her2 / cep17 / TOP_RATIO
        for i in np.flatnonzero((regions.n >= 20) & (np.array(copies) != "")).tolist():
            assert copies[i] == to_hex(colormaps[COLOURS](regions.copies_mean[i] / TOP_COPIES)).upper()
            assert second[i] == to_hex(colormaps[COLOURS](min(share[i], 1.0))).upper()
        assert gatherings.count(HOT) >= 9
        words = words_of(figure)
        assert ("HER2/CEP17" if dual else "fraction of amplified nuclei") in words


def test_hexagons_are_smaller_where_too_few_large_ones_count() -> None:
    y, x = sheet(1000, 1000, 12.0)  # a core of a tissue array: 20 hexagons of 250 µm, 70 cells in one of 100
    core = ihc(y, x, 0.1 + x / 2000, np.where(x > 500, 4, 1))
    assert [np.count_nonzero(r.n >= 20) >= PARAMS.min_regions for r in core] == [True, False, False]
    assert to_draw(core, PARAMS) is core[0]
    assert to_draw(two_corners(), PARAMS).grid.size_um == 250.0
    few = ihc(y[:50], x[:50], x[:50] / 2000, np.ones(50, np.int64))
    assert to_draw(few, PARAMS) is few[1]

    figure = regions_figure(blank(1000, 1000, 2), 2.0, RGB, core, PARAMS, "s1")
    titles = words_of(figure)
    assert any(title.startswith("hexagons of 100 µm") for title in titles)
    assert "score of regions of 250 µm" in titles
    scored = [part for axes in maps(figure)[1:2] for part in collections(axes)]
    assert sum(len(part.get_paths()) for part in scored) == len(core[1])


def test_too_few_hexagons_are_said_to_be_too_few() -> None:
    y, x = sheet(400, 400)
    sweep = ihc(y, x, x / 1000, np.ones(len(y), np.int64))
    figure = regions_figure(blank(400, 400, 4), 4.0, RGB, sweep, PARAMS, "s1")
    hot = maps(figure)[2]
    assert {to_hex(face).upper() for part in collections(hot) for face in part.get_facecolor()} == {FEW}
    valid = np.count_nonzero(sweep[1].n >= 20)
    assert f"hot and cold: insufficient ({valid} of 30 regions)" in words_of(figure)


@pytest.mark.parametrize(
    ("height_um", "width_um"),
    [(20000, 2000), (9000, 3000), (6000, 4000), (5000, 5000), (3000, 8000), (1500, 20000), (300, 300)],
)
@pytest.mark.parametrize("assay", ["ihc", "ish"])
def test_nothing_overlaps_or_runs_out_of_the_page(height_um: float, width_um: float, assay: str) -> None:
    y, x = sheet(height_um, width_um)
    sweep = ihc(y, x, 0.3 + 0.2 * np.sin(x / 700), np.where(y % 5 < 2, 1, 4)) if assay == "ihc" else ish(
        y, x, np.where(x < 1000, 9, 2)
    )  # fmt: skip
    channels, um_px = RGB if assay == "ihc" else FISH, max(height_um, width_um) / 600
    name = "a $name with_{ a \\ long, " * 6
    figure = regions_figure(blank(height_um, width_um, um_px, channels), um_px, channels, sweep, PARAMS, name)
    image = drawn(figure)
    assert 500 < min(image.shape[:2]) <= max(image.shape[:2]) < 2000
    for edge in (image[0], image[-1], image[:, 0], image[:, -1]):
        assert (edge == 255).all()

    page = figure.bbox
    words = figure.findobj(Words)
    boxes = {f"{i} {t.get_text()}": t.get_window_extent() for i, t in enumerate(words)}
    assert len(boxes) > 15
    for text, box in boxes.items():
        assert page.contains(*box.min), text
        assert page.contains(*box.max), text
    for (one, a), (other, b) in combinations(boxes.items(), 2):
        assert not overlap(a, b), (one, other)
    panels = panels_of(figure)
    assert len(panels) == 4
    assert legends_of(figure)
    for legend in legends_of(figure):
        assert not any(overlap(legend.get_window_extent(), axes.bbox) for axes in panels)
    for a, b in combinations([axes.bbox for axes in panels], 2):
        assert not overlap(a, b)
        assert a.size == pytest.approx(b.size)
    um = [abs(axes.transData.transform((1000, 1000)) - axes.transData.transform((0, 0))) for axes in panels]
    np.testing.assert_allclose(np.concatenate(um), um[0][0])  # one scale, across as down


def overlap(a: Bbox, b: Bbox) -> bool:
    """Whether boxes share more than half a pixel; Matplotlib places text in fractions of one."""
    return min(a.x1, b.x1) - max(a.x0, b.x0) > 0.5 and min(a.y1, b.y1) - max(a.y0, b.y0) > 0.5


def test_scores_and_colours_can_be_told_apart() -> None:
    """The scale of numbers is even to the eye: lightness rises steadily (Nuñez et al. 2018)."""
    shades = np.array(colormaps[COLOURS](np.linspace(0, 1, 32)))[None, :, :3].astype(np.float32)
    steps = np.diff(cv2.cvtColor(shades, cv2.COLOR_RGB2LAB)[0, :, 0])
    assert steps.min() > 0
    assert steps.max() < 2.2 * np.median(steps)
    named = [HOT, COLD, NEITHER, FEW]
    lab = cv2.cvtColor(np.array([[to_rgb(c) for c in named]], np.float32), cv2.COLOR_RGB2LAB)[0]
    apart = [float(np.linalg.norm(a - b)) for a, b in combinations(lab, 2)]
    assert min(apart) > 8


def test_a_picture_opens_and_is_the_same_from_any_thread() -> None:
    thumbnail = np.random.default_rng(1).integers(0, 255, (400, 500, 3), dtype=np.uint8)
    sweep = two_corners()

    def draw(_: int) -> bytes:
        return png_bytes(regions_figure(thumbnail, 10.0, RGB, sweep, PARAMS, "s1"))

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(draw, range(2))
    assert first == second
    image = cv2.imdecode(np.frombuffer(first, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    assert len(first) < 2_000_000
    figure = regions_figure(thumbnail, 10.0, RGB, sweep, PARAMS, "s1")
    assert np.array_equal(image[::-1, :, ::-1], drawn(figure))
