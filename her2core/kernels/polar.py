"""Closed outlines around a centre: rays, and a circular dynamic programme over their radii.

Every sample lies a whole number of pixels from a whole-pixel centre and every score is an integer, so that
an outline is the same wherever its cell lies in an array.

An example: five rays of three radii, where a step to the next radius between neighbouring rays costs 2.

    gain at radius  0  1  2
    ray 0           1  4  0    Radius 1 on every ray gains 4 + 5 + 3 + 6 + 5 = 23. Radius 2 on ray 2 gains 9
    ray 1           0  5  1    instead of 3, and the steps out and back cost 4: (1, 1, 2, 1, 1) with 25 is the
    ray 2           2  3  9    best closed path. Radius 2 on ray 3 as well would save no step and lose 4. The
    ray 3           0  6  2    last ray is a neighbour of the first: the programme runs a lap and a half and
    ray 4           1  5  0    keeps the middle, where it no longer matters where it began.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

N_RAYS: Final = 36  # a ray every 10 degrees (spec §4.3.5)
MAX_BEND: Final = 4  # widest change of radius between neighbouring rays, in radial steps; ours
FORBIDDEN: Final = -(1 << 17)  # gain of a radius that an outline takes only where it has no other way
NOWHERE: Final = -(1 << 28)


class RayOffsets(NamedTuple):
    """Pixel offsets of the samples around a centre, ``(ray, radius)``; ray 0 points to +x, the next to +y."""

    dy: NDArray[np.int32]
    dx: NDArray[np.int32]

    def over(self, image: NDArray[Any]) -> Sheet:
        """``image`` (h, w) along these rays."""
        return Sheet(image.ravel(), self.dy * np.int32(image.shape[1]) + self.dx)


def new_ray_offsets(n_radii: int, step_px: float, shift_px: float = 0.0) -> RayOffsets:
    """Rays sampled every ``step_px`` around a point ``shift_px`` right of and below the centre."""
    angle = 2.0 * np.pi * np.arange(N_RAYS)[:, None] / N_RAYS
    radius = np.arange(n_radii)[None, :] * step_px
    dy = np.floor(radius * np.sin(angle) + shift_px + 0.5).astype(np.int32)
    dx = np.floor(radius * np.cos(angle) + shift_px + 0.5).astype(np.int32)
    return RayOffsets(dy, dx)


class RayIndex(NamedTuple):
    """Directions of the rays, and nearest ray and distance of every offset ``(dy + reach, dx + reach)``."""

    cos: NDArray[np.float64]  # (ray,)
    sin: NDArray[np.float64]
    ray: NDArray[np.uint8]
    distance: NDArray[np.float32]  # px
    reach: int


def new_ray_index(reach: int) -> RayIndex:
    """Directions, and tables for offsets up to ``reach`` pixels along either axis."""
    angle = 2.0 * np.pi * np.arange(N_RAYS) / N_RAYS
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    turn = np.arctan2(dy, dx) / (2.0 * np.pi)
    ray = np.floor(turn * N_RAYS + 0.5).astype(np.int64) % N_RAYS
    distance = np.hypot(dy, dx).astype(np.float32)
    return RayIndex(np.cos(angle), np.sin(angle), ray.astype(np.uint8), distance, reach)


class Sheet(NamedTuple):
    """An image seen along rays: ``flat[centre + offset[ray, radius]]``."""

    flat: NDArray[Any]
    offset: NDArray[np.int32]  # 32 bits: they share the cache with the image


@njit(nogil=True, cache=True, boundscheck=False)
def sample(sheet: Sheet, at: int, a: int, r: int) -> Any:
    """Grey at radius ``r`` of ray ``a`` around place ``at``, none of them negative.

    Unsigned indices: with signed ones every look-up would first test for one that counts from the end.
    """
    return sheet.flat[np.uint64(at + sheet.offset[np.uint64(a), np.uint64(r)])]


def bend_costs(per_step: int, per_square: int) -> NDArray[np.int32]:
    """Cost of a change of radius by 0, 1, ... ``MAX_BEND`` steps between neighbouring rays."""
    k = np.arange(MAX_BEND + 1)
    return (per_step * k + per_square * k * k).astype(np.int32)


def new_lap(n_radii: int) -> NDArray[np.int32]:
    """Scratch for `trace`: a lap and a half of scores, with a margin no outline can enter."""
    return np.full((N_RAYS + N_RAYS // 2, n_radii + 2 * MAX_BEND), NOWHERE, np.int32)


@njit(nogil=True, cache=True, boundscheck=False)
def trace(
    gain: NDArray[np.int32],
    least: int,
    most: int,
    bend: NDArray[np.int32],
    lap: NDArray[np.int32],
    path: NDArray[np.int32],
) -> None:
    """Write into ``path`` (ray,) the closed outline of greatest summed gain within ``least .. most``.

    The programme runs a lap and a half and the middle lap is kept: a quarter from start and end these no
    longer matter, and the outline closes.

    Parameters
    ----------
    gain
        int32 ``(ray, radius)``; `FORBIDDEN` where the outline must not pass.
    bend
        int32 ``(MAX_BEND + 1,)`` from `bend_costs`.
    lap
        int32 scratch from `new_lap`.
    """
    n = gain.shape[0]
    first, width = least + MAX_BEND, most + 1 - least
    lap[:, least:first] = NOWHERE
    lap[:, first + width : first + width + MAX_BEND] = NOWHERE
    lap[0, first : first + width] = gain[0, least : most + 1]
    for a in range(1, len(lap)):
        _advance(
            lap[a - 1, least : first + width + MAX_BEND],
            gain[a % n, least : most + 1],
            bend,
            lap[a, first : first + width],
        )
    _walk_back(lap, bend, first + int(np.argmax(lap[-1, first : first + width])), path)


@njit(nogil=True, cache=True, boundscheck=False)
def _advance(
    last: NDArray[np.int32], gain: NDArray[np.int32], bend: NDArray[np.int32], row: NDArray[np.int32]
) -> None:
    """One ray of the programme: ``row`` (radius,) from ``last``, which has a margin of `MAX_BEND`.

    Written out, in 32 bits and without negative indices, so that it becomes vector code.
    """
    b1, b2, b3, b4 = bend[1], bend[2], bend[3], bend[4]
    for r in range(len(row)):
        best = last[r + 4]
        best = max(best, np.int32(max(last[r + 3], last[r + 5]) - b1))
        best = max(best, np.int32(max(last[r + 2], last[r + 6]) - b2))
        best = max(best, np.int32(max(last[r + 1], last[r + 7]) - b3))
        best = max(best, np.int32(max(last[r], last[r + 8]) - b4))
        row[r] = best + gain[r]


@njit(nogil=True, cache=True, boundscheck=False)
def _walk_back(lap: NDArray[np.int32], bend: NDArray[np.int32], i: int, path: NDArray[np.int32]) -> None:
    """Follow the best outline back from its end, and keep its middle lap."""
    n = len(path)
    for a in range(n + n // 2 - 1, n // 4 - 1, -1):
        if a < n + n // 4:
            path[a % n] = i - MAX_BEND
        last = lap[a - 1]
        j = i
        best = last[i]
        for k in range(1, MAX_BEND + 1):
            if last[i - k] - bend[k] > best:
                best = last[i - k] - bend[k]
                j = i - k
            if last[i + k] - bend[k] > best:
                best = last[i + k] - bend[k]
                j = i + k
        i = j


@njit(nogil=True, cache=True, boundscheck=False)
def centroid(path: NDArray[np.int32], inset: float, ray_index: RayIndex) -> tuple[float, float, float]:
    """Centroid (dy, dx) from the centre, and area, of the polygon of ``path`` (ray,); pixels.

    An edge found at ``r`` lies between samples ``r - 1`` and ``r``: half a pixel inside.
    """
    cos, sin = ray_index.cos, ray_index.sin
    area = 0.0
    sy = 0.0
    sx = 0.0
    for a in range(N_RAYS):
        b = (a + 1) % N_RAYS
        ra, rb = path[a] - inset, path[b] - inset
        ya, xa, yb, xb = ra * sin[a], ra * cos[a], rb * sin[b], rb * cos[b]
        cross = xa * yb - xb * ya
        area += cross
        sy += cross * (ya + yb)
        sx += cross * (xa + xb)
    return sy / (3.0 * area), sx / (3.0 * area), 0.5 * area


@njit(nogil=True, cache=True, boundscheck=False)
def elongation(path: NDArray[np.int32], ray_index: RayIndex) -> float:
    """Axis ratio of the ellipse with the second moments of ``path`` (ray,), pixels; 1 for a circle."""
    dy, dx, _ = centroid(path, 0.5, ray_index)
    yy = 0.0
    xx = 0.0
    yx = 0.0
    for a in range(N_RAYS):
        y, x = path[a] * ray_index.sin[a] - dy, path[a] * ray_index.cos[a] - dx
        w = path[a]
        yy += w * y * y
        xx += w * x * x
        yx += w * y * x
    spread = np.sqrt((yy - xx) * (yy - xx) + 4.0 * yx * yx)
    return float(np.sqrt((yy + xx + spread) / max(yy + xx - spread, 1e-6)))
