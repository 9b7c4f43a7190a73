"""Nuclei that touch are parted along the valley of grey between their seeds."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from her2core.kernels.polar import N_RAYS, RayIndex

LEAST_ALONG: Final = 0.2  # cosine: a ray so far aslant to the other seed meets the valley nowhere near; ours
LEAST_WAY_PX: Final = 4  # seeds nearer than this stand in one nucleus; ours
HEIGHT_PARTS: Final = 16  # of a height, in which `PartRule.share` counts


class PartRule(NamedTuple):
    """When two seeds stand in two nuclei."""

    near: int  # widest distance along an axis, pixels
    depth: int  # least valley, grey
    share: int  # least valley, as 1/16 of the nuclei's height over `base`
    base: int
    aside: int  # the valley must be as deep this far to either side: chromatin can be walked around


@njit(nogil=True, cache=True, boundscheck=False)
def part_seeds(
    image: NDArray[np.uint8],
    y: NDArray[np.int32],
    x: NDArray[np.int32],
    rule: PartRule,
    ray_index: RayIndex,
    bound: NDArray[np.int32],
) -> None:
    """Lower ``bound`` (n, ray), px, to the valley between every two seeds that stand in two nuclei."""
    for i in range(len(y)):
        j = i + 1
        while j < len(y) and y[j] - y[i] <= rule.near:
            if abs(x[j] - x[i]) <= rule.near:
                dy, dx = y[j] - y[i], x[j] - x[i]
                where = valley(image, y[i], x[i], dy, dx, rule)
                if where > 0.0:
                    d = np.sqrt(float(dy * dy + dx * dx))
                    for a in range(N_RAYS):
                        along = (ray_index.cos[a] * dx + ray_index.sin[a] * dy) / d
                        if along > LEAST_ALONG:
                            bound[i, a] = min(bound[i, a], int(where * d / along))
                        elif along < -LEAST_ALONG:
                            bound[j, a] = min(bound[j, a], int((1.0 - where) * d / -along))
            j += 1


@njit(nogil=True, cache=True, boundscheck=False)
def valley(image: NDArray[np.uint8], y: int, x: int, dy: int, dx: int, rule: PartRule) -> float:
    """Where along the way from (y, x) the valley to (y + dy, x + dx) lies, 0 to 1; 0 where there is none."""
    steps = max(abs(dy), abs(dx))
    if steps < LEAST_WAY_PX:
        return 0.0
    peak = np.int32(min(_mean9(image, y, x), _mean9(image, y + dy, x + dx)))
    d = np.sqrt(float(dy * dy + dx * dx))
    saddle = np.int32(0)
    where = 0.5
    for side in range(-1, 2):
        off_y, off_x = side * rule.aside * dx / d, -side * rule.aside * dy / d
        lowest = np.int32(255)
        for k in range(1, steps):
            v = int(np.floor(y + k * dy / steps + off_y + 0.5))
            u = int(np.floor(x + k * dx / steps + off_x + 0.5))
            grey = np.int32(image[v, u])
            if grey < lowest:
                lowest = grey
                if side == 0:
                    where = k / steps
        saddle = max(saddle, lowest)
    deep = peak - saddle
    if deep < rule.depth or HEIGHT_PARTS * deep < rule.share * (peak - rule.base):
        return 0.0
    return where


@njit(nogil=True, cache=True, boundscheck=False)
def _mean9(image: NDArray[np.uint8], y: int, x: int) -> np.int32:
    total = np.int32(0)
    for v in range(y - 1, y + 2):
        for u in range(x - 1, x + 2):
            total += image[v, u]
    return total // 9
