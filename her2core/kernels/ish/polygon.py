"""Outlines of nuclei as polygons: their shape, and the pixels that are theirs.

One corner a ray, its radius the mean of three neighbours, so that a pixel's rounding does not show in the
shape. Everything is reckoned from the nucleus's centre: it comes out the same wherever the nucleus lies in
an array.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from her2core.kernels.polar import N_RAYS, RayIndex

PALER: Final = 2  # times: a nucleus has so much more contrast than the haze behind it; ours
RIM: Final = 0.5  # an edge found at radius r lies half a pixel inside


class Outlines(NamedTuple):
    """Polygons around whole-pixel centres, in pixels of the nuclear image, one row each."""

    y: NDArray[np.int32]
    x: NDArray[np.int32]
    radius: NDArray[np.float64]  # (n, ray)
    centroid: NDArray[np.float64]  # (n, 2), from the centre
    area: NDArray[np.float64]
    elongation: NDArray[np.float64]  # axis ratio of the ellipse with the same second moments
    solidity: NDArray[np.float64]  # area over that of the convex hull

    def where(self, keep: NDArray[Any]) -> Outlines:
        """Those that ``keep`` marks, bool ``(n,)``, or lists."""
        return Outlines(*(column[keep] for column in self))


def outlines(
    y: NDArray[np.int32], x: NDArray[np.int32], path: NDArray[np.int32], ray_index: RayIndex
) -> Outlines:
    """Polygons of the outlines ``path`` (n, ray) around centres ``(y, x)``."""
    whole = path.astype(np.float64)
    radius = (np.roll(whole, 1, axis=1) + 2.0 * whole + np.roll(whole, -1, axis=1)) * 0.25 - RIM
    n = len(y)
    found = Outlines(y, x, radius, np.zeros((n, 2)), np.zeros(n), np.zeros(n), np.zeros(n))
    _shapes(found, ray_index)
    return found


@njit(nogil=True, cache=True, boundscheck=False)
def _shapes(found: Outlines, ray_index: RayIndex) -> None:
    ys, xs = np.empty(N_RAYS), np.empty(N_RAYS)
    for i in range(len(found.y)):
        sy = 0.0
        sx = 0.0
        area = 0.0
        for a in range(N_RAYS):
            ys[a], xs[a] = found.radius[i, a] * ray_index.sin[a], found.radius[i, a] * ray_index.cos[a]
        for a in range(N_RAYS):
            b = (a + 1) % N_RAYS
            cross = xs[a] * ys[b] - xs[b] * ys[a]
            area += 0.5 * cross
            sy += cross * (ys[a] + ys[b]) / 6.0
            sx += cross * (xs[a] + xs[b]) / 6.0
        found.centroid[i, 0] = sy / area
        found.centroid[i, 1] = sx / area
        found.area[i] = area
        found.elongation[i] = _elongation(ys, xs, found.centroid[i])
        found.solidity[i] = min(area / _hull_area(ys, xs), 1.0)


@njit(nogil=True, cache=True, boundscheck=False)
def _elongation(ys: NDArray[np.float64], xs: NDArray[np.float64], centroid: NDArray[np.float64]) -> float:
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
def _hull_area(ys: NDArray[np.float64], xs: NDArray[np.float64]) -> float:
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
def paint(
    labels: NDArray[np.int32],
    origin: tuple[int, int],
    step: int,
    shape: Outlines,
    contrast: NDArray[np.int32],
    names: NDArray[np.int32],
    factor: int,
    ray_index: RayIndex,
) -> None:
    """Write ``names`` (n,), not 0, into int32 ``labels`` (h, w) where a nucleus is.

    Pixel (0, 0) of ``labels`` is pixel ``origin`` of the full image, and the next ones are ``step`` pixels
    on. ``factor`` x ``factor`` full pixels make one of the nuclear image, whose own pixel (0, 0) ``shape``
    counts from. A pixel in two nuclei goes to the one that has `PALER` times the other's ``contrast`` (n,),
    or else whose outline is farther away in proportion; of equals to the first.
    """
    h, w = labels.shape
    ys, xs = np.empty(N_RAYS), np.empty(N_RAYS)
    crossings, cross = np.empty(h, np.int64), np.empty((h, N_RAYS))
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
            ys[a] = factor * shape.radius[i, a] * ray_index.sin[a] + mid
            xs[a] = factor * shape.radius[i, a] * ray_index.cos[a] + mid
        top, bottom = y_centre + int(np.ceil(ys.min())), y_centre + int(np.floor(ys.max()))
        first_row, last_row = max(-(-top // step), 0), min(bottom // step, h - 1)
        for y in range(first_row, last_row + 1):
            crossings[y] = 0
        for a in range(N_RAYS):  # every side over the rows that it crosses
            b = (a + 1) % N_RAYS
            low, high = y_centre + int(np.ceil(min(ys[a], ys[b]))), y_centre + int(np.ceil(max(ys[a], ys[b])))
            for y in range(max(-(-low // step), first_row), min((high - 1) // step, last_row) + 1):
                dy = y * step - y_centre
                cross[y, crossings[y]] = xs[a] + (dy - ys[a]) / (ys[b] - ys[a]) * (xs[b] - xs[a])
                crossings[y] += 1
        for y in range(first_row, last_row + 1):
            n = crossings[y]
            if n == 2:
                cross[y, 0], cross[y, 1] = min(cross[y, 0], cross[y, 1]), max(cross[y, 0], cross[y, 1])
            else:
                cross[y, :n].sort()
            for k in range(0, n - 1, 2):
                first = max(-(-(x_centre + int(np.ceil(cross[y, k]))) // step), 0)
                last = min((x_centre + int(np.floor(cross[y, k + 1]))) // step, w - 1)
                for x in range(first, last + 1):
                    there = labels[y, x]
                    if there == 0:
                        labels[y, x] = names[i]
                    else:
                        j = owner[there] if there > 0 else other[-there]
                        yy, xx = y * step + origin[0], x * step + origin[1]
                        if contrast[i] >= PALER * contrast[j] or (
                            contrast[j] < PALER * contrast[i]
                            and _deep(yy, xx, i, shape, factor, ray_index)
                            < _deep(yy, xx, j, shape, factor, ray_index)
                        ):
                            labels[y, x] = names[i]


@njit(nogil=True, cache=True, boundscheck=False)
def _deep(y: int, x: int, i: int, shape: Outlines, factor: int, ray_index: RayIndex) -> float:
    """Way from the centre of nucleus ``i`` to a full pixel, as a fraction of that to its outline."""
    mid = 0.5 * (factor - 1)
    dy, dx = (y - shape.y[i] * factor - mid) / factor, (x - shape.x[i] * factor - mid) / factor
    row, column = int(np.floor(dy + 0.5)) + ray_index.reach, int(np.floor(dx + 0.5)) + ray_index.reach
    return float(np.sqrt(dy * dy + dx * dx) / shape.radius[i, ray_index.ray[row, column]])
