"""What tells tissues apart beside a nucleus: its chromatin, clear gaps around it, and fibres along it.

Epithelium fills the space between its nuclei; nuclei of stroma and lymphocytes stand in clear gaps, and those
of stroma and muscle lie along the fibres around them. This is read from hematoxylin: what DAB shows must not
decide what a cell is. One measure takes both stains together, since the faint tint that shows cytoplasm is
hardly hematoxylin. Sums are whole numbers: the same bits in any layout.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from her2core.kernels.ihc.planes import BASE, DAB_PER_OD, SHADES
from her2core.kernels.polar import N_RAYS, RayIndex, Sheet, sample

CLEAR_RANGE: Final = 0.15
"""So far below the level between nuclei, in ranges of hematoxylin, a place is clear. Ours."""
RIM_UM: Final = (0.5, 2.0)
"""Next to the nucleus: cytoplasm, where there is any. Ours, from four bands up to 16 µm."""
AROUND_UM: Final = (4.0, 11.0)
"""... and where the neighbours are. Ours."""
BARE_UM: Final = (0.5, 5.0)
"""Where a cell's own body is looked for, whatever it is stained with. Ours."""
BARE_RANGE: Final = 0.13
"""So far above the level between nuclei, in ranges of hematoxylin, a place is stained by both together. Ours,
from 0 to 0.27 on cores left out, as is `BARE_UM`."""
DAB_BITS: Final = 8
"""Of the fixed-point factor from a DAB grey to those of hematoxylin."""
FIBRES_UM: Final = (1.0, 8.0)
"""Where the direction of fibres is read. Ours."""
SLOPE_UM: Final = 1.0
"""Half of the distance over which hematoxylin's slope is taken: wider than noise and JPEG's ringing. Ours."""


class SurroundingsRule(NamedTuple):
    """Distances from the edge of a nucleus in pixels of the nuclear image, and greys."""

    rim: tuple[int, int]
    around: tuple[int, int]
    bare: tuple[int, int]
    fibres: tuple[int, int]
    slope: int
    clear: int  # hematoxylin below it is clear
    none: int  # both stains together below it are none
    brown: int  # what a DAB grey adds, fixed point
    last: int  # the farthest sample that the rays have


def surroundings_rule(um: float, last: int, range_od: float) -> SurroundingsRule:
    """Rule for pixels of ``um``, rays of ``last + 1`` samples and a slide's range of hematoxylin."""

    def px(length: float) -> int:
        return max(1, round(length / um))

    return SurroundingsRule(
        rim=(px(RIM_UM[0]), px(RIM_UM[1]) + 1),
        around=(px(AROUND_UM[0]), px(AROUND_UM[1]) + 1),
        bare=(px(BARE_UM[0]), px(BARE_UM[1]) + 1),
        fibres=(px(FIBRES_UM[0]), px(FIBRES_UM[1])),
        slope=px(SLOPE_UM),
        clear=BASE - round(CLEAR_RANGE * SHADES),
        none=BASE + round(BARE_RANGE * SHADES),
        brown=round(SHADES / (range_od * DAB_PER_OD) * (1 << DAB_BITS)),
        last=last,
    )


@njit(nogil=True, cache=True, boundscheck=False)
def texture(stains: Sheet, at: int, path: NDArray[np.int32]) -> float:
    """Standard deviation of hematoxylin's grey inside the outline ``path`` (ray,), by area."""
    total = 0
    square = 0
    area = 0
    for a in range(N_RAYS):
        for r in range(path[a]):
            grey = int(sample(stains, at, a, r)) >> 8
            weight = 2 * r + 1
            total += weight * grey
            square += weight * grey * grey
            area += weight
    mean = total / max(area, 1)
    return float(np.sqrt(max(square / max(area, 1) - mean * mean, 0.0)))


@njit(nogil=True, cache=True, boundscheck=False)
def clear_fraction(
    stains: Sheet, at: int, path: NDArray[np.int32], band: tuple[int, int], every: int, rule: SurroundingsRule
) -> float:
    """Share of a band around ``path`` (ray,) without hematoxylin; one ray and sample in ``every``."""
    clear = 0
    n = 0
    for a in range(0, N_RAYS, every):
        for r in range(path[a] + band[0], path[a] + band[1], every):
            clear += (int(sample(stains, at, a, min(r, rule.last))) >> 8) < rule.clear
            n += 1
    return clear / max(n, 1)


@njit(nogil=True, cache=True, boundscheck=False)
def bare_fraction(stains: Sheet, at: int, path: NDArray[np.int32], rule: SurroundingsRule) -> float:
    """Share of a band around ``path`` (ray,) with neither stain, every other ray."""
    bare = 0
    n = 0
    for a in range(0, N_RAYS, 2):
        for r in range(path[a] + rule.bare[0], path[a] + rule.bare[1]):
            both = int(sample(stains, at, a, min(r, rule.last)))
            bare += (both >> 8) + (((both & 255) * rule.brown) >> DAB_BITS) < rule.none
            n += 1
    return bare / max(n, 1)


@njit(nogil=True, cache=True, boundscheck=False)
def fibre_alignment(
    stains: Sheet, stride: int, at: int, path: NDArray[np.int32], ray_index: RayIndex, rule: SurroundingsRule
) -> float:
    """How far a long nucleus lies along what runs around it: 1 along, -1 across, 0 where either is round.

    The product of both eccentricities and cos(2 x the angle between). Of the nucleus it is that of its
    outline's moments; of the surroundings that of the structure tensor of hematoxylin, whose slopes run
    across fibres.
    """
    xx = 0
    yy = 0
    xy = 0
    step = rule.slope
    for a in range(N_RAYS):
        for r in range(path[a] + rule.fibres[0], path[a] + rule.fibres[1], 2):
            radius = min(r, rule.last)
            p = at + stains.offset[a, radius]
            gx = (int(stains.flat[p + step]) >> 8) - (int(stains.flat[p - step]) >> 8)
            gy = (int(stains.flat[p + step * stride]) >> 8) - (int(stains.flat[p - step * stride]) >> 8)
            xx += radius * gx * gx
            yy += radius * gy * gy
            xy += radius * gx * gy
    long, slant = _stretch(path, ray_index)
    return float(-(long * (xx - yy) + slant * 2 * xy) / (xx + yy + 1))


@njit(nogil=True, cache=True, boundscheck=False)
def _stretch(path: NDArray[np.int32], ray_index: RayIndex) -> tuple[float, float]:
    """Eccentricity of the outline's moments times cos and sin of twice its direction."""
    weight = 0.0
    mx = 0.0
    my = 0.0
    for a in range(N_RAYS):
        weight += path[a]
        mx += path[a] * path[a] * ray_index.cos[a]
        my += path[a] * path[a] * ray_index.sin[a]
    mx /= max(weight, 1.0)
    my /= max(weight, 1.0)
    xx = 0.0
    yy = 0.0
    xy = 0.0
    for a in range(N_RAYS):
        x, y = path[a] * ray_index.cos[a] - mx, path[a] * ray_index.sin[a] - my
        xx += path[a] * x * x
        yy += path[a] * y * y
        xy += path[a] * x * y
    whole = max(xx + yy, 1e-6)
    return (xx - yy) / whole, 2.0 * xy / whole
