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

from her2core.kernels.polar import FORBIDDEN, N_RAYS, new_lap, trace

OPEN: Final = 1 << 20  # no neighbour along this ray
GLASSY: Final = 0.3  # of the way from glass to a cell's cytoplasm: less is a gap; ours
NEIGHBOURS_ARC: Final = N_RAYS // 3  # rays: no neighbour across a gap faces more of a cell; ours
STAINED_DAB: Final = 12  # grey steps, 0.1 OD: hematoxylin under so much DAB is not believed; ours
FAINTEST_DAB: Final = 6  # grey steps, 0.05 OD: less is no stain; ours


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
    """Scratch of `contour`."""

    gain: NDArray[np.int32]
    lap: NDArray[np.int32]
    line: NDArray[np.int32]
    pale: NDArray[np.int32]
    rim: NDArray[np.int32]


def workspace(n_radii: int) -> Workspace:
    """Scratch for one thread; ``n_radii`` samples a ray."""
    line, pale, rim = (np.zeros(n_radii, np.int32) for _ in range(3))
    return Workspace(np.zeros((N_RAYS, n_radii), np.int32), new_lap(n_radii), line, pale, rim)


@njit(nogil=True, cache=True, boundscheck=False)
def bound_rays(i: int, found: Any, rows: tuple[int, int], near: int, look: Any, mid: Any) -> None:
    """Distance to the midline between nucleus ``i`` and its neighbours in ``rows``, along every ray.

    The midline halves the gap between the two nuclear edges. Writes ``mid`` (ray,) in pixels of the nuclear
    image.
    """
    mid[:] = OPEN
    for j in range(rows[0], rows[1]):
        dy, dx = found.y[j] - found.y[i], found.x[j] - found.x[i]
        if j == i or abs(dy) > near or abs(dx) > near:
            continue
        d = look.distance[dy + look.reach, dx + look.reach]
        towards = look.ray[dy + look.reach, dx + look.reach]
        own = found.path[i, towards]
        other = found.path[j, (towards + N_RAYS // 2) % N_RAYS]
        half = own + 0.5 * (d - own - other)
        for a in range(N_RAYS):
            along = (look.cos[a] * dx + look.sin[a] * dy) / d
            if along > 0.2 and half / along < mid[a]:
                mid[a] = half / along


@njit(nogil=True, cache=True, boundscheck=False)
def contour(
    dab: Any, hem: Any, at: tuple[int, int], nucleus: Any, mid: Any, rule: Any, work: Any, path: Any
) -> None:
    """Trace the cell around a nucleus into ``path`` (ray,), radii in steps.

    ``at`` is the centre's place in both sheets, the full DAB and the hematoxylin.

    A radius gains by its DAB ridge, and pays for its distance from the midline and for the membrane and the
    glass that lie between it and the nucleus: neither belongs inside a cell.
    """
    gain, lap, line, pale, rim = work
    last = gain.shape[1] - 1 - rule.flank
    glass = _glass_level(hem, at[1], nucleus, rule)
    first, final = last, 0
    for a in range(N_RAYS):
        edge = int(nucleus[a] * rule.scale + 0.5)
        least = min(edge + rule.clear, last)
        most = min(edge + rule.reach, last)
        middle = int(mid[a] * rule.scale + 0.5)
        if mid[a] < OPEN:
            most = max(min(most, middle + rule.beyond), least)
        first, final = min(first, least), max(final, most)
        gain[a, :] = FORBIDDEN
        row, coarse = gain[a, least : most + 1], rule.coarse[least : most + 1]
        _read_tissue(hem.flat, at[1], hem.offset[a], (coarse[0], coarse[-1] + 1), glass, rule, pale, rim)
        _rises(dab.flat, at[0], dab.offset[a, least - rule.flank : most + rule.flank + 1], rule, line, row)
        _crossings(row, line, pale, rim, coarse, edge + rule.flank - least, rule)
        for k in range(len(row)):
            away = 4 * abs(k + least - middle) if mid[a] < OPEN else max(k + least - edge - rule.flank, 0)
            row[k] -= rule.pull * away >> 2
    trace(gain, first, final, rule.bend, lap, path)
    for a in range(N_RAYS):
        path[a] = _crest(dab.flat, at[0], dab.offset[a], path[a], rule.flank)


@njit(nogil=True, cache=True, boundscheck=False)
def _crest(dab: Any, at: int, ray: Any, r: int, reach: int) -> Any:
    """The crest of the membrane on whose shoulder ``r`` lies, else ``r``; 3/4 as high is a shoulder."""
    best = r
    for step in (-1, 1):
        q = r
        while abs(q - r) < reach and dab[at + ray[q + step]] >= dab[at + ray[q]]:
            q += step
        here, there = np.int32(dab[at + ray[r]]), np.int32(dab[at + ray[q]])
        if 4 * here >= 3 * there and there > dab[at + ray[best]]:
            best = q
    return best


@njit(nogil=True, cache=True, boundscheck=False)
def _glass_level(hem: Any, at: int, nucleus: Any, rule: Any) -> Any:
    """Hematoxylin grey below which there is no tissue; lower where a cell's own cytoplasm is nearly clear."""
    total: Any = 0
    for a in range(N_RAYS):
        for r in range(nucleus[a] + 2, nucleus[a] + 4):
            total += np.int32(hem.flat[at + hem.offset[a, r]])
    cytoplasm = total // (2 * N_RAYS)
    return min(rule.glass, rule.clear_glass + 2 * (cytoplasm - rule.clear_glass) // 5)


@njit(nogil=True, cache=True, boundscheck=False)
def _rises(dab: Any, at: int, ray: Any, rule: Any, line: Any, gain: Any) -> None:
    """Gain of the radii whose samples ``ray`` lists, with ``rule.flank`` more at either end.

    That is the height of the DAB over the mean of both sides, 1/16 grey. A faint ridge counts in full, a
    strong one for little more: it is no likelier to be the cell's own. ``line`` is left with the heights.
    """
    n = len(gain)
    for k in range(len(ray)):
        line[k] = dab[at + ray[k]]
    inner, here, outer = (
        line[:n],
        line[rule.flank : rule.flank + n],
        line[2 * rule.flank : 2 * rule.flank + n],
    )
    full: Any = np.int32(16 * rule.clip)
    for k in range(n):
        height: Any = np.int32(8 * (2 * here[k] - inner[k] - outer[k]))
        inner[k] = height
        gain[k] = min(max(height, -full), full) + (min(max(height - full, 0), 4 * full) >> 2)


@njit(nogil=True, cache=True, boundscheck=False)
def _read_tissue(
    hem: Any, at: int, ray: Any, span: tuple[int, int], glass: int, rule: Any, pale: Any, rim: Any
) -> None:
    """Glass crossed at a pixel of the nuclear image, and gain of a fall of hematoxylin there, 1/16 grey."""
    for c in range(span[0], span[1]):
        here = np.int32(hem[at + ray[c]])
        inside = np.int32(hem[at + ray[c - 1]]) + np.int32(hem[at + ray[c - 2]])
        fall = inside - np.int32(hem[at + ray[c + 1]]) - np.int32(hem[at + ray[c + 2]])
        pale[c] = max(glass - here, 0) * rule.gap
        rim[c] = min(max(fall, 0), rule.rind) * rule.border


@njit(nogil=True, cache=True, boundscheck=False)
def _crossings(gain: Any, height: Any, pale: Any, rim: Any, coarse: Any, open_from: int, rule: Any) -> None:
    """Let every radius pay for the membrane and the glass before it, and gain by the cytoplasm's edge."""
    crossed: Any = np.int32(0)
    full, faint = np.int32(16 * rule.clip), np.int32(16 * rule.faint)
    for k in range(len(gain)):
        c = coarse[k]
        gain[k] -= crossed
        if k >= open_from:
            gain[k] += rim[c]
        if k >= rule.flank:
            crossed += min(max(height[k - rule.flank] - faint, 0), full) * rule.wall >> 4
        crossed += pale[c]


@njit(nogil=True, cache=True, boundscheck=False)
def read_contour(dab: Any, centre: int, path: Any, slack: int, peak: Any) -> None:
    """DAB (grey steps) of the contour at every ray."""
    flat, offset = dab.flat, dab.offset
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


@njit(nogil=True, cache=True, boundscheck=False)
def leave_neighbours(
    hem: Any, dab: Any, at: tuple[int, int], nucleus: Any, rule: Any, stained: Any, path: Any, peak: Any
) -> None:
    """Give back stained arcs that clear glass parts from the cell's own cytoplasm: they are a neighbour's.

    Where a cell stands apart, the nearest membrane may be that of the cell across the gap. ``hem`` and
    ``dab`` are sheets of the nuclear image's star; ``stained`` (ray,) marks the arcs. A whole arc is judged
    at once, by the mean hematoxylin of the last unstained pixels before it, because a single pixel of pale
    cytoplasm is as clear as glass. The contour of such an arc is drawn back to these pixels.
    """
    cytoplasm = _cytoplasm_hematoxylin(hem, at[0], nucleus)
    if not stained.any() or stained.all() or cytoplasm - rule.clear_glass < rule.cytoplasm:
        return
    level = rule.clear_glass + GLASSY * (cytoplasm - rule.clear_glass)
    before = np.zeros(N_RAYS, np.int32)
    end: Any = np.argmin(stained)  # of the arc that the first ray may lie on: a lap from here cuts none
    a: Any = end + 1
    while a < end + N_RAYS:
        b = a
        total: Any = 0
        seen = 0
        while stained[b % N_RAYS]:
            ray = b % N_RAYS
            c: Any = int(path[ray] / rule.scale) - 1
            while c > nucleus[ray] and dab.flat[at[1] + dab.offset[ray, c]] >= STAINED_DAB:
                c -= 1
            before[ray] = c
            if c > nucleus[ray]:
                total += np.int32(hem.flat[at[0] + hem.offset[ray, c]])
                seen += 1
            b += 1
        if seen > 1 and b - a <= min(2 * seen, NEIGHBOURS_ARC) and total < level * seen:
            for k in range(a, b):
                ray = k % N_RAYS
                path[ray] = max(int(before[ray] * rule.scale), int(nucleus[ray] * rule.scale + 0.5) + 1)
                peak[ray] = min(peak[ray], dab.flat[at[1] + dab.offset[ray, before[ray]]])
        a = b + 1


@njit(nogil=True, cache=True, boundscheck=False)
def _cytoplasm_hematoxylin(hem: Any, at: int, nucleus: Any) -> Any:
    """Hematoxylin grey of the cytoplasm beside the nucleus: the upper quartile, for it may be missing."""
    grey = np.zeros(N_RAYS, np.int32)
    for a in range(N_RAYS):
        for r in range(nucleus[a] + 1, nucleus[a] + 3):
            grey[a] += np.int32(hem.flat[at + hem.offset[a, r]])
    grey.sort()
    return grey[3 * N_RAYS // 4] / 2


@njit(nogil=True, cache=True, boundscheck=False)
def arc_lengths(path: Any, look: Any, weight: Any) -> None:
    """Length of the contour (steps) that every ray stands for."""
    weight[:] = 0.0
    for a in range(N_RAYS):
        b = (a + 1) % N_RAYS
        dy = path[a] * look.sin[a] - path[b] * look.sin[b]
        dx = path[a] * look.cos[a] - path[b] * look.cos[b]
        half = 0.5 * np.sqrt(dy * dy + dx * dx)
        weight[a] += half
        weight[b] += half


@njit(nogil=True, cache=True, boundscheck=False)
def cytoplasm_level(dab: Any, centre: int, nucleus: Any, path: Any, rule: Any, count: Any) -> int:
    """Median DAB from the nuclear edge to 60 % of the way to the membrane (spec 4.3, step 5).

    Nearer than ``rule.foot`` to the contour is membrane: there the median of a narrow cytoplasm would be the
    foot of strong membranes, and their weaker parts would not stand out from it. A cell without room between
    the two is judged by the outer half of its nucleus.
    """
    flat, offset = dab.flat, dab.offset
    count[:] = 0
    n = 0
    for a in range(N_RAYS):
        edge = int(nucleus[a] * rule.scale + 0.5)
        for r in range(edge + 1, min(edge + int(0.6 * (path[a] - edge)), path[a] - rule.foot) + 1):
            count[flat[centre + offset[a, r]]] += 1
            n += 1
    for a in range(N_RAYS if n < N_RAYS else 0):
        edge = int(nucleus[a] * rule.scale + 0.5)
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
def looks_into_glass(
    hem: Any, dab: Any, at: tuple[int, int], a: int, span: tuple[int, int], rule: Any
) -> bool:
    """Whether ray ``a`` holds neither stain for the width of a lumen, somewhere within ``span``.

    Both sheets are of the nuclear image's star; ``at`` is the centre's place in each.
    """
    stop = min(span[1], hem.offset.shape[1])
    r = span[0] + rule.lumen - 1
    while r < stop:  # whatever is no glass rules out every lumen that would hold it
        k = 0
        while k < rule.lumen and hem.flat[at[0] + hem.offset[a, r - k]] < rule.glass:
            if dab.flat[at[1] + dab.offset[a, r - k]] >= FAINTEST_DAB:
                break
            k += 1
        if k == rule.lumen:
            return True
        r += rule.lumen - k
    return False
