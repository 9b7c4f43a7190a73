"""Planted tissue as records, and the truth that follows from them.

A cell's true completeness is the arc-length fraction of its whole contour that carries stain, from whichever
side: a shared membrane belongs to both cells. At a cut-point that is the part where the drawn lines of its
own contour reach the OD: a wide line ends as softly as it is wide, so a gap between strong arcs is narrower
in the picture than its planted ends are apart. What another cell's line adds is not its own. A cell's true
class follows from the completeness at the detection cut-point and the median OD, by arc length, of the part
above it (spec §4.3.6).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numba as nb
import numpy as np
import numpy.typing as npt

from her2core.params import IHCParams, ScoreParams
from her2core.phantom.spec import EMPTY, F64, I64, KINDS, Bools, PhantomSpec

LADDER_OD: Final = IHCParams().ladder_od
SHARPNESS: Final = 4 * np.log(2.0)  # of a line's Gaussian profile, against its full width at half maximum
REACH: Final = 1.3  # full widths that a line is drawn to either side: 1 % of the peak
TRUTH_DTYPE: Final = np.dtype(
    [("y_px0", "f8"), ("x_px0", "f8"), ("kind", "U10"), ("cell_class", "U2"), ("nest", "?")]
    + [(name, "f4") for name in ("nucleus_area_um2", "nucleus_od", "cell_area_um2")]
    + [(name, "f4") for name in ("completeness", "membrane_od", "membrane_od_median")]
    + [(f"completeness_{k:02d}", "f4") for k in range(len(LADDER_OD))]
)
Truth = np.ndarray[tuple[int], np.dtype[np.void]]


@dataclass(frozen=True, slots=True)
class Cells:
    """Every planted nucleus, margin included; all arrays (n,) or (n, 2), lengths in um."""

    kind: I64
    nest: Bools
    cls: I64  # planted class, index into CLASSES
    centre: F64
    area: F64
    nucleus: F64  # (n, 2) centre
    semi: F64  # (n, 2) semi-axes
    angle: F64  # of the first semi-axis, from x towards y
    lobes: F64  # (n, 4): amplitudes, then phases, of the outline's second and third harmonic
    od: F64
    blush: F64  # hematoxylin OD of the cytoplasm
    haze: F64  # DAB OD of the cytoplasm


@dataclass(frozen=True, slots=True)
class Contours:
    """Samples of every membrane line, in drawing order, and which cells they belong to."""

    at: F64  # (m, 2) um
    length: F64  # arc length each sample stands for
    od: F64  # 0: no stain
    width: F64
    joined: Bools  # continues the line of the sample before it
    owner: I64  # (p,) cell of a (cell, sample) pair, pairs sorted by cell and then by angle around it
    sample: I64  # (p,)
    first: I64  # (n + 1,) pairs of cell c: first[c]:first[c + 1]


@dataclass(frozen=True, slots=True)
class Tissue:
    """A planted field or slide: the geometry, and the truth of what lies inside the image."""

    spec: PhantomSpec
    cells: Cells
    contours: Contours
    truth: Truth
    row_cell: I64  # cell of each truth row
    carried: F64  # DAB OD at each (cell, sample) pair: the lines of that cell's contour, as drawn

    def contour(self, row: int) -> tuple[F64, F64]:
        """Contour points (k, 2) in um, in order around the cell of truth row `row`, and their DAB OD (k,).

        The OD is what the lines of this contour carry there as drawn, without what other lines add.
        """
        cell = self.row_cell[row]
        pairs = slice(self.contours.first[cell], self.contours.first[cell + 1])
        return self.contours.at[self.contours.sample[pairs]], self.carried[pairs]


def cell_class(completeness: F64, od: F64, params: ScoreParams | None = None) -> npt.NDArray[np.str_]:
    """Class of cells by the table of completeness and intensity (spec §1.2), from truth alone."""
    p = params or ScoreParams()
    full, strong = completeness >= p.complete_fraction, od >= p.strong_od
    stained = (completeness >= p.detect_fraction) & (od >= p.detect_od)
    complete = np.where(strong, "3", np.where(od >= p.weak_od, "2", "1"))
    partial = np.where(od >= p.moderate_od, "2u", "1")
    return np.where(stained, np.where(full, complete, partial), "0")


def measure(spec: PhantomSpec, cells: Cells, contours: Contours) -> Tissue:
    """Truth rows of the nuclei inside the image, from the contours as they will be drawn."""
    n = len(cells.kind)
    length, od = contours.length[contours.sample], contours.od[contours.sample]
    carried = _carried(contours.at, contours.od, contours.width, contours.sample, contours.first)
    detect_od = ScoreParams().detect_od
    total = np.maximum(np.bincount(contours.owner, length, n), 1e-9)

    def fraction(stained: Bools) -> F64:
        return np.bincount(contours.owner, length * stained, n) / total

    completeness = fraction(od > 0)
    stained = np.maximum(completeness * total, 1e-9)
    mean = np.bincount(contours.owner, length * od, n) / stained
    place = cells.nucleus / spec.mpp - 0.5
    inside = ((place >= -0.5) & (place < np.array((spec.height_px, spec.width_px)) - 0.5)).all(1)
    rows = np.flatnonzero(inside & (cells.kind != EMPTY))
    rows = rows[np.lexsort((place[rows, 1], place[rows, 0]))]

    truth = np.zeros(len(rows), TRUTH_DTYPE)
    truth["y_px0"], truth["x_px0"] = place[rows].T
    truth["kind"] = np.array(KINDS)[cells.kind[rows]]
    lobes = 1 + 0.5 * (cells.lobes[:, :2] ** 2).sum(1)
    truth["nucleus_area_um2"] = (np.pi * cells.semi.prod(1) * lobes)[rows]
    truth["nucleus_od"], truth["nest"] = cells.od[rows], cells.nest[rows]
    truth["cell_area_um2"] = cells.area[rows]
    truth["completeness"], truth["membrane_od"] = completeness[rows], mean[rows]
    intensity = _median_above(detect_od, carried, length, contours.first)[rows]
    seen = cell_class(fraction(carried >= detect_od)[rows], intensity)
    truth["membrane_od_median"] = intensity
    truth["cell_class"] = np.where(truth["kind"] == "tumour", seen, "")
    for k, cut in enumerate(LADDER_OD):
        truth[f"completeness_{k:02d}"] = fraction(carried >= cut)[rows]
    return Tissue(spec, cells, contours, truth, rows, carried)


@nb.njit(nogil=True, cache=True)
def _carried(at: F64, od: F64, width: F64, sample: I64, first: I64) -> F64:
    """OD of every (cell, sample) pair: its own, or the profile of a line near by on the same contour."""
    out = od[sample]
    for cell in range(len(first) - 1):
        for p in range(first[cell], first[cell + 1]):
            here = sample[p]
            for q in range(first[cell], first[cell + 1]):
                there = sample[q]
                if od[there] <= out[p]:
                    continue
                dy, dx = at[here, 0] - at[there, 0], at[here, 1] - at[there, 1]
                away = (dy * dy + dx * dx) / (width[there] * width[there])
                if away < REACH * REACH:
                    out[p] = max(out[p], od[there] * np.exp(-SHARPNESS * away))
    return out


def _median_above(least: float, od: F64, length: F64, first: I64) -> F64:
    """Median, by arc length, of the OD that is not below ``least``, of every cell; 0 where there is none."""
    out = np.zeros(len(first) - 1)
    for cell in range(len(out)):
        pairs = slice(first[cell], first[cell + 1])
        part = od[pairs] >= least
        if part.any():
            order = np.argsort(od[pairs][part])
            along = np.cumsum(length[pairs][part][order])
            out[cell] = od[pairs][part][order][np.searchsorted(along, 0.5 * along[-1])]
    return out
