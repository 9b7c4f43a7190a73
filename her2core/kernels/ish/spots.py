"""Signals of a probe inside nuclei: where, how wide, how strong.

    finder = SpotFinder(params, mpp, floor=3 * noise)
    found = finder(plane, labels, n)        # signals are bright in `plane`; nuclei are 1..n in `labels`

The same for fluorescence and for bright field, where `dish` makes the planes. Each nucleus is
searched in its own window, so that its signals are the same bits wherever it lies in an array.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from her2core.kernels.ish.scale_space import ROOT8, Scales, cut_out, differences, fill_bins, scales
from her2core.kernels.ish.spot_intensity import FREE, GROUND_UM, integrate, risen
from her2core.kernels.ish.spot_peaks import candidates, merge_spots
from her2core.params import ISHParams

FOUND_DTYPE: Final = np.dtype(
    [
        ("nucleus", "i4"),  # label of the nucleus that holds it
        ("y", "f8"),  # px of the plane, in 64ths: a sum with whole pixels stays exact
        ("x", "f8"),
        ("diameter_um", "f4"),
        ("contrast", "f4"),  # height above what surrounds it, in the plane's units
        ("integrated", "f4"),  # plane's units x um2, above the nucleus
    ]
)
Found = np.ndarray[tuple[int], np.dtype[np.void]]

N_SCALES: Final = 3  # ours
MAX_SPOTS: Final = 512  # of one nucleus and probe, before merging; ours


class Grid(NamedTuple):
    """The bins of a plane: their edge, the first one's corner, and how many rows and columns there are."""

    bin: int
    y0: int
    x0: int
    height: int
    width: int

    def sample(self, labels: NDArray[np.int32]) -> NDArray[np.int32]:
        """Of every bin, the label of the pixel in its middle; ``labels`` is (h, w) of the plane."""
        first, b = self.bin // 2, self.bin
        return labels[self.y0 + first :: b, self.x0 + first :: b][: self.height, : self.width]


class Raster(NamedTuple):
    """Nuclei in bins, int32 ``(h, w)``, and the box of each."""

    labels: NDArray[np.int32]
    boxes: NDArray[np.int64]


def raster(labels: NDArray[np.int32], n: int) -> Raster:
    """Of nuclei 1 to ``n`` in ``labels`` (h, w)."""
    labels = np.ascontiguousarray(labels)
    return Raster(labels, nucleus_boxes(labels, n))


class SpotFinder:
    """Signals of one probe of one slide. Keeps its buffers: one instance a thread.

    Parameters
    ----------
    params
        Sizes and thresholds.
    mpp
        Micrometres per pixel of the planes.
    floor
        Least height of a signal, in the planes' units.

    Attributes
    ----------
    bin
        Planes are searched in bins of ``bin`` x ``bin`` pixels: no wider than half the smallest signal.
    reach_px
        How far around a nucleus the plane matters.
    """

    def __init__(self, params: ISHParams, mpp: float, floor: float) -> None:
        self.bin = max(1, int(params.min_spot_um / 2.0 / mpp + 1e-6))
        self.um, self.floor = mpp * self.bin, floor
        self.mad, self.share, self.merge = params.spot_mad, params.spot_share, params.merge_diameters
        self.scales = scales(params.min_spot_um / self.um, params.max_spot_um / self.um, N_SCALES)
        self.reach_px = (self.scales.pad_px + 1) * self.bin
        self._work = np.empty(0, np.float32)
        self._scratch = np.empty((2, 0), np.int32)
        self._rows = np.empty((1024, 6))

    def __call__(
        self, plane: NDArray[Any], labels: NDArray[np.int32], n: int, origin: tuple[int, int] = (0, 0)
    ) -> Found:
        """Signals whose centre lies in a nucleus.

        Parameters
        ----------
        plane
            ``(h, w)`` uint8, uint16 or float32, bright where the probe is.
        labels
            int32 ``(h, w)``: nuclei 1 to ``n``, 0 elsewhere. What is searched of a nucleus depends on the
            plane up to `reach_px` around it.
        origin
            Absolute ``(y, x)`` of ``plane[0, 0]``: bins stand on absolute coordinates.

        Returns
        -------
        `FOUND_DTYPE` rows sorted by ``(nucleus, y, x)``; pixel (0, 0) has its centre at 0.
        """
        if plane.shape != labels.shape:
            raise ValueError(f"plane {plane.shape} and labels {labels.shape}: one shape is wanted")
        grid, whole = self.grid(plane.shape, origin), np.ascontiguousarray(plane)
        bins = np.empty((grid.height, grid.width), np.float32)
        fill_bins(whole, whole, np.float32(0.0), (grid.y0, grid.x0), grid.bin, bins)
        return self.search(bins, raster(grid.sample(labels), n), grid)

    def grid(self, shape: tuple[int, ...], origin: tuple[int, int]) -> Grid:
        """Whole bins of a plane whose pixel (0, 0) is pixel ``origin``."""
        b = self.bin
        y0, x0 = -origin[0] % b, -origin[1] % b
        return Grid(b, y0, x0, (shape[0] - y0) // b, (shape[1] - x0) // b)

    def search(self, bins: NDArray[np.float32], nuclei: Raster, grid: Grid) -> Found:
        """Signals of nuclei that are drawn already on the ``grid`` of ``bins`` (h, w), means of a plane."""
        inside, boxes = nuclei
        need = window_size(boxes, self.scales.pad_px)
        if self._scratch.shape[1] < need:
            self._work = np.empty(need * (N_SCALES + 4), np.float32)
            self._scratch = np.full((2, need), FREE, np.int32)
        rules = (self.floor, self.mad, self.share, self.merge, self.um)
        work = (self._work, self._scratch)
        while True:
            count = find_spots(bins, inside, boxes, self.scales, rules, work, self._rows)
            if count <= len(self._rows):
                break
            self._rows = np.empty((2 * count, 6))
        self._rows[:count, 1] = self._rows[:count, 1] * grid.bin + (grid.y0 + 0.5 * (grid.bin - 1))
        self._rows[:count, 2] = self._rows[:count, 2] * grid.bin + (grid.x0 + 0.5 * (grid.bin - 1))
        rows = self._rows[:count]
        order = np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0]))
        found = np.empty(count, FOUND_DTYPE)
        for k, name in enumerate(FOUND_DTYPE.names or ()):
            found[name] = rows[order, k]
        return found


