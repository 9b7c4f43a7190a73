"""The circular dynamic programme of `polar` for many outlines at once, one a lane.

An array in lanes is ``(ray, radius * LANES)``: radius ``r`` of outline ``l`` stands at ``r * LANES + l``. To
move by a radius is then to move by whole vectors, and every loop over a ray is vector code; the loops are
functions of their own, because inside larger ones the compiler cannot tell that their arrays do not overlap.
They are given whole arrays and cut them themselves: numba counts references to a part that is handed over,
and in loops as short as these that shows.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from her2core.kernels.polar import MAX_BEND, N_RAYS, NOWHERE

LANES: Final = 16
_1, _2, _3, _4 = (k * LANES for k in range(1, 5))
_5, _6, _7, _8 = (k * LANES for k in range(5, 9))


def in_lanes(values: NDArray[np.int32]) -> NDArray[np.int32]:
    """Values (radius,), the same for every lane."""
    return np.repeat(values, LANES).astype(np.int32)


def new_scores(n_radii: int) -> NDArray[np.int32]:
    """Scratch for `trace_lanes`: scores as `polar.new_lap` makes one."""
    return np.full((N_RAYS + N_RAYS // 2, (n_radii + 2 * MAX_BEND) * LANES), NOWHERE, np.int32)


@njit(nogil=True, cache=True, boundscheck=False)
def trace_lanes(
    gain: NDArray[np.int32],
    least: int,
    most: int,
    bend: NDArray[np.int32],
    scores: NDArray[np.int32],
    paths: NDArray[np.int32],
) -> None:
    """`polar.trace` of every lane: ``gain`` (ray, radius * LANES) into ``paths`` (LANES, ray)."""
    n = gain.shape[0]
    low, high = least * LANES, (most + 1) * LANES
    first, last = low + _4, high + _4
    scores[:, low:first] = NOWHERE
    scores[:, last : last + _4] = NOWHERE
    scores[0, first:last] = gain[0, low:high]
    for a in range(1, len(scores)):
        _advance(scores, a, gain, low, high, bend)
    at, best = np.arange(first, first + LANES), np.full(LANES, NOWHERE, np.int32)
    for place in range(first, last, LANES):
        _find_end(scores, place, best, at)
    for a in range(n + n // 2 - 1, n // 4 - 1, -1):
        if a < n + n // 4:
            for lane in range(LANES):
                paths[lane, a % n] = at[lane] // LANES - MAX_BEND
        _step_back(scores, a, bend, at)


@njit(nogil=True, cache=True, boundscheck=False)
def _advance(
    scores: NDArray[np.int32], a: int, gain: NDArray[np.int32], low: int, high: int, bend: NDArray[np.int32]
) -> None:
    """`polar._advance` in lanes: row ``a`` of ``scores``, places ``low`` to ``high`` of the gain."""
    last, row, own = (
        scores[a - 1, low : high + _8],
        scores[a, low + _4 : high + _4],
        gain[a % N_RAYS, low:high],
    )
    b1, b2, b3, b4 = bend[1], bend[2], bend[3], bend[4]
    for i in range(len(row)):
        best = last[i + _4]
        best = max(best, np.int32(max(last[i + _3], last[i + _5]) - b1))
        best = max(best, np.int32(max(last[i + _2], last[i + _6]) - b2))
        best = max(best, np.int32(max(last[i + _1], last[i + _7]) - b3))
        best = max(best, np.int32(max(last[i], last[i + _8]) - b4))
        row[i] = best + own[i]


@njit(nogil=True, cache=True, boundscheck=False)
def _find_end(scores: NDArray[np.int32], place: int, best: NDArray[np.int32], at: NDArray[np.int64]) -> None:
    """Move every lane to ``place`` where the last row is better there than the ``best`` before."""
    end = scores[len(scores) - 1, place : place + LANES]
    for lane in range(LANES):
        at[lane] = place + lane if end[lane] > best[lane] else at[lane]
        best[lane] = max(best[lane], end[lane])


@njit(nogil=True, cache=True, boundscheck=False)
def _step_back(scores: NDArray[np.int32], a: int, bend: NDArray[np.int32], at: NDArray[np.int64]) -> None:
    """Move every lane's place ``at`` in row ``a`` of ``scores`` to where it came from in the row before."""
    last = scores[a - 1]
    for lane in range(LANES):
        i = j = at[lane]
        top = last[np.uint64(i)]
        for k in range(1, MAX_BEND + 1):
            below, above = last[np.uint64(i - k * LANES)] - bend[k], last[np.uint64(i + k * LANES)] - bend[k]
            if below > top:
                top, j = below, i - k * LANES
            if above > top:
                top, j = above, i + k * LANES
        at[lane] = j
