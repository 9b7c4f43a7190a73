"""Planted tissue as records, and the truth that follows from them.

A cell's true completeness is the arc-length fraction of its whole contour that carries stain, from whichever
side: a shared membrane belongs to both cells. Its true membrane OD is the mean over the stained part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from her2core.params import IHCParams, ScoreParams
from her2core.phantom.spec import EMPTY, F64, I64, KINDS, Bools, PhantomSpec

LADDER_OD: Final = IHCParams().ladder_od
TRUTH_DTYPE: Final = np.dtype(
    [("y_px0", "f8"), ("x_px0", "f8"), ("kind", "U10"), ("cell_class", "U2"), ("nest", "?")]
    + [(name, "f4") for name in ("nucleus_area_um2", "nucleus_od", "cell_area_um2")]
    + [(name, "f4") for name in ("completeness", "membrane_od")]
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

    def contour(self, row: int) -> tuple[F64, F64]:
        """Contour points (k, 2) in um, in order around the cell of truth row `row`, and their DAB OD (k,)."""
        cell = self.row_cell[row]
        samples = self.contours.sample[self.contours.first[cell] : self.contours.first[cell + 1]]
        return self.contours.at[samples], self.contours.od[samples]


def cell_class(completeness: F64, od: F64, params: ScoreParams | None = None) -> npt.NDArray[np.str_]:
    """Class of cells by the table of completeness and intensity (her2-spec section 1.2), from truth alone."""
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
    truth["cell_class"] = np.where(truth["kind"] == "tumour", cell_class(completeness, mean)[rows], "")
    for k, cut in enumerate(LADDER_OD):
        truth[f"completeness_{k:02d}"] = fraction(od >= cut)[rows]
    return Tissue(spec, cells, contours, truth, rows)
