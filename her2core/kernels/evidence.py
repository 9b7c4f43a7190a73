"""Which outlines are nuclei: evidence weighed from contrast, stain, size and smoothness."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit

from her2core.kernels.planes import BASE, DAB_PER_OD, SHADES
from her2core.kernels.polar import N_RAYS, sample

NONE: Final = -(1 << 16)  # evidence of an outline without contrast


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
    hem: Any, dab: Any, stride: int, factor: int, found: Any, order: Any, least: int, rule: Any
) -> None:
    """Replace every outline's score by its `evidence`, in 1/256; `NONE` where the score is below ``least``.

    ``hem`` and ``dab`` are sheets of one star; ``stride`` is the width of the nuclear image, of which one
    pixel is ``factor`` x ``factor`` of the DAB's. ``order`` lists the outlines in any order.
    """
    for i in order:
        if found.score[i] < least:
            found.score[i] = NONE
            continue
        y, x = found.y[i], found.x[i]
        blue = levels(hem, y * stride + x, found.path[i], rule.rim, 2)
        brown = levels(dab, factor * (y * stride * factor + x), found.path[i], rule.rim, 2)
        uneven = rim_spread(hem, y * stride + x, found.path[i], rule.rim)
        found.score[i] = int(256.0 * evidence(found, i, blue, brown, uneven, rule))


@njit(nogil=True, cache=True, boundscheck=False)
def evidence(
    found: Any, i: int, blue: tuple[float, float], brown: tuple[float, float], uneven: float, rule: Any
) -> float:
    """Evidence by `NucleusRule` for outline ``i``.

    ``blue`` and ``brown`` are levels inside and around, ``uneven`` is the spread of the blue around.
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
        + rule.step * min(found.score[i] / 16.0 * rule.per_range, 0.5)
        + rule.inside * min(max((blue[0] - BASE) * rule.per_range, 0.0), 1.2)
        + rule.outside * min(max((blue[1] - BASE) * rule.per_range, -0.3), 0.6)
        + rule.brown * min(max((brown[0] - brown[1]) * rule.per_dab_od, -0.6), 0.3)
        + rule.size * np.log(min(max(area, 8.0), 60.0))
        + rule.rough * min(change * N_RAYS / total, 5.0)
        + rule.uneven * uneven * rule.per_range
    )


@njit(nogil=True, cache=True, boundscheck=False)
def levels(sheet: Any, centre: int, path: Any, rim: int, every: int) -> tuple[float, float]:
    """Mean grey inside the outline, by area, and in the ``rim`` pixels around it; one ray in ``every``."""
    total = 0
    area = 0
    around = 0
    for a in range(0, N_RAYS, every):
        for r in range(path[a]):
            total += (2 * r + 1) * sample(sheet, centre, a, r)
        area += path[a] * path[a]
        for r in range(path[a], path[a] + rim):
            around += sample(sheet, centre, a, r)
    return total / max(area, 1), around / (rim * (N_RAYS // every))


@njit(nogil=True, cache=True, boundscheck=False)
def rim_spread(sheet: Any, centre: int, path: Any, rim: int) -> float:
    """Standard deviation of the grey in the ``rim`` pixels beyond the edge."""
    total = 0
    square = 0
    for a in range(N_RAYS):
        for r in range(path[a] + 1, path[a] + rim + 1):
            grey = int(sample(sheet, centre, a, r))
            total += grey
            square += grey * grey
    n = rim * N_RAYS
    mean = total / n
    return float(np.sqrt(max(square / n - mean * mean, 0.0)))
