"""What the image of an ISH nucleus shows, as numbers: stain, sharpness, and what it shares."""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from her2core.kernels.ish.distance_map import BASE
from her2core.kernels.ish.nuclei import Found
from her2core.kernels.ish.polygon import PALER, RIM, Outlines
from her2core.kernels.polar import N_RAYS, RayIndex

MEASURED: Final = ("grey", "sharpness", "overlap", "saturated")
"""Columns of a measured row: mean grey, ratio, and two fractions of the area."""

CLIPPED: Final = 255  # a grey so bright is not measured
LENS: Final = 1.4  # of its median height: where a nucleus is so bright another lies over it; ours
SHARP: Final = (0.05, 0.35)  # half the widths across an edge whose steps are compared, in radii; ours
ASIDE: Final = 0.5  # of the wider of these: so far from the outline an edge is looked for; ours
RADIUS_UM: Final = (2.5, 9.0)  # radii that these are taken of: smaller and larger ones count as these; ours
CUT_PX: Final = 2  # so far from a cut the overlap is looked for
TOUCH: Final = 1.0  # pixels: so far outlines of nuclei that only touch may cross
MOST_NEIGHBOURS: Final = 64


@njit(nogil=True, cache=True, boundscheck=False)
def measure(
    images: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    shape: Outlines,
    found: Found,
    wanted: NDArray[np.int64],
    near: int,
    radii: tuple[float, float],
    ray_index: RayIndex,
) -> NDArray[np.float64]:
    """Measure the nuclei that ``wanted`` lists.

    Parameters
    ----------
    images
        Nuclear image, uint8 ``(h, w)``, as it is and lightly smoothed.
    shape
        Polygons of all nuclei, in ascending ``y``; ``found`` says how each was bounded and lit.
    near
        Centres farther apart than this along an axis share nothing, px.
    radii
        `RADIUS_UM` in pixels.

    Returns
    -------
    float64 ``(len(wanted), len(MEASURED))``.
    """
    grey, soft = images
    rows = np.zeros((len(wanted), 4))
    for k in range(len(wanted)):
        i = wanted[k]
        radius = min(max(np.sqrt(shape.area[i] / np.pi), radii[0]), radii[1])
        spread = SHARP[0] * radius, SHARP[1] * radius
        rows[k, 1] = _sharpness(grey, i, shape, found.bound[i], spread, ray_index)
        _inside(grey, i, shape, found.step, near, ray_index, rows[k])
        rows[k, 2] += _lens(soft, i, shape, found.bound[i], ray_index)
    return rows


@njit(nogil=True, cache=True, boundscheck=False)
def _inside(
    grey: NDArray[np.uint8],
    i: int,
    shape: Outlines,
    step: NDArray[np.int32],
    near: int,
    ray_index: RayIndex,
    row: NDArray[np.float64],
) -> None:
    """Mean grey, and the fractions that other nuclei share or that are too bright to be measured.

    What has less than half the contrast of a nucleus is the haze behind it, and shares nothing with it.
    """
    rivals = np.empty(MOST_NEIGHBOURS, np.int64)
    m = 0
    widest = shape.radius[i].max()
    for j in range(
        np.searchsorted(shape.y, shape.y[i] - near), np.searchsorted(shape.y, shape.y[i] + near + 1)
    ):
        rival = j != i and PALER * step[j] > step[i]
        if rival and abs(shape.x[j] - shape.x[i]) <= near and m < len(rivals):
            apart = np.hypot(shape.y[j] - shape.y[i], shape.x[j] - shape.x[i])
            if apart <= widest + shape.radius[j].max():
                rivals[m] = j
                m += 1
    n = 0
    total = 0
    clipped = 0
    shared = 0
    reach = int(np.ceil(widest))
    for dy in range(-reach, reach + 1):
        line = grey[shape.y[i] + dy]
        for dx in range(-reach, reach + 1):
            ray = ray_index.ray[dy + ray_index.reach, dx + ray_index.reach]
            far = ray_index.distance[dy + ray_index.reach, dx + ray_index.reach]
            radius = shape.radius[i, ray]
            if far > radius:
                continue
            v = line[shape.x[i] + dx]
            n += 1
            total += v
            clipped += v == CLIPPED
            shared += _shared(dy, dx, i, rivals[:m], shape, ray_index)
    row[0] = total / max(n, 1)
    row[2] = shared / max(n, 1)
    row[3] = clipped / max(n, 1)


@njit(nogil=True, cache=True, boundscheck=False)
def _lens(
    soft: NDArray[np.uint8], i: int, shape: Outlines, bound: NDArray[np.int32], ray_index: RayIndex
) -> float:
    """Area, as a fraction of the nucleus's, of what lies on a cut and is as bright as two nuclei."""
    bright = BASE + LENS * (_median(soft, i, shape, ray_index) - BASE)
    total = 0.0
    for a in range(N_RAYS):
        cut = shape.radius[i, a] + RIM
        if cut < bound[a] - 2.0:
            continue
        r = int(cut) + CUT_PX
        while r > cut - CUT_PX and _level(soft, i, shape, r, a, ray_index) <= bright:
            r -= 1
        if r <= cut - CUT_PX:
            continue
        low = r
        while low > 0 and _level(soft, i, shape, low, a, ray_index) > bright:
            low -= 1
        high = r
        while high < 2.0 * cut and _level(soft, i, shape, high + 1, a, ray_index) > bright:
            high += 1
        total += (high * high - low * low) * np.pi / N_RAYS
    return float(total / shape.area[i])


