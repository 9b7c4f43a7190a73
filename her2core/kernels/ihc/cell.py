"""Measure cells: contour, OD and the completeness ladder."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from her2core.columns import CELL_MEASURES, LADDER_STEPS
from her2core.kernels.ihc import membrane
from her2core.kernels.ihc.contour import ContourRule, Workspace, trace_contours
from her2core.kernels.ihc.nucleus_model import around, inside
from her2core.kernels.ihc.planes import BASE, DAB_PER_OD
from her2core.kernels.ihc.surroundings import (
    SurroundingsRule,
    bare_fraction,
    clear_fraction,
    fibre_alignment,
    texture,
)
from her2core.kernels.nuclei import Nuclei
from her2core.kernels.polar import N_RAYS, RayIndex, Sheet, centroid, elongation
from her2core.kernels.polar_lanes import LANES

NUCLEUS_RIM_PX: Final = 2  # width of what a nucleus is compared with, pixels of about 0.5 um; ours
HIGH: Final = 0.9  # quantile of the contour's DAB that tells saturation; ours


class Sheets(NamedTuple):
    """The images of a cell: the first two seen along fine rays, the third along those of nuclei."""

    raw: Sheet  # DAB at full resolution
    dab: Sheet  # the same, lightly smoothed
    stains: Sheet


class Sizes(NamedTuple):
    """Scale of the images, and what is counted.

    ``stride`` is the width of the nuclear image, of which one pixel is ``factor`` x ``factor`` of the DAB's.
    """

    stride: int
    factor: int
    um: float  # per pixel of the nuclear image
    step_um: float  # along a fine ray
    near: int  # neighbours are no farther along an axis, pixels of the nuclear image
    low_od: float  # hematoxylin of grey value BASE
    grey_od: float  # of a grey step
    blueness: float  # of a grey step of hematoxylin, in those of DAB
    positive: int  # DAB grey from which a ray is stained
    above: int  # ... and so much above the cytoplasm
    ladder: NDArray[np.int32]  # DAB grey
    tissue: SurroundingsRule


class Scratch(NamedTuple):
    """The contour of one cell, ray by ray, and room for counting."""

    peak: NDArray[np.int32]  # DAB grey
    weight: NDArray[np.float64]  # length of contour, steps
    valid: NDArray[np.bool_]  # can be judged
    stained: NDArray[np.bool_]
    grey: NDArray[np.int32]  # (place across the contour, ray)
    counts: NDArray[np.int32]  # (4, grey)
    total: NDArray[np.float64]  # (grey,)
    part: NDArray[np.float64]  # (LADDER_STEPS,)


@njit(nogil=True, cache=True, boundscheck=False)
def _scratch(slack: int) -> Scratch:
    return Scratch(
        np.empty(N_RAYS, np.int32),
        np.empty(N_RAYS),
        np.empty(N_RAYS, np.bool_),
        np.empty(N_RAYS, np.bool_),
        np.empty((5 * slack + 1, N_RAYS), np.int32),
        np.empty((4, 256), np.int32),
        np.empty(256),
        np.empty(LADDER_STEPS),
    )


@njit(nogil=True, cache=True, boundscheck=False)
def measure(
    sheets: Sheets,
    found: Nuclei,
    strips: NDArray[np.int64],
    wanted: NDArray[np.int64],
    sizes: Sizes,
    rule: ContourRule,
    ray_index: RayIndex,
    work: Workspace,
) -> tuple[
    NDArray[np.float32], NDArray[np.float64], NDArray[np.uint16], NDArray[np.uint8], NDArray[np.bool_]
]:
    """Measure the nuclei of ``found`` whose indices ``wanted`` lists, in any order.

    ``found`` is in the order of `Nuclei.nearby`, ``strips`` are its.

    Returns
    -------
    rows
        float32 ``(n, len(CELL_MEASURES))``.
    place
        float64 ``(n, 2)``: centroid (y, x) in DAB pixels.
    contour
        uint16 ``(n, ray)``: radius of the contour, steps along a fine ray.
    peak
        uint8 ``(n, ray)``: its DAB grey where it is stained, 0 where it is not.
    valid
        bool ``(n, ray)``: whether that can be judged.
    """
    n = len(found.y)
    rows, place, scratch = (
        np.zeros((n, len(CELL_MEASURES)), np.float32),
        np.zeros((n, 2)),
        _scratch(rule.read_margin),
    )
    contour, peak = np.zeros((n, N_RAYS), np.uint16), np.zeros((n, N_RAYS), np.uint8)
    valid = np.zeros((n, N_RAYS), np.bool_)
    for first in range(0, len(wanted), LANES):
        batch = wanted[first : first + LANES]
        for lane in range(LANES):
            _take(batch[min(lane, len(batch) - 1)], lane, found, strips, sizes, ray_index, work)
        trace_contours(sheets.dab, rule, work)
        for lane in range(len(batch)):
            i = batch[lane]
            dy, dx, area = centroid(found.path[i], 0.5, ray_index)
            place[i, 0] = sizes.factor * (found.y[i] + dy) + 0.5 * (sizes.factor - 1)
            place[i, 1] = sizes.factor * (found.x[i] + dx) + 0.5 * (sizes.factor - 1)
            rows[i, 0] = area * sizes.um * sizes.um
            _measure_nucleus(i, sheets, found, sizes, ray_index, rows[i])
            _measure_membrane(lane, sheets, sizes, rule, ray_index, work, scratch, rows[i])
            for a in range(N_RAYS):
                contour[i, a] = work.path[lane, a]
                peak[i, a] = scratch.peak[a] if scratch.stained[a] else 0
                valid[i, a] = scratch.valid[a]
    return rows, place, contour, peak, valid


@njit(nogil=True, cache=True, boundscheck=False)
def _take(
    i: int,
    lane: int,
    found: Nuclei,
    strips: NDArray[np.int64],
    sizes: Sizes,
    ray_index: RayIndex,
    work: Workspace,
) -> None:
    """Put nucleus ``i`` into a lane, and the midlines to its neighbours."""
    work.centre[0, lane] = sizes.factor * (found.y[i] * sizes.stride * sizes.factor + found.x[i])
    work.centre[1, lane] = found.y[i] * sizes.stride + found.x[i]
    work.nucleus[lane] = found.path[i]
    work.hidden[lane] = found.hidden[i]
    membrane.bound_rays(i, found, strips, sizes.near, ray_index, work.mid[lane])


@njit(nogil=True, cache=True, boundscheck=False)
def _measure_nucleus(
    i: int, sheets: Sheets, found: Nuclei, sizes: Sizes, ray_index: RayIndex, row: NDArray[np.float32]
) -> None:
    at = found.y[i] * sizes.stride + found.x[i]
    own = inside(sheets.stains, at, found.path[i], 1)[0]
    row[1] = sizes.low_od + (own - BASE) * sizes.grey_od
    row[16] = elongation(found.path[i], ray_index)
    row[17] = (own - around(sheets.stains, at, found.path[i], NUCLEUS_RIM_PX, 1)[0]) * sizes.grey_od
    tissue = sizes.tissue
    row[19] = texture(sheets.stains, at, found.path[i]) * sizes.grey_od
    row[20] = clear_fraction(sheets.stains, at, found.path[i], tissue.rim, 1, tissue)
    row[21] = clear_fraction(sheets.stains, at, found.path[i], tissue.around, 2, tissue)
    row[24] = bare_fraction(sheets.stains, at, found.path[i], tissue)
    row[22] = fibre_alignment(sheets.stains, sizes.stride, at, found.path[i], ray_index, tissue)


@njit(nogil=True, cache=True, boundscheck=False)
def _measure_membrane(
    lane: int,
    sheets: Sheets,
    sizes: Sizes,
    rule: ContourRule,
    ray_index: RayIndex,
    work: Workspace,
    scratch: Scratch,
    row: NDArray[np.float32],
) -> None:
    nucleus, path = work.nucleus[lane], work.path[lane]
    at_full, at = work.centre[0, lane], work.centre[1, lane]
    peak, stained = scratch.peak, scratch.stained
    membrane.read_contour(sheets.raw, at_full, path, rule.read_margin, scratch.grey, peak)
    base = membrane.cytoplasm_level(sheets.dab, at_full, nucleus, path, rule, scratch.counts)
    _mark_stained(peak, base, sizes, stained)
    membrane.leave_neighbours(sheets.stains, at, nucleus, rule, stained, path, peak)
    membrane.arc_lengths(path, ray_index, scratch.weight)
    membrane.find_valid(sheets.stains, at, nucleus, path, peak, sizes.positive, rule, scratch.valid)
    row[2] = base / DAB_PER_OD
    _mark_stained(peak, base, sizes, stained)
    _summarise(scratch, base, sizes, row)
    row[23] = membrane.brownness(sheets.stains, at, nucleus, path, base, stained, sizes.blueness, rule)
    row[18] = centroid(path, 0.0, ray_index)[2] * sizes.step_um * sizes.step_um


@njit(nogil=True, cache=True, boundscheck=False)
def _mark_stained(peak: NDArray[np.int32], base: int, sizes: Sizes, stained: NDArray[np.bool_]) -> None:
    for a in range(N_RAYS):
        stained[a] = (peak[a] >= sizes.positive) & (peak[a] - base >= sizes.above)


@njit(nogil=True, cache=True, boundscheck=False)
def _summarise(scratch: Scratch, base: int, sizes: Sizes, row: NDArray[np.float32]) -> None:
    """Membrane OD, completeness ladder, largest gap and evaluable fraction of one contour into ``row``."""
    peak, weight, valid, stained = scratch.peak, scratch.weight, scratch.valid, scratch.stained
    part = scratch.part
    part[:] = 0.0
    whole = total = mean = 0.0
    gap = longest = some = 0
    for a in range(N_RAYS):
        whole += weight[a]
        if valid[a]:
            total += weight[a]
            mean += weight[a] * peak[a]
            some += stained[a]
            if peak[a] - base >= sizes.above:
                for k in range(LADDER_STEPS):
                    part[k] += weight[a] if peak[a] >= sizes.ladder[k] else 0.0
    for a in range(2 * N_RAYS):
        ray = a if a < N_RAYS else a - N_RAYS
        gap = gap + 1 if valid[ray] and not stained[ray] else 0
        longest = max(longest, gap)
    for a in range(N_RAYS):
        stained[a] &= valid[a]
    row[3] = mean / max(total, 1e-9) / DAB_PER_OD
    row[4] = _quantile(peak, weight, stained if some > 0 else valid, 0.5, scratch.total) / DAB_PER_OD
    row[5] = _quantile(peak, weight, valid, HIGH, scratch.total) / DAB_PER_OD
    for k in range(LADDER_STEPS):
        row[6 + k] = part[k] / max(total, 1e-9)
    row[14] = min(longest, N_RAYS) * (360.0 / N_RAYS)
    row[15] = total / max(whole, 1e-9)


@njit(nogil=True, cache=True, boundscheck=False)
def _quantile(
    grey: NDArray[np.int32],
    weight: NDArray[np.float64],
    use: NDArray[np.bool_],
    q: float,
    total: NDArray[np.float64],
) -> float:
    """Weighted quantile of the greys in use; 0 where there are none. ``total`` (256,) is scratch."""
    total[:] = 0.0
    whole = 0.0
    for a in range(N_RAYS):
        if use[a]:
            total[grey[a]] += weight[a]
            whole += weight[a]
    below = 0.0
    for v in range(256):
        if total[v] > 0.0:
            below += total[v]
            if below >= q * whole:
                return float(v)
    return 0.0
