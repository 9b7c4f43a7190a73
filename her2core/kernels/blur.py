"""Gaussian blur of 8-bit images in whole numbers: a pixel's value does not depend on its place.

The same bits as OpenCV's 8-bit ``GaussianBlur``, and faster where it is wide.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

ONE: Final = 256  # sum of a kernel's weights
AT_ONCE: Final = 3  # distances that one pass over a row adds up; ours, measured: 2 to 5 hardly differ


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
    while reach > 1 and taps[reach] == 0:  # the outermost weights of a wide one are rounded to none
        reach -= 1
    column, total = np.empty(w + 2 * reach, np.uint16), np.empty(w, np.uint32)
    for y in range(first, first + len(out)):
        _first_rows(image, y, taps, column, reach)
        for k in range(2, reach + 1, AT_ONCE):
            _add_rows(image, y, k, taps, column, reach)
        for k in range(1, reach + 1):
            column[reach - k] = column[reach + k]
            column[reach + w - 1 + k] = column[reach + w - 1 - k]
        _first_columns(column, reach, taps, total)
        for k in range(2, reach + 1, AT_ONCE):
            _add_columns(column, reach, k, taps, total)
        _finish(total, out, y - first)


# Loops that become vector code, each in a function of its own that cuts its arrays itself. Sums of weighted
# bytes fit 16 bits. What lies beyond the reach has no weight: the outermost stands in for it.


@njit(nogil=True, cache=True, boundscheck=False)
def _first_rows(
    image: NDArray[np.uint8], y: int, taps: NDArray[np.int32], column: NDArray[np.uint16], reach: int
) -> None:
    bottom = len(image) - 1
    row, above, below = image[y], image[abs(y - 1)], image[bottom - abs(bottom - y - 1)]
    total, w0, w1 = column[reach : reach + len(row)], np.uint16(taps[0]), np.uint16(taps[1])
    for x in range(len(total)):
        both = np.uint16(np.uint16(above[x]) + np.uint16(below[x]))
        total[x] = np.uint16(np.uint16(row[x] * w0) + np.uint16(both * w1))


@njit(nogil=True, cache=True, boundscheck=False)
def _add_rows(
    image: NDArray[np.uint8], y: int, k: int, taps: NDArray[np.int32], column: NDArray[np.uint16], reach: int
) -> None:
    """Rows at the `AT_ONCE` distances from ``k`` on."""
    bottom, k1, k2 = len(image) - 1, min(k + 1, reach), min(k + 2, reach)
    above0, below0 = image[abs(y - k)], image[bottom - abs(bottom - y - k)]
    above1, below1 = image[abs(y - k1)], image[bottom - abs(bottom - y - k1)]
    above2, below2 = image[abs(y - k2)], image[bottom - abs(bottom - y - k2)]
    w0 = np.uint16(taps[k])
    w1, w2 = np.uint16(taps[k1] if k1 > k else 0), np.uint16(taps[k2] if k2 > k1 else 0)
    total = column[reach : reach + len(above0)]
    for x in range(len(total)):
        near = np.uint16(np.uint16(above0[x]) + np.uint16(below0[x]))
        middle = np.uint16(np.uint16(above1[x]) + np.uint16(below1[x]))
        far = np.uint16(np.uint16(above2[x]) + np.uint16(below2[x]))
        both = np.uint16(total[x] + np.uint16(near * w0))
        both = np.uint16(both + np.uint16(middle * w1))
        total[x] = np.uint16(both + np.uint16(far * w2))


@njit(nogil=True, cache=True, boundscheck=False)
def _first_columns(
    column: NDArray[np.uint16], reach: int, taps: NDArray[np.int32], total: NDArray[np.uint32]
) -> None:
    here, left, right = column[reach:], column[reach - 1 :], column[reach + 1 :]
    w0, w1 = np.uint32(taps[0]), np.uint32(taps[1])
    for x in range(len(total)):
        both = np.uint32(np.uint32(left[x]) + np.uint32(right[x]))
        total[x] = np.uint32(np.uint32(np.uint32(here[x]) * w0) + np.uint32(both * w1))


@njit(nogil=True, cache=True, boundscheck=False)
def _add_columns(
    column: NDArray[np.uint16], reach: int, k: int, taps: NDArray[np.int32], total: NDArray[np.uint32]
) -> None:
    """Columns at the `AT_ONCE` distances from ``k`` on."""
    k1, k2 = min(k + 1, reach), min(k + 2, reach)
    left0, right0 = column[reach - k :], column[reach + k :]
    left1, right1 = column[reach - k1 :], column[reach + k1 :]
    left2, right2 = column[reach - k2 :], column[reach + k2 :]
    w0 = np.uint32(taps[k])
    w1, w2 = np.uint32(taps[k1] if k1 > k else 0), np.uint32(taps[k2] if k2 > k1 else 0)
    for x in range(len(total)):
        near = np.uint32(np.uint32(left0[x]) + np.uint32(right0[x]))
        middle = np.uint32(np.uint32(left1[x]) + np.uint32(right1[x]))
        far = np.uint32(np.uint32(left2[x]) + np.uint32(right2[x]))
        both = np.uint32(total[x] + np.uint32(near * w0))
        both = np.uint32(both + np.uint32(middle * w1))
        total[x] = np.uint32(both + np.uint32(far * w2))


@njit(nogil=True, cache=True, boundscheck=False)
def _finish(total: NDArray[np.uint32], out: NDArray[np.uint8], y: int) -> None:
    row = out[y]
    for x in range(len(row)):
        row[x] = np.uint32(total[x] + np.uint32(1 << 15)) >> np.uint32(16)
