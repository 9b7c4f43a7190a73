"""Peaks over place and scale in the window of a nucleus, and which of them are one signal.

References
----------
Lindeberg (1998) Int J Comput Vis 30:79 (blobs as extrema over place and scale).
Leica HER2 FISH guide: signals of one size no farther apart than one diameter count once; a diffuse signal
counts once.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from her2core.kernels.ish.scale_space import ROOT8, Scales

SUBPIXEL: Final = 64  # places are whole fractions of this
SAMPLES: Final = 256  # pixels of a nucleus from which its noise is taken, about; ours
ROBUST: Final = 1.4826  # standard deviation over MAD, of a normal distribution
COARSER: Final = 2.0  # times the noise of the finest scale: more than that is signals; ours, measured
RIDGE: Final = 5.0  # a peak so much more curved across than along is a ridge; ours


@njit(nogil=True, cache=True, boundscheck=False)
def noise_of(level: NDArray[np.float32], inside: NDArray[np.int32], label: int, pad: int) -> float:
    """Robust standard deviation of a scale, whose mean is 0, in the nucleus: from a square grid of pixels.

    ``inside`` (h, w) holds labels, ``level`` is ``pad`` wider on every side.
    """
    h, w = inside.shape
    step = max(1, int(np.sqrt(h * w / SAMPLES)))
    values = np.empty((h // step + 1) * (w // step + 1) + 1, np.float32)  # one more: what is no pixel of it
    n = 0
    for y in range(step // 2, h, step):
        for x in range(step // 2, w, step):
            values[n] = abs(level[y + pad, x + pad])
            n += inside[y, x] == label  # without a branch, which could not be foreseen
    return ROBUST * median(values[:n]) if n > 0 else 0.0


@njit(nogil=True, cache=True, boundscheck=False)
def median(values: NDArray[np.float32]) -> float:
    """Median of float32 ``values`` (n,), n > 0, of which none is NaN.

    By halving the range in which it lies until it holds no other: counting is vector code, and sorting a few
    hundred numbers is not.
    """
    bits = values.view(np.int32)
    low, high = _ordered(bits[0]), _ordered(bits[0])
    for i in range(len(bits)):
        bits[i] = _ordered(bits[i])
        low, high = min(low, bits[i]), max(high, bits[i])
    half, below, upto = (
        np.int32(len(bits) // 2),
        np.int32(0),
        np.int32(len(bits)),
    )  # less than `low`, up to `high`
    while low < high and upto - below > 1:  # the least value that more than half of the values do not exceed
        middle = np.int32((np.int64(low) + np.int64(high)) >> 1)
        count = np.int32(0)
        for i in range(len(bits)):
            count += np.int32(bits[i] <= middle)
        if count > half:
            high, upto = middle, count
        else:
            low, below = np.int32(middle + np.int32(1)), count
    if low < high:
        first = high
        for i in range(len(bits)):
            first = min(first, bits[i] if bits[i] >= low else high)
        low = first
    before = low  # the value next to it, of an even number
    if len(bits) % 2 == 0 and below == half:
        before = bits.min()
        for i in range(len(bits)):
            before = max(before, bits[i] if bits[i] < low else before)
    bits[0] = _ordered(before)
    one = values[0]
    bits[0] = _ordered(low)
    return float(one + values[0]) / 2.0


@njit(nogil=True, cache=True, boundscheck=False)
def _ordered(bits: np.int32) -> np.int32:
    """Bits of a float32 as an int32 of the same order, and back."""
    return np.int32(bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@njit(nogil=True, cache=True, boundscheck=False)
def candidates(
    levels: NDArray[np.float32],
    inside: NDArray[np.int32],
    label: int,
    pad: int,
    scales: Scales,
    floor: float,
    mad: float,
    spots: NDArray[np.float64],
) -> int:
    """Maxima over place and scale that rise above the nucleus's own noise and ``floor``; their number.

    ``levels`` is (scale, h + 2 pad, w + 2 pad), ``inside`` (h, w) holds labels, ``spots`` (m, ...) is filled.
    Signals that fill a nucleus, many or out of focus, are no noise: they answer to coarse scales alone.
    """
    h, w = inside.shape
    n_scales = len(scales.sigma_px)
    stride = w + 2 * pad
    eights = np.zeros(h * stride // 8 + 1, np.uint64)
    tops = eights.view(np.uint8)[: h * stride]
    n = 0
    most = np.inf
    for i in range(n_scales):
        level = levels[i]
        noise = min(noise_of(level, inside, label, pad), most)
        if i == 0:
            most = COARSER * noise
        least = np.float32(max(floor * scales.gain, mad * noise))
        _mark_tops(level.reshape(level.size)[(pad - 1) * stride :], stride, least, tops)
        for k in range(len(eights)):
            if eights[k] == 0:  # few are not: eight pixels at a time are passed over
                continue
            for at in range(8 * k, min(8 * k + 8, len(tops))):
                y, x = pad + at // stride, at % stride
                if tops[at] == 0 or not pad <= x < pad + w or inside[y - pad, x - pad] != label:
                    continue
                v = level[y, x]
                if not _peak(level, y, x) or not _round(level, y, x):
                    continue
                if i > 0 and _beaten(levels[i - 1], y, x, v):
                    continue
                if i + 1 < n_scales and _beaten(levels[i + 1], y, x, v):
                    continue
                if n == len(spots):
                    return n
                spots[n, 0] = v / scales.gain
                spots[n, 1] = y + _vertex(level[y - 1, x], v, level[y + 1, x])
                spots[n, 2] = x + _vertex(level[y, x - 1], v, level[y, x + 1])
                spots[n, 3] = _fitting_sigma(levels, i, y, x, scales.sigma_px)
                spots[n, 4] = y * stride + x
                n += 1
    return n


@njit(nogil=True, cache=True, boundscheck=False)
def _mark_tops(flat: NDArray[np.float32], stride: int, least: np.float32, tops: NDArray[np.uint8]) -> None:
    """Mark pixels above ``least`` that four neighbours do not exceed, in vector code.

    ``tops`` (h * stride,) are rows of ``flat``, which begins with the row before them.
    """
    before, here, after, down = flat[stride - 1 :], flat[stride:], flat[stride + 1 :], flat[2 * stride :]
    for x in range(len(tops)):
        v = here[x]
        tops[x] = (v > least) & (v >= before[x]) & (v > after[x]) & (v >= flat[x]) & (v > down[x])


@njit(nogil=True, cache=True, boundscheck=False)
def _peak(level: NDArray[np.float32], y: int, x: int) -> bool:
    """Whether a pixel is above its eight neighbours; of equals the last in reading order is."""
    v = level[y, x]
    up, row, down = level[y - 1], level[y], level[y + 1]
    return bool(
        v >= row[x - 1]
        and v > row[x + 1]
        and v >= up[x]
        and v > down[x]
        and v >= up[x - 1]
        and v >= up[x + 1]
        and v > down[x - 1]
        and v > down[x + 1]
    )


@njit(nogil=True, cache=True, boundscheck=False)
def _round(level: NDArray[np.float32], y: int, x: int) -> bool:
    """Whether the peak falls off on all sides: what falls off on two only is a ridge or an edge."""
    v = level[y, x]
    yy = level[y - 1, x] + level[y + 1, x] - 2.0 * v
    xx = level[y, x - 1] + level[y, x + 1] - 2.0 * v
    yx = 0.25 * (level[y - 1, x - 1] + level[y + 1, x + 1] - level[y - 1, x + 1] - level[y + 1, x - 1])
    return bool((yy + xx) * (yy + xx) * RIDGE < (RIDGE + 1.0) * (RIDGE + 1.0) * (yy * xx - yx * yx))


@njit(nogil=True, cache=True, boundscheck=False)
def _beaten(level: NDArray[np.float32], y: int, x: int, v: float) -> bool:
    """Whether another scale answers more in the same place."""
    for yy in range(y - 1, y + 2):
        for xx in range(x - 1, x + 2):
            if level[yy, xx] > v:
                return True
    return False


@njit(nogil=True, cache=True, boundscheck=False)
def _vertex(before: float, v: float, after: float) -> float:
    """Top of the parabola through three values, from the middle one; in 64ths."""
    bend = 2.0 * v - before - after
    if bend <= 0.0:
        return 0.0
    return float(np.floor(min(max(0.5 * (after - before) / bend, -0.5), 0.5) * SUBPIXEL + 0.5) / SUBPIXEL)


@njit(nogil=True, cache=True, boundscheck=False)
def _fitting_sigma(
    levels: NDArray[np.float32], i: int, y: int, x: int, sigma_px: NDArray[np.float64]
) -> float:
    """Sigma of the signal, between scales by a parabola over their logarithm."""
    if i == 0 or i + 1 == len(sigma_px):
        return float(sigma_px[i])
    at = _vertex(levels[i - 1, y, x], levels[i, y, x], levels[i + 1, y, x])
    return float(sigma_px[i] * (sigma_px[1] / sigma_px[0]) ** at)


@njit(nogil=True, cache=True, boundscheck=False)
def merge_spots(spots: NDArray[np.float64], n: int, share: float, merge: float) -> int:
    """Keep the stronger of two signals no farther apart than ``merge`` diameters; first of the rows (m, ...).

    What has less than ``share`` of the nucleus's strongest signal is texture or the haze of another plane.
    """
    order = np.argsort(-spots[:n, 0], kind="mergesort")
    ranked = spots[:n][order].copy()
    kept = 0
    for i in range(n):
        if ranked[i, 0] < share * ranked[0, 0]:
            break
        alone = True
        for j in range(kept):
            dy, dx = ranked[i, 1] - spots[j, 1], ranked[i, 2] - spots[j, 2]
            reach = merge * ROOT8 * max(ranked[i, 3], spots[j, 3])
            if dy * dy + dx * dx <= reach * reach:
                alone = False
                break
        if alone:
            spots[kept] = ranked[i]
            kept += 1
    return kept
