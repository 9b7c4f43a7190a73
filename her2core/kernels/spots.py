"""Signals of a probe inside nuclei: where, how wide, how strong.

    finder = SpotFinder(params, mpp, floor=3 * noise)
    found = finder(plane, labels, n)        # signals are bright in `plane`; nuclei are 1..n in `labels`

The same for fluorescence and for bright field, where `her2core.kernels.dish` makes the planes. Each nucleus
is searched in its own window, so that its signals are the same bits wherever it lies in an array.

References
----------
Lindeberg (1998) Int J Comput Vis 30:79 (blobs as extrema over place and scale).
Leica HER2 FISH guide: signals of one size no farther apart than one diameter count once; a diffuse signal
counts once.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from her2core.kernels.scale_space import ROOT8, cut_out, differences, scales
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

N_SCALES: Final = 4  # ours
SUBPIXEL: Final = 64  # places are whole fractions of this
SAMPLES: Final = 1024  # pixels of a nucleus from which its noise is taken, about; ours
ROBUST: Final = 1.4826  # standard deviation over MAD, of a normal distribution
SKIRT: Final = 0.15  # of its height: a signal's pixels reach down to here; ours
RIDGE: Final = 5.0  # a peak so much more curved across than along is a ridge; ours
GROUND_UM: Final = 2.5  # half the window whose median is a signal's ground: twice a cluster's width; ours
GROUND_STEPS: Final = 8  # samples of it to each side
MAX_SPOTS: Final = 512  # of one nucleus and probe, before merging; ours
SINGLE_BINS: Final = 8  # per doubling of integrated density, in the search for the single signal; ours
PEAK_SHARE: Final = 0.3  # of the highest peak: a lower one is no peak of single signals; ours


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
    """

    def __init__(self, params: ISHParams, mpp: float, floor: float) -> None:
        self.mpp, self.floor = mpp, floor
        self.mad, self.share, self.merge = params.spot_mad, params.spot_share, params.merge_diameters
        self.scales = scales(params.min_spot_um / mpp, params.max_spot_um / mpp, N_SCALES)
        self.reach_px = self.scales.pad_px
        self._work = np.empty(0, np.float32)
        self._rows = np.empty((1024, 6))

    def __call__(self, plane: NDArray[Any], labels: NDArray[np.int32], n: int) -> Found:
        """Signals whose centre lies in a nucleus.

        Parameters
        ----------
        plane
            ``(h, w)`` uint8, uint16 or float32, bright where the probe is.
        labels
            int32 ``(h, w)``: nuclei 1 to ``n``, 0 elsewhere. What is searched of a nucleus depends on the
            plane up to `reach_px` around it.

        Returns
        -------
        `FOUND_DTYPE` rows sorted by ``(nucleus, y, x)``; pixel (0, 0) has its centre at 0.
        """
        if plane.shape != labels.shape:
            raise ValueError(f"plane {plane.shape} and labels {labels.shape}: one shape is wanted")
        boxes = nucleus_boxes(labels, n)
        need = window_size(boxes, self.reach_px) * (N_SCALES + 4)
        if self._work.size < need:
            self._work = np.empty(need, np.float32)
        rules = (self.floor, self.mad, self.share, self.merge, self.mpp)
        while True:
            count = find_spots(plane, labels, boxes, self.scales, rules, self._work, self._rows)
            if count <= len(self._rows):
                break
            self._rows = np.empty((2 * count, 6))
        rows = self._rows[:count]
        order = np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0]))
        found = np.empty(count, FOUND_DTYPE)
        for k, name in enumerate(FOUND_DTYPE.names or ()):
            found[name] = rows[order, k]
        return found


@njit(nogil=True, cache=True, boundscheck=False)
def nucleus_boxes(labels: Any, n: int) -> Any:
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
def window_size(boxes: Any, pad: int) -> int:
    """Pixels of the largest window."""
    largest = 0
    for k in range(1, len(boxes)):
        if boxes[k, 2] > 0:
            h, w = boxes[k, 2] - boxes[k, 0] + 2 * pad, boxes[k, 3] - boxes[k, 1] + 2 * pad
            largest = max(largest, h * w)
    return largest