@njit(nogil=True, cache=True, boundscheck=False)
def nucleus_boxes(labels: NDArray[np.int32], n: int) -> NDArray[np.int64]:
    """int64 ``(n + 1, 4)``: ``y0, x0, y1, x1`` of every label; empty where ``y1`` is 0."""
    h, w = labels.shape
    boxes = np.zeros((n + 1, 4), np.int64)
    boxes[:, 0] = h
    boxes[:, 1] = w
    for y in range(h):
        row = labels[y]
        x = 0
        while x < w:
            label = row[x]
            start = x
            while x < w and row[x] == label:
                x += 1
            if label > 0:
                box = boxes[label]
                box[0] = min(box[0], y)
                box[1] = min(box[1], start)
                box[2] = max(box[2], y + 1)
                box[3] = max(box[3], x)
    return boxes


@njit(nogil=True, cache=True, boundscheck=False)
def window_size(boxes: NDArray[np.int64], pad: int) -> int:
    """Pixels of the largest window of ``boxes`` (n + 1, 4)."""
    largest = 0
    for k in range(1, len(boxes)):
        if boxes[k, 2] > 0:
            h, w = boxes[k, 2] - boxes[k, 0] + 2 * pad, boxes[k, 3] - boxes[k, 1] + 2 * pad
            largest = max(largest, h * w)
    return largest


@njit(nogil=True, cache=True, boundscheck=False)
def find_spots(
    bins: NDArray[np.float32],
    labels: NDArray[np.int32],
    boxes: NDArray[np.int64],
    scales: Scales,
    rules: tuple[float, float, float, float, float],
    work: tuple[NDArray[np.float32], NDArray[np.int32]],
    rows: NDArray[np.float64],
) -> int:
    """Signals of all nuclei into ``rows`` (n, 6), places in bins; their number, were ``rows`` long enough."""
    floor, mad, share, merge, um = rules
    buffer, scratch = work
    pad = scales.radius.sum() + 1
    spots = np.empty((MAX_SPOTS, 6))  # contrast, y, x, sigma, place in the window, level around it
    reach = int(GROUND_UM / um + 0.5)
    count = 0
    for k in range(1, len(boxes)):
        if boxes[k, 2] == 0:
            continue
        y0, x0 = boxes[k, 0], boxes[k, 1]
        hb, wb = boxes[k, 2] - y0, boxes[k, 3] - x0
        h, w = hb + 2 * pad, wb + 2 * pad
        size = h * w
        planes = buffer[: size * (len(scales.radius) + 3)].reshape(len(scales.radius) + 3, h, w)
        window, across, smooth, levels = planes[0], planes[1], planes[2], planes[3:]
        cut_out(bins, y0 - pad, x0 - pad, window)
        differences(window, scales.taps, scales.radius, across, smooth, levels)
        inside = labels[y0 : y0 + hb, x0 : x0 + wb]
        n = candidates(levels, inside, k, pad, scales, floor, mad, spots)
        n = risen(smooth, inside, k, pad, reach, spots, n)
        if n == 0:
            continue
        n = merge_spots(spots, n, share, merge)
        sums = integrate(window, smooth, inside, k, pad, spots, n, scratch)
        for i in range(n):
            if count < len(rows):
                row = rows[count]
                row[0] = k
                row[1] = y0 - pad + spots[i, 1]
                row[2] = x0 - pad + spots[i, 2]
                row[3] = ROOT8 * spots[i, 3] * um
                row[4] = spots[i, 0]
                row[5] = sums[i] * um * um
            count += 1
    return count
