"""Membranes: the closed contour of every cell, and how much of it carries DAB at each cut-point.

A ray that takes the strongest DAB out to a fixed distance catches the neighbour's far membrane. Here the
contour is one closed path between the nucleus and the neighbours: drawn to DAB ridges where there are any,
else to the midline between the nuclei. A membrane that two cells share lies on both their contours, so each
of them counts it, from whichever side it is stained.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from her2core.kernels.ihc.contour import OPEN, ContourRule
from her2core.kernels.nuclei import STRIP, Nuclei
from her2core.kernels.polar import N_RAYS, RayIndex, Sheet, sample

GLASSY: Final = 0.3  # of the way from glass to a cell's cytoplasm: less is a gap; ours
LEAST_ALONG: Final = 0.2  # cosine: a ray so far aslant to a neighbour meets its midline nowhere near; ours
FLANK_RISE: Final = (5, 4)  # farther out so much more DAB than on the contour: it lies on a flank; ours
BESIDE_PX: Final = 2  # pixels of cytoplasm beside the nucleus, at about 0.5 um; ours
CYTOPLASM_PART: Final = 0.6  # of the way from the nuclear edge to the membrane (spec §4.3.5)
NEIGHBOURS_ARC: Final = N_RAYS // 3  # rays: no neighbour across a gap faces more of a cell; ours
STAINED_DAB: Final = 12  # grey steps, 0.1 OD: hematoxylin under so much DAB is not trusted; ours
FAINTEST_DAB: Final = 6  # grey steps, 0.05 OD: less is no stain; ours


@njit(nogil=True, cache=True, boundscheck=False)
def bound_rays(
    i: int, found: Nuclei, strips: NDArray[np.int64], near: int, ray_index: RayIndex, mid: NDArray[np.float64]
) -> None:
    """Distance to the midline between nucleus ``i`` of ``found`` and its neighbours, along every ray.

    The midline halves the gap between the two nuclear edges. ``strips`` are those of ``found`` (see
    `Nuclei.strips`); neighbours are at most ``near`` pixels apart along an axis. Writes ``mid`` (ray,) in
    pixels of the nuclear image.
    """
    mid[:] = OPEN
    y, x = found.y[i], found.x[i]
    for strip in range(max((y - near) // STRIP, 0), min((y + near) // STRIP + 2, len(strips)) - 1):
        j, stop = strips[strip], strips[strip + 1]
        j += np.searchsorted(found.x[j:stop], x - near)
        while j < stop and found.x[j] - x <= near:
            dy, dx = found.y[j] - y, found.x[j] - x
            if j != i and abs(dy) <= near:
                d = ray_index.distance[dy + ray_index.reach, dx + ray_index.reach]
                towards = ray_index.ray[dy + ray_index.reach, dx + ray_index.reach]
                own = found.path[i, towards]
                other = found.path[j, (towards + N_RAYS // 2) % N_RAYS]
                _halve(dy, dx, d, own + 0.5 * (d - own - other), ray_index, mid)
            j += 1


@njit(nogil=True, cache=True, boundscheck=False, error_model="numpy")
def _halve(dy: int, dx: int, d: float, half: float, ray_index: RayIndex, mid: NDArray[np.float64]) -> None:
    """Let no ray pass the line ``half`` of the way along ``d``; in vector code."""
    for a in range(N_RAYS):
        along = (ray_index.cos[a] * dx + ray_index.sin[a] * dy) / d
        far = half / along
        mid[a] = far if (along > LEAST_ALONG) & (far < mid[a]) else mid[a]


@njit(nogil=True, cache=True, boundscheck=False)
def read_contour(
    dab: Sheet,
    centre: int,
    path: NDArray[np.int32],
    slack: int,
    grey: NDArray[np.int32],
    peak: NDArray[np.int32],
) -> None:
    """DAB (grey steps) of the contour at every ray: the greatest within two ``slack`` of it.

    In the last ``slack`` of these only a crest of its own counts, no flank. Where all this is the flank of a
    membrane farther out, the contour has what lies before it.
    """
    for k in range(len(grey)):
        for a in range(N_RAYS):
            grey[k, a] = sample(dab, centre, a, max(path[a] + k - 2 * slack, 0))
    peak[:] = 0
    for k in range(3 * slack + 1):
        for a in range(N_RAYS):
            peak[a] = max(peak[a], grey[k, a])
    for k in range(3 * slack + 1, 4 * slack + 1):
        for a in range(N_RAYS):
            peak[a] = max(peak[a], grey[k, a] if grey[k, a] >= grey[k + slack, a] else 0)
    for a in range(N_RAYS):
        peak[a] = grey[slack, a] if FLANK_RISE[1] * grey[5 * slack, a] > FLANK_RISE[0] * peak[a] else peak[a]


@njit(nogil=True, cache=True, boundscheck=False)
def leave_neighbours(
    stains: Sheet,
    at: int,
    nucleus: NDArray[np.int32],
    rule: ContourRule,
    stained: NDArray[np.bool_],
    path: NDArray[np.int32],
    peak: NDArray[np.int32],
) -> None:
    """Give back stained arcs that clear glass parts from the cell's own cytoplasm: they are a neighbour's.

    Where a cell stands apart, the nearest membrane may be that of the cell across the gap. ``stains`` is a
    sheet of `Planes.stains`; ``stained`` (ray,) marks the arcs. A whole arc is judged at once, by the mean
    hematoxylin of the last unstained pixels before it, because a single pixel of pale cytoplasm is as clear
    as glass. The contour of such an arc is drawn back to these pixels.
    """
    if not stained.any() or stained.all():
        return
    cytoplasm = _cytoplasm_hematoxylin(stains, at, nucleus, 3 * N_RAYS // 4)  # more than half may be missing
    if cytoplasm - rule.clear_glass < rule.cytoplasm:
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
            while c > nucleus[ray] and sample(stains, at, ray, c) & 0xFF >= STAINED_DAB:
                c -= 1
            before[ray] = c
            if c > nucleus[ray]:
                total += np.int32(sample(stains, at, ray, c) >> 8)
                seen += 1
            b += 1
        if seen > 1 and b - a <= min(2 * seen, NEIGHBOURS_ARC) and total < level * seen:
            for k in range(a, b):
                ray = k % N_RAYS
                path[ray] = max(int(before[ray] * rule.scale), int(nucleus[ray] * rule.scale + 0.5) + 1)
                peak[ray] = min(peak[ray], sample(stains, at, ray, before[ray]) & 0xFF)
        a = b + 1


@njit(nogil=True, cache=True, boundscheck=False)
def _cytoplasm_hematoxylin(stains: Sheet, at: int, nucleus: NDArray[np.int32], rank: int) -> float:
    """Hematoxylin grey of the cytoplasm beside the nucleus: that of the ray of this rank, from the palest."""
    grey = np.zeros(N_RAYS, np.int32)
    for a in range(N_RAYS):
        for r in range(nucleus[a] + 1, nucleus[a] + 1 + BESIDE_PX):
            grey[a] += np.int32(sample(stains, at, a, r) >> 8)
    for value in grey:  # sooner done than sorting
        if (grey < value).sum() <= rank < (grey <= value).sum():
            return value / BESIDE_PX
    return 0.0


@njit(nogil=True, cache=True, boundscheck=False)
def brownness(
    stains: Sheet,
    at: int,
    nucleus: NDArray[np.int32],
    path: NDArray[np.int32],
    base: int,
    stained: NDArray[np.bool_],
    blueness: float,
    rule: ContourRule,
) -> float:
    """How brown the stained part of a contour is, above the cell's cytoplasm: 1 as DAB, 0 as grey.

    What is grey (erythrocytes, debris, edges of fibres) is unmixed into both stains at
    once. Brown is what blue loses more than red: DAB less ``blueness`` of hematoxylin, both in
    greys. Read at half resolution, as most slides keep colour. 1 where nothing is stained.
    """
    if not stained.any():
        return 1.0
    own = _cytoplasm_hematoxylin(stains, at, nucleus, N_RAYS // 2)
    last = stains.offset.shape[1] - 1
    dab = 0
    hematoxylin = 0.0
    for a in range(N_RAYS):
        if stained[a]:
            middle = int(path[a] / rule.scale + 0.5)
            most = -1
            beside = 0
            for r in range(max(middle - 1, 0), min(middle + 1, last) + 1):
                both = int(sample(stains, at, a, r))
                if both & 0xFF > most:
                    most, beside = both & 0xFF, both >> 8
            dab += most - base
            hematoxylin += beside - own
    return 1.0 - blueness * hematoxylin / dab if dab > 0 else 0.0


@njit(nogil=True, cache=True, boundscheck=False)
def arc_lengths(path: NDArray[np.int32], ray_index: RayIndex, weight: NDArray[np.float64]) -> None:
    """Length of the contour (steps) that every ray stands for."""
    weight[:] = 0.0
    for a in range(N_RAYS):
        b = (a + 1) % N_RAYS
        dy = path[a] * ray_index.sin[a] - path[b] * ray_index.sin[b]
        dx = path[a] * ray_index.cos[a] - path[b] * ray_index.cos[b]
        half = 0.5 * np.sqrt(dy * dy + dx * dx)
        weight[a] += half
        weight[b] += half


@njit(nogil=True, cache=True, boundscheck=False)
def cytoplasm_level(
    dab: Sheet,
    centre: int,
    nucleus: NDArray[np.int32],
    path: NDArray[np.int32],
    rule: ContourRule,
    count: NDArray[np.int32],
) -> int:
    """Median DAB from the nuclear edge to 60 % of the way to the membrane (spec §4.3.5).

    Nearer than ``rule.ridge_half_width`` to the contour is membrane: there the median of a narrow cytoplasm
    would be the foot of strong membranes, and their weaker parts would not stand out from it. A cell without
    room between the two is judged by the outer half of its nucleus. ``count`` is scratch, (4, 256): greys
    that follow one another are counted apart, because most are alike, and a count waits for the last one in
    its place.
    """
    count[:] = 0
    n = 0
    for a in range(N_RAYS):
        edge = int(nucleus[a] * rule.scale + 0.5)
        last = min(edge + int(CYTOPLASM_PART * (path[a] - edge)), path[a] - rule.ridge_half_width)
        for r in range(edge + 1, last + 1):
            count[np.uint64(r & 3), sample(dab, centre, a, r)] += 1
            n += 1
    for a in range(N_RAYS if n < N_RAYS else 0):
        edge = int(nucleus[a] * rule.scale + 0.5)
        for r in range(edge // 2, edge + 1):
            count[np.uint64(r & 3), sample(dab, centre, a, r)] += 1
            n += 1
    seen = 0
    for v in range(256):
        seen += count[0, v] + count[1, v] + count[2, v] + count[3, v]
        if 2 * seen >= n:
            return v
    return 255


@njit(nogil=True, cache=True, boundscheck=False)
def find_valid(
    stains: Sheet,
    at: int,
    nucleus: NDArray[np.int32],
    path: NDArray[np.int32],
    peak: NDArray[np.int32],
    positive: int,
    rule: ContourRule,
    valid: NDArray[np.bool_],
) -> None:
    """Mark the rays (ray,) that can be judged: ``positive`` ones, and those that do not look into a lumen.

    A ray does where it holds neither stain for the width of a lumen, from the nucleus to a lumen's width past
    the contour. ``stains`` is a sheet of `Planes.stains`.
    """
    wide = rule.lumen
    for a in range(N_RAYS):
        valid[a] = True
        if peak[a] >= positive:
            continue
        stop = min(int(path[a] / rule.scale) + wide + 2, stains.offset.shape[1])
        r = nucleus[a] + wide
        while r < stop:  # whatever is no glass rules out every lumen that would hold it
            k = 0
            while k < wide:
                grey = sample(stains, at, a, r - k)
                if grey >> 8 >= rule.glass or grey & 0xFF >= FAINTEST_DAB:
                    break
                k += 1
            if k == wide:
                valid[a] = False
                break
            r += wide - k
