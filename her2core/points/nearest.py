"""How far every point is from the nearest of some of them."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Reals = NDArray[np.float64]


def nearest(y: Reals, x: Reals, target: Bools, reach: float) -> Reals:
    """Distance of every point from the nearest target: 0 of a target, inf beyond ``reach``.

    Targets are filed in squares a reach wide, so that nine of them are looked through for a point.

    Parameters
    ----------
    y, x, target
        Coordinates and which points are targets, shape ``(n,)``, in any order.
    reach
        Above 0, in the units of ``y`` and ``x``; a target that far away counts.
    """
    found = np.where(target, 0.0, np.inf)
    if not target.any():
        return found
    edge = reach * (1 + 1e-9)  # rounding moves no target out of the nine squares
    rows, columns = (np.floor((axis - axis.min()) / edge).astype(np.int64) + 1 for axis in (y, x))
    width = int(columns.max()) + 2
    square = rows * width + columns
    order = np.flatnonzero(target)
    order = order[np.argsort(square[order], kind="stable")]
    starts = np.zeros((int(rows.max()) + 2) * width + 1, np.int64)
    np.cumsum(np.bincount(square[order], minlength=len(starts) - 1), out=starts[1:])
    _search((y, x), (y[order], x[order]), square, (starts, width), reach, found)
    return found


@njit(nogil=True, cache=True)
def _search(
    places: tuple[NDArray[np.float64], NDArray[np.float64]],
    targets: tuple[NDArray[np.float64], NDArray[np.float64]],
    square: NDArray[np.int64],
    filed: tuple[NDArray[np.int64], int],
    reach: float,
    found: NDArray[np.float64],
) -> None:
    """Fill in what is not yet ``found``; targets are sorted by their square."""
    (y, x), (of_y, of_x), (starts, width) = places, targets, filed
    for i in range(len(y)):
        least = found[i]
        if least == 0:
            continue
        for row in range(-1, 2):
            middle = square[i] + row * width
            for j in range(starts[middle - 1], starts[middle + 2]):
                dy, dx = of_y[j] - y[i], of_x[j] - x[i]
                least = min(least, dy * dy + dx * dx)
        distance = np.sqrt(least)
        if distance <= reach:
            found[i] = distance
