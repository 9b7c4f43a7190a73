"""Nuclei of a plane of numbers, tile by tile: 0 is background, every other number is one nucleus.

Twice over the tiles: first how large every number is and where, then the outlines. A number that lies in one
tile is outlined there; of one that lies in several the pixels are kept until the last of them has come. So
memory holds a tile, the nuclei that cross its edges, and a few numbers a nucleus, however large the plane.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from her2core.intake.outlines.rays import COS, F64, MAX_OUTLINES, SIN, Collected, invalid

MAX_LABEL_UM: Final = 1.0
"""Coarsest pixels of a label, µm: a nucleus is six across. Ours."""
MAX_EXTENT_UM: Final = 100.0
"""Widest extent of a number that is one nucleus; a nucleus of 2500 µm² is 56 µm across. Ours."""
STEP_PX: Final = 0.25
"""Along a ray, pixels of the label."""
APART: Final = "number in pieces apart"
"""What a number is called whose pixels lie farther from each other than any nucleus is wide."""

I64 = NDArray[np.int64]


class Tile(NamedTuple):
    """A part of a plane: whole numbers ``(h, w)``, and the place of its first pixel."""

    y: int
    x: int
    numbers: NDArray[Any]


Tiles = Callable[[], Iterable[Tile]]
"""Tiles of a plane that cover it without overlap; called once a look."""


def factor_of(uri: str, label: tuple[int, int], slide: tuple[int, int], mpp: float) -> int:
    """By what whole number a label is smaller than its slide, both ``(height, width)``.

    Raises
    ------
    SlideError
        ``CELLS_INVALID`` if it is of another slide, or too coarse.
    """
    factor = max(round(slide[0] / label[0]), 1)
    whole = (slide[0] // factor, slide[1] // factor)
    if not all(0 <= found - wanted <= 1 for found, wanted in zip(label, whole, strict=True)):
        raise invalid(
            uri,
            f"{label[0]} x {label[1]} pixels; expected those of the slide ({slide[0]} x {slide[1]}) "
            "divided by a whole number. Is it a label of this slide?",
        )
    if mpp * factor > MAX_LABEL_UM:
        raise invalid(
            uri,
            f"{mpp * factor:.3g} µm/px; at most {MAX_LABEL_UM:g} show a nucleus's outline. Store it larger.",
        )
    return factor


def collect(uri: str, tiles: Tiles, factor: int, um_px: float, largest_um2: float) -> Collected:
    """Outlines of all numbers, in ascending order.

    Numbers larger than ``largest_um2`` keep their area and have no radii; of those whose pixels lie too far
    apart for one nucleus only the number is reported.

    Parameters
    ----------
    factor, um_px
        Level-0 pixels, and µm, along a pixel of the plane.

    Raises
    ------
    SlideError
        ``CELLS_INVALID`` for negative numbers, or more nuclei than are read.
    """
    sizes = _measured(uri, tiles())
    small = sizes.n <= largest_um2 / um_px**2
    apart = small & ((sizes.high - sizes.low + 1).max(axis=1, initial=0) * um_px > MAX_EXTENT_UM)
    radius = np.zeros((len(sizes.n), len(COS)))
    waiting: dict[int, list[I64]] = {}
    for tile in tiles():
        found = _Pixels.of(tile)
        rows = np.searchsorted(sizes.number, found.number)
        for row, place in zip(rows.tolist(), found.places(), strict=True):
            if not small[row] or apart[row]:
                continue
            pieces = [*waiting.pop(row, []), place]
            if sum(piece.shape[1] for piece in pieces) < sizes.n[row]:
                waiting[row] = pieces
            else:
                radius[row] = _radii(sizes, row, np.concatenate(pieces, axis=1))
    collected = Collected()
    for row in np.flatnonzero(~apart).tolist():
        y, x = ((sizes.middle(row) + sizes.low[row] + 0.5) * factor).tolist()
        collected.add(y, x, radius[row] * factor, float(sizes.n[row] * factor**2))
    if apart.any():
        collected.pass_over(APART, int(np.count_nonzero(apart)))
    return collected


def cut_tiles(numbers: NDArray[Any], edge: int) -> Iterator[Tile]:
    """Tiles of an array in memory."""
    for y in range(0, numbers.shape[0], edge):
        for x in range(0, numbers.shape[1], edge):
            yield Tile(y, x, numbers[y : y + edge, x : x + edge])


class _Pixels(NamedTuple):
    """Pixels of a tile that are no background, number by number: their places in the plane."""

    number: NDArray[Any]
    start: I64
    y: I64
    x: I64

    @classmethod
    def of(cls, tile: Tile) -> _Pixels:
        flat = np.ascontiguousarray(tile.numbers).ravel()
        place = np.flatnonzero(flat)
        place = place[np.argsort(flat[place], kind="stable")]
        numbers = flat[place]
        first = np.ones(len(place), np.bool_)
        first[1:] = numbers[1:] != numbers[:-1]
        y, x = np.divmod(place, tile.numbers.shape[1])
        return cls(numbers[first], np.flatnonzero(first), y + tile.y, x + tile.x)

    def places(self) -> list[I64]:
        """Rows and columns of each number's pixels, ``(2, n)``."""
        return np.split(np.stack([self.y, self.x]), self.start[1:], axis=1) if len(self.start) else []

    def sizes(self) -> _Sizes:
        if not len(self.start):
            return _Sizes.none(self.number.dtype)
        place = np.stack([self.y, self.x], axis=1)
        n = np.diff(self.start, append=len(self.y))
        how = (np.add, np.minimum, np.maximum)
        return _Sizes(self.number, n, *(each.reduceat(place, self.start) for each in how))


