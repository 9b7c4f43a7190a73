"""The contour of a cell: one closed path between its nucleus and its neighbours.

Contours are traced for many cells at once, one a lane (see `lanes`). All radii are those of one star; a lane
uses those that its own nucleus and neighbours leave it.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from her2core.kernels.lanes import LANES, new_laps, trace_lanes
from her2core.kernels.polar import FORBIDDEN, N_RAYS, sample

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
    clear_glass: int  # hematoxylin grey of glass
    cytoplasm: int  # hematoxylin greys above glass from which cytoplasm is told from it
    lumen: int  # glass so wide is a lumen, pixels of the nuclear image
    gap: int  # cost of a step over glass, 1/16 grey a grey
    rind: int  # an edge of the cytoplasm higher than this counts as this, half greys
    border: int  # gain of such an edge, 1/16 grey a half grey
    pull: int  # cost of a step away from the midline, 1/16 grey
    foot: int  # half width of the strongest membranes where they end
    slack: int  # half width of the window in which the contour's DAB is read
    coarse: NDArray[np.int32]  # (radius,) the same radius in pixels of the nuclear image
    bend: NDArray[np.int32]


class Workspace(NamedTuple):
    """The cells that `trace_contours` works on, one a lane, and its scratch."""

    centre: NDArray[np.int64]  # (2, lane) place in the sheets of the DAB and of both stains
    nucleus: NDArray[np.int32]  # (lane, ray) radius, pixels of the nuclear image
    mid: NDArray[np.float64]  # (lane, ray) distance to the midline, pixels of the nuclear image
    path: NDArray[np.int32]  # (lane, ray) the contours, steps
    bound: NDArray[np.int32]  # (ray, bound, lane) the nuclear edge; least, middle and greatest radius
    brown: NDArray[np.uint8]  # (ray, radius * LANES) DAB
    blue: NDArray[np.uint8]  # (ray, pixel * LANES) hematoxylin
    glass: NDArray[np.int32]  # (pixel * LANES,) hematoxylin grey below which there is no tissue
    after: NDArray[np.int32]  # (bound, radius * LANES) how far a radius lies beyond each bound
    pixel: NDArray[np.int32]  # (pixel * LANES,) the following two for a pixel of the nuclear image
    pale: NDArray[np.int32]  # (radius * LANES,) cost of glass
    rim: NDArray[np.int32]  # gain of the cytoplasm's edge
    height: NDArray[np.int32]  # of the DAB ridge, after a flank's radii
    crossed: NDArray[np.int32]  # cost of all that lies before; nothing before the first radius
    gain: NDArray[np.int32]  # (ray, radius * LANES)
    laps: NDArray[np.int32]


def workspace(n_radii: int) -> Workspace:
    """Scratch for one thread; ``n_radii`` samples a ray."""
    m = n_radii + 1
    return Workspace(
        centre=np.zeros((2, LANES), np.int64),
        nucleus=np.zeros((LANES, N_RAYS), np.int32),
        mid=np.zeros((LANES, N_RAYS)),
        path=np.zeros((LANES, N_RAYS), np.int32),
        bound=np.zeros((N_RAYS, 4, LANES), np.int32),
        brown=np.zeros((N_RAYS, m * LANES), np.uint8),
        blue=np.zeros((N_RAYS, m * LANES), np.uint8),
        glass=np.zeros(m * LANES, np.int32),
        after=np.zeros((4, m * LANES), np.int32),
        pixel=np.zeros(m * LANES, np.int32),
        pale=np.zeros(m * LANES, np.int32),
        rim=np.zeros(m * LANES, np.int32),
        height=np.zeros(m * LANES, np.int32),
        crossed=np.zeros(m * LANES, np.int32),
        gain=np.zeros((N_RAYS, n_radii * LANES), np.int32),
        laps=new_laps(n_radii),
    )


@njit(nogil=True, cache=True, boundscheck=False)
def trace_contours(dab: Any, stains: Any, rule: Any, work: Any) -> None:
    """Trace the cells around the nuclei of ``work`` into its paths, radii in steps.

    A radius gains by its DAB ridge, and pays for its distance from the midline and for the membrane and the
    glass that lie between it and the nucleus: neither belongs inside a cell.
    """
    last = dab.offset.shape[1] - 1 - rule.flank
    for lane in range(LANES):
        bound = work.bound[:, :, lane]
        _bound(work.nucleus[lane], work.mid[lane], last, rule, bound)
        work.glass[lane::LANES] = _glass_level(stains, work.centre[1, lane], work.nucleus[lane], rule)
        _read_brown(dab, work.centre[0, lane], bound, rule, work.brown[:, lane:])
        _read_blue(stains, work.centre[1, lane], bound, rule, work.blue[:, lane:])
    bound, brown, blue, gain = work.bound, work.brown, work.blue, work.gain
    after, pixel, pale, rim, height = work.after, work.pixel, work.pale, work.rim, work.height
    first, final = bound[:, 1].min(), bound[:, 3].max()
    for a in range(N_RAYS):
        low, high = _span(bound, a)
        _count(bound, a, low, high, after)
        _pale(blue, a, rule.coarse[low], rule.coarse[high - 1], work.glass, rule.gap, pixel)
        _refine(pixel, rule.coarse, low, high, pale)
        _rim(blue, a, rule.coarse[low], rule.coarse[high - 1], rule, pixel)
        _refine(pixel, rule.coarse, low, high, rim)
        _rise(brown, a, low, high, rule.flank, height)
        _cross(height, pale, after, low, high, rule, work.crossed)
        _forbid(gain, a, first, final)
        _settle(height, work.crossed, rim, after, low, high, rule, gain, a)
    trace_lanes(gain, first, final, rule.bend, work.laps, work.path)
    for lane in range(LANES):
        path, at = work.path[lane], work.centre[0, lane]
        for a in range(N_RAYS):
            path[a] = _crest(dab, at, a, path[a], rule.flank)


@njit(nogil=True, cache=True, boundscheck=False)
def _bound(nucleus: Any, mid: Any, last: int, rule: Any, bound: Any) -> None:
    """Nuclear edge, least, middle and greatest radius (steps) of a cell into ``bound`` (ray, 4)."""
    for a in range(N_RAYS):
        edge = int(nucleus[a] * rule.scale + 0.5)
        least, most = min(edge + rule.clear, last), min(edge + rule.reach, last)
        middle = -OPEN
        if mid[a] < OPEN:
            middle = int(mid[a] * rule.scale + 0.5)
            most = max(min(most, middle + rule.beyond), least)
        bound[a, 0], bound[a, 1], bound[a, 2], bound[a, 3] = edge, least, middle, most


@njit(nogil=True, cache=True, boundscheck=False)
def _glass_level(stains: Any, at: int, nucleus: Any, rule: Any) -> Any:
    """Hematoxylin grey below which there is no tissue; lower where a cell's own cytoplasm is nearly clear."""
    total: Any = 0
    for a in range(N_RAYS):
        for r in range(nucleus[a] + 2, nucleus[a] + 4):
            total += np.int32(sample(stains, at, a, r) >> 8)
    cytoplasm = total // (2 * N_RAYS)
    return min(rule.glass, rule.clear_glass + 2 * (cytoplasm - rule.clear_glass) // 5)


@njit(nogil=True, cache=True, boundscheck=False)
def _read_brown(dab: Any, at: int, bound: Any, rule: Any, brown: Any) -> None:
    """DAB of one lane's cell between its bounds, and a flank to either side."""
    for a in range(N_RAYS):
        for r in range(bound[a, 1] - rule.flank, bound[a, 3] + rule.flank + 1):
            brown[a, np.uint64(r * LANES)] = sample(dab, at, a, r)


@njit(nogil=True, cache=True, boundscheck=False)
def _read_blue(stains: Any, at: int, bound: Any, rule: Any, blue: Any) -> None:
    """Hematoxylin of one lane's cell between its bounds, and two pixels to either side."""
    for a in range(N_RAYS):
        for c in range(rule.coarse[bound[a, 1]] - 2, rule.coarse[bound[a, 3]] + 3):
            blue[a, np.uint64(c * LANES)] = sample(stains, at, a, c) >> 8


@njit(nogil=True, cache=True, boundscheck=False)
def _span(bound: Any, a: int) -> Any:
    """Least radius of ray ``a`` that any lane may use, and one more than the greatest."""
    low, high = bound[a, 1, 0], bound[a, 3, 0]
    for lane in range(1, LANES):
        low, high = min(low, bound[a, 1, lane]), max(high, bound[a, 3, lane])
    return low, high + 1


# Loops over the radii ``low`` to ``high`` of ray ``a`` in lanes, in 32 bits and each in a function of its
# own, so that they become vector code. What one leaves to the next begins at ``low``.


@njit(nogil=True, cache=True, boundscheck=False)
def _count(bound: Any, a: int, low: int, high: int, after: Any) -> None:
    """How far the radii lie beyond every lane's bounds: nuclear edge, least, middle, most."""
    one = np.int32(1)
    edge, least, middle, most = after[0], after[1], after[2], after[3]
    for lane in range(LANES):
        edge[lane], least[lane] = low - bound[a, 0, lane], low - bound[a, 1, lane]
        middle[lane], most[lane] = low - bound[a, 2, lane], low - bound[a, 3, lane]
    for k in range((high - low - 1) * LANES):
        edge[LANES + k], least[LANES + k] = edge[k] + one, least[k] + one
        middle[LANES + k], most[LANES + k] = middle[k] + one, most[k] + one


@njit(nogil=True, cache=True, boundscheck=False)
def _pale(blue: Any, a: int, first: int, last: int, glass: Any, gap: int, pale: Any) -> None:
    """Cost of the pixels ``first`` to ``last`` where they are glass, 1/16 grey."""
    grey, none, cost = blue[a, first * LANES :], np.int32(0), np.int32(gap)
    for k in range((last + 1 - first) * LANES):
        pale[k] = np.int32(max(np.int32(glass[k] - grey[k]), none) * cost)


@njit(nogil=True, cache=True, boundscheck=False)
def _rim(blue: Any, a: int, first: int, last: int, rule: Any, rim: Any) -> None:
    """Gain of a fall of hematoxylin across the pixels ``first`` to ``last``, 1/16 grey."""
    none, rind, border = np.int32(0), np.int32(rule.rind), np.int32(rule.border)
    grey = blue[a, (first - 2) * LANES :]
    for k in range((last + 1 - first) * LANES):
        before = np.int32(grey[k]) + np.int32(grey[k + LANES])
        behind = np.int32(grey[k + 3 * LANES]) + np.int32(grey[k + 4 * LANES])
        rim[k] = np.int32(min(max(np.int32(before - behind), none), rind) * border)


@njit(nogil=True, cache=True, boundscheck=False)
def _refine(pixel: Any, coarse: Any, low: int, high: int, step: Any) -> None:
    """Give every radius what its pixel has."""
    for r in range(high - low):
        here = (coarse[low + r] - coarse[low]) * LANES
        row, out = pixel[here : here + LANES], step[r * LANES : (r + 1) * LANES]
        for lane in range(LANES):
            out[lane] = row[lane]


@njit(nogil=True, cache=True, boundscheck=False)
def _rise(brown: Any, a: int, low: int, high: int, flank: int, height: Any) -> None:
    """Height of the DAB over the mean of both sides, 1/16 grey."""
    inner, here, outer = (
        brown[a, (low - flank) * LANES :],
        brown[a, low * LANES :],
        brown[a, (low + flank) * LANES :],
    )
    own = height[flank * LANES :]
    for k in range((high - low) * LANES):
        own[k] = np.int32(8) * np.int32(np.int32(2 * here[k]) - np.int32(inner[k] + outer[k]))


@njit(nogil=True, cache=True, boundscheck=False)
def _cross(height: Any, pale: Any, after: Any, low: int, high: int, rule: Any, crossed: Any) -> None:
    """Add up what lies before every radius: glass, and membranes by ``height`` once they are passed."""
    none, full, faint = np.int32(0), np.int32(16 * rule.clip), np.int32(16 * rule.faint)
    wall, flank, since = np.int32(rule.wall), np.int32(rule.flank), after[1]
    for k in range((high - low - 1) * LANES):
        membrane = np.int32(min(max(np.int32(height[k] - faint), none), full) * wall) >> 4
        glass = pale[k] if since[k] >= none else none
        crossed[LANES + k] = crossed[k] + glass + (membrane if since[k] >= flank else none)


@njit(nogil=True, cache=True, boundscheck=False)
def _forbid(gain: Any, a: int, first: int, final: int) -> None:
    row = gain[a, first * LANES : (final + 1) * LANES]
    for k in range(len(row)):
        row[k] = FORBIDDEN


@njit(nogil=True, cache=True, boundscheck=False)
def _settle(
    height: Any, crossed: Any, rim: Any, after: Any, low: int, high: int, rule: Any, gain: Any, a: int
) -> None:
    """Gain of every radius between its lane's bounds, all told.

    A faint ridge counts in full, a strong one for little more: it is no likelier to be the cell's own.
    """
    edge, least, middle, most = after[0], after[1], after[2], after[3]
    none, bad, flank, pull = np.int32(0), np.int32(FORBIDDEN), np.int32(rule.flank), np.int32(rule.pull)
    full, fall, much = np.int32(16 * rule.clip), np.int32(-16 * rule.clip), np.int32(64 * rule.clip)
    ridges, row = height[rule.flank * LANES :], gain[a, low * LANES : high * LANES]
    for k in range(len(row)):
        beyond = np.int32(edge[k] - flank)
        far = np.int32(4 * abs(middle[k]))
        away = max(beyond, none) if middle[k] >= OPEN else far
        ridge = np.int32(
            min(max(ridges[k], fall), full) + (min(max(np.int32(ridges[k] - full), none), much) >> 2)
        )
        total = np.int32(np.int32(ridge - crossed[k]) - np.int32(np.int32(pull * away) >> 2))
        edged = np.int32(total + (rim[k] if beyond >= none else none))
        row[k] = edged if np.int32(least[k] | np.int32(-most[k])) >= none else bad


@njit(nogil=True, cache=True, boundscheck=False)
def _crest(dab: Any, at: int, a: int, r: int, reach: int) -> Any:
    """The crest of the membrane on whose shoulder ``r`` lies, else ``r``; 3/4 as high is a shoulder."""
    best = r
    here = highest = np.int32(sample(dab, at, a, r))
    for step in (-1, 1):
        q, there = r, here
        while abs(q - r) < reach:
            ahead = np.int32(sample(dab, at, a, q + step))
            if ahead < there:
                break
            q, there = q + step, ahead
        if 4 * here >= 3 * there and there > highest:
            best, highest = q, there
    return best
