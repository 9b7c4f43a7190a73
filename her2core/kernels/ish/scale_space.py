"""Differences of Gaussians over the window of one nucleus.

A window is filtered by itself, from its own corner on, one multiplication after the other: its values are
the same bits wherever the nucleus lies in an array, and pixels outside nuclei cost nothing.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

ROOT8: Final = 2.0 * math.sqrt(2.0)  # a signal of diameter d answers most to a Laplacian of sigma d / ROOT8
CUT: Final = 2.5  # where a Gaussian is cut off, in sigma; ours
BLOCK: Final = 1024  # pixels blurred at a time: they stay in the nearest cache


class Scales(NamedTuple):
    """Gaussian levels, each made of the one before; neighbours subtract to one scale each.

    Attributes
    ----------
    taps
        float32 ``(levels, radius + 1)``: half of each blur's kernel, its centre first.
    radius
        int64 ``(levels,)``: where each kernel ends.
    sigma_px
        float64 ``(levels - 1,)``: sigma of the Gaussian signal that each scale fits.
    gain
        Answer of a scale to the signal that fits it, of the signal's height.
    """

    taps: NDArray[np.float32]
    radius: NDArray[np.int64]
    sigma_px: NDArray[np.float64]
    gain: float

    @property
    def pad_px(self) -> int:
        """Pixels beyond a box that its scales look at."""
        return int(self.radius.sum()) + 1


def scales(min_diameter_px: float, max_diameter_px: float, count: int) -> Scales:
    """``count`` scales for signals of the diameters given, in geometric steps."""
    ratio = (max_diameter_px / min_diameter_px) ** (1.0 / (count - 1))
    fits = min_diameter_px / ROOT8 * ratio ** np.arange(count)
    level = min_diameter_px / ROOT8 * ratio ** (np.arange(count + 1) - 0.5)
    step = np.sqrt(np.diff(level**2, prepend=0.0))
    radius = np.ceil(CUT * step).astype(np.int64)
    taps = np.zeros((len(step), int(radius.max()) + 1), np.float32)
    for i, sigma in enumerate(step):
        kernel = np.exp(-0.5 * (np.arange(radius[i] + 1) / sigma) ** 2)
        taps[i, : len(kernel)] = kernel / (2.0 * kernel.sum() - kernel[0])
    return Scales(taps, radius, fits, (ratio - 1.0) / (ratio + 1.0))


@njit(nogil=True, cache=True, boundscheck=False)
def fill_bins(
    plane: NDArray[np.float32] | NDArray[np.uint16] | NDArray[np.uint8],
    other: NDArray[np.float32] | NDArray[np.uint16] | NDArray[np.uint8],
    share: np.float32,
    corner: tuple[int, int],
    b: int,
    out: NDArray[np.float32],
) -> None:
    """Means of ``plane`` (h, w), less a ``share`` of the ``other``, over bins of ``b`` x ``b`` pixels.

    The first bin of ``out`` has its corner at pixel ``corner`` (y, x).
    """
    line, least = np.empty(out.shape[1] * b, np.float32), np.empty(out.shape[1] * b, np.float32)
    per_pixel = np.float32(1.0 / (b * b))
    for y in range(len(out)):
        row = out[y]
        first = corner[0] + y * b
        _less(plane[first, corner[1] :], other[first, corner[1] :], share, line)
        if b == 1:
            for x in range(len(row)):
                row[x] = line[x]
        elif b == 2:
            _less(plane[first + 1, corner[1] :], other[first + 1, corner[1] :], share, least)
            _mean_of_four(line, least, per_pixel, row)
        else:
            _sum_up(line, b, row, np.float32(0.0))
            for k in range(1, b):
                _less(plane[first + k, corner[1] :], other[first + k, corner[1] :], share, line)
                _sum_up(line, b, row, np.float32(1.0))
            for x in range(len(row)):
                row[x] *= per_pixel


@njit(nogil=True, cache=True, boundscheck=False)
def _less(
    one: NDArray[np.float32] | NDArray[np.uint16] | NDArray[np.uint8],
    other: NDArray[np.float32] | NDArray[np.uint16] | NDArray[np.uint8],
    share: np.float32,
    line: NDArray[np.float32],
) -> None:
    for x in range(len(line)):
        line[x] = np.float32(one[x]) - np.float32(share * np.float32(other[x]))


@njit(nogil=True, cache=True, boundscheck=False)
def _mean_of_four(
    upper: NDArray[np.float32], lower: NDArray[np.float32], share: np.float32, row: NDArray[np.float32]
) -> None:
    for x in range(len(row)):
        row[x] = (upper[2 * x] + upper[2 * x + 1] + lower[2 * x] + lower[2 * x + 1]) * share


@njit(nogil=True, cache=True, boundscheck=False)
def _sum_up(line: NDArray[np.float32], b: int, row: NDArray[np.float32], kept: np.float32) -> None:
    """Add the pixels of ``line`` to their bins, one after the other, or to nothing where ``kept`` is 0."""
    for x in range(len(row)):
        total = row[x] if kept > 0 else np.float32(0.0)
        for i in range(x * b, x * b + b):
            total += line[i]
        row[x] = total


@njit(nogil=True, cache=True, boundscheck=False)
def cut_out(bins: NDArray[np.float32], y0: int, x0: int, out: NDArray[np.float32]) -> None:
    """``bins`` from ``(y0, x0)`` on into ``out`` (h, w); their rim goes on."""
    height, width = bins.shape
    h, w = out.shape
    left, right = max(-x0, 0), min(width - x0, w)
    for y in range(h):
        line, row = bins[min(max(y0 + y, 0), height - 1)], out[y]
        _copy(line[x0 + left : x0 + right], row[left:right])
        for x in range(left):
            row[x] = row[left]
        for x in range(right, w):
            row[x] = row[right - 1]


@njit(nogil=True, cache=True, boundscheck=False)
def _copy(line: NDArray[np.float32], row: NDArray[np.float32]) -> None:
    """In a function of its own it is vector code."""
    for x in range(len(row)):
        row[x] = line[x]


@njit(nogil=True, cache=True, boundscheck=False)
def blur(
    source: NDArray[np.float32],
    w: int,
    margin: int,
    taps: NDArray[np.float32],
    radius: int,
    across: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Gaussian of ``source``, rows of ``w``, which holds from ``margin`` on; ``out`` is ``radius`` less wide.

    ``taps`` is (radius + 1,), from the middle on; the others are flat, (h * w,): the ends of rows run into
    one another, but no farther than the margin.
    """
    h = len(source) // w
    _weigh(source, 1, margin * w + radius, (h - margin) * w - radius, taps, radius, across)
    margin += radius
    _weigh(across, w, margin * w, (h - margin) * w, taps, radius, out)