class _Sizes(NamedTuple):
    """Of each number its count of pixels, the sums of their places (y, x), and the bounds of these."""

    number: NDArray[Any]  # (n,) ascending
    n: I64
    total: I64  # (n, 2), and so the bounds
    low: I64
    high: I64

    @classmethod
    def none(cls, kind: Any) -> _Sizes:
        two = np.zeros((0, 2), np.int64)
        return cls(np.zeros(0, kind), np.zeros(0, np.int64), two, two, two)

    def middle(self, row: int) -> F64:
        """Centroid of a number from the corner of its bounds, pixel centres at whole numbers."""
        middle: F64 = (self.total[row] - self.n[row] * self.low[row]) / self.n[row]
        return middle


def _measured(uri: str, tiles: Iterable[Tile]) -> _Sizes:
    parts: list[_Sizes] = []
    held = 0
    for tile in tiles:
        sizes = _Pixels.of(tile).sizes()
        if len(sizes.number) and sizes.number[0] < 0:
            raise invalid(
                uri, f"labels from {sizes.number[0]} on; expected 0 for background, and nuclei from 1 on."
            )
        parts.append(sizes)
        held += len(sizes.number)
        if held > 2 * MAX_OUTLINES:
            parts = [_merged(uri, parts)]
            held = len(parts[0].number)
    return _merged(uri, parts)


def _merged(uri: str, parts: list[_Sizes]) -> _Sizes:
    """Sizes of numbers that lie in several tiles."""
    if not parts:
        return _Sizes.none(np.int64)
    number, n, total, low, high = (np.concatenate(column) for column in zip(*parts, strict=True))
    if not len(number):
        return parts[0]
    order = np.argsort(number, kind="stable")
    number = number[order]
    start = np.flatnonzero(np.concatenate([[True], number[1:] != number[:-1]]))
    if len(start) > MAX_OUTLINES:
        raise invalid(uri, f"more than {MAX_OUTLINES} labels, the most that are read.")
    columns = ((np.add, n), (np.add, total), (np.minimum, low), (np.maximum, high))
    return _Sizes(number[start], *(how.reduceat(column[order], start) for how, column in columns))


def _radii(sizes: _Sizes, row: int, place: I64) -> F64:
    (top, left), (bottom, right) = sizes.low[row].tolist(), sizes.high[row].tolist()
    mask = np.zeros((bottom - top + 1, right - left + 1), np.bool_)
    mask[place[0] - top, place[1] - left] = True
    return radii_of_mask(mask, *sizes.middle(row).tolist())


def radii_of_mask(mask: NDArray[np.bool_], y: float, x: float) -> F64:
    """Radii ``(36,)`` of a mask around a point, pixel centres at whole numbers; 0 where a ray meets none."""
    height, width = mask.shape
    r = np.arange(math.ceil(math.hypot(height, width) / STEP_PX) + 1) * STEP_PX
    row, column = (np.floor(at + r * way + 0.5).astype(np.int64) for at, way in ((y, SIN), (x, COS)))
    on = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    inside = on & mask[np.where(on, row, 0), np.where(on, column, 0)]
    last = inside.shape[1] - np.argmax(inside[:, ::-1], axis=1) - 0.5  # past the last, halfway to the next
    radius: F64 = np.where(inside.any(axis=1), last * STEP_PX, 0.0)
    return radius
