"""Words, legends and colour bars of pictures: where they lie, and in which colour."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.text import Text

from her2core.pictures.canvas import DPI, Panel, pixels_of
from her2core.pictures.letters import Across, ColourBar, Key, Legend, Outline, Up, Words, write

RGB = npt.NDArray[np.int64]


def page() -> Figure:
    return Figure(figsize=(4, 2), dpi=DPI, facecolor="white")


def drawn(figure: Figure) -> RGB:
    """Row 0 is the lowest, as in the figure's coordinates."""
    return pixels_of(figure)[::-1, :, :3].astype(np.int64)


def inked(pixels: RGB) -> tuple[RGB, RGB]:
    """First and last row and column that are not white."""
    at = np.argwhere((pixels < 200).any(axis=2))
    return at.min(axis=0), at.max(axis=0)


@pytest.mark.parametrize("bold", [False, True])
@pytest.mark.parametrize("up", ["baseline", "bottom", "center", "top"])
@pytest.mark.parametrize("across", ["left", "center", "right"])
def test_words_lie_where_matplotlib_has_them(across: Across, up: Up, bold: bool) -> None:
    ours, theirs, text = page(), page(), "Hxg 12.3 % µm"
    write(ours, 2.0, 1.0, text, 12, "#222222", across=across, up=up, bold=bold)
    weight = "bold" if bold else "normal"
    theirs.text(0.5, 0.5, text, fontsize=12, ha=across, va=up, weight=weight, color="#222222")
    for a, b in zip(inked(drawn(ours)), inked(drawn(theirs)), strict=True):
        assert abs(a - b).max() <= 2


def test_words_are_drawn_in_their_colour_within_their_box_and_never_as_mathematics() -> None:
    figure = page()
    write(figure, 0.5, 1.0, "a $x_1$ \\frac", 20, "#FF0000")
    (words,) = (each for each in figure.artists if isinstance(each, Words))
    image = drawn(figure)
    assert (image == (255, 0, 0)).all(axis=2).sum() > 50
    assert (image[..., 0] == 255).all()
    (low, left), (high, right) = inked(image)
    box = words.get_window_extent()
    assert box.x0 - 1 <= left <= right <= box.x1 + 1
    assert box.y0 - 1 <= low <= high <= box.y1 + 1
    assert right - left > 0.9 * box.width  # every sign is there
    assert not figure.findobj(Text)


def test_nothing_to_write_is_nothing_drawn() -> None:
    figure = page()
    write(figure, 1.0, 1.0, "", 12, "#000000")
    write(figure, 1.0, 1.0, "   ", 12, "#000000")
    assert (drawn(figure) == 255).all()


def test_a_legend_has_its_colours_in_columns_before_their_words() -> None:
    figure = page()
    colours = ("#FF0000", "#00FF00", "#0000FF")
    keys = [Key(colour, f"number {k}") for k, colour in enumerate(colours)]
    legend = Legend(figure, keys, (2.0, 0.5), 9, 2, centred=True)
    image = drawn(figure)
    places = [np.argwhere((image == [int(c[k : k + 2], 16) for k in (1, 3, 5)]).all(axis=2)) for c in colours]
    (y0, x0), (y1, x1), (y2, x2) = (place.mean(axis=0) for place in places)
    assert (y0, x0) == (pytest.approx(y2), pytest.approx(x1))  # two below one another, the third beside
    assert y1 < y0
    assert x2 > x0 + 50
    for words, x in zip(legend.words, (x0, x1, x2), strict=True):
        assert words.get_window_extent().x0 > x
    box = legend.get_window_extent()
    assert (box.x0 + box.x1) / 2 == pytest.approx(200)
    assert box.y0 == pytest.approx(50)


@pytest.mark.parametrize("beyond", [False, True])
def test_a_colour_bar_has_the_colour_of_every_number_above_its_tick(beyond: bool) -> None:
    figure = page()
    bar = ColourBar(figure, (0.5, 1.0, 3.0, 0.2), colormaps["cividis"], 4.0, (0, 1, 2.5), 9, beyond=beyond)
    figure.add_artist(bar)
    image = drawn(figure)
    end = 50 + (286 if beyond else 300)
    for fraction in (0.3, 0.5, 0.9):
        wanted = np.array(colormaps["cividis"](fraction)[:3]) * 255
        assert abs(image[110, round(50 + fraction * (end - 50))] - wanted).max() <= 3
    (_, left), (_, right) = inked(image[101:119])
    assert (left, right) == (50, pytest.approx(350, abs=1))
    assert [words.get_text() for words in bar.get_children() if isinstance(words, Words)] == [
        "0.0",
        "1.0",
        "2.5",
    ]


def test_outlines_are_thin_lines_at_their_reach_within_their_panel() -> None:
    figure = page()
    panel = Panel(figure, (1.0, 0.5, 1.0, 1.0), (0, 50), (50, 0), framed=False)  # two pixels each
    panel.add(Outline("circle", (25.0, 25.0), 10.0, "#FF0000", 0.72))
    panel.add(Outline("square", (45.0, 25.0), 10.0, "#00FF00", 0.72))
    image = drawn(figure)
    row = image[100]
    circle, square = (np.flatnonzero(row[:, a] > row[:, b]) for a, b in ((0, 1), (1, 0)))
    assert 18.5 <= abs(circle + 0.5 - 150).min() <= abs(circle + 0.5 - 150).max() <= 21.5
    assert 168 <= square.min() <= square.max() <= 171  # its right side lies outside of the panel
    assert len(circle) + len(square) <= 6
    assert (image[:, 200:] == 255).all()
