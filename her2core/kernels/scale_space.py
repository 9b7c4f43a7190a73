"""Differences of Gaussians over the window of one nucleus.

A window is filtered by itself, from its own corner on, one multiplication after the other: its values are
the same bits wherever the nucleus lies in an array, and pixels outside nuclei cost nothing.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

ROOT8: Final = 2.0 * math.sqrt(2.0)  # a signal of diameter d answers most to a Laplacian of sigma d / ROOT8
CUT: Final = 2.5  # where a Gaussian is cut off, in sigma; ours


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
def cut_out(plane: Any, b: int, y0: int, x0: int, out: Any) -> None:
    """Means of ``plane`` over bins of ``b`` x ``b`` pixels, from bin ``(y0, x0)`` on; its rim goes on.

    ``out`` is float32 ``(h, w)``.
    """
    height, width = plane.shape[0] // b, plane.shape[1] // b
    h, w = out.shape
    share = np.float32(1.0 / (b * b))
    for y in range(h):
        row = out[y]
        row[:] = 0.0
        first = min(max(y0 + y, 0), height - 1) * b
        for line in range(first, first + b):
            source = plane[line]
            for x in range(w):
                left = min(max(x0 + x, 0), width - 1) * b
                for i in range(left, left + b):
                    row[x] += source[i]
        for x in range(w):
            row[x] *= share


@njit(nogil=True, cache=True, boundscheck=False)
def blur(source: Any, margin: int, taps: Any, radius: int, across: Any, out: Any) -> None:
    """Gaussian of ``source`` (h, w), which holds from ``margin`` on; ``out`` from ``margin + radius`` on."""
    h, w = source.shape
    left, right = margin + radius, w - margin - radius
    for y in range(margin, h - margin):
        line, row = source[y], across[y, left:right]
        _weigh(line[left:right], taps[0], row)
        for t in range(1, radius, 2):
            _add_four(
                line[left - t : right - t],
                line[left + t : right + t],
                line[left - t - 1 : right - t - 1],
                line[left + t + 1 : right + t + 1],
                taps[t],
                taps[t + 1],
                row,
            )
        if radius % 2 == 1:
            _add_two(
                line[left - radius : right - radius], line[left + radius : right + radius], taps[radius], row
            )
    for y in range(margin + radius, h - margin - radius):
        row = out[y, left:right]
        _weigh(across[y, left:right], taps[0], row)
        for t in range(1, radius, 2):
            _add_four(
                across[y - t, left:right],
                across[y + t, left:right],
                across[y - t - 1, left:right],
                across[y + t + 1, left:right],
                taps[t],
                taps[t + 1],
                row,
            )
        if radius % 2 == 1:
            _add_two(across[y - radius, left:right], across[y + radius, left:right], taps[radius], row)


@njit(nogil=True, cache=True, boundscheck=False)
def _weigh(a: Any, k: Any, row: Any) -> None:
    for x in range(len(row)):
        row[x] = k * a[x]


@njit(nogil=True, cache=True, boundscheck=False)
def _add_two(a: Any, b: Any, k: Any, row: Any) -> None:
    for x in range(len(row)):
        row[x] += k * (a[x] + b[x])


@njit(nogil=True, cache=True, boundscheck=False)
def _add_four(a: Any, b: Any, c: Any, d: Any, near: Any, far: Any, row: Any) -> None:
    """Two pairs of taps at once: half the walks through ``row``."""
    for x in range(len(row)):
        row[x] += near * (a[x] + b[x]) + far * (c[x] + d[x])


@njit(nogil=True, cache=True, boundscheck=False)
def differences(window: Any, taps: Any, radius: Any, across: Any, smooth: Any, levels: Any) -> None:
    """Scales of ``window`` (h, w) into ``levels`` (scales + 1, h, w), valid from the last margin on.

    ``smooth`` receives the first level: the window with no more than the finest noise taken out.
    """
    margin = 0
    blur(window, margin, taps[0], radius[0], across, levels[0])
    margin += radius[0]
    h, w = window.shape
    for y in range(margin, h - margin):
        for x in range(margin, w - margin):
            smooth[y, x] = levels[0, y, x]
    for i in range(1, len(radius)):
        blur(levels[i - 1], margin, taps[i], radius[i], across, levels[i])
        margin += radius[i]
        for y in range(margin, h - margin):
            fine, coarse = levels[i - 1, y], levels[i, y]
            for x in range(margin, w - margin):
                fine[x] -= coarse[x]
