"""The IHC kernel: pixels of one chunk in, one row a cell out (her2-spec 4.3).

    kernel = IHCKernel(IHCParams(), stain_profile, mpp=0.25)
    cells = kernel(rgb, origin=(y0, x0), core=Box(...))     # rgb covers core.grown(kernel.halo_px)

A cell's row depends on no pixel farther than `halo_px` from its centroid, and on nothing of where the chunk
begins: however a slide is cut, the rows are the same bits.
"""

from __future__ import annotations

import math
from enum import IntFlag
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from her2core.kernels import membrane, nuclei
from her2core.kernels.polar import N_RAYS, bend_costs, compass, new_lap, star
from her2core.params import IHCParams
from her2core.records import Box, StainProfile

LADDER: Final = 8
RGB = NDArray[np.uint8]
Cells = np.ndarray[tuple[int], np.dtype[np.void]]

CELL_DTYPE: Final = np.dtype(
    [("y_px0", "f8"), ("x_px0", "f8"), ("nucleus_area_um2", "f4"), ("nucleus_od", "f4"), ("cytoplasm_od", "f4")]
    + [(f"membrane_od_{s}", "f4") for s in ("mean", "median", "p90")]
    + [(f"completeness_{k:02d}", "f4") for k in range(LADDER)]
    + [("largest_gap_deg", "f4"), ("evaluable_fraction", "f4"), ("neighbour_strong_fraction", "f4")]
    + [("nucleus_elongation", "f4"), ("nucleus_contrast", "f4"), ("cell_area_um2", "f4")]
    + [("seed_source", "u1"), ("tumour_rule", "?"), ("qc_flag", "u1")]
)  # fmt: skip
MEASURED: Final = CELL_DTYPE.names[2:-3]  # the float columns, in the order the measuring loop writes them


class QcFlag(IntFlag):
    """What is doubtful about a cell's measurement."""

    UNEVALUABLE = 1  # fewer than half of its rays meet a boundary
    SATURATED = 2  # its membrane is darker than can be measured


# Lengths in micrometres; where no source is named, ours.
NUCLEUS_REACH_UM: Final = 9.0  # widest radius of a nucleus, seen from an off-centre seed
SEED_SIGMA_UM: Final = 1.25  # bridges chromatin, keeps a 5 um nucleus
PEAK_UM: Final = 2.0  # two seeds are farther apart than this
COMPETE_UM: Final = 8.0  # centres of outlines that may be one nucleus
MOVE_UM: Final = 4.0  # from a seed to the centre of its nucleus
DRIFT_UM: Final = 3.0  # from there to the centroid of the final outline
NEIGHBOUR_UM: Final = 18.0  # centres of cells that touch
MEMBRANE_STEP_UM: Final = 0.25  # along a ray: half of the thinnest 1+ membrane (Scheel 2018: 0.64 um)
GLASS: Final = 0.08  # of a nucleus's hematoxylin: less is no tissue
GLASS_RUN_UM: Final = 6.0  # a lumen is at least this wide
ABOVE_CYTOPLASM_OD: Final = 0.05  # spec 4.3, step 5
ROUNDS: Final = 2  # of suppression
SHARED_RAYS: Final = 16  # of 36: outlines that overlap so far are one nucleus
SURROUND_SIGMA_UM: Final = 3.0  # what a seed is compared with
SEED_GREY: Final = 7  # a seed is darker than its surroundings by this much


class Planes(NamedTuple):
    """Images of one region."""

    raw: NDArray[np.uint8]  # DAB, full resolution
    dab: NDArray[np.uint8]  # the same, lightly smoothed
    hem: NDArray[np.uint8]  # this and the following at about 0.5 um/px
    soft: NDArray[np.uint8]  # nuclear image, lightly smoothed
    wide: NDArray[np.uint8]  # nuclear image, smoothed over its surroundings
    seed: NDArray[np.int16]  # nuclear image against its surroundings: about a peak a nucleus


class Sizes(NamedTuple):
    """Scalars of the measuring loop; see `IHCKernel._measure`."""

    um: float
    step_um: float
    bin: int
    near: int
    glass: int
    glass_run: int
    past: int
    stain_od: float
    low_od: float
    positive: int
    above: int


