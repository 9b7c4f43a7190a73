"""How many points lie near every point, at several distances at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from her2core.points.order import by_group


def neighbour_counts(
    y: NDArray[np.float64], x: NDArray[np.float64], reaches: Sequence[float]
) -> NDArray[np.int64]:
    """Number of other points within each reach of every point.

    The points lie in strips, a quarter of the longest reach high, and within a strip by ``x``. What may be
    near a point is then a run of points in each of nine strips, and a run is tested without a branch. The
    time grows with the points times the points within reach, and no list of pairs is held.

    Parameters
    ----------
    y, x
        Coordinates, shape ``(n,)``, finite, in any order.
    reaches
        Ascending, above 0, in the units of ``y`` and ``x``; a pair that far apart counts.

    Returns
    -------
    NDArray[np.int64]
        Shape ``(n, len(reaches))``. Whole numbers: the order of the points makes no difference.
    """
    n, longest = len(y), reaches[-1]
    out = np.zeros((n, len(reaches)), np.int64)
    if n == 0:
        return out
    strips = np.floor((y - y.min()) / (longest * _SLACK / _STRIPS)).astype(np.int64)
    order = by_group(x, strips)
    starts = np.searchsorted(strips[order], np.arange(int(strips.max()) + 2))
    limits = np.square(np.array(reaches, np.float64))
    out[order] = _count(y[order], x[order], strips[order], starts, longest, limits)
    return out


_STRIPS = 4
"""Strips a longest reach."""
_SLACK = 1 + 1e-9
"""Runs are this much longer than a reach, so that rounding leaves no pair out before it is tested."""


@njit(nogil=True, cache=True)
def _within(y: NDArray[np.float64], x: NDArray[np.float64], y0: float, x0: float, limit: float) -> int:
    near = 0
    for j in range(len(y)):
        dy, dx = y[j] - y0, x[j] - x0
        near += dy * dy + dx * dx <= limit
    return near


@njit(nogil=True, cache=True)
def _count(
    y: NDArray[np.float64],
    x: NDArray[np.float64],
    strips: NDArray[np.int64],
    starts: NDArray[np.int64],
    longest: float,
    limits: NDArray[np.float64],
) -> NDArray[np.int64]:
    near = np.full((len(limits), len(y)), -1)  # itself
    for k in range(len(limits)):
        reach = np.sqrt(limits[k]) * _SLACK
        for offset in range(-_STRIPS, _STRIPS + 1):
            if (abs(offset) - 1) * longest <= reach * _STRIPS:
                _add_strip(y, x, strips, starts, offset, reach, limits[k], near[k])
    return near.T


@njit(nogil=True, cache=True)
def _add_strip(
    y: NDArray[np.float64],
    x: NDArray[np.float64],
    strips: NDArray[np.int64],
    starts: NDArray[np.int64],
    offset: int,
    reach: float,
    limit: float,
    near: NDArray[np.int64],
) -> None:
    """Add to ``near`` the points of the strip ``offset`` strips below each."""
    first = last = 0
    for i in range(len(y)):
        strip = strips[i] + offset
        if strip < 0 or strip > len(starts) - 2:
            continue
        end = starts[strip + 1]
        first, last = max(first, starts[strip]), max(last, starts[strip])
        while first < end and x[first] < x[i] - reach:
            first += 1
        while last < end and x[last] <= x[i] + reach:
            last += 1
        near[i] += _within(y[first:last], x[first:last], y[i], x[i], limit)