@njit(nogil=True, cache=True, boundscheck=False)
def find_spots(plane: Any, labels: Any, boxes: Any, scales: Any, rules: Any, work: Any, rows: Any) -> int:
    """Signals of all nuclei into ``rows`` (n, 6); their number, were ``rows`` long enough."""
    floor, mad, share, merge, mpp = rules
    pad = scales.radius.sum() + 1
    spots = np.empty((MAX_SPOTS, 6))  # contrast, y, x, sigma, place in the window, level around it
    reach = int(GROUND_UM / mpp + 0.5)
    count = 0
    for k in range(1, len(boxes)):
        if boxes[k, 2] == 0:
            continue
        y0, x0 = boxes[k, 0], boxes[k, 1]
        hb, wb = boxes[k, 2] - y0, boxes[k, 3] - x0
        h, w = hb + 2 * pad, wb + 2 * pad
        size = h * w
        planes = work[: size * (len(scales.radius) + 3)].reshape(len(scales.radius) + 3, h, w)
        window, across, smooth, levels = planes[0], planes[1], planes[2], planes[3:]
        cut_out(plane, y0 - pad, x0 - pad, window)
        differences(window, scales.taps, scales.radius, across, smooth, levels)
        inside = labels[y0 : y0 + hb, x0 : x0 + wb]
        n = candidates(levels, inside, k, pad, scales, floor, mad, spots)
        if n == 0:
            continue
        n = merge_spots(spots, n, share, merge)
        for i in range(n):
            spots[i, 5] = ground_around(smooth, inside, k, pad, spots[i, 1], spots[i, 2], reach)
        sums = integrate(window, smooth, inside, k, pad, spots, n)
        for i in range(n):
            if count < len(rows):
                row = rows[count]
                row[0] = k
                row[1] = y0 - pad + spots[i, 1]
                row[2] = x0 - pad + spots[i, 2]
                row[3] = ROOT8 * spots[i, 3] * mpp
                row[4] = spots[i, 0]
                row[5] = sums[i] * mpp * mpp
            count += 1
    return count