@njit(nogil=True, cache=True, boundscheck=False)
def _weigh(
    source: NDArray[np.float32],
    step: int,
    start: int,
    stop: int,
    taps: NDArray[np.float32],
    radius: int,
    out: NDArray[np.float32],
) -> None:
    """``out[start:stop]``: what lies up to ``radius`` steps away to either side, weighed by ``taps``."""
    for first in range(start, stop, BLOCK):
        last = min(first + BLOCK, stop)
        row = out[first:last]
        if radius == 1:
            _one_pair(source[first - step : last + step], step, taps[0], taps[1], row)
            continue
        _two_pairs(source[first - 2 * step : last + 2 * step], step, taps[0], taps[1], taps[2], row)
        for t in range(3, radius, 2):
            reach = (t + 1) * step
            _add_two_pairs(source[first - reach : last + reach], step, t, taps[t], taps[t + 1], row)
        if radius % 2 == 1:
            _add_pair(source[first - radius * step : last + radius * step], radius * step, taps[radius], row)


@njit(nogil=True, cache=True, boundscheck=False)
def _one_pair(line: NDArray[np.float32], step: int, k: float, near: float, row: NDArray[np.float32]) -> None:
    a, mid, b = line, line[step:], line[2 * step :]
    for x in range(len(row)):
        row[x] = k * mid[x] + near * (a[x] + b[x])


@njit(nogil=True, cache=True, boundscheck=False)
def _two_pairs(
    line: NDArray[np.float32], step: int, k: float, near: float, far: float, row: NDArray[np.float32]
) -> None:
    c, a, mid, b, d = line, line[step:], line[2 * step :], line[3 * step :], line[4 * step :]
    for x in range(len(row)):
        row[x] = k * mid[x] + (near * (a[x] + b[x]) + far * (c[x] + d[x]))


@njit(nogil=True, cache=True, boundscheck=False)
def _add_two_pairs(
    line: NDArray[np.float32], step: int, t: int, near: float, far: float, row: NDArray[np.float32]
) -> None:
    """Two pairs of taps at once: half the walks through ``row``."""
    c, a, b, d = line, line[step:], line[(2 * t + 1) * step :], line[(2 * t + 2) * step :]
    for x in range(len(row)):
        row[x] += near * (a[x] + b[x]) + far * (c[x] + d[x])


@njit(nogil=True, cache=True, boundscheck=False)
def _add_pair(line: NDArray[np.float32], reach: int, k: float, row: NDArray[np.float32]) -> None:
    a, b = line, line[2 * reach :]
    for x in range(len(row)):
        row[x] += k * (a[x] + b[x])


@njit(nogil=True, cache=True, boundscheck=False)
def differences(
    window: NDArray[np.float32],
    taps: NDArray[np.float32],
    radius: NDArray[np.int64],
    across: NDArray[np.float32],
    smooth: NDArray[np.float32],
    levels: NDArray[np.float32],
) -> None:
    """Scales of ``window`` (h, w) into ``levels`` (scales + 1, h, w), valid from the last margin on.

    ``smooth`` receives the first level: the window with no more than the finest noise taken out.
    """
    h, w = window.shape
    scratch, fine = across.reshape(h * w), smooth.reshape(h * w)
    blur(window.reshape(h * w), w, 0, taps[0], radius[0], scratch, fine)
    margin = radius[0]
    for i in range(1, len(radius)):
        coarse = levels[i].reshape(h * w)
        blur(fine, w, margin, taps[i], radius[i], scratch, coarse)
        margin += radius[i]
        _subtract(
            fine[margin * w : (h - margin) * w],
            coarse[margin * w : (h - margin) * w],
            levels[i - 1].reshape(h * w)[margin * w : (h - margin) * w],
        )
        fine = coarse


@njit(nogil=True, cache=True, boundscheck=False)
def _subtract(fine: NDArray[np.float32], coarse: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    for x in range(len(out)):
        out[x] = fine[x] - coarse[x]
