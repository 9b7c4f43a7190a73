"""How many points lie near every point, at several distances at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from her2core.kernels.order import by_group


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
def _within(y: Any, x: Any, y0: float, x0: float, limit: float) -> int:
    near = 0
    for j in range(len(y)):
        dy, dx = y[j] - y0, x[j] - x0
        near += dy * dy + dx * dx <= limit
    return near


@njit(nogil=True, cache=True)
def _count(y: Any, x: Any, strips: Any, starts: Any, longest: float, limits: Any) -> Any:
    n, last_strip = len(y), len(starts) - 2
    near = np.zeros((n, len(limits)), np.int64)
    for offset in range(-_STRIPS, _STRIPS + 1):
        first = last = 0
        for i in range(n):
            strip = strips[i] + offset
            if strip < 0 or strip > last_strip:
                continue
            first, last = max(first, starts[strip]), max(last, starts[strip])
            while first < starts[strip + 1] and x[first] < x[i] - longest * _SLACK:
                first += 1
            while last < starts[strip + 1] and x[last] <= x[i] + longest * _SLACK:
                last += 1
            for k in range(len(limits)):
                reach = np.sqrt(limits[k]) * _SLACK
                if (abs(offset) - 1) * longest > reach * _STRIPS:
                    continue
                a, b = first, last
                if k < len(limits) - 1:  # a shorter reach: a shorter run
                    a = first + np.searchsorted(x[first:last], x[i] - reach)
                    b = first + np.searchsorted(x[first:last], x[i] + reach, side="right")
                near[i, k] += _within(y[a:b], x[a:b], y[i], x[i], limits[k])
    for i in range(n):
        for k in range(len(limits)):
            near[i, k] -= 1  # itself
    return near
