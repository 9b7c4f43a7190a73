"""Integrated density of signals: the pixels that are a signal's own, and what they are above the nucleus."""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from her2core.kernels.ish.spot_peaks import median

SKIRT: Final = 0.15  # of its contrast: a signal's pixels reach down to here; ours
GROUND_UM: Final = 2.5  # half the window whose median is a signal's ground: twice a cluster's width; ours
RISE: Final = 0.5  # of its contrast: a signal stands at least so high above its ground; ours
GROUND_STEPS: Final = 8  # samples of it to each side
SHADES: Final = 1024  # steps of brightness in which pixels are taken; ours
FREE: Final = -1  # a pixel of no hill yet
TOP: Final = -2  # a pixel that is the top of signal ``TOP - value``
SEVERAL: Final = -3  # hills around a pixel


@njit(nogil=True, cache=True, boundscheck=False)
def ground_around(
    smooth: NDArray[np.float32],
    inside: NDArray[np.int32],
    label: int,
    pad: int,
    y: float,
    x: float,
    reach: int,
) -> float:
    """Median level of the nucleus around a place.

    ``smooth`` is (h + 2 pad, w + 2 pad), ``inside`` (h, w).
    """
    h, w = inside.shape
    step = max(1, reach // GROUND_STEPS)
    values = np.empty((2 * (reach // step) + 2) ** 2 + 1, np.float32)  # one more: what is no pixel of it
    top, left = int(y) - pad - reach // step * step, int(x) - pad - reach // step * step
    top += max(-top + step - 1, 0) // step * step
    left += max(-left + step - 1, 0) // step * step
    n = 0
    for yy in range(top, min(int(y) - pad + reach + 1, h), step):
        for xx in range(left, min(int(x) - pad + reach + 1, w), step):
            values[n] = smooth[yy + pad, xx + pad]
            n += inside[yy, xx] == label  # without a branch, which could not be foreseen
    return median(values[:n]) if n > 0 else 0.0


@njit(nogil=True, cache=True, boundscheck=False)
def risen(
    smooth: NDArray[np.float32],
    inside: NDArray[np.int32],
    label: int,
    pad: int,
    reach: int,
    spots: NDArray[np.float64],
    n: int,
) -> int:
    """Keep the signals that rise above the nucleus around, and note its level; their number.

    Arrays as in `ground_around`; ``spots`` holds ``n`` rows. A bump on the rim of a nucleus that glows rises
    above what is outside alone.
    """
    flat = smooth.ravel()
    kept = 0
    for i in range(n):
        ground = ground_around(smooth, inside, label, pad, spots[i, 1], spots[i, 2], reach)
        if flat[int(spots[i, 4])] - ground >= RISE * spots[i, 0]:
            spots[kept] = spots[i]
            spots[kept, 5] = ground
            kept += 1
    return kept


@njit(nogil=True, cache=True, boundscheck=False)
def integrate(
    window: NDArray[np.float32],
    smooth: NDArray[np.float32],
    inside: NDArray[np.int32],
    label: int,
    pad: int,
    spots: NDArray[np.float64],
    n: int,
    scratch: NDArray[np.int32],
) -> NDArray[np.float64]:
    """Sum over each signal's own pixels of what rises above the nucleus around.

    Pixels are taken from bright to dim, each to the signal uphill of it; a hill without a signal on top
    joins the first that it meets. So a cluster is summed whole, however ragged, and neighbours share none.

    ``scratch`` is int32 ``(2, pixels of the window or more)``, the first row `FREE` before and after.
    """
    h, w = inside.shape
    stride = window.shape[1]
    floors = spots[:n, 5] + SKIRT * spots[:n, 0]
    least = floors.min()
    flat = smooth.ravel()
    raw = window.ravel()
    hill, pixels = scratch
    size = 0
    for y in range(h):
        for x in range(w):
            pixels[size] = (y + pad) * stride + pad + x
            size += (smooth[y + pad, x + pad] > least) & (inside[y, x] == label)  # without a branch, as above
    order = _from_bright(flat, pixels[:size], least)
    parent = np.empty(size + n, np.int32)  # hills: first the signals, then tops without one
    for i in range(n):
        parent[i] = i
        hill[int(spots[i, 4])] = TOP - i
    hills = n
    for j in range(size):
        p = order[j]
        around = _only_hill(hill, p, stride)
        if around != SEVERAL and hill[p] == FREE:  # as of most pixels
            if around == FREE:
                parent[hills] = hills
                hill[p] = hills
                hills += 1
            else:
                hill[p] = _hill(parent, around)
            continue
        best = -1
        for dy in range(-stride, stride + 1, stride):
            for q in range(p + dy - 1, p + dy + 2):
                if hill[q] >= 0 and (best < 0 or flat[q] > flat[best]):
                    best = q
        if hill[p] <= TOP:
            mine = TOP - hill[p]
        elif best >= 0:
            mine = _hill(parent, hill[best])
        else:
            mine = hills
            parent[hills] = hills
            hills += 1
        hill[p] = mine
        if best < 0:
            continue
        for dy in range(-stride, stride + 1, stride):
            for q in range(p + dy - 1, p + dy + 2):
                if hill[q] >= 0:
                    a, b = _hill(parent, mine), _hill(parent, hill[q])
                    if a != b and max(a, b) >= n:
                        parent[max(a, b)] = min(a, b)
    sums = np.zeros(n)
    for j in range(size):
        p = order[j]
        i = _hill(parent, hill[p])
        if i < n and flat[p] > floors[i]:
            sums[i] += raw[p] - spots[i, 5]
    for j in range(size):
        hill[pixels[j]] = FREE
    for i in range(n):
        hill[int(spots[i, 4])] = FREE
    return sums


@njit(nogil=True, cache=True, boundscheck=False)
def _only_hill(hill: NDArray[np.int32], p: int, stride: int) -> int:
    """Hill that a pixel's eight neighbours belong to; `FREE` where none does to any, or `SEVERAL`."""
    up, down = p - stride, p + stride
    a, b, c, d = hill[up - 1], hill[up], hill[up + 1], hill[p - 1]
    e, f, g, h = hill[p + 1], hill[down - 1], hill[down], hill[down + 1]
    last = max(max(max(a, b), max(c, d)), max(max(e, f), max(g, h)))
    if last < 0:
        return FREE
    for one in (a, b, c, d, e, f, g, h):
        if one != last and one >= 0:
            return SEVERAL
    return int(last)


@njit(nogil=True, cache=True, boundscheck=False)
def _from_bright(flat: NDArray[np.float32], pixels: NDArray[np.int32], least: float) -> NDArray[np.int32]:
    """Pixels from bright to dim, in `SHADES` steps; of equals the first in reading order comes first."""
    most = least
    for p in pixels:
        most = flat[p] if flat[p] > most else most
    per_shade = SHADES / max(most - least, 1e-30)
    starts = np.zeros(SHADES + 2, np.int32)
    shade, order = np.empty(len(pixels), np.int32), np.empty(len(pixels), np.int32)
    for j in range(len(pixels)):
        shade[j] = min(int((most - flat[pixels[j]]) * per_shade), SHADES)
        starts[shade[j] + 1] += 1
    for k in range(SHADES):
        starts[k + 1] += starts[k]
    for j in range(len(pixels)):
        order[starts[shade[j]]] = pixels[j]
        starts[shade[j]] += 1
    return order


@njit(nogil=True, cache=True, boundscheck=False)
def _hill(parent: NDArray[np.int32], i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return int(i)
