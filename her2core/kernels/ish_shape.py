"""The numbers of a nucleus of an ISH slide, and the pixels that are its own.

An outline is a polygon: one corner a ray, its radius the mean of three neighbours, so that a pixel's rounding
does not show in its shape. Everything is reckoned from the nucleus's centre: it comes out the same wherever
the nucleus lies in an array.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from her2core.kernels.ish_nuclei import BASE
from her2core.kernels.polar import N_RAYS

MEASURED: Final = ("area", "elongation", "solidity", "grey", "sharpness", "overlap", "saturated", "extent")
"""Columns of a measured row: px2, ratio, ratio, mean grey, ratio, fraction, fraction, and the farthest radius."""

CLIPPED: Final = 255  # a grey so bright is not measured
LENS: Final = 1.35  # of a nucleus's own height: so bright two lie over one another; ours
SHARP_UM: Final = (0.5, 2.0)  # half the widths across an edge whose steps are compared; ours
RIM: Final = 0.5  # an edge found at radius r lies half a pixel inside


class Outlines(NamedTuple):
    """Polygons around whole-pixel centres, in pixels of the nuclear image."""

    y: NDArray[np.int32]
    x: NDArray[np.int32]
    radius: NDArray[np.float64]  # (n, ray)
    centroid: NDArray[np.float64]  # (n, 2) from the centre


def outlines(found: Any, look: Any) -> Outlines:
    """Polygons of nuclei and their centroids."""
    path = found.path.astype(np.float64)
    radius = (np.roll(path, 1, axis=1) + 2.0 * path + np.roll(path, -1, axis=1)) * 0.25 - RIM
    centroid = np.zeros((len(path), 2))
    areas = np.zeros(len(path))
    _centroids(radius, look, centroid, areas)
    return Outlines(found.y, found.x, radius, centroid)


@njit(nogil=True, cache=True, boundscheck=False)
def _centroids(radius: Any, look: Any, centroid: Any, areas: Any) -> None:
    for i in range(len(radius)):
        sy = 0.0
        sx = 0.0
        area = 0.0
        for a in range(N_RAYS):
            b = (a + 1) % N_RAYS
            ya, xa = radius[i, a] * look.sin[a], radius[i, a] * look.cos[a]
            yb, xb = radius[i, b] * look.sin[b], radius[i, b] * look.cos[b]
            cross = xa * yb - xb * ya
            area += cross
            sy += cross * (ya + yb)
            sx += cross * (xa + xb)
        centroid[i, 0] = sy / (3.0 * area)
        centroid[i, 1] = sx / (3.0 * area)
        areas[i] = 0.5 * area


@njit(nogil=True, cache=True, boundscheck=False)
def measure(
    grey: Any, shape: Any, bound: Any, inside: Any, wanted: Any, near: int, spread: tuple[int, int], look: Any
) -> Any:
    """float64 ``(len(wanted), len(MEASURED))``; ``shape`` in ascending ``y``; ``spread`` as `SHARP_UM`, px."""
    rows = np.zeros((len(wanted), 8))
    stride = grey.shape[1]
    flat = grey.ravel()
    ys, xs = np.empty(N_RAYS), np.empty(N_RAYS)
    for w in range(len(wanted)):
        i = wanted[w]
        radius = shape.radius[i]
        area = 0.0
        for a in range(N_RAYS):
            ys[a], xs[a] = radius[a] * look.sin[a], radius[a] * look.cos[a]
        for a in range(N_RAYS):
            b = (a + 1) % N_RAYS
            area += 0.5 * (xs[a] * ys[b] - xs[b] * ys[a])
        rows[w, 0] = area
        rows[w, 1] = _elongation(ys, xs, shape.centroid[i])
        rows[w, 2] = min(area / _hull_area(ys, xs), 1.0)
        rows[w, 4] = _sharpness(flat, stride, i, shape, bound[i], spread, look)
        rows[w, 7] = radius.max()
        first = np.searchsorted(shape.y, shape.y[i] - near)
        last = np.searchsorted(shape.y, shape.y[i] + near + 1)
        _inside(flat, stride, i, shape, (first, last), near, inside[i], bound[i], look, rows[w])
    return rows


@njit(nogil=True, cache=True, boundscheck=False)
def _inside(
    flat: Any,
    stride: int,
    i: int,
    shape: Any,
    rows: Any,
    near: int,
    level: int,
    bound: Any,
    look: Any,
    row: Any,
) -> None:
    """Mean grey, and the fractions that another nucleus shares or that are too bright to be measured."""
    n = 0
    total = 0
    clipped = 0
    shared = 0
    lens = BASE + LENS * (level - BASE)
    reach = int(np.ceil(shape.radius[i].max()))
    rivals = np.empty(64, np.int64)
    m = 0
    for j in range(rows[0], rows[1]):
        if j != i and abs(shape.x[j] - shape.x[i]) <= near and m < len(rivals):
            rivals[m] = j
            m += 1
    for dy in range(-reach, reach + 1):
        at = (shape.y[i] + dy) * stride + shape.x[i]
        for dx in range(-reach, reach + 1):
            ray = look.ray[dy + look.reach, dx + look.reach]
            far = look.distance[dy + look.reach, dx + look.reach]
            if far > shape.radius[i, ray]:
                continue
            v = flat[at + dx]
            n += 1
            total += v
            clipped += v == CLIPPED
            # Along a ray that a neighbour bounds, what is much brighter than the nucleus is both of them.
            if (
                bound[ray] < len(look.distance)
                and v > lens
                and 2.0 * far > shape.radius[i, ray]
                and _cut(shape.radius[i, ray], bound[ray])
            ):
                shared += 1
                continue
            for k in range(m):
                j = rivals[k]
                qy, qx = dy + shape.y[i] - shape.y[j], dx + shape.x[i] - shape.x[j]
                if abs(qy) <= look.reach and abs(qx) <= look.reach:
                    r = look.distance[qy + look.reach, qx + look.reach]
                    if r <= shape.radius[j, look.ray[qy + look.reach, qx + look.reach]]:
                        shared += 1
                        break
    row[3] = total / max(n, 1)
    row[5] = shared / max(n, 1)
    row[6] = clipped / max(n, 1)


@njit(nogil=True, cache=True, boundscheck=False)
def _cut(radius: float, bound: int) -> bool:
    return radius > bound - 2.5


@njit(nogil=True, cache=True, boundscheck=False)
def _sharpness(
    flat: Any, stride: int, i: int, shape: Any, bound: Any, spread: tuple[int, int], look: Any
) -> float:
    """Step across the free edge as a fraction of the step over a wider way; 0 where nothing is free."""
    close = 0
    wide = 0
    for a in range(N_RAYS):
        r = shape.radius[i, a] + RIM
        if r > bound[a] - 1:
            continue
        for way in range(2):
            d = spread[way]
            inner, outer = max(r - d, 0.0), r + d - 1.0
            p = flat[_place(i, shape, inner, a, stride, look)]
            q = flat[_place(i, shape, outer, a, stride, look)]
            if way == 0:
                close += np.int64(p) - np.int64(q)
            else:
                wide += np.int64(p) - np.int64(q)
    return close / wide if wide > 0 else 0.0


@njit(nogil=True, cache=True, boundscheck=False)
def _place(i: int, shape: Any, r: float, a: int, stride: int, look: Any) -> int:
    dy, dx = int(np.floor(r * look.sin[a] + 0.5)), int(np.floor(r * look.cos[a] + 0.5))
    return int((shape.y[i] + dy) * stride + shape.x[i] + dx)


@njit(nogil=True, cache=True, boundscheck=False)
def _elongation(ys: Any, xs: Any, centroid: Any) -> float:
    """Axis ratio of the ellipse with the polygon's second moments."""
    area = 0.0
    yy = 0.0
    xx = 0.0
    yx = 0.0
    for a in range(N_RAYS):
        b = (a + 1) % N_RAYS
        ya, xa, yb, xb = ys[a] - centroid[0], xs[a] - centroid[1], ys[b] - centroid[0], xs[b] - centroid[1]
        cross = xa * yb - xb * ya
        area += cross
        yy += cross * (ya * ya + ya * yb + yb * yb)
        xx += cross * (xa * xa + xa * xb + xb * xb)
        yx += cross * (xa * yb + 2.0 * xa * ya + 2.0 * xb * yb + xb * ya) * 0.5
    spread = np.sqrt((yy - xx) * (yy - xx) + 4.0 * yx * yx)
    return float(np.sqrt((yy + xx + spread) / max(yy + xx - spread, 1e-9 * (yy + xx))))


