"""How many cells of a slide would read as stained though none is: its negative control by its own cells.

Cells without HER2 have no contour of OD 0. Their darkest tenth spreads around a middle, by noise, haze and
counterstain, and the tail of that spread passes the detection cut-point. What true staining adds lies beyond
the tail. So the tail is estimated from the middle, and what it explains is no stain.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from her2core.params import ScoreParams
from her2core.statistics import wilson

if TYPE_CHECKING:
    from her2core.scoring.ihc import MeasuredCells

STEP_OD: Final = 1 / 125
"""Step in which the kernel measures DAB OD."""
MIDDLE: Final = 0.5
"""Share of the cells at which the tail's line begins: half of a 0 is unstained whatever else. Ours."""
UPPER: Final = 0.2
"""Share of the cells at which it is drawn to: twice what may be stained in a 0. Ours."""


def expected_false_stain(cells: MeasuredCells, params: ScoreParams) -> int:
    """Most cells, of the evaluable tumour cells, that read as stained without being so; rounded up.

    The share of contours that come to be dark enough (`dark_tail`), times the share of these that are brown
    and not grey: that of cells of which something is stained, but less than makes a cell stained; its upper
    95 % bound. Holds for a 0; where more than a tenth is stained, much of it is counted as false.
    """
    counted = cells.tumour & cells.evaluable
    od = cells.dark_od[counted]
    tail = dark_tail(od[np.isfinite(od)], params.detect_od)
    hardly = counted & (cells.completeness > 0) & (cells.completeness < np.float32(params.detect_fraction))
    brown = hardly & (cells.brownness >= np.float32(params.membrane_brownness))
    is_brown = wilson(int(np.count_nonzero(brown)), int(np.count_nonzero(hardly)))[1]
    return math.ceil(tail * is_brown * int(np.count_nonzero(counted)))


def dark_tail(od: NDArray[np.float32], cut_od: float) -> float:
    """Share of values that reach the cut-point, by the fall from their middle to their upper fifth.

    The logarithm of this share falls ever faster in every distribution without a second peak or a heavy tail
    (normal, logistic, exponential, Gumbel; all of log-concave density), so a straight line through two places
    below the cut-point bounds it. Where the upper fifth itself reaches the cut-point, it is the share seen.
    """
    if not len(od):
        return 0.0
    steps = np.rint(np.maximum(od, 0) / STEP_OD).astype(np.intp)
    cut = math.ceil(round(cut_od / STEP_OD, 6))
    cells = np.bincount(steps, minlength=cut + 1)
    reached = np.append(np.cumsum(cells[::-1])[::-1], 0) / len(od)  # share of cells of this step or more
    middle = int(np.flatnonzero(reached >= MIDDLE)[-1])
    upper = int(np.flatnonzero(reached <= UPPER)[0])
    if upper >= cut:
        return float(reached[cut])
    fall = float(reached[upper] / reached[middle])
    return float(reached[upper] * fall ** ((cut - upper) / (upper - middle)))
