"""Gaussian blur of 8-bit images in whole numbers: a pixel's value does not depend on its place.

The same bits as OpenCV's 8-bit ``GaussianBlur``, and faster where it is wide.
"""

from __future__ import annotations

from typing import Any, Final

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
def blur(image: Any, taps: Any, out: Any, first: int = 0) -> None:
    """Blur ``image`` (h, w) uint8, mirrored about its outermost pixels, from row ``first`` on into ``out``.

    Both sides are longer than ``taps`` (reach + 1,) from `gaussian_taps`.
    """
    h, w = image.shape
    reach = len(taps) - 1
    column, total = np.empty(w + 2 * reach, np.uint16), np.empty(w, np.uint32)
    middle = column[reach : reach + w]
    for y in range(first, first + len(out)):
        _first_bytes(image[y], np.uint16(taps[0]), middle)
        for k in range(1, reach + 1):
            _add_bytes(image[abs(y - k)], image[h - 1 - abs(h - 1 - y - k)], np.uint16(taps[k]), middle)
        for k in range(1, reach + 1):
            column[reach - k] = middle[k]
            column[reach + w - 1 + k] = middle[w - 1 - k]
        _first_words(middle, np.uint32(taps[0]), total)
        for k in range(1, reach + 1):
            _add_words(column[reach - k :], column[reach + k :], np.uint32(taps[k]), total)
        _finish(total, out[y - first])


# Loops that become vector code, each in a function of its own. Sums of weighted bytes fit 16 bits.


@njit(nogil=True, cache=True, boundscheck=False)
def _first_bytes(row: Any, weight: Any, total: Any) -> None:
    for x in range(len(total)):
        total[x] = np.uint16(row[x] * weight)


@njit(nogil=True, cache=True, boundscheck=False)
def _add_bytes(one: Any, other: Any, weight: Any, total: Any) -> None:
    for x in range(len(total)):
        both = np.uint16(np.uint16(one[x]) + np.uint16(other[x]))
        total[x] = np.uint16(total[x] + np.uint16(both * weight))


@njit(nogil=True, cache=True, boundscheck=False)
def _first_words(row: Any, weight: Any, total: Any) -> None:
    for x in range(len(total)):
        total[x] = np.uint32(np.uint32(row[x]) * weight)


@njit(nogil=True, cache=True, boundscheck=False)
def _add_words(one: Any, other: Any, weight: Any, total: Any) -> None:
    for x in range(len(total)):
        both = np.uint32(np.uint32(one[x]) + np.uint32(other[x]))
        total[x] = np.uint32(total[x] + np.uint32(both * weight))


@njit(nogil=True, cache=True, boundscheck=False)
def _finish(total: Any, row: Any) -> None:
    for x in range(len(row)):
        row[x] = np.uint32(total[x] + np.uint32(1 << 15)) >> np.uint32(16)
