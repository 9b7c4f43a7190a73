"""Connected groups of cells: which centroids hang together by links of a given length."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

ABOVE_ROOT_2 = 1.4142135623731
"""A little more than the square root of 2, so that the diagonal of a square never exceeds a link."""


def component_labels(
    y_um: NDArray[np.float64], x_um: NDArray[np.float64], link_um: float
) -> NDArray[np.int64]:
    """Label of the connected component of every point, two points being linked at ``link_um`` or less.

    The points are binned into squares whose diagonal is a link, so that all points of a square hang together
    and only pairs of squares remain to be tested: close to linear in the number of points, and without a
    list of links, which in a dense tumour would be twenty times longer than the list of cells.

    Parameters
    ----------
    y_um, x_um
        Centroids in µm, shape ``(n,)``, finite.
    link_um
        Longest link in µm, above 0.

    Returns
    -------
    NDArray[np.int64]
        Shape ``(n,)``: a component is named by its first point, so labels depend on no traversal order.
    """
    n = len(y_um)
    if n == 0:
        return np.empty(0, np.int64)
    edge = link_um / ABOVE_ROOT_2
    rows = np.floor((y_um - y_um.min()) / edge).astype(np.int64)
    columns = np.floor((x_um - x_um.min()) / edge).astype(np.int64)
    width = int(columns.max()) + 1
    keys = rows * width + columns
    order = np.argsort(keys, kind="stable")
    squares, starts = np.unique(keys[order], return_index=True)
    bounds = np.append(starts, n)
    y_um, x_um = (
        np.require(each, np.float64, ["C", "W"]) for each in (y_um, x_um)
    )  # one kind: one compilation
    return _label(y_um, x_um, link_um * link_um, order, squares, bounds, width)  # type: ignore[no-any-return]


def largest_component(y_um: NDArray[np.float64], x_um: NDArray[np.float64], link_um: float) -> int:
    """Number of points in the largest component; 0 of no points. Arguments as in `component_labels`."""
    if len(y_um) == 0:
        return 0
    return int(np.bincount(component_labels(y_um, x_um, link_um)).max())


@njit(cache=True, nogil=True)
def _root(parent, i):  # type: ignore[no-untyped-def]
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(cache=True, nogil=True)
def _join(parent, i, j):  # type: ignore[no-untyped-def]
    a, b = _root(parent, i), _root(parent, j)
    if a < b:
        parent[b] = a
    elif b < a:
        parent[a] = b


@njit(cache=True, nogil=True)
def _linked(y, x, limit, order, a0, a1, b0, b1):  # type: ignore[no-untyped-def]
    for a in range(a0, a1):
        i = order[a]
        for b in range(b0, b1):
            j = order[b]
            if (y[i] - y[j]) ** 2 + (x[i] - x[j]) ** 2 <= limit:
                return True
    return False


@njit(cache=True, nogil=True)
def _label(y, x, limit, order, squares, bounds, width):  # type: ignore[no-untyped-def]
    parent = np.arange(len(y))
    for s in range(len(squares)):
        for a in range(bounds[s] + 1, bounds[s + 1]):
            _join(parent, order[a], order[bounds[s]])
    for s in range(len(squares)):
        row, column = squares[s] // width, squares[s] % width
        for down in range(3):
            low = max(column - 2, 0) if down else column + 1
            high = min(column + 2, width - 1)
            if low > high:
                continue
            t = np.searchsorted(squares, (row + down) * width + low)
            while t < len(squares) and squares[t] <= (row + down) * width + high:
                here, there = order[bounds[s]], order[bounds[t]]
                if _root(parent, here) != _root(parent, there) and _linked(
                    y, x, limit, order, bounds[s], bounds[s + 1], bounds[t], bounds[t + 1]
                ):
                    _join(parent, here, there)
                t += 1
    for i in range(len(parent)):
        parent[i] = _root(parent, i)
    return parent
