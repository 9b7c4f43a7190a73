"""Pictures: every cell at its place in its colour, the same bytes from any thread, any shape of slide."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from her2core.guidelines.rules_ihc import CellClass
from her2core.pictures import ihc
from her2core.pictures.canvas import DPI, Panel, encode_png, jpeg_bytes, pixels_of, png_bytes, read_thumbnail
from her2core.pictures.colours import CLASS_COLOURS
from her2core.pictures.ihc import PictureCells, PictureSummary, slide_picture
from her2core.records import PyramidRef

RGB = npt.NDArray[np.uint8]
SUMMARY = PictureSummary("core 1", "2+", "scored", 131.4, (10, 20, 5, 40, 25), "QC pass")


@pytest.fixture(autouse=True, scope="module")
def exact() -> Iterator[None]:
    """Pictures without loss, whose colours can be looked for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ihc, "jpeg_bytes", png_bytes)
        yield


def decoded(png: bytes) -> RGB:
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return np.asarray(image[..., ::-1], np.uint8)


def cells(y: list[float], x: list[float], kind: list[int], counted: list[bool] | None = None) -> PictureCells:
    flags = np.array([True] * len(y) if counted is None else counted, np.bool_)
    return PictureCells(np.array(y), np.array(x), np.array(kind, np.int64), flags)


def colour(cell_class: CellClass) -> npt.NDArray[np.int64]:
    text = CLASS_COLOURS[cell_class]
    return np.array([int(text[k : k + 2], 16) for k in (1, 3, 5)], np.int64)


