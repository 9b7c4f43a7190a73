"""Cells whose nucleus does not show: pale pockets that a stained membrane encloses.

In solid 3+ nests DAB hides hematoxylin, and what one sees are the membranes. A pocket is looked for as a
nucleus is (`nuclei`): a seed, an outline around it, and a verdict; but on DAB alone, and what speaks for it
is how much of its outline is closed by stain. Where a nucleus shows inside, the nucleus is the cell.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from her2core.kernels.ihc.nucleus_model import NONE, PER_LOG_ODD
from her2core.kernels.ihc.planes import DAB_PER_OD, SHADES
from her2core.kernels.nuclei import Nuclei
from her2core.kernels.polar import N_RAYS, Sheet, sample

# A DAB step counts less the darker it is: a membrane of 1.2 OD on a cytoplasm of 0.6 is as plain to see as
# one of 0.3 on 0.1. Three straight lines, the lowest counts; DAB grey (0.008 OD). Ours.
LINES: Final = ((24, 0), (12, 480), (6, 1260))  # slope and offset, sixteenths of a grey
PALEST: Final = 220  # grey of no DAB: the darkest, 255, is still above 0
LINE_BITS: Final = 4  # below a grey, in which `LINES` count
HALF_LINE: Final = 1 << (LINE_BITS - 1)
CLOSED_DAB: Final = 10  # grey, 0.08 OD: a ray is closed by so much more DAB on its outline than inside
CLOSED_SHARE: Final = 0.25  # ... and by this share of the DAB inside
PALE_TISSUE: Final = 0.4  # hematoxylin ranges and OD of DAB: paler may be an overexposed cell or glass
# Measures are limited to these ranges, in the fit as here. Ours.
MOST_TISSUE: Final = 1.0  # hematoxylin ranges and OD of DAB
RISE_FROM_OD: Final = 0.1  # a membrane's rise is taken over the DAB inside and so much more
MOST_RISE: Final = 3.0
AREA_UM2: Final = (8.0, 150.0)
MOST_ROUGH: Final = 8.0  # mean radii


@njit(nogil=True, cache=True, boundscheck=False)
def fill_pockets(stains: NDArray[np.uint16], pocket: NDArray[np.uint8], coarse: NDArray[np.uint8]) -> None:
    """Fill ``pocket`` (h, w) uint8, pale where ``stains`` have no DAB, and ``coarse``, its 2 x 2 means."""
    for y in range(len(coarse)):
        _fill_row(stains[2 * y], pocket[2 * y])
        _fill_row(stains[2 * y + 1], pocket[2 * y + 1])
        _halve_rows(pocket[2 * y], pocket[2 * y + 1], coarse[y])
    for y in range(2 * len(coarse), len(pocket)):
        _fill_row(stains[y], pocket[y])


@njit(nogil=True, cache=True, boundscheck=False)
def _fill_row(stains: NDArray[np.uint16], pocket: NDArray[np.uint8]) -> None:
    (s1, o1), (s2, o2), (s3, o3) = LINES
    for x in range(len(pocket)):
        dab = np.int32(stains[x]) & np.int32(0xFF)
        dark = min(np.int32(s1 * dab + o1), min(np.int32(s2 * dab + o2), np.int32(s3 * dab + o3)))
        pocket[x] = np.int32(PALEST) - np.int32(np.int32(dark + np.int32(HALF_LINE)) >> LINE_BITS)


@njit(nogil=True, cache=True, boundscheck=False)
def _halve_rows(upper: NDArray[np.uint8], lower: NDArray[np.uint8], coarse: NDArray[np.uint8]) -> None:
    for x in range(len(coarse)):
        total = np.int32(upper[2 * x]) + np.int32(upper[2 * x + 1])
        total += np.int32(lower[2 * x]) + np.int32(lower[2 * x + 1])
        coarse[x] = np.int32(total + np.int32(2)) >> 2


class PocketRule(NamedTuple):
    """Evidence that an outline is a cell without a visible nucleus; a sum of weighted measures.

    Lengths in pixels, ``od`` factors turn greys into units of the slide's hematoxylin range and into DAB OD.
    """

    rim: int  # how far beyond the outline its membrane may peak
    per_range: float
    per_dab_od: float
    um2: float  # area of a pixel
    bias: float
    closed: float  # share of the rays that a membrane closes
    height: float  # median of DAB on the outline less inside, over what is inside and 0.1 OD
    size: float  # log of the area in um2
    rough: float  # changes of radius around the outline, in mean radii
    tissue: float  # hematoxylin inside above glass, ranges, and DAB inside, OD: no lumen


def pocket_rule(rim: int, um: float) -> PocketRule:
    """Weights of a logistic regression; see `benchmarks/fit_contours.py`. Ours."""
    return PocketRule(
        rim=rim,
        per_range=1 / SHADES,
        per_dab_od=1 / DAB_PER_OD,
        um2=um * um,
        bias=-14.07,
        closed=8.703,
        height=-0.0693,
        size=0.666,
        rough=-0.336,
        tissue=9.218,
    )


@njit(nogil=True, cache=True, boundscheck=False)
def judge_pockets(
    stains: Sheet,
    stride: int,
    found: Nuclei,
    order: NDArray[np.int64],
    least: int,
    clear: int,
    rule: PocketRule,
) -> None:
    """Replace every outline's score by its evidence, in 1/256; `NONE` where the score is below ``least``.

    ``stains`` is a sheet of `Planes.stains`, ``stride`` its width; ``order`` lists the outlines in any
    order, int64 ``(n,)``; ``clear`` is the hematoxylin grey of glass.
    """
    height = np.empty(N_RAYS)
    weights = (rule.closed, rule.height, rule.size, rule.rough, rule.tissue)
    for i in order:
        if found.score[i] < least:
            found.score[i] = NONE
            continue
        total = rule.bias
        measures = measure_pocket(
            stains, found.y[i] * stride + found.x[i], found.path[i], clear, rule, height
        )
        for k in range(5):
            total += measures[k] * weights[k]
        found.score[i] = int(PER_LOG_ODD * total)


@njit(nogil=True, cache=True, boundscheck=False)
def measure_pocket(
    stains: Sheet, at: int, path: NDArray[np.int32], clear: int, rule: PocketRule, height: NDArray[np.float64]
) -> tuple[float, float, float, float, float]:
    """Measures that `PocketRule` weighs, of the outline ``path`` (ray,) around place ``at``.

    ``height`` (ray,) is scratch.
    """
    blue: Any = 0
    brown: Any = 0
    area = square = change = total = 0
    for a in range(N_RAYS):
        for r in range(path[a]):
            grey = np.int64(sample(stains, at, a, r))
            blue += (2 * r + 1) * (grey >> 8)
            brown += (2 * r + 1) * (grey & 0xFF)
        area += path[a] * path[a]
        square += path[a] * path[(a + 1) % N_RAYS]
        total += path[a]
        change += abs(path[a] - path[(a + 1) % N_RAYS])
    inner_blue, inner_brown = blue / max(area, 1), brown / max(area, 1)
    closed = 0
    for a in range(N_RAYS):
        peak: Any = 0
        for r in range(max(path[a] - 1, 0), path[a] + rule.rim + 1):
            peak = max(peak, np.int64(sample(stains, at, a, r)) & 0xFF)
        rise = peak - inner_brown
        closed += rise >= max(CLOSED_DAB, CLOSED_SHARE * inner_brown)
        height[a] = rise / (inner_brown + RISE_FROM_OD * DAB_PER_OD)
    size = 0.5 * np.sin(2.0 * np.pi / N_RAYS) * square * rule.um2
    tissue = max(inner_blue - clear, 0.0) * rule.per_range + inner_brown * rule.per_dab_od
    return (
        closed / N_RAYS,
        min(float(np.median(height)), MOST_RISE),
        float(np.log(min(max(size, AREA_UM2[0]), AREA_UM2[1]))),
        min(change * N_RAYS / max(total, 1), MOST_ROUGH),
        min(max(tissue, PALE_TISSUE), MOST_TISSUE),
    )
