"""Closed outlines around a centre: rays, and a circular dynamic programme over their radii.

Every sample lies a whole number of pixels from a whole-pixel centre and every score is an integer, so that
an outline is the same wherever its cell lies in an array.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

N_RAYS: Final = 36  # a ray every 10 degrees (spec 4.3, step 5)
MAX_BEND: Final = 4  # widest change of radius between neighbouring rays, in radial steps; ours
FORBIDDEN: Final = -(1 << 17)  # gain of a radius that an outline takes only where it has no other way
NOWHERE: Final = -(1 << 28)


class Star(NamedTuple):
    """Pixel offsets of the samples around a centre, ``(ray, radius)``; ray 0 points to +x, then towards +y."""

    dy: NDArray[np.int32]
    dx: NDArray[np.int32]

    def flat(self, stride: int) -> NDArray[np.int64]:
        """Offsets into a raveled array whose rows are ``stride`` long, ``(ray, radius)``."""
        return self.dy.astype(np.int64) * stride + self.dx


def star(n_radii: int, step_px: float, shift_px: float = 0.0) -> Star:
    """Rays with samples at ``0, step_px, 2 step_px, ...`` around a point ``shift_px`` right of and below the centre."""
    angle = 2.0 * np.pi * np.arange(N_RAYS)[:, None] / N_RAYS
    radius = np.arange(n_radii)[None, :] * step_px
    dy = np.floor(radius * np.sin(angle) + shift_px + 0.5).astype(np.int32)
    dx = np.floor(radius * np.cos(angle) + shift_px + 0.5).astype(np.int32)
    return Star(dy, dx)


class Compass(NamedTuple):
    """Nearest ray and distance of every whole-pixel offset ``(dy + reach, dx + reach)``."""

    ray: NDArray[np.uint8]
    distance: NDArray[np.float32]  # px
    reach: int


def compass(reach: int) -> Compass:
    """Tables for offsets up to ``reach`` pixels along either axis."""
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    turn = np.arctan2(dy, dx) / (2.0 * np.pi)
    ray = np.floor(turn * N_RAYS + 0.5).astype(np.int64) % N_RAYS
    return Compass(ray.astype(np.uint8), np.hypot(dy, dx).astype(np.float32), reach)


def bend_costs(per_step: int, per_square: int) -> NDArray[np.int32]:
    """Cost of a change of radius by 0, 1, ... ``MAX_BEND`` steps between neighbouring rays."""
    k = np.arange(MAX_BEND + 1)
    return (per_step * k + per_square * k * k).astype(np.int32)


def new_lap(n_radii: int) -> NDArray[np.int32]:
    """Scratch for `trace`: two laps of scores, with a margin no outline can enter."""
    return np.full((2 * N_RAYS, n_radii + 2 * MAX_BEND), NOWHERE, np.int32)


@njit(nogil=True, cache=True, boundscheck=False)
def trace(gain: Any, bend: Any, lap: Any, path: Any) -> None:
    """Write into ``path`` (ray,) the closed outline of greatest summed gain.

    The programme runs two laps and the middle one is kept: by then start and end no longer matter, and the
    outline closes.

    Parameters
    ----------
    gain
        int32 ``(ray, radius)``; `FORBIDDEN` where the outline must not pass.
    bend
        int32 ``(MAX_BEND + 1,)`` from `bend_costs`.
    lap
        int32 scratch from `new_lap`.
    """
    n, m = gain.shape
    b1, b2, b3, b4 = bend[1], bend[2], bend[3], bend[4]
    lap[0, MAX_BEND : MAX_BEND + m] = gain[0]
    for a in range(1, 2 * n):
        g = gain[a % n]
        last = lap[a - 1]
        row = lap[a]
        for r in range(m):  # 32 bits throughout, so that it becomes vector code
            i = r + MAX_BEND
            best = last[i]
            best = max(best, np.int32(max(last[i - 1], last[i + 1]) - b1))
            best = max(best, np.int32(max(last[i - 2], last[i + 2]) - b2))
            best = max(best, np.int32(max(last[i - 3], last[i + 3]) - b3))
            best = max(best, np.int32(max(last[i - 4], last[i + 4]) - b4))
            row[i] = best + g[r]
    i = MAX_BEND + np.argmax(lap[2 * n - 1, MAX_BEND : MAX_BEND + m])
    for a in range(2 * n - 1, n // 2 - 1, -1):
        if a < n + n // 2:
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
