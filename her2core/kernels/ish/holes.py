"""Fill small holes of a mask: runs of its rows, joined where they touch.

A region that goes on farther than the widest hole is none, wherever it ends: a run that is wider joins what
is `OUTSIDE`, and what touches that is outside too. So little is left to be looked at.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

OUTSIDE: Final = 0  # the region of all that is no hole
FIRST_RUNS: Final = 4096  # room for so many runs, to begin with


@njit(nogil=True, cache=True, boundscheck=False)
def fill_holes(mask: NDArray[np.uint8], grey: NDArray[np.uint8], dark: int, widest: tuple[int, int]) -> None:
    """Fill holes of ``mask`` (h, w), 0 or 255, in place.

    A hole is a region of 0, its pixels joined by their edges, whose box is no wider and no higher than
    ``widest``, pixels: the first where any of its ``grey`` (h, w) is ``dark`` or darker, else the second,
    which is not less.
    """
    h, w = mask.shape
    runs = np.empty((FIRST_RUNS, 4), np.int32)  # y, first and last column and one, region
    regions = np.empty((FIRST_RUNS, 6), np.int32)  # parent; box: y0, x0, y1, x1; whether any is dark
    regions[OUTSIDE] = OUTSIDE
    row, above = np.empty((w // 2 + 1, 3), np.int32), np.empty((w // 2 + 1, 3), np.int32)
    eights = np.zeros(w // 8 + 1, np.uint64)
    changes = eights.view(np.uint8)[:w]
    ends = np.empty(w + 2, np.int32)
    n = 0
    names = 1
    n_above = 0
    for y in range(h):
        n_row = 0
        for j in range(0, _find_ends(mask, y, eights, changes, ends), 2):
            first, x = ends[j], ends[j + 1]
            row[n_row, 0], row[n_row, 1], row[n_row, 2] = first, x, OUTSIDE
            if x - first <= widest[1]:
                if n == len(runs) or names == len(regions):
                    runs, regions = _longer(runs), _longer(regions)
                row[n_row, 2] = names
                runs[n, 0], runs[n, 1], runs[n, 2], runs[n, 3] = y, first, x, names
                shade = 0
                for i in range(first, x):
                    shade |= grey[y, i] <= dark
                region = regions[names]
                region[0], region[1], region[2], region[3], region[4] = names, y, first, y + 1, x
                region[5] = shade
                n += 1
                names += 1
            n_row += 1
        i = 0
        for j in range(n_row):
            while i < n_above and above[i, 1] <= row[j, 0]:
                i += 1
            k = i
            while k < n_above and above[k, 0] < row[j, 1]:
                _join(regions, above[k, 2], row[j, 2])
                k += 1
        row, above = above, row
        n_above = n_row
    for j in range(n):
        region = regions[_region(regions, runs[j, 3])]
        size = max(region[3] - region[1], region[4] - region[2])
        if region[0] != OUTSIDE and size <= (widest[0] if region[5] else widest[1]):
            mask[runs[j, 0], runs[j, 1] : runs[j, 2]] = 255


@njit(nogil=True, cache=True, boundscheck=False)
def _find_ends(
    mask: NDArray[np.uint8],
    y: int,
    eights: NDArray[np.uint64],
    changes: NDArray[np.uint8],
    ends: NDArray[np.int32],
) -> int:
    """First column of every run of 0 in a row, and the one after its last; how many these are.

    ``changes`` is scratch as long as the row, seen eight at a time in ``eights``.
    """
    w = mask.shape[1]
    _mark_changes(mask, y, changes)
    n = 0
    if mask[y, 0] == 0:
        ends[n] = 0
        n += 1
    for k in range(len(eights)):
        if eights[k] != 0:  # few are: eight pixels at a time are passed over
            for x in range(8 * k, min(8 * k + 8, w)):
                if changes[x]:
                    ends[n] = x + 1
                    n += 1
    if n % 2 == 1:
        ends[n] = w
        n += 1
    return n


@njit(nogil=True, cache=True, boundscheck=False)
def _mark_changes(mask: NDArray[np.uint8], y: int, changes: NDArray[np.uint8]) -> None:
    """Mark pixels of row ``y`` that are 0 before another, and others before 0; in vector code."""
    line, after = mask[y], mask[y, 1:]
    for x in range(len(after)):
        changes[x] = (line[x] == 0) != (after[x] == 0)


@njit(nogil=True, cache=True, boundscheck=False)
def _join(regions: NDArray[np.int32], a: int, b: int) -> None:
    a, b = _region(regions, a), _region(regions, b)
    if a == b:
        return
    kept, gone = regions[min(a, b)], regions[max(a, b)]
    kept[1], kept[2] = min(kept[1], gone[1]), min(kept[2], gone[2])
    kept[3], kept[4] = max(kept[3], gone[3]), max(kept[4], gone[4])
    kept[5] |= gone[5]
    gone[0] = kept[0]


@njit(nogil=True, cache=True, boundscheck=False)
def _region(regions: NDArray[np.int32], i: int) -> int:
    while regions[i, 0] != i:
        regions[i, 0] = regions[regions[i, 0], 0]
        i = regions[i, 0]
    return int(i)


@njit(nogil=True, cache=True, boundscheck=False)
def _longer(rows: NDArray[np.int32]) -> NDArray[np.int32]:
    """The same rows, and room for as many again."""
    out = np.empty((2 * len(rows), rows.shape[1]), np.int32)
    out[: len(rows)] = rows
    return out