@njit(nogil=True, cache=True, boundscheck=False)
def _hull_area(ys: Any, xs: Any) -> float:
    """Area of the convex hull, by gift wrapping: corners are few."""
    n = len(ys)
    start = 0
    for a in range(n):
        if xs[a] > xs[start] or (xs[a] == xs[start] and ys[a] > ys[start]):
            start = a
    area = 0.0
    p = start
    for _ in range(n):
        q = (p + 1) % n
        for c in range(n):
            turn = (xs[q] - xs[p]) * (ys[c] - ys[p]) - (ys[q] - ys[p]) * (xs[c] - xs[p])
            if turn < 0.0:
                q = c
        area += 0.5 * (xs[p] * ys[q] - xs[q] * ys[p])
        p = q
        if p == start:
            break
    return max(area, 1e-9)


@njit(nogil=True, cache=True, boundscheck=False)
def paint(labels: Any, origin: tuple[int, int], shape: Any, names: Any, factor: int, look: Any) -> None:
    """Write ``names`` (n,), not 0, into int32 ``labels`` (h, w) where a nucleus is.

    Pixel (0, 0) of ``labels`` is pixel ``origin`` of the full image, of which ``factor`` x ``factor`` make
    one of the nuclear image, whose own pixel (0, 0) ``shape`` counts from. A pixel in two nuclei goes to the
    one whose outline is farther away in proportion; of equals to the first.
    """
    h, w = labels.shape
    ys, xs, cross = np.empty(N_RAYS), np.empty(N_RAYS), np.empty(N_RAYS)
    mid = 0.5 * (factor - 1)
    owner = np.zeros(
        int(max(names.max() if len(names) else 0, -(names.min() if len(names) else 0))) + 1, np.int64
    )
    other = np.zeros_like(owner)
    for i in range(len(names)):
        if names[i] > 0:
            owner[names[i]] = i
        else:
            other[-names[i]] = i
    for i in range(len(names)):
        y_centre, x_centre = shape.y[i] * factor - origin[0], shape.x[i] * factor - origin[1]
        for a in range(N_RAYS):
            ys[a] = factor * shape.radius[i, a] * look.sin[a] + mid
            xs[a] = factor * shape.radius[i, a] * look.cos[a] + mid
        for dy in range(int(np.ceil(ys.min())), int(np.floor(ys.max())) + 1):
            y = y_centre + dy
            if y < 0 or y >= h:
                continue
            n = 0
            for a in range(N_RAYS):
                b = (a + 1) % N_RAYS
                if (ys[a] <= dy) != (ys[b] <= dy):
                    cross[n] = xs[a] + (dy - ys[a]) / (ys[b] - ys[a]) * (xs[b] - xs[a])
                    n += 1
            cross[:n].sort()
            for k in range(0, n - 1, 2):
                first = max(x_centre + int(np.ceil(cross[k])), 0)
                last = min(x_centre + int(np.floor(cross[k + 1])), w - 1)
                for x in range(first, last + 1):
                    there = labels[y, x]
                    if there == 0:
                        labels[y, x] = names[i]
                    else:
                        j = owner[there] if there > 0 else other[-there]
                        if _deep(y + origin[0], x + origin[1], i, shape, factor) < _deep(
                            y + origin[0], x + origin[1], j, shape, factor
                        ):
                            labels[y, x] = names[i]


@njit(nogil=True, cache=True, boundscheck=False)
def _deep(y: int, x: int, i: int, shape: Any, factor: int) -> float:
    """Way from the centre of nucleus ``i`` to a full pixel, as a fraction of that to its outline."""
    mid = 0.5 * (factor - 1)
    dy, dx = (y - shape.y[i] * factor) - mid, (x - shape.x[i] * factor) - mid
    turn = np.arctan2(dy, dx) * (N_RAYS / (2.0 * np.pi))
    if turn < 0.0:
        turn += N_RAYS
    a = int(turn)
    part = turn - a
    a = a % N_RAYS
    r = (1.0 - part) * shape.radius[i, a] + part * shape.radius[i, (a + 1) % N_RAYS]
    return float(np.sqrt(dy * dy + dx * dx) / (factor * r))