@njit(nogil=True, cache=True, boundscheck=False)
def _sampled(image: Any, inside: Any, label: int, pad: int) -> Any:
    """About `SAMPLES` values of ``image`` in the nucleus, on a square grid from its corner."""
    h, w = inside.shape
    step = max(1, int(np.sqrt(h * w / SAMPLES)))
    values = np.empty((h // step + 1) * (w // step + 1), np.float32)
    n = 0
    for y in range(step // 2, h, step):
        for x in range(step // 2, w, step):
            if inside[y, x] == label:
                values[n] = image[y + pad, x + pad]
                n += 1
    if n == 0:
        values[0] = 0.0
        n = 1
    return values[:n]


@njit(nogil=True, cache=True, boundscheck=False)
def ground_around(smooth: Any, inside: Any, label: int, pad: int, y: float, x: float, reach: int) -> float:
    """Median level of the nucleus around a place."""
    h, w = inside.shape
    step = max(1, reach // GROUND_STEPS)
    values = np.empty((2 * (reach // step) + 2) ** 2, np.float32)
    cy, cx = int(y) - pad, int(x) - pad
    n = 0
    for yy in range(cy - reach // step * step, cy + reach + 1, step):
        for xx in range(cx - reach // step * step, cx + reach + 1, step):
            if 0 <= yy < h and 0 <= xx < w and inside[yy, xx] == label:
                values[n] = smooth[yy + pad, xx + pad]
                n += 1
    return float(np.median(values[:n])) if n > 0 else 0.0


@njit(nogil=True, cache=True, boundscheck=False)
def candidates(
    levels: Any, inside: Any, label: int, pad: int, scales: Any, floor: float, mad: float, spots: Any
) -> int:
    """Maxima over place and scale that rise above the nucleus's own noise and ``floor``; their number."""
    h, w = inside.shape
    n_scales = len(scales.sigma_px)
    n = 0
    for i in range(n_scales):
        level = levels[i]
        values = _sampled(level, inside, label, pad)
        middle = np.median(values)
        spread = ROBUST * np.median(np.abs(values - middle))
        least = max(floor * scales.gain, middle + mad * spread)
        for y in range(pad, pad + h):
            for x in range(pad, pad + w):
                v = level[y, x]
                if v <= least or inside[y - pad, x - pad] != label or not _peak(level, y, x):
                    continue
                if not _round(level, y, x):
                    continue
                if i > 0 and _beaten(levels[i - 1], y, x, v):
                    continue
                if i + 1 < n_scales and _beaten(levels[i + 1], y, x, v):
                    continue
                if n == len(spots):
                    return n
                spots[n, 0] = v / scales.gain
                spots[n, 1] = y + _vertex(level[y - 1, x], v, level[y + 1, x])
                spots[n, 2] = x + _vertex(level[y, x - 1], v, level[y, x + 1])
                spots[n, 3] = _fitting_sigma(levels, i, y, x, scales.sigma_px)
                spots[n, 4] = y * level.shape[1] + x
                n += 1
    return n


@njit(nogil=True, cache=True, boundscheck=False)
def _peak(level: Any, y: int, x: int) -> bool:
    """Whether a pixel is above its eight neighbours; of equals the last in reading order is."""
    v = level[y, x]
    up, row, down = level[y - 1], level[y], level[y + 1]
    return bool(
        v >= row[x - 1]
        and v > row[x + 1]
        and v >= up[x]
        and v > down[x]
        and v >= up[x - 1]
        and v >= up[x + 1]
        and v > down[x - 1]
        and v > down[x + 1]
    )


@njit(nogil=True, cache=True, boundscheck=False)
def _round(level: Any, y: int, x: int) -> bool:
    """Whether the peak falls off on all sides: what falls off on two only is a ridge or an edge."""
    v = level[y, x]
    yy = level[y - 1, x] + level[y + 1, x] - 2.0 * v
    xx = level[y, x - 1] + level[y, x + 1] - 2.0 * v
    yx = 0.25 * (level[y - 1, x - 1] + level[y + 1, x + 1] - level[y - 1, x + 1] - level[y + 1, x - 1])
    return bool((yy + xx) * (yy + xx) * RIDGE < (RIDGE + 1.0) * (RIDGE + 1.0) * (yy * xx - yx * yx))


@njit(nogil=True, cache=True, boundscheck=False)
def _beaten(level: Any, y: int, x: int, v: float) -> bool:
    """Whether another scale answers more in the same place."""
    for yy in range(y - 1, y + 2):
        for xx in range(x - 1, x + 2):
            if level[yy, xx] > v:
                return True
    return False


@njit(nogil=True, cache=True, boundscheck=False)
def _vertex(before: float, v: float, after: float) -> float:
    """Top of the parabola through three values, from the middle one; in 64ths."""
    bend = 2.0 * v - before - after
    if bend <= 0.0:
        return 0.0
    return float(np.floor(min(max(0.5 * (after - before) / bend, -0.5), 0.5) * SUBPIXEL + 0.5) / SUBPIXEL)


@njit(nogil=True, cache=True, boundscheck=False)
def _fitting_sigma(levels: Any, i: int, y: int, x: int, sigma_px: Any) -> float:
    """Sigma of the signal, between scales by a parabola over their logarithm."""
    if i == 0 or i + 1 == len(sigma_px):
        return float(sigma_px[i])
    at = _vertex(levels[i - 1, y, x], levels[i, y, x], levels[i + 1, y, x])
    return float(sigma_px[i] * (sigma_px[1] / sigma_px[0]) ** at)


@njit(nogil=True, cache=True, boundscheck=False)
def merge_spots(spots: Any, n: int, share: float, merge: float) -> int:
    """Keep the stronger of two signals no farther apart than ``merge`` diameters; first rows of ``spots``.

    What has less than ``share`` of the nucleus's strongest signal is texture or the haze of another plane.
    """
    order = np.argsort(-spots[:n, 0], kind="mergesort")
    ranked = spots[:n][order].copy()
    kept = 0
    for i in range(n):
        if ranked[i, 0] < share * ranked[0, 0]:
            break
        alone = True
        for j in range(kept):
            dy, dx = ranked[i, 1] - spots[j, 1], ranked[i, 2] - spots[j, 2]
            reach = merge * ROOT8 * max(ranked[i, 3], spots[j, 3])
            if dy * dy + dx * dx <= reach * reach:
                alone = False
                break
        if alone:
            spots[kept] = ranked[i]
            kept += 1
    return kept


@njit(nogil=True, cache=True, boundscheck=False)
def integrate(window: Any, smooth: Any, inside: Any, label: int, pad: int, spots: Any, n: int) -> Any:
    """Sum over each signal's own pixels of what rises above the nucleus around.

    Pixels are taken from bright to dim, each to the signal uphill of it; a hill without a signal on top
    joins the first that it meets. So a cluster is summed whole, however ragged, and neighbours share none.
    """
    h, w = inside.shape
    stride = window.shape[1]
    floors = spots[:n, 5] + SKIRT * spots[:n, 0]
    least = floors.min()
    flat = smooth.ravel()
    raw = window.ravel()
    size = 0
    for y in range(h):
        for x in range(w):
            if inside[y, x] == label and smooth[y + pad, x + pad] > least:
                size += 1
    pixels = np.empty(size, np.int64)
    size = 0
    for y in range(h):
        for x in range(w):
            if inside[y, x] == label and smooth[y + pad, x + pad] > least:
                pixels[size] = (y + pad) * stride + x + pad
                size += 1
    values = np.empty(size, np.float32)
    for i in range(size):
        values[i] = -flat[pixels[i]]
    order = np.argsort(values, kind="mergesort")
    hill = np.full(window.size, -1, np.int32)  # of a pixel
    parent = np.empty(size + n, np.int32)  # hills: first the signals, then tops without one
    for i in range(n):
        parent[i] = i
    hills = n
    top = np.full(window.size, -1, np.int32)
    for i in range(n):
        top[int(spots[i, 4])] = i
    owner = np.empty(size, np.int32)
    for j in range(size):
        p = pixels[order[j]]
        best = -1
        highest = np.float32(0.0)
        for dy in range(-1, 2):
            for dx in range(-1, 2):
                q = p + dy * stride + dx
                if hill[q] >= 0 and (best < 0 or flat[q] > highest):
                    best, highest = q, flat[q]
        mine = top[p]
        if mine < 0:
            if best >= 0:
                mine = _hill(parent, hill[best])
            else:
                mine = hills
                parent[hills] = hills
                hills += 1
        hill[p] = mine
        for dy in range(-1, 2):
            for dx in range(-1, 2):
                q = p + dy * stride + dx
                if hill[q] >= 0:
                    a, b = _hill(parent, mine), _hill(parent, hill[q])
                    if a != b and (a >= n or b >= n):
                        parent[max(a, b)] = min(a, b)
        owner[j] = mine
    sums = np.zeros(n)
    for j in range(size):
        i = _hill(parent, owner[j])
        p = pixels[order[j]]
        if i < n and flat[p] > floors[i]:
            sums[i] += raw[p] - spots[i, 5]
    return sums


@njit(nogil=True, cache=True, boundscheck=False)
def _hill(parent: Any, i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return int(i)


def single_signal(integrated: NDArray[Any], diameter_um: NDArray[Any]) -> float:
    """Integrated density of a single signal of a slide and probe.

    That of the lowest of the peaks that stand out in the distribution of its logarithm: where most signals
    are clusters their median is one, but clusters spread over octaves and single signals do not.

    Parameters
    ----------
    integrated, diameter_um
        ``(n,)``, of all signals of the probe.

    Returns
    -------
    NaN without signals.
    """
    del diameter_um
    values = np.asarray(integrated, np.float64)
    octaves = np.log2(values[values > 0])
    if not len(octaves):
        return float("nan")
    start = np.floor(octaves.min()) - 1
    bins = ((octaves - start) * SINGLE_BINS).astype(np.int64)
    counts = np.bincount(bins, minlength=int(bins.max()) + SINGLE_BINS).astype(np.float64)
    kernel = np.exp(-0.5 * (np.arange(-SINGLE_BINS, SINGLE_BINS + 1) / (0.25 * SINGLE_BINS)) ** 2)
    density = np.convolve(counts, kernel, "same")
    inner = density[1:-1]
    peaks = (inner >= density[:-2]) & (inner > density[2:]) & (inner >= PEAK_SHARE * density.max())
    mode = start + (1 + int(np.flatnonzero(peaks)[0]) + 0.5) / SINGLE_BINS
    return float(2.0 ** np.median(octaves[np.abs(octaves - mode) <= 0.5]))


def cluster_copies(integrated: NDArray[Any], single: float) -> NDArray[np.int64]:
    """Copies that every signal stands for: ``round(integrated / single)``, one at least (spec 8)."""
    if not single > 0:
        return np.ones(len(integrated), np.int64)
    return np.maximum(np.floor(np.asarray(integrated, np.float64) / single + 0.5), 1).astype(np.int64)
