"""Which points lie under a core: a rectangle of any direction, or a disc."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

_PARTS = 2
"""Parts of a strip in a length of its height; speed alone depends on it."""


class _Filed(NamedTuple):
    """Points as `Strips` files them, for compiled code; ``part`` is the width of each part of a strip."""

    y: NDArray[np.float64]
    x: NDArray[np.float64]
    starts: NDArray[np.int64]
    top: float
    left: float
    height: float
    part: float


class _Core(NamedTuple):
    """A rectangle around ``(y0, x0)``, by half its length and width, or a disc, whose radius is ``along``."""

    y0: float
    x0: float
    sin: float
    cos: float
    along: float
    across: float
    disc: bool


@dataclass(frozen=True, slots=True)
class Strips:
    """Points in strips of one height, and each strip in parts, so that a core looks at few of them.

    Attributes
    ----------
    y, x
        Coordinates in that order, shape ``(n,)``.
    order
        Place of each in the arrays that were given, shape ``(n,)``.
    top, left
        Corner of the first strip.
    height, width
        Of each strip, and of each of its parts.
    starts
        First point of each part, and the one after the last of a strip, shape ``(strips, parts + 1)``.
    """

    y: NDArray[np.float64]
    x: NDArray[np.float64]
    order: NDArray[np.int64]
    top: float
    left: float
    height: float
    width: float
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, y: NDArray[np.float64], x: NDArray[np.float64], height: float) -> Strips:
        """Sort at least one point; points of one part keep their order."""
        top, left, width = float(y.min()), float(x.min()), height / _PARTS
        strips, parts = (np.floor(v).astype(np.int64) for v in ((y - top) / height, (x - left) / width))
        many = int(parts.max()) + 1
        place = strips * many + parts
        order = np.argsort(place, kind="stable")
        up_to = np.append(0, np.cumsum(np.bincount(place)))
        corners = np.arange(int(strips.max()) + 1)[:, None] * many + np.arange(many + 1)
        starts = up_to[np.minimum(corners, len(up_to) - 1)]
        return cls(y[order], x[order], order, top, left, height, width, starts)

    def _filed(self) -> _Filed:
        return _Filed(self.y, self.x, self.starts, self.top, self.left, self.height, self.width)

    def under(
        self, y0: float, x0: float, angle: float, length: float, width: float, *, disc: bool = False
    ) -> NDArray[np.int64]:
        """Points (as they were given) under a core centred on ``(y0, x0)``, its edge included.

        Parameters
        ----------
        angle
            Of the long side against the x axis, in radians.
        length, width
            Of the rectangle; both the diameter of a disc.
        """
        sin, cos = math.sin(angle), math.cos(angle)
        found = _under(self._filed(), _Core(y0, x0, sin, cos, length / 2, width / 2, disc))
        members: NDArray[np.int64] = self.order[found]
        return members

    def tally(
        self,
        kinds: NDArray[np.int64],
        centres: NDArray[np.int64],
        angles: NDArray[np.float64],
        length: float,
        width: float,
        *,
        disc: bool,
        least: int,
        most: int,
    ) -> NDArray[np.int64]:
        """Points by kind under each of many cores that holds ``least`` of them, until there are ``most``.

        Parameters
        ----------
        kinds
            Kind of each point as they were given, shape ``(n,)``, from 0.
        centres, angles
            A core is centred on a point, as they were given; shape ``(k,)``.

        Returns
        -------
        NDArray
            Shape ``(found, kinds.max() + 1)``.
        """
        place = np.empty(len(self.order), np.int64)
        place[self.order] = np.arange(len(self.order))
        ordered = kinds[self.order]
        before = np.zeros((len(kinds) + 1, int(kinds.max()) + 1), np.int64)
        before[1:] = np.cumsum(ordered[:, None] == np.arange(before.shape[1]), axis=0)
        table = np.zeros((most, before.shape[1]), np.int64)
        shape = length / 2, width / 2, disc
        found: int = _tally(self._filed(), (ordered, before), place[centres], angles, shape, least, table)
        return table[:found]


@njit(nogil=True, cache=True)
def _clip(low: float, high: float, slope: float, a: float, b: float, half: float) -> tuple[float, float]:
    """Cut ``low..high`` to the ``dx`` with ``|dx * slope + c| <= half`` for some ``c`` in ``a..b``."""
    if abs(slope) < 1e-9:
        return low, high
    one, other = (-half - max(a, b)) / slope, (half - min(a, b)) / slope
    return max(low, min(one, other)), min(high, max(one, other))


@njit(nogil=True, cache=True)
def _under(filed: _Filed, core: _Core) -> NDArray[np.int64]:
    y, x, starts, top, left, height, part = filed
    y0, x0, sin, cos, along, across, disc = core
    down = along * abs(sin) + across * abs(cos)
    right = along * abs(cos) + across * abs(sin)
    first = max(int(np.floor((y0 - down - top) / height)) - 1, 0)
    last = min(int(np.floor((y0 + down - top) / height)) + 1, len(starts) - 1)
    found = np.empty(16, np.int64)
    n = 0
    many = starts.shape[1] - 1
    for strip in range(first, last + 1):
        above = top + strip * height - y0
        below = above + height
        low, high = _clip(-right, right, cos, above * sin, below * sin, along)
        low, high = _clip(low, high, -sin, above * cos, below * cos, across)
        margin = 1e-6 * (along + across + height)  # rounding leaves none out before it is tested
        a = starts[strip, _part(x0 + low - margin - left, part, many)]
        b = max(a, starts[strip, min(_part(x0 + high + margin - left, part, many) + 1, many)])
        while n + b - a > len(found):
            found = np.append(found, np.empty(len(found), np.int64))
        for i in range(a, b):
            dy, dx = y[i] - y0, x[i] - x0
            if disc:
                inside = dy * dy + dx * dx <= along * along
            else:
                inside = abs(dx * cos + dy * sin) <= along and abs(dy * cos - dx * sin) <= across
            if inside:
                found[n] = i
                n += 1
    return found[:n]


@njit(nogil=True, cache=True)
def _tally(
    filed: _Filed,
    kinds: tuple[NDArray[np.int64], NDArray[np.int64]],
    centres: NDArray[np.int64],
    angles: NDArray[np.float64],
    shape: tuple[float, float, bool],
    least: int,
    table: NDArray[np.int64],
) -> int:
    along, across, disc = shape
    n = 0
    for k in range(len(centres)):
        if n == len(table):
            break
        i = centres[k]
        table[n] = 0
        sin, cos = math.sin(angles[k]), math.cos(angles[k])
        _count(filed, kinds, _Core(filed.y[i], filed.x[i], sin, cos, along, across, disc), table[n])
        n += table[n].sum() >= least
    return n


@njit(nogil=True, cache=True)
def _count(
    filed: _Filed, kinds: tuple[NDArray[np.int64], NDArray[np.int64]], core: _Core, out: NDArray[np.int64]
) -> None:
    """Add up points under one core by kind, those well inside by what was counted before each point.

    ``kinds`` are the kind of every point ``(n,)``, and how many of each come before it ``(n + 1, kind)``.
    """
    starts, top, left, height, part = filed.starts, filed.top, filed.left, filed.height, filed.part
    y0, x0, sin, cos, along, across, disc = core
    kind_of, before = kinds
    down = along * abs(sin) + across * abs(cos)
    right = along * abs(cos) + across * abs(sin)
    first = max(int(np.floor((y0 - down - top) / height)) - 1, 0)
    last = min(int(np.floor((y0 + down - top) / height)) + 1, len(starts) - 1)
    margin = 1e-6 * (along + across + height)  # rounding leaves none out before it is tested
    many = starts.shape[1] - 1
    for strip in range(first, last + 1):
        above = top + strip * height - y0
        below = above + height
        low, high = _clip(-right, right, cos, above * sin, below * sin, along)
        low, high = _clip(low, high, -sin, above * cos, below * cos, across)
        if disc:
            half = np.sqrt(max(along * along - max(above * above, below * below), 0.0))
            inner_low, inner_high = -half, half
        else:
            inner_low, inner_high = _within(-right, right, cos, above * sin, below * sin, along)
            inner_low, inner_high = _within(inner_low, inner_high, -sin, above * cos, below * cos, across)
        a = starts[strip, _part(x0 + low - margin - left, part, many)]
        b = max(a, starts[strip, min(_part(x0 + high + margin - left, part, many) + 1, many)])
        c = d = b
        if inner_high - inner_low > 2 * margin:
            c = starts[strip, min(_part(x0 + inner_low + margin - left, part, many) + 1, many)]
            d = max(c, starts[strip, _part(x0 + inner_high - margin - left, part, many)])
            for kind in range(len(out)):
                out[kind] += before[d, kind] - before[c, kind]
        for i, j in ((a, c), (d, b)):
            _add_under(filed, kind_of, (i, j), core, out)


@njit(nogil=True, cache=True)
def _add_under(
    filed: _Filed, kinds: NDArray[np.int64], span: tuple[int, int], core: _Core, out: NDArray[np.int64]
) -> None:
    y, x, (first, last) = filed.y, filed.x, span
    y0, x0, sin, cos, along, across, disc = core
    if disc:
        for i in range(first, last):
            dy, dx = y[i] - y0, x[i] - x0
            out[kinds[i]] += dy * dy + dx * dx <= along * along
    else:
        for i in range(first, last):
            dy, dx = y[i] - y0, x[i] - x0
            out[kinds[i]] += (abs(dx * cos + dy * sin) <= along) & (abs(dy * cos - dx * sin) <= across)


@njit(nogil=True, cache=True)
def _part(right: float, width: float, many: int) -> int:
    """Part of a strip that a place so far to the right lies in, 0 to ``many``."""
    return int(min(max(np.floor(right / width), 0.0), many))


@njit(nogil=True, cache=True)
def _within(low: float, high: float, slope: float, a: float, b: float, half: float) -> tuple[float, float]:
    """Cut ``low..high`` to the ``dx`` with ``|dx * slope + c| <= half`` for every ``c`` in ``a..b``."""
    if abs(slope) < 1e-9:  # nearly none: every dx, or nearly every one, is alike
        return (low, high) if max(abs(a), abs(b)) + 1e-9 * (high - low) < half else (0.0, 0.0)
    one, other = (
        (-half - min(a, b)) / slope,
        (half - max(a, b)) / slope,
    )  # the wrong way round if there is none
    return (max(low, one), min(high, other)) if slope > 0 else (max(low, other), min(high, one))
