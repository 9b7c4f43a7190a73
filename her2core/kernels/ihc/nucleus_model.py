"""Which outlines are nuclei: evidence weighed from contrast, stain, size and smoothness."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from her2core.kernels.ihc.planes import BASE, DAB_PER_OD, SHADES
from her2core.kernels.nuclei import Nuclei
from her2core.kernels.polar import N_RAYS, Sheet, sample

NONE: Final = -(1 << 16)  # evidence of an outline without contrast
PER_LOG_ODD: Final = 256.0  # steps of the whole-numbered score; fine enough that none ties by rounding
STEP_PARTS: Final = 16.0  # an outline's mean step is kept in 1/16 grey
# Measures are limited to these ranges, in the fit as here, so that no single one outweighs the others. Ours.
MOST_STEP: Final = 0.5  # of the hematoxylin range
MOST_INSIDE: Final = 1.2  # ranges above the level between nuclei
AROUND_RANGE: Final = (-0.3, 0.6)  # ranges above that level, around the outline
BROWN_RANGE: Final = (-0.6, 0.3)  # 0.1 OD of DAB, inside less around
AREA_UM2: Final = (8.0, 60.0)
MOST_ROUGH: Final = 5.0  # mean radii
HALF: Final = np.uint64(32)  # bits
LOW: Final = np.uint64(0xFFFFFFFF)


class NucleusRule(NamedTuple):
    """Evidence that an outline is a nucleus: a sum of weighted measures; positive is a nucleus.

    Lengths in pixels, ``od`` factors turn greys into units of the slide's hematoxylin range and into DAB OD.
    """

    rim: int  # width of the surroundings
    per_range: float
    per_dab_od: float
    um2: float  # area of a pixel
    bias: float
    step: float  # mean step along the outline, ranges
    inside: float  # hematoxylin inside, ranges above the level between nuclei
    outside: float  # and around: tissue rather than glass
    brown: float  # DAB inside less around, 0.1 OD: texture, red cells, grains are browner, pockets paler
    size: float  # log of the area in um2
    rough: float  # changes of radius around the outline, in mean radii
    uneven: float  # spread of hematoxylin around, ranges: fibres, and nuclei cut in two


def nucleus_rule(rim: int, um: float) -> NucleusRule:
    """Weights of a logistic regression, `benchmarks/fit_nuclei.py`: nuclei marked by eye on real cores, and
    phantoms at 3/20 of a mark. Ours. The bias lets through somewhat more than is likelier a nucleus than not.
    """
    return NucleusRule(
        rim=rim,
        per_range=1 / SHADES,
        per_dab_od=10 / DAB_PER_OD,
        um2=um * um,
        bias=-12.37,
        step=26.06,
        inside=3.771,
        outside=3.994,
        brown=-4.493,
        size=2.37,
        rough=-0.7034,
        uneven=-6.66,
    )


@njit(nogil=True, cache=True, boundscheck=False)
def judge(
    stains: Sheet, stride: int, found: Nuclei, order: NDArray[np.int64], least: int, rule: NucleusRule
) -> None:
    """Replace every outline's score by its `evidence`, in 1/256; `NONE` where the score is below ``least``.

    ``stains`` is a sheet of `Planes.stains`, ``stride`` its width. ``order`` lists the
    outlines in any order, int64 ``(n,)``.
    """
    for i in order:
        if found.score[i] < least:
            found.score[i] = NONE
            continue
        at, path = found.y[i] * stride + found.x[i], found.path[i]
        within, beyond = inside(stains, at, path, 2), around(stains, at, path, rule.rim, 2)
        uneven = rim_spread(stains, at, path, rule.rim)
        found.score[i] = int(PER_LOG_ODD * evidence(found, i, within, beyond, uneven, rule))


@njit(nogil=True, cache=True, boundscheck=False)
def evidence(
    found: Nuclei,
    i: int,
    within: tuple[float, float],
    beyond: tuple[float, float],
    uneven: float,
    rule: NucleusRule,
) -> float:
    """Evidence by `NucleusRule` for outline ``i``.

    ``within`` and ``beyond`` are blue and brown inside and around, ``uneven`` is the blue's spread around.
    """
    path = found.path[i]
    square = 0
    total = 0
    change = 0
    for a in range(N_RAYS):
        square += path[a] * path[(a + 1) % N_RAYS]
        total += path[a]
        change += abs(path[a] - path[(a + 1) % N_RAYS])
    area = 0.5 * np.sin(2.0 * np.pi / N_RAYS) * square * rule.um2
    return float(
        rule.bias
        + rule.step * min(found.score[i] / STEP_PARTS * rule.per_range, MOST_STEP)
        + rule.inside * min(max((within[0] - BASE) * rule.per_range, 0.0), MOST_INSIDE)
        + rule.outside * min(max((beyond[0] - BASE) * rule.per_range, AROUND_RANGE[0]), AROUND_RANGE[1])
        + rule.brown * min(max((within[1] - beyond[1]) * rule.per_dab_od, BROWN_RANGE[0]), BROWN_RANGE[1])
        + rule.size * np.log(min(max(area, AREA_UM2[0]), AREA_UM2[1]))
        + rule.rough * min(change * N_RAYS / total, MOST_ROUGH)
        + rule.uneven * uneven * rule.per_range
    )


@njit(nogil=True, cache=True, boundscheck=False)
def inside(stains: Sheet, centre: int, path: NDArray[np.int32], every: int) -> tuple[float, float]:
    """Mean grey of both stains inside the outline ``path`` (ray,), by area; one ray in ``every``."""
    total = np.uint64(0)
    area = 0
    for a in range(0, N_RAYS, every):
        weight = np.uint64(1)
        for r in range(path[a]):
            total += weight * _apart(sample(stains, centre, a, r))
            weight += np.uint64(2)
        area += path[a] * path[a]
    area = max(area, 1)
    return np.int64(total >> HALF) / area, np.int64(total & LOW) / area


@njit(nogil=True, cache=True, boundscheck=False)
def around(stains: Sheet, centre: int, path: NDArray[np.int32], rim: int, every: int) -> tuple[float, float]:
    """Mean grey of both stains in ``rim`` pixels around the outline ``path`` (ray,); one ray in ``every``."""
    total = np.uint64(0)
    for a in range(0, N_RAYS, every):
        for r in range(path[a], path[a] + rim):
            total += _apart(sample(stains, centre, a, r))
    n = rim * (N_RAYS // every)
    return np.int64(total >> HALF) / n, np.int64(total & LOW) / n


@njit(nogil=True, cache=True, boundscheck=False)
def _apart(stains: int) -> np.uint64:
    """Both bytes with room to be added up, hematoxylin in the high half of 64 bits."""
    grey = np.uint64(stains)
    return (grey & np.uint64(0xFF)) | ((grey & np.uint64(0xFF00)) << np.uint64(24))


@njit(nogil=True, cache=True, boundscheck=False)
def rim_spread(stains: Sheet, centre: int, path: NDArray[np.int32], rim: int) -> float:
    """Standard deviation of hematoxylin's grey in the ``rim`` pixels beyond the edge ``path`` (ray,)."""
    total = 0
    square = 0
    for a in range(N_RAYS):
        for r in range(path[a] + 1, path[a] + rim + 1):
            grey = int(sample(stains, centre, a, r)) >> 8
            total += grey
            square += grey * grey
    n = rim * N_RAYS
    mean = total / n
    return float(np.sqrt(max(square / n - mean * mean, 0.0)))
