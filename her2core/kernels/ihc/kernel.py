"""The IHC kernel: pixels of one chunk in, one row a cell out (spec §4.3).

    kernel = IHCKernel(IHCParams(), stain_profile, mpp=0.25)
    cells = kernel(rgb, origin=(y0, x0), core=Box(...))     # rgb covers core.grown(kernel.halo_px)

A cell's row depends on no pixel farther than `halo_px` from its centroid, and on nothing of where the chunk
begins: however a slide is cut, the rows are the same bits.

    planes     stains from light
    nuclei     seeds, and outlines around them
    nucleus_model, overlaps, splitting   which outlines are nuclei, one for each, two for two that touch
    pockets    cells of which only the membrane shows
    contour    the contour of a cell
    membrane   and its stain
    surroundings   what tells tissues apart beside a nucleus
    cell       the numbers of a row
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from her2core.columns import CELL_DTYPE, CELL_MEASURES, LADDER_STEPS, SEED_GIVEN, SEED_POCKET, QcFlag
from her2core.kernels import nuclei
from her2core.kernels.blur import blur
from her2core.kernels.buffers import Buffers
from her2core.kernels.ihc import contour
from her2core.kernels.ihc.cell import Sheets, Sizes, measure
from her2core.kernels.ihc.geometry import Geometry
from her2core.kernels.ihc.nucleus_model import judge
from her2core.kernels.ihc.overlaps import suppress_overlaps
from her2core.kernels.ihc.planes import DAB_PER_OD, SHADES, Planes, fill_planes, stain_tables
from her2core.kernels.ihc.pockets import fill_pockets, judge_pockets
from her2core.kernels.ihc.rules import GLASS, Rules
from her2core.kernels.ihc.splitting import find_merged, split_limits
from her2core.kernels.ihc.surroundings import surroundings_rule
from her2core.kernels.nuclei import UNLIMITED, Given, Nuclei
from her2core.kernels.polar import N_RAYS
from her2core.kernels.stain import reference_stain
from her2core.params import IHCParams
from her2core.records import Box, StainProfile

RGB = NDArray[np.uint8]
Cells = np.ndarray[tuple[int], np.dtype[np.void]]

# Where no source is named, ours.
ABOVE_CYTOPLASM_OD: Final = 0.05  # of DAB: what stands out less is no membrane (spec §4.3.5)
POCKET_GREY: Final = 3  # ... and by how much it is paler
POCKET_INSET_PART: Final = 4  # ... and no more than this part, a quarter, of its radius
SEED_GREY: Final = 12  # a seed is darker than its surroundings by this much
SHARED_RAYS: Final = 18  # of 36: outlines that overlap so far are one nucleus
SHARED_OF_KINDS: Final = 12  # ... or a nucleus and a pocket one cell
SATURATED_OD: Final = 2.0  # DAB is kept up to 2.04
EVALUABLE_FRACTION: Final = 0.5  # of a contour: a cell of which less can be judged is not (spec §4.3.6)
SEEDS_PER_PX: Final = 16  # pixels of the nuclear image for every seed that there is room for
PLACE_PARTS: Final = 16  # places are kept in sixteenths of a pixel: exact in 32 bits


class Outlines(NamedTuple):
    """Nuclei and contours of cells as radii around their seeds, ray by ray (see `polar.new_ray_offsets`).

    Attributes
    ----------
    y_px, x_px
        float64 ``(n,)``: where the rays start, absolute pixels of the kernel's level.
    nucleus_um, contour_um
        float32 ``(n, 36)``: radius in µm along ray ``a``, which points ``10 a`` degrees from +x towards +y.
    dab_od
        float32 ``(n, 36)``: DAB OD of the stained part of the contour, 0 where it is not stained.
    evaluable
        bool ``(n, 36)``: whether stain can be judged along a ray: it does not look into a lumen.
    """

    y_px: NDArray[np.float64]
    x_px: NDArray[np.float64]
    nucleus_um: NDArray[np.float32]
    contour_um: NDArray[np.float32]
    dab_od: NDArray[np.float32]
    evaluable: NDArray[np.bool_]

    def where(self, rows: NDArray[Any]) -> Outlines:
        """Those that ``rows`` marks, bool ``(n,)``, or lists."""
        return Outlines(*(column[rows] for column in self))


class IHCKernel:
    """Cells of one slide at one resolution. Keeps its buffers: one instance a thread.

    Parameters
    ----------
    params
        Scale-free parameters.
    stain
        The slide's frozen colour.
    mpp
        Micrometres per pixel of the level that is passed in: 0.1 to 1.1, best 0.17 to 0.6.
    largest
        Height and width of the largest core to come: buffers are made for it at once. Those that grow from
        call to call leave their smaller selves behind as holes in the heap.

    Attributes
    ----------
    geometry, rules
        Its lengths in pixels, and what it weighs.
    halo_px
        Pixels that a region must hold beyond its core on every side.
    """

    def __init__(
        self, params: IHCParams, stain: StainProfile, mpp: float, largest: tuple[int, int] = (0, 0)
    ) -> None:
        if len(params.ladder_od) != LADDER_STEPS or sorted(params.ladder_od) != list(params.ladder_od):
            raise ValueError(f"ladder_od {params.ladder_od}: {LADDER_STEPS} ascending cut-points are wanted")
        if params.strong_od not in params.ladder_od:
            raise ValueError(f"strong_od {params.strong_od}: one of ladder_od {params.ladder_od} is wanted")
        self.params, self.mpp = params, mpp
        self.geometry = Geometry.of(mpp, params.expansion_um)
        self.stains = stain_tables(stain)
        self.rules = Rules.of(self.geometry, self.stains, GLASS * stain.hematoxylin_high_od)
        self.halo_px = self.geometry.halo_px
        self._room_px = (largest[0] + 2 * self.halo_px) * (largest[1] + 2 * self.halo_px)
        self._buffers = Buffers()
        self._nucleus_work = nuclei.workspace(self.rules.edge)
        self._membrane_work = contour.workspace(self.geometry.n_radii)

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

        Raises
        ------
        ValueError
            Where ``rgb`` is too small for the core and its halo.
        """
        return self.outline(rgb, origin, core)[0]

    def outline(
        self, rgb: RGB, origin: tuple[int, int], core: Box, given: Given | None = None
    ) -> tuple[Cells, Outlines]:
        """The cells of `__call__`, and the outlines that they were measured on, row by row.

        Parameters
        ----------
        given
            Nuclei to measure on, instead of those that are found: at least all whose centre lies in
            ``core.grown(halo_px)``.
        """
        area = Box(origin[0], origin[1], origin[0] + rgb.shape[0], origin[1] + rgb.shape[1])
        need = core.grown(self.halo_px)
        if area.y0 > need.y0 or area.x0 > need.x0 or area.y1 < need.y1 or area.x1 < need.x1:
            raise ValueError(f"{area} does not cover {need}: the core {core} and a halo of {self.halo_px} px")
        cut_y, cut_x = (
            -origin[0] % (2 * self.geometry.bin),
            -origin[1] % (2 * self.geometry.bin),
        )  # bins stand on absolute places
        y0, x0 = (origin[0] + cut_y) // self.geometry.bin, (origin[1] + cut_x) // self.geometry.bin
        planes = self._unmix(rgb, cut_y, cut_x)
        top, left = core.y0 // self.geometry.bin - y0, core.x0 // self.geometry.bin - x0
        inner = Box(top, left, -(-core.y1 // self.geometry.bin) - y0, -(-core.x1 // self.geometry.bin) - x0)
        if given is None:
            found, source = self._nuclei(planes, inner), None
        else:
            found, source = self._given(given, (y0, x0), inner), SEED_GIVEN
        cells, lines = self._measure(planes, found, inner, source)
        for column in (cells["y_px0"], lines.y_px):
            column += y0 * self.geometry.bin
        for column in (cells["x_px0"], lines.x_px):
            column += x0 * self.geometry.bin
        y, x = cells["y_px0"], cells["x_px0"]
        own = np.flatnonzero((y >= core.y0) & (y < core.y1) & (x >= core.x0) & (x < core.x1))
        # Of two in one place the smaller is first: the order so far depends on where the region begins.
        own = own[np.lexsort((cells["nucleus_area_um2"][own], x[own], y[own]))]
        return cells[own], lines.where(own)

    def _unmix(self, rgb: RGB, cut_y: int = 0, cut_x: int = 0) -> Planes:
        """The images of a region, without so many of its first rows and columns."""
        h, w = (rgb.shape[0] - cut_y) // self.geometry.bin, (rgb.shape[1] - cut_x) // self.geometry.bin
        self._buffers.headroom = max(1.0, self._room_px / (h * w * self.geometry.bin**2))
        full, half = (h * self.geometry.bin, w * self.geometry.bin), (h, w)
        planes = Planes(
            raw=self._buffers.plane("raw", *full),
            dab=self._buffers.plane("dab", *full),
            nuclear=self._buffers.plane("nuclear", *half),
            soft=self._buffers.plane("soft", *half),
            wide=self._buffers.plane("wide", *half),
            seed=self._buffers.plane("seed", *half, np.int16),
            stains=self._buffers.plane("stains", *half, np.uint16),
        )
        fill_planes(np.ascontiguousarray(rgb), cut_y, cut_x, self.stains.packed, self.rules.smoothing, planes)
        return planes

    def _given(self, given: Given, origin: tuple[int, int], inner: Box) -> Nuclei:
        """Of the nuclei that were given those that are, or bound, cells of ``inner``."""
        found = given.on_grid(self.geometry.bin, self.geometry.um, self.rules.edge.r_min, self.geometry.r_max)
        y, x = found.y - np.int32(origin[0]), found.x - np.int32(origin[1])
        near = _within(y, x, inner.grown(self.geometry.drift + self.geometry.neighbour))
        return found._replace(y=y, x=x).where(near)

    def _nuclei(self, planes: Planes, inner: Box) -> Nuclei:
        """One outline for every nucleus in reach of the cells of ``inner``."""
        h, w = planes.soft.shape
        seeds = self._buffers.plane("seeds", h * w // SEEDS_PER_PX, 2, np.int32)
        n = nuclei.find_seeds(planes.seed, SEED_GREY, self.geometry.peak, self.geometry.pixel_reach, seeds)
        y, x = np.ascontiguousarray(seeds[:n].T)
        near = _within(y, x, inner.grown(self.geometry.neighbour + self.geometry.seed_chain))
        found = self._unrivalled(self._outlined(planes, y[near], x[near]), self.geometry.near)
        y, x = found.y.copy(), found.x.copy()
        nuclei.recentre(found, self.rules.wide_rays, self.rules.ray_index, self.geometry.shift)
        near = _within(found.y, found.x, inner.grown(self.geometry.neighbour + self.geometry.rival_chain))
        moved = np.flatnonzero(near & ((found.y != y) | (found.x != x)))  # the others would come out the same
        found.improve(moved, self._outlined(planes, found.y[moved], found.x[moved]))
        found = self._parted(planes, found.where(near)).joined(self._pockets(planes, inner))
        found = self._unrivalled(found.where(np.lexsort((found.x, found.y))), self.geometry.joint)
        path = found.path[found.hidden]
        inset = np.minimum(path // POCKET_INSET_PART, self.geometry.inset)
        found.path[found.hidden] = np.maximum(path - inset, self.rules.pocket_edge.r_min)
        return found

    def _pockets(self, planes: Planes, inner: Box) -> Nuclei:
        """Cells of which the membrane shows and no nucleus does."""
        h, w = planes.soft.shape
        pocket = self._buffers.plane("pocket", h, w)
        coarse, soft, wide = (
            self._buffers.plane(name, h // 2, w // 2) for name in ("coarse", "coarse soft", "coarse wide")
        )
        fill_pockets(planes.stains, pocket, coarse)
        blur(coarse, self.rules.pocket_taps, soft)
        blur(coarse, self.rules.pocket_wide, wide)
        rise = self._buffers.plane("rise", h // 2, w // 2, np.int16)
        np.subtract(soft, wide, out=rise, dtype=np.int16)
        seeds = self._buffers.plane("seeds", h * w // SEEDS_PER_PX, 2, np.int32)
        margin = self.geometry.pixel_reach // 2
        n = nuclei.find_seeds(rise, POCKET_GREY, self.geometry.pocket_peak, margin, seeds)
        y, x = np.ascontiguousarray(2 * seeds[:n].T)
        near = _within(y, x, inner.grown(self.geometry.neighbour + self.geometry.seed_chain))
        found = self._outlined_pockets(planes, pocket, wide, y[near], x[near])
        found = self._unrivalled(found, self.geometry.near)
        y, x = found.y.copy(), found.x.copy()
        nuclei.recentre(found, self.rules.wide_rays, self.rules.ray_index, self.geometry.shift)
        near = _within(found.y, found.x, inner.grown(self.geometry.neighbour + self.geometry.rival_chain))
        moved = np.flatnonzero(near & ((found.y != y) | (found.x != x)))
        found.improve(moved, self._outlined_pockets(planes, pocket, wide, found.y[moved], found.x[moved]))
        found = found.where(near)
        found.hidden[:] = True
        return found

    def _outlined_pockets(
        self, planes: Planes, pocket: RGB, wide: RGB, y: NDArray[np.int32], x: NDArray[np.int32]
    ) -> Nuclei:
        """An outline around every centre; its score is the evidence that it is a cell's pocket."""
        w = planes.soft.shape[1]
        found = Nuclei.at(y, x)
        floor = wide[y // 2, x // 2].astype(np.int32)
        order = found.nearby()
        nuclei.outline_all(
            self.rules.wide_rays.over(pocket),
            w,
            floor,
            UNLIMITED,
            self.rules.pocket_edge,
            self._nucleus_work,
            found,
            order,
        )
        clear = self.rules.contour.clear_glass
        least = nuclei.STEP_PARTS * POCKET_GREY
        judge_pockets(
            self.rules.wide_rays.over(planes.stains), w, found, order, least, clear, self.rules.pocket
        )
        return found

    def _parted(self, planes: Planes, found: Nuclei) -> Nuclei:
        """``found`` with two nuclei for every outline that holds two, in ascending ``(y, x)``."""
        stains = self.rules.wide_rays.over(planes.stains)
        double, y, x = find_merged(
            stains, planes.stains.shape[1], found, self.rules.splitting, self.rules.ray_index
        )
        limit = split_limits(y, x, self.geometry.r_max, self.rules.ray_index)
        halves = self._outlined(planes, y.ravel(), x.ravel(), limit.reshape(-1, N_RAYS))
        part = np.minimum(*halves.score.reshape(2, -1)) > 0
        whole = np.ones(len(found.y), np.bool_)
        whole[double[part]] = False
        found = found.where(whole).joined(halves.where(np.tile(part, 2)))
        return found.where(np.lexsort((found.x, found.y)))

    def _outlined(
        self, planes: Planes, y: NDArray[np.int32], x: NDArray[np.int32], limit: NDArray[np.int32] = UNLIMITED
    ) -> Nuclei:
        """An outline around every centre; its score is the evidence that it is a nucleus."""
        w = planes.soft.shape[1]
        found = Nuclei.at(y, x)
        floor = np.maximum(planes.wide[y, x].astype(np.int32) - self.rules.edge.below, self.rules.edge.floor)
        sheet = self.rules.wide_rays.over(planes.soft)
        order = found.nearby()
        nuclei.outline_all(sheet, w, floor, limit, self.rules.edge, self._nucleus_work, found, order)
        least = round(nuclei.STEP_PARTS * self.params.nucleus_contrast * SHADES)
        judge(self.rules.wide_rays.over(planes.stains), w, found, order, least, self.rules.nucleus)
        return found

    def _unrivalled(self, found: Nuclei, reach: int) -> Nuclei:
        """The best of the outlines that are nuclei, or pockets, of those whose centres lie within ``reach``.

        ``found`` and what is left of it are in ascending ``y``.
        """
        found = found.where(found.score > 0)
        rays, index = self.rules.wide_rays, self.rules.ray_index
        return found.where(suppress_overlaps(found, reach, SHARED_RAYS, SHARED_OF_KINDS, rays, index))

    def _measure(
        self, planes: Planes, found: Nuclei, inner: Box, source: int | None
    ) -> tuple[Cells, Outlines]:
        """Cells around nuclei that were found, or that came from a ``source``, which judged their sizes."""
        found = found.where(found.nearby())
        wanted = _within(found.y, found.x, inner.grown(self.geometry.drift))
        strips = found.strips(planes.soft.shape[0])
        sheets = Sheets(
            raw=self.rules.fine_rays.over(planes.raw),
            dab=self.rules.fine_rays.over(planes.dab),
            stains=self.rules.wide_rays.over(planes.stains),
        )
        sizes = self._sizes(planes.soft.shape[1])
        work = self._membrane_work
        rows, place, radius, peak, valid = measure(
            sheets,
            found,
            strips,
            np.flatnonzero(wanted),
            sizes,
            self.rules.contour,
            self.rules.ray_index,
            work,
        )
        cells = np.zeros(len(rows), CELL_DTYPE)
        for k, name in enumerate(CELL_MEASURES):
            cells[name] = rows[:, k]
        cells["y_px0"], cells["x_px0"] = np.rint(place.T * PLACE_PARTS) / PLACE_PARTS
        centre = self.geometry.bin * np.stack([found.y, found.x], axis=1) + 0.5 * (self.geometry.bin - 1)
        wanted &= (np.abs(place - centre) <= self.geometry.bin * self.geometry.drift).all(axis=1)
        self._judge_cells(cells, found.hidden)
        area = cells["nucleus_area_um2"]
        kept = wanted
        if source is None:
            kept &= (area >= self.params.min_nucleus_um2) & (area <= self.params.max_nucleus_um2)
        else:
            cells["seed_source"] = source
        lines = Outlines(
            y_px=centre[:, 0].astype(np.float64),
            x_px=centre[:, 1].astype(np.float64),
            nucleus_um=((found.path - 0.5) * self.geometry.um).astype(np.float32),
            contour_um=(radius * self.geometry.step_um).astype(np.float32),
            dab_od=(peak / DAB_PER_OD).astype(np.float32),
            evaluable=valid,
        )
        return cells[kept], lines.where(kept)

    def _sizes(self, stride: int) -> Sizes:
        return Sizes(
            stride=stride,
            factor=self.geometry.bin,
            um=self.geometry.um,
            step_um=self.geometry.step_um,
            near=self.geometry.neighbour,
            low_od=self.stains.low_od,
            grey_od=self.stains.range_od / SHADES,
            blueness=self.stains.blueness * self.stains.range_od / SHADES * DAB_PER_OD,
            positive=round(self.params.positive_od * DAB_PER_OD),
            above=round(ABOVE_CYTOPLASM_OD * DAB_PER_OD),
            ladder=np.ceil(np.array(self.params.ladder_od) * DAB_PER_OD - 0.5).astype(np.int32),
            tissue=surroundings_rule(
                self.geometry.um, self.rules.wide_rays.dy.shape[1] - 1, self.stains.range_od
            ),
        )

    def _judge_cells(self, cells: Cells, hidden: NDArray[np.bool_]) -> None:
        """Seed source and quality flags, from the numbers of the rows."""
        cells["seed_source"] = np.where(hidden, SEED_POCKET, 0)
        unevaluable = cells["evaluable_fraction"] < EVALUABLE_FRACTION
        saturated = cells["membrane_od_p90"] >= SATURATED_OD
        cells["qc_flag"] = QcFlag.UNEVALUABLE * unevaluable + QcFlag.SATURATED * saturated


def _within(y: NDArray[np.int32], x: NDArray[np.int32], box: Box) -> NDArray[np.bool_]:
    return (y >= box.y0) & (y < box.y1) & (x >= box.x0) & (x < box.x1)


def warm() -> None:
    """Compile, or load from the cache, everything the kernel calls."""
    for mpp in (0.25, 0.5):
        kernel = IHCKernel(IHCParams(), reference_stain((240.0, 240.0, 240.0)), mpp)
        edge = 2 * kernel.halo_px + 64
        rgb = np.full((edge, edge, 3), 240, np.uint8)
        cv2.circle(rgb, (edge // 2, edge // 2), round(4 / mpp), (120, 110, 180), -1)
        kernel(rgb, (0, 0), Box(0, 0, edge, edge).grown(-kernel.halo_px))