class IHCKernel:
    """Cells of one slide at one resolution. Keeps its buffers: one instance a thread.

    Parameters
    ----------
    params
        Scale-free parameters.
    stain
        The slide's frozen colour.
    mpp
        Micrometres per pixel of the level that is passed in, 0.17 to 0.6.
    largest
        Height and width of the largest core to come: buffers are made for it at once. Those that grow from
        call to call leave their smaller selves behind as holes in the heap.

    Attributes
    ----------
    halo_px
        Pixels that a region must hold beyond its core on every side.
    """

    def __init__(
        self, params: IHCParams, stain: StainProfile, mpp: float, largest: tuple[int, int] = (0, 0)
    ) -> None:
        if not 0.1 <= mpp <= 1.1:
            raise ValueError(f"{mpp} um/px; the kernel works at 0.17 to 0.6: pass another pyramid level")
        if len(params.ladder_od) != LADDER or sorted(params.ladder_od) != list(params.ladder_od):
            raise ValueError(f"ladder_od {params.ladder_od}: {LADDER} ascending cut-points are wanted")
        if params.strong_od not in params.ladder_od:
            raise ValueError(f"strong_od {params.strong_od}: one of ladder_od {params.ladder_od} is wanted")
        self.params, self.mpp = params, mpp
        self.bin = 2 if mpp < 0.35 else 1
        self.um = mpp * self.bin  # um per pixel of the nuclear image
        self.stains = nuclei.stain_tables(stain)
        self._geometry(stain)
        self._room_px = (largest[0] + 2 * self.halo_px) * (largest[1] + 2 * self.halo_px)
        self._headroom = 1.0
        self._buffers: dict[str, NDArray[Any]] = {}

    def _px(self, um: float) -> int:
        """Pixels of the nuclear image in a length, one at least."""
        return max(1, round(um / self.um))

    def _geometry(self, stain: StainProfile) -> None:
        """Every length in pixels, and from them the halo."""
        p, px = self.params, self._px
        self.r_max = px(NUCLEUS_REACH_UM)
        self.edge_rule = nuclei.edge_rule(
            inner=px(2.0), outer=px(1.0), r_min=px(1.5), r_max=self.r_max, growth=px(2.0), clip=40
        )
        self.nucleus_rule = nuclei.NucleusRule(
            rim=px(1.5), per_range=1 / nuclei.SHADES, per_dab_od=10 / nuclei.DAB_PER_OD, um2=self.um**2,
            bias=-13.4, step=3.0, weakest=5.0, inside=2.2, outside=2.3, brown=-2.9, size=4.0, rough=-1.0,
        )  # fmt: skip
        self.part_rule = nuclei.PartRule(px(COMPETE_UM), 8, 6, nuclei.BASE, 2)
        per_od = nuclei.SHADES / self.stains.range_od
        self.clear_glass = nuclei.BASE - round(self.stains.low_od * per_od)
        self.glass = self.clear_glass + round(GLASS * stain.hematoxylin_high_od * per_od)
        step_px = max(1.0, MEMBRANE_STEP_UM / self.mpp)
        step_um = step_px * self.mpp

        def steps(um: float) -> int:
            return max(1, round(um / step_um))

        n_steps = steps(NUCLEUS_REACH_UM + p.expansion_um) + 2 * steps(1.25)
        self.contour_rule = membrane.ContourRule(
            scale=self.bin / step_px, reach=steps(p.expansion_um), clear=steps(0.75), beyond=steps(2.25),
            flank=steps(1.25), clip=16, faint=4, wall=4, glass=self.glass, clear_glass=self.clear_glass, gap=20,
            rind=24, border=4, pull=max(1, round(24 * step_um)), slack=steps(0.25),
            coarse=(np.arange(n_steps) * step_px / self.bin).astype(np.int32),
            bend=bend_costs(4, 4),
        )  # fmt: skip
        self.step_um = step_um
        cell_px = px(NUCLEUS_REACH_UM + p.expansion_um + 1.0)
        self.near = px(COMPETE_UM)
        self.neighbour = px(NEIGHBOUR_UM)
        self.wide_star = star(cell_px + 4, 1.0)
        self.fine_star = star(n_steps, step_px, (self.bin - 1) / 2)
        self.look = compass(max(self.near + self.r_max + 1, self.neighbour))
        angle = 2 * np.pi * np.arange(N_RAYS) / N_RAYS
        self.cos, self.sin = np.cos(angle), np.sin(angle)
        # A finished nucleus depends on its rivals and on what parts it from them; these were seeds, moved;
        # a seed survives by at most ROUNDS overlaps, each outline again parted from its neighbours.
        self.shift, self.drift = px(MOVE_UM), px(DRIFT_UM)
        self.seed_chain = self.drift + (1 + 1) * self.near + self.shift + (ROUNDS + 1) * self.near
        self.pixel_reach = max(self.r_max + self.edge_rule.outer, 3 * px(SURROUND_SIGMA_UM) + px(PEAK_UM)) + 2
        # Neighbours bound a cell, and neighbours of neighbours the cells that may be strong beside it.
        reach = max(2 * self.neighbour + self.seed_chain + self.pixel_reach, self.neighbour + self.drift + cell_px)
        self.halo_px = self.bin * (reach + self.shift + 2)  # a moved seed still looks at pixels of the region

    def _plane(self, name: str, height: int, width: int, dtype: Any = np.uint8) -> NDArray[Any]:
        """A contiguous plane in a buffer that is reused from call to call."""
        size = height * width
        if name not in self._buffers or self._buffers[name].size < size:
            self._buffers[name] = np.empty(math.ceil(size * self._headroom), dtype)
        return self._buffers[name][:size].reshape(height, width)

    def __call__(self, rgb: RGB, origin: tuple[int, int], core: Box) -> Cells:
        """Measure the cells whose centroid lies in ``core``.

        Parameters
        ----------
        rgb
            uint8 ``(h, w, 3)``; what lies outside the slide is 255.
        origin
            Absolute ``(y, x)`` of ``rgb[0, 0]`` in pixels of this level.
        core
            Half-open absolute box; ``rgb`` covers ``core.grown(halo_px)``.

        Returns
        -------
        `CELL_DTYPE` rows sorted by ``(y_px0, x_px0)``. Pixel (0, 0) has its centre at 0.
        """
        area = Box(origin[0], origin[1], origin[0] + rgb.shape[0], origin[1] + rgb.shape[1])
        need = core.grown(self.halo_px)
        if area.y0 > need.y0 or area.x0 > need.x0 or area.y1 < need.y1 or area.x1 < need.x1:
            raise ValueError(f"region {area} does not cover {need}: core {core} and a halo of {self.halo_px} px")
        cut_y, cut_x = origin[0] % self.bin, origin[1] % self.bin  # bins stand on absolute coordinates
        y0, x0 = (origin[0] + cut_y) // self.bin, (origin[1] + cut_x) // self.bin
        planes = self._unmix(rgb[cut_y:, cut_x:])
        inner = Box(core.y0 // self.bin - y0, core.x0 // self.bin - x0,
                    -(-core.y1 // self.bin) - y0, -(-core.x1 // self.bin) - x0)  # fmt: skip
        found = self._nuclei(planes, inner)
        cells = self._measure(planes, found, inner)
        cells["y_px0"] += y0 * self.bin
        cells["x_px0"] += x0 * self.bin
        y, x = cells["y_px0"], cells["x_px0"]
        cells = cells[(y >= core.y0) & (y < core.y1) & (x >= core.x0) & (x < core.x1)]
        return cells[np.lexsort((cells["x_px0"], cells["y_px0"]))]

    def _unmix(self, rgb: RGB) -> Planes:
        h, w = rgb.shape[0] // self.bin, rgb.shape[1] // self.bin
        self._headroom = max(1.0, self._room_px / (h * w * self.bin**2))
        dab = self._plane("dab", h * self.bin, w * self.bin)
        smooth = self._plane("smooth", h * self.bin, w * self.bin)
        hem, nuclear, soft = (self._plane(name, h, w) for name in ("hem", "nuclear", "soft"))
        seed, wide = self._plane("seed", h, w), self._plane("wide", h, w)
        peaks = self._plane("peaks", h, w, np.int16)
        run = nuclei.unmix_binned if self.bin == 2 else nuclei.unmix_plain
        run(rgb, self.stains.packed, self.stains.shade, dab, hem, nuclear)
        # 8-bit Gaussian blurs are integer arithmetic in OpenCV: a pixel's value does not depend on its place.
        cv2.GaussianBlur(dab, (3, 3), 0.8, dst=smooth)
        cv2.GaussianBlur(nuclear, (3, 3), 0.8, dst=soft)
        edge = 6 * self._px(SEED_SIGMA_UM) // 2 * 2 + 1
        cv2.GaussianBlur(nuclear, (edge, edge), SEED_SIGMA_UM / self.um, dst=seed)
        edge = 6 * self._px(SURROUND_SIGMA_UM) // 2 * 2 + 1
        cv2.GaussianBlur(nuclear, (edge, edge), SURROUND_SIGMA_UM / self.um, dst=wide)
        cv2.subtract(seed, wide, dst=peaks, dtype=cv2.CV_16S)
        return Planes(dab, smooth, hem, soft, wide, peaks)

    def _nuclei(self, planes: Planes, inner: Box) -> nuclei.Nuclei:
        """One outline for every nucleus in reach of the cells of ``inner``, in pixels of the nuclear image."""
        h, w = planes.soft.shape
        seeds = self._plane("seeds", h * w // 16, 2, np.int32)
        reach = inner.grown(2 * self.neighbour + self.seed_chain)
        n = nuclei.find_seeds(planes.seed, SEED_GREY, self._px(PEAK_UM), self.pixel_reach + self.shift, seeds)
        found = self._outlined(planes, _within(seeds[:n], reach))
        found = self._unrivalled(found, ROUNDS)
        nuclei.recentre(found.y, found.x, found.path, self.cos, self.sin, self.shift)
        centres = np.stack([found.y, found.x], axis=1)
        found = self._outlined(planes, centres[np.lexsort((found.x, found.y))])
        return self._unrivalled(found, 1)

    def _outlined(self, planes: Planes, centres: NDArray[np.int32]) -> nuclei.Nuclei:
        """The outlines around ``centres`` (n, [y, x]) that have enough contrast."""
        w = planes.soft.shape[1]
        y, x = np.ascontiguousarray(centres.T)
        path = np.zeros((len(y), N_RAYS), np.int32)
        score, weak = np.zeros(len(y), np.int32), np.zeros(len(y), np.int32)
        gain = np.zeros((N_RAYS, self.r_max + 1), np.int32)
        bound = np.full((len(y), N_RAYS), self.r_max, np.int32)
        nuclei.part(planes.soft, y, x, self.part_rule, self.cos, self.sin, bound)
        floor = np.maximum(planes.wide[y, x].astype(np.int32) - self.edge_rule.below, self.edge_rule.floor)
        nuclei.outline_all(planes.soft.ravel(), w, y, x, self.wide_star.flat(w), bound, floor, self.edge_rule, gain,
                           new_lap(self.r_max + 1), path, score, weak)  # fmt: skip
        keep = score >= round(16 * self.params.nucleus_contrast * nuclei.SHADES)
        full = self.wide_star.flat(w * self.bin) * self.bin
        nuclei.judge_all(planes.hem, planes.dab, y, x, path, score, weak, self.wide_star.flat(w), full,
                         self.nucleus_rule, keep)  # fmt: skip
        return nuclei.Nuclei(y[keep], x[keep], path[keep], score[keep], weak[keep])

    def _unrivalled(self, found: nuclei.Nuclei, rounds: int) -> nuclei.Nuclei:
        state = np.zeros(len(found.y), np.uint8)
        rivals = np.empty((len(found.y), 16), np.int32)
        nuclei.suppress(*found[:2], found.score, found.path, self.near, SHARED_RAYS, rounds, *self.wide_star,
                        self.look, rivals, state)  # fmt: skip
        return nuclei.Nuclei(*(column[state == 1] for column in found))

    def _measure(self, planes: Planes, found: nuclei.Nuclei, inner: Box) -> Cells:
        p, w = self.params, planes.soft.shape[1]
        near = _within_mask(found.y, found.x, inner.grown(self.neighbour + self.drift))
        rows = np.zeros((len(found.y), len(MEASURED)), np.float32)
        place = np.zeros((len(found.y), 2))
        owner = np.full((len(found.y), N_RAYS), -1, np.int32)
        sizes = Sizes(
            um=self.um, step_um=self.step_um, bin=self.bin, near=self.neighbour, glass=self.glass,
            glass_run=self._px(GLASS_RUN_UM), past=self._px(GLASS_RUN_UM + 1.0), stain_od=self.stains.range_od / nuclei.SHADES,
            low_od=self.stains.low_od, positive=round(p.positive_od * nuclei.DAB_PER_OD),
            above=round(ABOVE_CYTOPLASM_OD * nuclei.DAB_PER_OD),
        )  # fmt: skip
        ladder = np.ceil(np.array(p.ladder_od) * nuclei.DAB_PER_OD - 0.5).astype(np.int32)
        measure(planes, found, near, sizes, self.contour_rule, ladder, self.cos, self.sin, self.look, self.wide_star,
                self.fine_star.flat(w * self.bin), self.wide_star.flat(w),
                new_lap(self.fine_star.dy.shape[1]), rows, place, owner)  # fmt: skip
        strong = rows[:, MEASURED.index("completeness_00") + p.ladder_od.index(p.strong_od)] >= 0.5
        cells = np.zeros(len(found.y), CELL_DTYPE)
        for k, name in enumerate(MEASURED):
            cells[name] = rows[:, k]
        strong_neighbours(owner, strong, cells["neighbour_strong_fraction"])
        cells["y_px0"], cells["x_px0"] = np.rint(place.T * 16) / 16
        area, od = cells["nucleus_area_um2"], cells["nucleus_od"]
        cells["seed_source"] = cells["nucleus_contrast"] < 0.25 * self.stains.range_od
        small = (area < p.small_nucleus_um2) & (od > self.stains.low_od + p.dense_nucleus * self.stains.range_od)
        spindle = (area < p.spindle_nucleus_um2) & (cells["nucleus_elongation"] > p.spindle_elongation)
        cells["tumour_rule"] = ~(small | spindle)
        cells["qc_flag"] |= np.where(cells["evaluable_fraction"] < 0.5, QcFlag.UNEVALUABLE, 0).astype(np.uint8)
        cells["qc_flag"] |= np.where(cells["membrane_od_p90"] >= 2.0, QcFlag.SATURATED, 0).astype(np.uint8)
        return cells[near & (area >= p.min_nucleus_um2) & (area <= p.max_nucleus_um2)]


def _within_mask(y: NDArray[np.int32], x: NDArray[np.int32], box: Box) -> NDArray[np.bool_]:
    return (y >= box.y0) & (y < box.y1) & (x >= box.x0) & (x < box.x1)


def _within(points: NDArray[np.int32], box: Box) -> NDArray[np.int32]:
    return points[_within_mask(points[:, 0], points[:, 1], box)]


@njit(nogil=True, cache=True, boundscheck=False)
def measure(planes: Any, found: Any, near: Any, sizes: Any, rule: Any, ladder: Any, cos: Any, sin: Any, look: Any,
            wide: Any, fine_flat: Any, wide_flat: Any, lap: Any, rows: Any, place: Any, owner: Any) -> None:  # fmt: skip
    """Measure every nucleus of ``near`` into ``rows`` (n, len(MEASURED)), ``place`` and ``owner`` (n, ray)."""
    stride = planes.dab.shape[1]
    raw, dab, hem = planes.raw.ravel(), planes.dab.ravel(), planes.hem.ravel()
    n, m = len(found.y), fine_flat.shape[1]
    gain = np.zeros((N_RAYS, m), np.int32)
    path, mid = np.zeros(N_RAYS, np.int32), np.zeros(N_RAYS)
    peak, weight, count = np.zeros(N_RAYS, np.int32), np.zeros(N_RAYS), np.zeros(256, np.int32)
    valid = np.zeros(N_RAYS, np.bool_)
    first = 0
    for i in range(n):
        while found.y[i] - found.y[first] > sizes.near:
            first += 1
        if not near[i]:
            continue
        last = i
        while last < n and found.y[last] - found.y[i] <= sizes.near:
            last += 1
        y, x, nucleus = found.y[i], found.x[i], found.path[i]
        centre = sizes.bin * (y * stride + x)
        membrane.bound_rays(i, found.y, found.x, found.path, first, last, sizes.near, cos, sin, look, mid, owner[i])
        membrane.contour(dab, centre, fine_flat, hem, y * planes.hem.shape[1] + x, wide_flat, nucleus, mid, rule, gain,
                         lap, path)  # fmt: skip
        membrane.read_contour(raw, centre, fine_flat, path, rule.slack, cos, sin, peak, weight)
        base = membrane.cytoplasm_level(dab, centre, fine_flat, nucleus, rule.scale, path, rule.flank, count)
        for a in range(N_RAYS):
            stop = int(path[a] / rule.scale) + sizes.past
            valid[a] = peak[a] >= sizes.positive or not membrane.looks_into_glass(
                planes.hem, planes.dab, y, x, wide.dy[a], wide.dx[a], nucleus[a], stop, sizes.glass, sizes.glass_run
            )
        row = rows[i]
        dy, dx, area = nuclei.centroid(nucleus, 0.5, cos, sin)
        place[i, 0] = sizes.bin * (y + dy) + 0.5 * (sizes.bin - 1)
        place[i, 1] = sizes.bin * (x + dx) + 0.5 * (sizes.bin - 1)
        inside, outside = nuclei.levels(hem, y * planes.hem.shape[1] + x, wide_flat, nucleus, 2)
        row[0] = area * sizes.um * sizes.um
        row[1] = sizes.low_od + (inside - nuclei.BASE) * sizes.stain_od
        row[2] = base / nuclei.DAB_PER_OD
        summarise(peak, weight, valid, base, sizes, ladder, row)
        row[17] = nuclei.elongation(nucleus, cos, sin)
        row[18] = (inside - outside) * sizes.stain_od
        row[19] = nuclei.centroid(path, 0.0, cos, sin)[2] * sizes.step_um * sizes.step_um


@njit(nogil=True, cache=True, boundscheck=False)
def summarise(peak: Any, weight: Any, valid: Any, base: int, sizes: Any, ladder: Any, row: Any) -> None:
    """Membrane OD, completeness ladder, largest gap and evaluable fraction of one contour into ``row``."""
    total = 0.0
    whole = 0.0
    mean = 0.0
    for a in range(N_RAYS):
        whole += weight[a]
        if valid[a]:
            total += weight[a]
            mean += weight[a] * peak[a]
    stained = valid & (peak >= sizes.positive) & (peak - base >= sizes.above)
    row[3] = mean / max(total, 1e-9) / nuclei.DAB_PER_OD
    row[4] = quantile(peak, weight, stained if stained.any() else valid, 0.5) / nuclei.DAB_PER_OD
    row[5] = quantile(peak, weight, valid, 0.9) / nuclei.DAB_PER_OD
    for k in range(len(ladder)):
        part = 0.0
        for a in range(N_RAYS):
            if valid[a] and peak[a] >= ladder[k] and peak[a] - base >= sizes.above:
                part += weight[a]
        row[6 + k] = part / max(total, 1e-9)
    gap = 0
    longest = 0
    for a in range(2 * N_RAYS):
        gap = gap + 1 if valid[a % N_RAYS] and not stained[a % N_RAYS] else 0
        longest = max(longest, gap)
    row[14] = min(longest, N_RAYS) * (360.0 / N_RAYS)
    row[15] = total / max(whole, 1e-9)


@njit(nogil=True, cache=True, boundscheck=False)
def quantile(value: Any, weight: Any, use: Any, q: float) -> float:
    """Weighted quantile of the values in use; 0 where there are none."""
    bins = np.zeros(256)
    total = 0.0
    for a in range(len(value)):
        if use[a]:
            bins[value[a]] += weight[a]
            total += weight[a]
    below = 0.0
    for v in range(256):
        below += bins[v]
        if below >= q * total and below > 0.0:
            return float(v)
    return 0.0


@njit(nogil=True, cache=True, boundscheck=False)
def strong_neighbours(owner: Any, strong: Any, out: Any) -> None:
    """Fraction of the neighbours of every cell that are strong; 0 where it has none."""
    for i in range(len(owner)):
        count = 0
        hits = 0
        for a in range(N_RAYS):
            j = owner[i, a]
            if j >= 0 and not np.any(owner[i, :a] == j):
                count += 1
                hits += strong[j]
        out[i] = hits / max(count, 1)


def warm() -> None:
    """Compile (or load from the cache) everything the kernel calls."""
    stain = StainProfile(
        i0=(240.0, 240.0, 240.0), i0_source="glass", hematoxylin=(0.651, 0.701, 0.290), dab=(0.269, 0.568, 0.778),
        source="reference", fallback=None, hematoxylin_angle_deg=0.0, dab_angle_deg=0.0,
        hematoxylin_low_od=0.05, hematoxylin_high_od=0.2,
    )  # fmt: skip
    for mpp in (0.25, 0.5):
        kernel = IHCKernel(IHCParams(), stain, mpp)
        edge = 2 * kernel.halo_px + 64
        rgb = np.full((edge, edge, 3), 240, np.uint8)
        cv2.circle(rgb, (edge // 2, edge // 2), round(4 / mpp), (120, 110, 180), -1)
        kernel(rgb, (0, 0), Box(0, 0, edge, edge).grown(-kernel.halo_px))
