"""Membranes: the closed contour of every cell, and how much of it carries DAB at each cut-point.

A ray that takes the strongest DAB out to a fixed distance catches the neighbour's far membrane. Here the
contour is one closed path between the nucleus and the neighbours: drawn to DAB ridges where there are any,
else to the midline between the nuclei. A membrane that two cells share lies on both their contours, so each
of them counts it, from whichever side it is stained.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from her2core.kernels.polar import FORBIDDEN, N_RAYS, trace

OPEN: Final = 1 << 20  # no neighbour along this ray


class ContourRule(NamedTuple):
    """How a contour is looked for. Radii in steps along a ray, DAB in grey steps."""

    scale: float  # steps per pixel of the nuclear image
    reach: int  # widest distance from the nucleus
    clear: int  # narrowest distance from the nucleus
    beyond: int  # how far past the midline a shared membrane may lie
    flank: int  # a ridge is compared with the DAB this far to either side
    clip: int  # a ridge higher than this counts as this
    faint: int  # a ridge lower than this is no membrane
    wall: int  # cost of a step through a membrane, 1/16 of its clipped height
    glass: int  # hematoxylin grey below which there is no tissue
    gap: int  # cost of a step over glass, 1/16 grey a grey
    rind: int  # an edge of the cytoplasm higher than this counts as this, half greys
    border: int  # gain of such an edge, 1/16 grey a half grey
    pull: int  # cost of a step away from the midline, 1/16 grey
    slack: int  # half width of the window in which the contour's DAB is read
    coarse: NDArray[np.int32]  # (radius,) the same radius in pixels of the nuclear image
    bend: NDArray[np.int32]


@njit(nogil=True, cache=True, boundscheck=False)
def bound_rays(i: int, y: Any, x: Any, path: Any, lo: int, hi: int, near: int, cos: Any, sin: Any,
               look: Any, mid: Any, owner: Any) -> None:  # fmt: skip
    """Distance to the midline between nucleus ``i`` and its neighbours ``lo .. hi``, along every ray.

    The midline halves the gap between the two nuclear edges. Writes ``mid`` (ray,) in pixels of the nuclear
    image and ``owner`` (ray,), the neighbour behind it (-1: none).
    """
    mid[:] = OPEN
    owner[:] = -1
    for j in range(lo, hi):
        dy, dx = y[j] - y[i], x[j] - x[i]
        if j == i or abs(dy) > near or abs(dx) > near:
            continue
        d = look.distance[dy + look.reach, dx + look.reach]
        towards = look.ray[dy + look.reach, dx + look.reach]
        own, other = path[i, towards], path[j, (towards + N_RAYS // 2) % N_RAYS]
        half = own + 0.5 * (d - own - other)
        for a in range(N_RAYS):
            along = (cos[a] * dx + sin[a] * dy) / d
            if along > 0.2 and half / along < mid[a]:
                mid[a] = half / along
                owner[a] = j


@njit(nogil=True, cache=True, boundscheck=False)
def contour(dab: Any, at: int, offset: Any, hem: Any, at_coarse: int, offset_coarse: Any, nucleus: Any, mid: Any,
            rule: Any, gain: Any, lap: Any, path: Any) -> None:  # fmt: skip
    """Trace the cell around ``dab[at]`` into ``path`` (ray,), radii in steps.

    A radius gains by its DAB ridge, and pays for its distance from the midline and for the membrane and the
    glass that lie between it and the nucleus: neither belongs inside a cell.
    """
    last = gain.shape[1] - 1
    line, ridge = np.zeros(last + 1, np.int32), np.zeros(last + 1, np.int32)
    for a in range(N_RAYS):
        edge = int(nucleus[a] * rule.scale + 0.5)
        least = min(edge + rule.clear, last - rule.flank)
        most = min(edge + rule.reach, last - rule.flank)
        middle = int(mid[a] * rule.scale + 0.5)
        if mid[a] < OPEN:
            most = max(min(most, middle + rule.beyond), least)
        _ridges(dab, at, offset[a], least, most, rule.flank, line, ridge)
        gain[a, :] = FORBIDDEN
        crossed = 0
        for r in range(least, most + 1):
            away = 4 * abs(r - middle) if mid[a] < OPEN else max(r - edge - rule.flank, 0)
            gain[a, r] = min(max(ridge[r], -16 * rule.clip), 16 * rule.clip) - (rule.pull * away >> 2) - crossed
            behind = r - rule.flank
            if behind >= least:
                wall = min(max(ridge[behind] - 16 * rule.faint, 0), 16 * rule.clip)
                crossed += (wall * rule.wall) >> 4
            c = rule.coarse[r]
            if r >= edge + rule.flank:
                gain[a, r] += min(max(_drop(hem, at_coarse, offset_coarse[a], c), 0), rule.rind) * rule.border
            crossed += max(rule.glass - np.int32(hem[at_coarse + offset_coarse[a, c]]), 0) * rule.gap
    trace(gain, rule.bend, lap, path)


@njit(nogil=True, cache=True, boundscheck=False)
def _ridges(dab: Any, at: int, ray: Any, least: int, most: int, flank: int, line: Any, ridge: Any) -> None:
    """Height of the DAB over the mean of both sides, in 1/16 grey, for the radii ``least .. most``."""
    start = max(least - flank, 0)
    for r in range(start, most + flank + 1):
        line[r] = dab[at + ray[r]]
    for r in range(least, most + 1):
        ridge[r] = 8 * (2 * line[r] - line[max(r - flank, start)] - line[r + flank])


@njit(nogil=True, cache=True, boundscheck=False)
def _drop(hem: Any, at: int, ray: Any, r: int) -> int:
    """Fall of the hematoxylin from inside ``r`` to outside, in half greys."""
    inside = np.int32(hem[at + ray[r - 1]]) + np.int32(hem[at + ray[r - 2]])
    return inside - np.int32(hem[at + ray[r + 1]]) - np.int32(hem[at + ray[r + 2]])


@njit(nogil=True, cache=True, boundscheck=False)
def read_contour(flat: Any, centre: int, offset: Any, path: Any, slack: int, cos: Any, sin: Any, peak: Any,
                 weight: Any) -> None:  # fmt: skip
    """DAB (grey steps) and arc length (steps) of the contour at every ray."""
    for a in range(N_RAYS):
        best = np.int32(0)
        for r in range(path[a] - 2 * slack, path[a] + 2 * slack + 1):
            here = np.int32(flat[centre + offset[a, max(r, 0)]])
            outer = np.int32(flat[centre + offset[a, r + slack]])
            if r <= path[a] + slack or here >= outer:  # farther out only a crest of its own, no flank
                best = max(best, here)
        outer = np.int32(flat[centre + offset[a, path[a] + 3 * slack]])
        if 4 * outer > 5 * best:  # all this is the flank of a membrane farther out
            best = np.int32(flat[centre + offset[a, max(path[a] - slack, 0)]])
        peak[a] = best
        weight[a] = 0.0
    for a in range(N_RAYS):
        b = (a + 1) % N_RAYS
        dy = path[a] * sin[a] - path[b] * sin[b]
        dx = path[a] * cos[a] - path[b] * cos[b]
        half = 0.5 * np.sqrt(dy * dy + dx * dx)
        weight[a] += half
        weight[b] += half


@njit(nogil=True, cache=True, boundscheck=False)
def cytoplasm_level(flat: Any, centre: int, offset: Any, nucleus: Any, scale: float, path: Any, clear: int, count: Any
                    ) -> int:  # fmt: skip
    """Median DAB from the nuclear edge to 60 % of the way to the membrane (spec 4.3, step 5).

    Nearer than ``clear`` steps to the contour is membrane. A cell without room between the two is judged by
    the outer half of its nucleus.
    """
    count[:] = 0
    n = 0
    for a in range(N_RAYS):
        edge = int(nucleus[a] * scale + 0.5)
        for r in range(edge + 1, min(edge + int(0.6 * (path[a] - edge)), path[a] - clear) + 1):
            count[flat[centre + offset[a, r]]] += 1
            n += 1
    for a in range(N_RAYS if n < N_RAYS else 0):
        edge = int(nucleus[a] * scale + 0.5)
        for r in range(edge // 2, edge + 1):
            count[flat[centre + offset[a, r]]] += 1
            n += 1
    seen = 0
    for v in range(256):
        seen += count[v]
        if 2 * seen >= n:
            return v
    return 255


@njit(nogil=True, cache=True, boundscheck=False)
def looks_into_glass(hem: Any, dab: Any, y: int, x: int, star_y: Any, star_x: Any, edge: int, stop: int, glass: int,
                     run: int) -> bool:  # fmt: skip
    """Whether ``run`` pixels in a row between ``edge`` and ``stop`` along a ray hold neither stain."""
    clear = 0
    factor = dab.shape[0] // hem.shape[0]
    for r in range(edge + 1, min(stop, len(star_y))):
        v, u = y + star_y[r], x + star_x[r]
        clear = clear + 1 if hem[v, u] < glass and dab[factor * v, factor * u] < 6 else 0
        if clear >= run:
            return True
    return False
