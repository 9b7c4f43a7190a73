"""One outline for every nucleus, by a verdict of bounded reach."""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from her2core.kernels.nuclei import Nuclei
from her2core.kernels.polar import N_RAYS, RayIndex, RayOffsets

ROUNDED_PX: Final = 0.75  # about half the diagonal of a pixel: points of an outline are whole pixels; ours


@njit(nogil=True, cache=True, boundscheck=False)
def suppress_overlaps(
    found: Nuclei, near: int, shared: int, of_kinds: int, ray_offsets: RayOffsets, ray_index: RayIndex
) -> NDArray[np.bool_]:
    """Mark the outlines (in ascending ``y``) that no better one rivals, bool (n,).

    Two outlines are rivals if one has ``shared`` of its points inside the other, or ``of_kinds`` where one is
    a nucleus and one a pocket; their centres are at most ``near`` pixels apart along an axis. Greedy
    suppression would also restore what only a loser rivals, and so let a chain of overlaps carry an influence
    across a slide; on marked nuclei it finds no more.
    """
    n = len(found.y)
    keep = np.ones(n, np.bool_)
    for i in range(n):
        j = i + 1
        while j < n and found.y[j] - found.y[i] <= near:
            loser = j if found.score[i] >= found.score[j] else i
            least = shared if found.hidden[i] == found.hidden[j] else of_kinds
            if (
                keep[loser]
                and abs(found.x[j] - found.x[i]) <= near
                and (
                    _covers(i, j, found, ray_offsets, ray_index) >= least
                    or _covers(j, i, found, ray_offsets, ray_index) >= least
                )
            ):
                keep[loser] = False
            j += 1
    return keep


@njit(nogil=True, cache=True, boundscheck=False)
def _covers(i: int, j: int, found: Nuclei, ray_offsets: RayOffsets, ray_index: RayIndex) -> int:
    """Number of outline points of nucleus ``i`` that lie inside nucleus ``j``."""
    n = 0
    for a in range(N_RAYS):
        dy = found.y[i] - found.y[j] + ray_offsets.dy[a, found.path[i, a]] + ray_index.reach
        dx = found.x[i] - found.x[j] + ray_offsets.dx[a, found.path[i, a]] + ray_index.reach
        n += ray_index.distance[dy, dx] < found.path[j, ray_index.ray[dy, dx]] + ROUNDED_PX
    return n
