"""How cells stand to their neighbours: what fraction of them is marked."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


def marked_fraction(
    y: NDArray[np.float64], x: NDArray[np.float64], marked: NDArray[np.bool_], reach: float
) -> NDArray[np.float32]:
    """Fraction of the neighbours of every cell that are marked; 0 where it has none.

    Parameters
    ----------
    y, x
        Centroids, shape ``(n,)``, in any order.
    marked
        Shape ``(n,)``.
    reach
        Neighbours are no farther apart than this, in the units of ``y`` and ``x``; above 0.

    Returns
    -------
    NDArray[np.float32]
        Shape ``(n,)``. A quotient of two counts: the order of the cells makes no difference.
    """
    if len(y) == 0:
        return np.zeros(0, np.float32)
    rows = np.floor(y / reach).astype(np.int64)
    columns = np.floor(x / reach).astype(np.int64)
    rows, columns = rows - rows.min(), columns - columns.min()
    width = int(columns.max()) + 2  # neither end of a row of squares touches another row
    key = rows * width + columns
    order = np.argsort(key, kind="stable")
    out = np.empty(len(y), np.float32)
    out[order] = _fractions(y[order], x[order], marked[order], key[order], width, reach * reach)
    return out


@njit(nogil=True, cache=True)
def _fractions(
    y: NDArray[np.float64],
    x: NDArray[np.float64],
    marked: NDArray[np.bool_],
    key: NDArray[np.int64],
    width: int,
    limit: float,
) -> NDArray[np.float32]:
    """Of cells sorted by ``key``: row times ``width`` plus column of a square of one reach."""
    n = len(y)
    near, hits = np.zeros(n, np.int32), np.zeros(n, np.int32)
    below = 0  # first cell of the three squares under the present one
    for i in range(n):
        while below < n and key[below] < key[i] + width - 1:
            below += 1
        for first, last in ((i + 1, key[i] + 1), (below, key[i] + width + 1)):
            j = first
            while j < n and key[j] <= last:
                dy, dx = y[j] - y[i], x[j] - x[i]
                if dy * dy + dx * dx <= limit:
                    near[i] += 1
                    near[j] += 1
                    hits[i] += marked[j]
                    hits[j] += marked[i]
                j += 1
    return (hits / np.maximum(near, 1)).astype(np.float32)