def places(image: RGB, cell_class: CellClass) -> npt.NDArray[np.int64]:
    """(n, 2) pixels of the second panel that have a class's colour."""
    height, width = image.shape[:2]
    area = image[110 : height - 130, width // 2 :]
    near = (np.abs(area.astype(np.int64) - colour(cell_class)) <= 3).all(axis=2)
    return np.argwhere(near)


def test_dots_lie_where_their_cells_do() -> None:
    thumbnail = np.full((500, 500, 3), 240, np.uint8)
    drawn = cells([100.0, 400.0], [100.0, 300.0], [CellClass.C3, CellClass.C0])
    image = decoded(slide_picture(thumbnail, 1.0, drawn, SUMMARY))
    centres = {c: places(image, c).mean(axis=0) for c in (CellClass.C3, CellClass.C0)}
    # a panel is 700 px for 500 µm
    np.testing.assert_allclose(centres[CellClass.C0] - centres[CellClass.C3], (420.0, 280.0), atol=1.5)
    assert len(places(image, CellClass.C2)) == 0


def test_cells_that_do_not_count_are_not_in_a_class_colour() -> None:
    thumbnail = np.full((500, 500, 3), 240, np.uint8)
    drawn = cells([100.0, 400.0], [100.0, 300.0], [CellClass.C3, CellClass.UNEVALUABLE], [False, True])
    image = decoded(slide_picture(thumbnail, 1.0, drawn, SUMMARY))
    assert all(len(places(image, c)) == 0 for c in CLASS_COLOURS)


def test_large_slide_becomes_a_heat_map_of_counted_cells() -> None:
    thumbnail = np.full((700, 700, 3), 240, np.uint8)  # 14 mm across
    rng = np.random.default_rng(0)
    y, x = rng.uniform(4000, 6000, 9000), rng.uniform(4000, 6000, 9000)
    kind = np.full(9000, CellClass.C3, np.int64)
    lonely = cells([12000.0], [12000.0], [CellClass.C3])  # fewer than a hexagon needs
    drawn = PictureCells(
        np.append(y, lonely.y_um), np.append(x, lonely.x_um), np.append(kind, 4), np.ones(9001, np.bool_)
    )
    image = decoded(slide_picture(thumbnail, 20.0, drawn, SUMMARY))
    found = places(image, CellClass.C3)
    in_panel = found[found[:, 0] < 600]  # above the key of the heat map
    # 2 mm x 2 mm of the panel's 14 mm x 14 mm over 700 px
    assert 0.8 * 100 * 100 < len(in_panel) < 1.4 * 100 * 100
    assert np.ptp(in_panel[:, 0]) < 130


@pytest.mark.parametrize("shape", [(900, 300), (300, 1000), (40, 2000), (1, 1)])
@pytest.mark.parametrize("n", [0, 3])
def test_any_shape_and_no_cells(shape: tuple[int, int], n: int) -> None:
    thumbnail = np.full((*shape, 3), 235, np.uint8)
    summary = PictureSummary(
        "odd $name_{ with a \\ very, " * 5, None, "indeterminate", None, (0,) * 5, "blur"
    )
    image = decoded(slide_picture(thumbnail, 8.0, cells([1.0] * n, [2.0] * n, [0] * n), summary))
    assert image.shape[0] > 200
    assert (image[-1] == 255).all()  # nothing runs out of the page


def test_same_bytes_from_any_thread() -> None:
    rng = np.random.default_rng(1)
    thumbnail = rng.integers(0, 256, (300, 300, 3), dtype=np.uint8)
    drawn = cells(
        list(rng.uniform(0, 300, 200)), list(rng.uniform(0, 300, 200)), list(rng.integers(0, 5, 200))
    )

    def draw(_: int) -> bytes:
        return slide_picture(thumbnail, 1.0, drawn, SUMMARY)

    with ThreadPoolExecutor(2) as pool:
        assert len(set(pool.map(draw, range(4)))) == 1


def test_thumbnail_is_the_finest_level_that_fits() -> None:
    class Levels:
        def read(self, level: int, y0: int, x0: int, out: RGB) -> None:
            out.fill(level)

    shapes = ((6000, 4000), (3000, 2000), (1500, 1000), (750, 500))
    ref = PyramidRef("p", "id", shapes, 512, 4096, 0.25, "zstd", 0, 0)
    for longest, level in ((1500, 2), (1400, 3), (100, 3)):
        thumbnail, um_px = read_thumbnail(Levels(), ref, longest)
        assert (thumbnail.shape[:2], um_px, int(thumbnail.max())) == (shapes[level], 0.25 * 2**level, level)


@pytest.mark.parametrize("shape", [(1, 1), (37, 53), (2, 300)])
def test_a_png_holds_every_pixel(shape: tuple[int, int]) -> None:
    rgb = np.random.default_rng(5).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert (decoded(encode_png(rgb)) == rgb).all()


def test_a_panel_is_drawn_as_axes_without_ticks_are() -> None:
    x, y = np.random.default_rng(7).uniform(0, 70, (2, 40))
    drawn = []
    for ours in (True, False):
        figure = Figure(figsize=(4.37, 3.21), dpi=DPI, facecolor="white")
        box = 0.213, 0.305, 2.5, 2.6
        if ours:
            panel = Panel(figure, box, (0, 70), (90, 0), equal=True, facecolor="black")
            panel.dots(x, y, 6.0, "#56B4E9", "#222222", 0.4)
            panel.add(Text(35, 45, "words", color="red"), clip=False)
        else:
            axes = figure.add_axes((box[0] / 4.37, box[1] / 3.21, box[2] / 4.37, box[3] / 3.21))
            axes.set(xlim=(0, 70), ylim=(90, 0), aspect="equal", xticks=[], yticks=[], facecolor="black")
            axes.spines[:].set_color("#BBBBBB")
            axes.scatter(x, y, s=36.0, facecolors="#56B4E9", edgecolors="#222222", linewidths=0.4)
            axes.text(35, 45, "words", color="red")
        drawn.append(decoded(png_bytes(figure)))
    assert len(np.unique(drawn[0].reshape(-1, 3), axis=0)) > 50
    assert (drawn[0] == drawn[1]).all()


def test_a_jpeg_holds_the_pixels_of_its_figure_in_full_colour() -> None:
    figure = Figure(figsize=(0.64, 0.32), dpi=100)
    figure.set_facecolor((0.5, 0.25, 0.125))
    figure.add_axes((0, 0, 0.5, 1), facecolor=(0.1, 0.9, 0.2)).set(xticks=[], yticks=[])
    data = jpeg_bytes(figure)
    decoded = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    wanted = pixels_of(figure)[..., :3]
    assert decoded.shape == wanted.shape == (32, 64, 3)
    assert np.abs(decoded[8:24, 8:24].astype(int) - wanted[8:24, 8:24]).max() <= 3
    assert np.abs(decoded[8:24, 40:56].astype(int) - (128, 64, 32)).max() <= 3
    frame = data.index(b"\xff\xc0")  # baseline: length, precision, height, width, components, then each
    assert [data[frame + 11 + 3 * i] for i in range(3)] == [0x11] * 3  # none is subsampled
