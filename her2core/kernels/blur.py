"""Gaussian blur of 8-bit images in whole numbers: a pixel's value does not depend on its place.

The same bits as OpenCV's 8-bit ``GaussianBlur``, and faster where it is wide.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

ONE: Final = 256  # sum of a kernel's weights


def gaussian_taps(sigma_px: float, reach: int) -> NDArray[np.int32]:
    """Weights at distances 0 to ``reach`` pixels, int32 ``(reach + 1,)``: with their mirror image `ONE`.

    What rounding takes from a weight is given to the next one nearer the centre.
    """
    away = np.arange(reach, -1, -1)
    exact = np.exp(-0.5 * (away / sigma_px) ** 2)
    exact /= 2 * exact[:-1].sum() + 1.0
    taps = np.zeros(reach + 1, np.int32)
    left = 0.0
    for k in range(reach):
        wanted = exact[k] * ONE + left
        taps[reach - k] = round(wanted)
        left = wanted - round(wanted)
    taps[0] = ONE - 2 * taps[1:].sum()
    return taps


@njit(nogil=True, cache=True, boundscheck=False)
def blur(image: NDArray[np.uint8], taps: NDArray[np.int32], out: NDArray[np.uint8], first: int = 0) -> None:
    """Blur ``image`` (h, w) uint8, mirrored about its outermost pixels, from row ``first`` on into ``out``.

    Both sides are longer than ``taps`` (reach + 1,) from `gaussian_taps`, whose reach is 1 or more.
    """
    w, reach = image.shape[1], len(taps) - 1
    column, total = np.empty(w + 2 * reach, np.uint16), np.empty(w, np.uint32)
    for y in range(first, first + len(out)):
        _first_rows(image, y, taps[0], taps[1], column, reach)
        for k in range(2, reach + 1, 2):
            _add_rows(image, y, k, taps[k], taps[k + 1] if k < reach else 0, column, reach)
        for k in range(1, reach + 1):
            column[reach - k] = column[reach + k]
            column[reach + w - 1 + k] = column[reach + w - 1 - k]
        _first_columns(column, reach, taps[0], taps[1], total)
        for k in range(2, reach + 1, 2):
            _add_columns(column, reach, k, taps[k], taps[k + 1] if k < reach else 0, total)
        _finish(total, out, y - first)


# Loops that become vector code, each in a function of its own that cuts its arrays itself; two weights at a
# time. Sums of weighted bytes fit 16 bits. What lies one beyond the reach has no weight and may be any.


@njit(nogil=True, cache=True, boundscheck=False)
def _first_rows(
    image: NDArray[np.uint8], y: int, middle: int, beside: int, column: NDArray[np.uint16], reach: int
) -> None:
    bottom = len(image) - 1
    row, above, below = image[y], image[abs(y - 1)], image[bottom - abs(bottom - y - 1)]
    total, w0, w1 = column[reach : reach + len(row)], np.uint16(middle), np.uint16(beside)
    for x in range(len(total)):
        both = np.uint16(np.uint16(above[x]) + np.uint16(below[x]))
        total[x] = np.uint16(np.uint16(row[x] * w0) + np.uint16(both * w1))


@njit(nogil=True, cache=True, boundscheck=False)
def _add_rows(
    image: NDArray[np.uint8], y: int, k: int, near: int, far: int, column: NDArray[np.uint16], reach: int
) -> None:
    """Rows at distances ``k`` and ``k + 1``."""
    bottom = len(image) - 1
    above, below = image[abs(y - k)], image[bottom - abs(bottom - y - k)]
    top, low = image[abs(y - k - 1)], image[bottom - abs(bottom - y - k - 1)]
    total, w0, w1 = column[reach : reach + len(above)], np.uint16(near), np.uint16(far)
    for x in range(len(total)):
        inner = np.uint16(np.uint16(above[x]) + np.uint16(below[x]))
        outer = np.uint16(np.uint16(top[x]) + np.uint16(low[x]))
        both = np.uint16(np.uint16(inner * w0) + np.uint16(outer * w1))
        total[x] = np.uint16(total[x] + both)


@njit(nogil=True, cache=True, boundscheck=False)
def _first_columns(
    column: NDArray[np.uint16], reach: int, middle: int, beside: int, total: NDArray[np.uint32]
) -> None:
    here, left, right = column[reach:], column[reach - 1 :], column[reach + 1 :]
    w0, w1 = np.uint32(middle), np.uint32(beside)
    for x in range(len(total)):
        both = np.uint32(np.uint32(left[x]) + np.uint32(right[x]))
        total[x] = np.uint32(np.uint32(np.uint32(here[x]) * w0) + np.uint32(both * w1))


@njit(nogil=True, cache=True, boundscheck=False)
def _add_columns(
    column: NDArray[np.uint16], reach: int, k: int, near: int, far: int, total: NDArray[np.uint32]
) -> None:
    """Columns at distances ``k`` and ``k + 1``."""
    beyond = min(k + 1, reach)
    left, right = column[reach - k :], column[reach + k :]
    first, last = column[reach - beyond :], column[reach + beyond :]
    w0, w1 = np.uint32(near), np.uint32(far)
    for x in range(len(total)):
        inner = np.uint32(np.uint32(left[x]) + np.uint32(right[x]))
        outer = np.uint32(np.uint32(first[x]) + np.uint32(last[x]))
        both = np.uint32(np.uint32(inner * w0) + np.uint32(outer * w1))
        total[x] = np.uint32(total[x] + both)


@njit(nogil=True, cache=True, boundscheck=False)
def _finish(total: NDArray[np.uint32], out: NDArray[np.uint8], y: int) -> None:
    row = out[y]
    for x in range(len(row)):
        row[x] = np.uint32(total[x] + np.uint32(1 << 15)) >> np.uint32(16)
