"""Outlines that hold two touching nuclei: which they are, and where they part.

An outline is parted across its long axis where more speaks for two nuclei than for one. The halves are
outlined anew, each kept from crossing to the other, and have to be nuclei by themselves.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from her2core.kernels.ihc.nucleus_model import AROUND_RANGE, around, inside
from her2core.kernels.ihc.planes import BASE, DAB_PER_OD, SHADES
from her2core.kernels.nuclei import Nuclei
from her2core.kernels.polar import N_RAYS, RayIndex, Sheet

CHORD: Final = 4  # rays from a notch to either end of the chord across it; ours
# Measures are limited to these ranges, in the fit as here. Ours.
MOST_SLENDER: Final = 3.0  # long axis over short one
MOST_NOTCH: Final = 0.2  # mean radii
MOST_BROWN: Final = 0.6  # 0.1 OD of DAB, inside less around, to either side
LEAST_SHORT_PX2: Final = 0.2  # square of the short axis: an outline one pixel wide has one


class SplittingRule(NamedTuple):
    """Evidence that an outline holds two nuclei: a sum of weighted measures; positive is two.

    Lengths in pixels, ``od`` factors turn greys into units of the slide's hematoxylin range and into DAB OD.
    """

    rim: int  # width of the surroundings
    reach: int  # from an outline's centre to that of a half, along an axis
    um: float  # width of a pixel
    per_range: float
    per_dab_od: float
    bias: float
    long: float  # half the long axis, um
    slender: float  # long axis over short one
    notch: float  # mean shortfall from the chord, in mean radii
    outside: float  # hematoxylin around: tissue rather than glass
    brown: float  # DAB inside less around, 0.1 OD: a membrane between two nuclei, or around one


def splitting_rule(rim: int, reach: int, um: float) -> SplittingRule:
    """Weights of a logistic regression, `benchmarks/fit_nuclei.py`: outlines of real cores around one nucleus
    marked by eye, or more, and of phantoms. Ours. The bias parts somewhat more than likelier hold two.
    """
    return SplittingRule(
        rim=rim,
        reach=reach,
        um=um,
        per_range=1 / SHADES,
        per_dab_od=10 / DAB_PER_OD,
        bias=-9.685,
        long=1.566,
        slender=-0.8306,
        notch=77.33,
        outside=5.544,
        brown=4.759,
    )


class Shape(NamedTuple):
    """An outline as the ellipse of the same second moments; pixels from its centre."""

    y: float
    x: float
    long: float  # half axes
    short: float
    dy: float  # unit vector along the long one
    dx: float
    notch: float  # how far radii fall short of chords across them, in mean radii


@njit(nogil=True, cache=True, boundscheck=False)
def shape(path: NDArray[np.int32], ray_index: RayIndex) -> Shape:
    """Shape of an outline ``path`` (ray,), pixels, as sectors around its centre."""
    area = sy = sx = yy = xx = yx = 0.0
    radii = missing = 0.0
    turn = 2.0 * np.pi * CHORD / N_RAYS
    across = np.sin(2.0 * turn) / np.sin(turn)
    for a in range(N_RAYS):
        r = path[a] - 0.5
        y, x, w = r * ray_index.sin[a], r * ray_index.cos[a], r * r
        area += w
        sy += w * y
        sx += w * x
        yy += w * y * y
        xx += w * x * x
        yx += w * y * x
        left, right = path[(a - CHORD) % N_RAYS], path[(a + CHORD) % N_RAYS]
        missing += max(left * right * across / (left + right) - path[a], 0.0)
        radii += path[a]
    cy, cx = sy / area * (2.0 / 3.0), sx / area * (2.0 / 3.0)
    yy, xx, yx = 0.5 * yy / area - cy * cy, 0.5 * xx / area - cx * cx, 0.5 * yx / area - cy * cx
    spread = np.sqrt((yy - xx) * (yy - xx) + 4.0 * yx * yx)
    long, short = np.sqrt(2.0 * (yy + xx + spread)), np.sqrt(max(2.0 * (yy + xx - spread), LEAST_SHORT_PX2))
    axis = 0.5 * np.arctan2(2.0 * yx, xx - yy)
    return Shape(cy, cx, long, short, np.sin(axis), np.cos(axis), missing / radii)


@njit(nogil=True, cache=True, boundscheck=False)
def find_merged(
    stains: Sheet, stride: int, found: Nuclei, rule: SplittingRule, ray_index: RayIndex
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
    """Find the outlines that hold two nuclei.

    ``stains`` is a sheet of `Planes.stains`, ``stride`` its width.

    Returns
    -------
    rows
        Indices ``(n,)`` of these outlines.
    y, x
        Centres ``(half, n)`` of the two nuclei of each.
    """
    n = 0
    rows, y, x = (
        np.empty(len(found.y), np.int64),
        np.empty((2, len(found.y)), np.int32),
        np.empty((2, len(found.y)), np.int32),
    )
    for i in range(len(found.y)):
        whole = shape(found.path[i], ray_index)
        if split_log_odds(i, whole, stains, stride, found, rule) <= 0.0:
            continue
        far = 0
        for half in range(2):
            step = (half - 0.5) * whole.long
            dy = int(np.floor(whole.y + step * whole.dy + 0.5))
            dx = int(np.floor(whole.x + step * whole.dx + 0.5))
            y[half, n], x[half, n] = found.y[i] + dy, found.x[i] + dx
            far = max(far, abs(dy), abs(dx))
        if far <= rule.reach:
            rows[n] = i
            n += 1
    return rows[:n], y[:, :n].copy(), x[:, :n].copy()


@njit(nogil=True, cache=True, boundscheck=False)
def split_log_odds(
    i: int, whole: Shape, stains: Sheet, stride: int, found: Nuclei, rule: SplittingRule
) -> float:
    """Evidence by `SplittingRule` that outline ``i`` holds two nuclei; no more of it than is needed."""
    total = (
        rule.bias
        + rule.long * whole.long * rule.um
        + rule.slender * min(whole.long / whole.short, MOST_SLENDER)
        + rule.notch * min(whole.notch, MOST_NOTCH)
    )
    if total + MOST_BROWN * (rule.outside + rule.brown) <= 0.0:
        return float(total)  # one nucleus, whatever its stain: most are
    at, path = found.y[i] * stride + found.x[i], found.path[i]
    blue, brown = around(stains, at, path, rule.rim, 2)
    total += rule.outside * min(max((blue - BASE) * rule.per_range, AROUND_RANGE[0]), AROUND_RANGE[1])
    if total + MOST_BROWN * rule.brown <= 0.0:
        return float(total)
    browner = inside(stains, at, path, 2)[1] - brown
    return float(total + rule.brown * min(max(browner * rule.per_dab_od, -MOST_BROWN), MOST_BROWN))


@njit(nogil=True, cache=True, boundscheck=False)
def split_limits(
    y: NDArray[np.int32], x: NDArray[np.int32], most: int, ray_index: RayIndex
) -> NDArray[np.int32]:
    """Radii (half, n, ray) beyond which it is nearer to the other half's centre; ``most`` at the most."""
    limit = np.full((2, y.shape[1], N_RAYS), most, np.int32)
    for half in range(2):
        for i in range(y.shape[1]):
            dy, dx = y[1 - half, i] - y[half, i], x[1 - half, i] - x[half, i]
            square = dy * dy + dx * dx
            for a in range(N_RAYS):
                along = ray_index.sin[a] * dy + ray_index.cos[a] * dx
                if 2.0 * along * most > square:
                    limit[half, i, a] = int(0.5 * square / along + 0.5)
    return limit