@njit(nogil=True, cache=True, boundscheck=False)
def _median(grey: NDArray[np.uint8], i: int, shape: Outlines, ray_index: RayIndex) -> int:
    """Median grey of nucleus ``i``."""
    count = np.zeros(256, np.int64)
    reach = int(np.ceil(shape.radius[i].max()))
    for dy in range(-reach, reach + 1):
        line = grey[shape.y[i] + dy]
        for dx in range(-reach, reach + 1):
            ray = ray_index.ray[dy + ray_index.reach, dx + ray_index.reach]
            if ray_index.distance[dy + ray_index.reach, dx + ray_index.reach] <= shape.radius[i, ray]:
                count[line[shape.x[i] + dx]] += 1
    half = count.sum() // 2
    v = 0
    while half >= count[v]:
        half -= count[v]
        v += 1
    return v


@njit(nogil=True, cache=True, boundscheck=False)
def _shared(
    dy: int, dx: int, i: int, rivals: NDArray[np.int64], shape: Outlines, ray_index: RayIndex
) -> bool:
    """Whether the pixel at ``(dy, dx)`` from the centre of nucleus ``i`` lies in another nucleus."""
    for j in rivals:
        y, x = dy + shape.y[i] - shape.y[j] + ray_index.reach, dx + shape.x[i] - shape.x[j] + ray_index.reach
        known = 0 <= y <= 2 * ray_index.reach and 0 <= x <= 2 * ray_index.reach
        if known and ray_index.distance[y, x] <= shape.radius[j, ray_index.ray[y, x]] - TOUCH:
            return True
    return False


@njit(nogil=True, cache=True, boundscheck=False)
def _sharpness(
    grey: NDArray[np.uint8],
    i: int,
    shape: Outlines,
    bound: NDArray[np.int32],
    spread: tuple[float, float],
    ray_index: RayIndex,
) -> float:
    """Step across the free edge as a fraction of the step over a wider way; 0 where nothing is free.

    Every ray at its own steepest place: an outline beside the edge does not make that softer.
    """
    half = int(np.ceil(spread[1] + 0.5))
    aside = max(int(ASIDE * spread[1] + 0.5), 1)
    profile = np.zeros(2 * half, np.int64)  # sums along the edge, from inside to outside, a pixel apart
    for a in range(N_RAYS):
        if shape.radius[i, a] + RIM <= bound[a] - 1:
            r = _steepest(grey, i, shape, aside, a, ray_index)
            for k in range(2 * half):
                profile[k] += _level(grey, i, shape, max(r + k - half, 0.0), a, ray_index)
    close, wide = _drop(profile, spread[0]), _drop(profile, spread[1])
    return close / wide if wide > 0 else 0.0


@njit(nogil=True, cache=True, boundscheck=False)
def _steepest(
    grey: NDArray[np.uint8], i: int, shape: Outlines, aside: int, a: int, ray_index: RayIndex
) -> float:
    """Radius up to ``aside`` pixels from the outline where so many pixels before exceed those after most.

    Of equals the nearest to the outline, and of these the inner one.
    """
    edge = shape.radius[i, a] + RIM
    most = np.iinfo(np.int64).min
    best = 0
    for n in range(2 * aside + 1):
        shift = (n + 1) // 2 * (1 if n % 2 == 0 else -1)
        drop = 0
        for k in range(aside):
            drop += _level(grey, i, shape, max(edge + shift - k - 1, 0.0), a, ray_index)
            drop -= _level(grey, i, shape, max(edge + shift + k, 0.0), a, ray_index)
        if drop > most:
            most, best = drop, shift
    return float(edge + best)


@njit(nogil=True, cache=True, boundscheck=False)
def _drop(profile: NDArray[np.int64], away: float) -> float:
    """How much higher ``profile`` is ``away`` pixels before its middle than after it."""
    last = len(profile) - 1
    before = 0.5 * last - away
    k = int(before)
    share = before - k
    inner = (1.0 - share) * profile[k] + share * profile[k + 1]
    outer = (1.0 - share) * profile[last - k] + share * profile[last - k - 1]
    return float(inner - outer)


@njit(nogil=True, cache=True, boundscheck=False)
def _level(grey: NDArray[np.uint8], i: int, shape: Outlines, r: float, a: int, ray_index: RayIndex) -> int:
    dy, dx = int(np.floor(r * ray_index.sin[a] + 0.5)), int(np.floor(r * ray_index.cos[a] + 0.5))
    return int(grey[shape.y[i] + dy, shape.x[i] + dx])
