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
from her2core.kernels.blur import blur, gaussian_taps
from her2core.kernels.buffers import Buffers
from her2core.kernels.ihc import contour
from her2core.kernels.ihc.cell import Sheets, Sizes, measure
from her2core.kernels.ihc.nucleus_model import judge, nucleus_rule
from her2core.kernels.ihc.overlaps import suppress_overlaps
from her2core.kernels.ihc.planes import BASE, DAB_PER_OD, SHADES, Planes, Smoothing, fill_planes, stain_tables
from her2core.kernels.ihc.pockets import fill_pockets, judge_pockets, pocket_rule
from her2core.kernels.ihc.splitting import find_merged, split_limits, splitting_rule
from her2core.kernels.ihc.surroundings import surroundings_rule
from her2core.kernels.nuclei import UNLIMITED, Given, Nuclei
from her2core.kernels.polar import N_RAYS, new_ray_index, new_ray_offsets
from her2core.kernels.stain import reference_stain
from her2core.params import IHCParams
from her2core.records import Box, StainProfile

RGB = NDArray[np.uint8]
Cells = np.ndarray[tuple[int], np.dtype[np.void]]

# Lengths in micrometres; where no source is named, ours.
LIMITS_UM_PX: Final = (0.1, 1.1)  # pixels that are accepted; the filters are laid out for 0.17 to 0.6
BINNED_BELOW_UM_PX: Final = 0.35  # finer pixels are binned 2 x 2 for the nuclear image, which has about 0.5
NUCLEUS_INNER_UM: Final = 2.0  # width inside a nuclear edge, or that of a pocket
NUCLEUS_OUTER_UM: Final = 1.0  # and outside
NUCLEUS_LEAST_UM: Final = 1.5  # least radius
RIM_UM: Final = 1.5  # width of a nucleus's, and of a pocket's, surroundings
NUCLEUS_GROWTH_UM: Final = 1.55  # radius at which an edge weighs half: a nucleolus has one too
NUCLEUS_CLIP_GREY: Final = 35  # a stronger edge counts as this one
POCKET_GROWTH_UM: Final = 2.0
POCKET_CLIP_GREY: Final = 40
POCKET_BEND: Final = (40, 30)  # cost of a step between rays, and of its square, 1/16 grey
READ_MARGIN_UM: Final = 0.4  # DAB is read within twice this of the contour
SPARE_PX: Final = 4  # for rounding, beyond what is read
TAPS: Final = 3  # sigmas of a Gaussian that are kept
NUCLEUS_REACH_UM: Final = 9.0  # widest radius of a nucleus, seen from an off-centre seed
LIGHT_SIGMA_PX: Final = 0.8  # against noise of single pixels
SEED_SIGMA_UM: Final = 1.0  # bridges chromatin, keeps a 5 um nucleus
SURROUND_SIGMA_UM: Final = 2.75  # what a seed is compared with
PEAK_UM: Final = 2.0  # two seeds are farther apart than this
COMPETE_UM: Final = 4.5  # centres of outlines that may be one nucleus
MOVE_UM: Final = 4.0  # from a seed to the centre of its nucleus
PART_UM: Final = 6.0  # from there to the centre of half of it
DRIFT_UM: Final = 4.5  # from there to the centroid of the final outline; farther off it is no cell
NEIGHBOUR_UM: Final = 14.0  # centres of cells that bound one another
MEMBRANE_STEP_UM: Final = 0.25  # along a ray; the thinnest 1+ membrane is 0.64 um wide (Scheel 2018)
MEMBRANE_FOOT_UM: Final = 2.0  # from its middle a 3+ membrane, 2.14 um wide (Scheel 2018), is down to a tenth
LUMEN_UM: Final = 6.0  # glass so wide is a lumen, and no membrane's place
CYTOPLASM_OD: Final = 0.03  # of hematoxylin: paler cytoplasm cannot be told from glass pixel by pixel
GLASS: Final = 0.08  # of a nucleus's hematoxylin: less is no tissue
ABOVE_CYTOPLASM_OD: Final = 0.05  # of DAB: what stands out less is no membrane (spec §4.3.5)
POCKET_SIGMA_UM: Final = 1.0  # bridges what is brown inside a pocket
POCKET_SURROUND_UM: Final = 3.5  # what a pocket's seed is compared with
POCKET_GREY: Final = 3  # ... and by how much it is paler
POCKET_PEAK_UM: Final = 2.0  # two seeds of pockets are farther apart than this
POCKET_COMPETE_UM: Final = 8.0  # from a pocket's centre to that of the nucleus in it
POCKET_INSET_UM: Final = 1.0  # from the outline of a pocket, on the flank of its membrane, inwards ...
POCKET_INSET_PART: Final = 4  # ... and no more than this part, a quarter, of its radius
SEED_GREY: Final = 12  # a seed is darker than its surroundings by this much
PALE_GREY: Final = 8  # above the level between nuclei: what is paler inside an outline is not nucleus
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
        """Those that ``rows`` marks or lists."""
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
    halo_px
        Pixels that a region must hold beyond its core on every side.
    """

    def __init__(
        self, params: IHCParams, stain: StainProfile, mpp: float, largest: tuple[int, int] = (0, 0)
    ) -> None:
        finest, coarsest = LIMITS_UM_PX
        if not finest <= mpp <= coarsest:
            raise ValueError(
                f"{mpp} um/px; the kernel works at {finest} to {coarsest}: pass another pyramid level"
            )
        if len(params.ladder_od) != LADDER_STEPS or sorted(params.ladder_od) != list(params.ladder_od):
            raise ValueError(f"ladder_od {params.ladder_od}: {LADDER_STEPS} ascending cut-points are wanted")
        if params.strong_od not in params.ladder_od:
            raise ValueError(f"strong_od {params.strong_od}: one of ladder_od {params.ladder_od} is wanted")
        self.params, self.mpp = params, mpp
        self.bin = 2 if mpp < BINNED_BELOW_UM_PX else 1
        self.um = mpp * self.bin  # of the nuclear image
        self.stains = stain_tables(stain)
        self.smoothing = Smoothing(
            light=gaussian_taps(LIGHT_SIGMA_PX, 1),
            seed=gaussian_taps(SEED_SIGMA_UM / self.um, TAPS * self._px(SEED_SIGMA_UM)),
            wide=gaussian_taps(SURROUND_SIGMA_UM / self.um, TAPS * self._px(SURROUND_SIGMA_UM)),
        )
        self._rules_for_nuclei()
        self._rules_for_membranes(GLASS * stain.hematoxylin_high_od)
        self._reach()
        self._room_px = (largest[0] + 2 * self.halo_px) * (largest[1] + 2 * self.halo_px)
        self._buffers = Buffers()

    def _px(self, um: float) -> int:
        """Pixels of the nuclear image in a length, one at least."""
        return max(1, round(um / self.um))

    def _rules_for_nuclei(self) -> None:
        px = self._px
        self.near = px(COMPETE_UM)
        self.r_max = px(NUCLEUS_REACH_UM)
        self.edge_rule = nuclei.edge_rule(
            inner=px(NUCLEUS_INNER_UM),
            outer=px(NUCLEUS_OUTER_UM),
            r_min=px(NUCLEUS_LEAST_UM),
            r_max=self.r_max,
            growth=NUCLEUS_GROWTH_UM / self.um,
            clip=NUCLEUS_CLIP_GREY,
            floor=BASE + PALE_GREY,
        )
        self.nucleus_rule = nucleus_rule(px(RIM_UM), self.um)
        self.splitting_rule = splitting_rule(px(RIM_UM), px(PART_UM), self.um)
        self.pocket_edge = nuclei.edge_rule(
            inner=px(NUCLEUS_INNER_UM),
            outer=px(NUCLEUS_OUTER_UM),
            r_min=px(NUCLEUS_LEAST_UM),
            r_max=self.r_max,
            growth=POCKET_GROWTH_UM / self.um,
            clip=POCKET_CLIP_GREY,
            floor=BASE + PALE_GREY,
            bend=POCKET_BEND,
        )
        self.pocket_rule = pocket_rule(px(RIM_UM), self.um)
        coarse = 2 * self.um
        self._pocket_taps = gaussian_taps(
            POCKET_SIGMA_UM / coarse, max(2, round(TAPS * POCKET_SIGMA_UM / coarse))
        )
        wide_px = POCKET_SURROUND_UM / coarse
        self._pocket_wide = gaussian_taps(wide_px, round(TAPS * wide_px))
        self._nucleus_work = nuclei.workspace(self.edge_rule)

    def _rules_for_membranes(self, glass_od: float) -> None:
        step_px = max(1.0, MEMBRANE_STEP_UM / self.mpp)
        self.step_um = step_px * self.mpp

        def steps(um: float) -> int:
            return max(1, round(um / self.step_um))

        flank = steps(contour.FLANK_UM)
        n_radii = steps(NUCLEUS_REACH_UM + self.params.expansion_um) + 2 * flank
        per_od = SHADES / self.stains.range_od
        clear_glass = BASE - round(self.stains.low_od * per_od)
        self.contour_rule = contour.ContourRule(
            scale=self.bin / step_px,
            reach=steps(self.params.expansion_um),
            beyond=steps(contour.BEYOND_UM),
            flank=flank,
            glass=clear_glass + round(glass_od * per_od),
            clear_glass=clear_glass,
            cytoplasm=round(CYTOPLASM_OD * per_od),
            lumen=self._px(LUMEN_UM),
            ridge_half_width=steps(MEMBRANE_FOOT_UM),
            read_margin=steps(READ_MARGIN_UM),
            **contour.gains(self.step_um, n_radii),
        )
        self.fine_rays = new_ray_offsets(n_radii, step_px, (self.bin - 1) / 2)
        self._membrane_work = contour.workspace(n_radii)

    def _reach(self) -> None:
        """How far everything looks, and from that the halo."""
        px, near = self._px, self.near
        self.neighbour, self.shift, self.drift = px(NEIGHBOUR_UM), px(MOVE_UM), px(DRIFT_UM)
        joint = px(POCKET_COMPETE_UM)
        self.joint = joint
        self.ray_index = new_ray_index(max(joint + self.r_max + 1, self.neighbour))
        cell_px = px(NUCLEUS_REACH_UM + self.params.expansion_um + 1.0)
        self.wide_rays = new_ray_offsets(cell_px + SPARE_PX, 1.0)
        # A finished nucleus depends on its rivals; all were seeds, moved; a seed survives its own rivals.
        self.rival_chain = self.drift + joint + px(PART_UM)
        self.seed_chain = self.rival_chain + self.shift + near
        around = TAPS * px(SURROUND_SIGMA_UM) + px(PEAK_UM)
        self.pixel_reach = max(self.r_max + self.edge_rule.outer, around) + 2
        self.pixel_reach = max(
            self.pixel_reach, 2 * (len(self._pocket_wide) + round(POCKET_PEAK_UM / self.um / 2) + 2)
        )
        by_nuclei = self.neighbour + self.seed_chain + self.pixel_reach  # neighbours bound a cell
        reach = max(by_nuclei, self.drift + cell_px)
        self.halo_px = self.bin * (reach + SPARE_PX)

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
            -origin[0] % (2 * self.bin),
            -origin[1] % (2 * self.bin),
        )  # bins stand on absolute places
        y0, x0 = (origin[0] + cut_y) // self.bin, (origin[1] + cut_x) // self.bin
        planes = self._unmix(rgb[cut_y:, cut_x:])
        top, left = core.y0 // self.bin - y0, core.x0 // self.bin - x0
        inner = Box(top, left, -(-core.y1 // self.bin) - y0, -(-core.x1 // self.bin) - x0)
        if given is None:
            found, source = self._nuclei(planes, inner), None
        else:
            found, source = self._given(given, (y0, x0), inner), SEED_GIVEN
        cells, lines = self._measure(planes, found, inner, source)
        for column in (cells["y_px0"], lines.y_px):
            column += y0 * self.bin
        for column in (cells["x_px0"], lines.x_px):
            column += x0 * self.bin
        y, x = cells["y_px0"], cells["x_px0"]
        own = np.flatnonzero((y >= core.y0) & (y < core.y1) & (x >= core.x0) & (x < core.x1))
        # Of two in one place the smaller is first: the order so far depends on where the region begins.
        own = own[np.lexsort((cells["nucleus_area_um2"][own], x[own], y[own]))]
        return cells[own], lines.where(own)

    def _unmix(self, rgb: RGB) -> Planes:
        h, w = rgb.shape[0] // self.bin, rgb.shape[1] // self.bin
        self._buffers.headroom = max(1.0, self._room_px / (h * w * self.bin**2))
        full, half = (h * self.bin, w * self.bin), (h, w)
        planes = Planes(
            raw=self._buffers.plane("raw", *full),
            dab=self._buffers.plane("dab", *full),
            nuclear=self._buffers.plane("nuclear", *half),
            soft=self._buffers.plane("soft", *half),
            wide=self._buffers.plane("wide", *half),
            seed=self._buffers.plane("seed", *half, np.int16),
            stains=self._buffers.plane("stains", *half, np.uint16),
        )
        fill_planes(rgb, self.stains.packed, self.smoothing, planes)
        return planes

    def _given(self, given: Given, origin: tuple[int, int], inner: Box) -> Nuclei:
        """Of the nuclei that were given those that are, or bound, cells of ``inner``."""
        found = given.on_grid(self.bin, self.um, self.edge_rule.r_min, self.r_max)
        y, x = found.y - np.int32(origin[0]), found.x - np.int32(origin[1])
        near = _within(y, x, inner.grown(self.drift + self.neighbour))
        return found._replace(y=y, x=x).where(near)

    def _nuclei(self, planes: Planes, inner: Box) -> Nuclei:
        """One outline for every nucleus in reach of the cells of ``inner``."""
        h, w = planes.soft.shape
        seeds = self._buffers.plane("seeds", h * w // SEEDS_PER_PX, 2, np.int32)
        n = nuclei.find_seeds(planes.seed, SEED_GREY, self._px(PEAK_UM), self.pixel_reach, seeds)
        y, x = np.ascontiguousarray(seeds[:n].T)
        near = _within(y, x, inner.grown(self.neighbour + self.seed_chain))
        found = self._unrivalled(self._outlined(planes, y[near], x[near]))
        y, x = found.y.copy(), found.x.copy()
        nuclei.recentre(found, self.wide_rays, self.ray_index, self.shift)
        near = _within(found.y, found.x, inner.grown(self.neighbour + self.rival_chain))
        moved = np.flatnonzero(near & ((found.y != y) | (found.x != x)))  # the others would come out the same
        found.improve(moved, self._outlined(planes, found.y[moved], found.x[moved]))
        found = self._parted(planes, found.where(near)).joined(self._pockets(planes, inner))
        found = found.where(np.lexsort((found.x, found.y)))
        found = found.where(found.score > 0)
        found = found.where(
            suppress_overlaps(found, self.joint, SHARED_RAYS, SHARED_OF_KINDS, self.wide_rays, self.ray_index)
        )
        path = found.path[found.hidden]
        inset = np.minimum(path // POCKET_INSET_PART, self._px(POCKET_INSET_UM))
        found.path[found.hidden] = np.maximum(path - inset, self.pocket_edge.r_min)
        return found

    def _pockets(self, planes: Planes, inner: Box) -> Nuclei:
        """Cells of which the membrane shows and no nucleus does."""
        h, w = planes.soft.shape
        pocket = self._buffers.plane("pocket", h, w)
        coarse, soft, wide = (
            self._buffers.plane(name, h // 2, w // 2) for name in ("coarse", "coarse soft", "coarse wide")
        )
        fill_pockets(planes.stains, pocket, coarse)
        blur(coarse, self._pocket_taps, soft)
        blur(coarse, self._pocket_wide, wide)
        rise = self._buffers.plane("rise", h // 2, w // 2, np.int16)
        np.subtract(soft, wide, out=rise, dtype=np.int16)
        seeds = self._buffers.plane("seeds", h * w // SEEDS_PER_PX, 2, np.int32)
        margin = self.pixel_reach // 2
        n = nuclei.find_seeds(rise, POCKET_GREY, max(1, round(POCKET_PEAK_UM / self.um / 2)), margin, seeds)
        y, x = np.ascontiguousarray(2 * seeds[:n].T)
        near = _within(y, x, inner.grown(self.neighbour + self.seed_chain))
        found = self._outlined_pockets(planes, pocket, wide, y[near], x[near])
        found = found.where(found.score > 0)
        found = found.where(
            suppress_overlaps(found, self.near, SHARED_RAYS, SHARED_OF_KINDS, self.wide_rays, self.ray_index)
        )
        y, x = found.y.copy(), found.x.copy()
        nuclei.recentre(found, self.wide_rays, self.ray_index, self.shift)
        near = _within(found.y, found.x, inner.grown(self.neighbour + self.rival_chain))
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
            self.wide_rays.over(pocket),
            w,
            floor,
            UNLIMITED,
            self.pocket_edge,
            self._nucleus_work,
            found,
            order,
        )
        clear = self.contour_rule.clear_glass
        least = nuclei.STEP_PARTS * POCKET_GREY
        judge_pockets(self.wide_rays.over(planes.stains), w, found, order, least, clear, self.pocket_rule)
        return found

    def _parted(self, planes: Planes, found: Nuclei) -> Nuclei:
        """``found`` with two nuclei for every outline that holds two, in ascending ``(y, x)``."""
        stains = self.wide_rays.over(planes.stains)
        double, y, x = find_merged(stains, planes.stains.shape[1], found, self.splitting_rule, self.ray_index)
        limit = split_limits(y, x, self.r_max, self.ray_index)
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
        floor = np.maximum(planes.wide[y, x].astype(np.int32) - self.edge_rule.below, self.edge_rule.floor)
        sheet = self.wide_rays.over(planes.soft)
        order = found.nearby()
        nuclei.outline_all(sheet, w, floor, limit, self.edge_rule, self._nucleus_work, found, order)
        least = round(nuclei.STEP_PARTS * self.params.nucleus_contrast * SHADES)
        judge(self.wide_rays.over(planes.stains), w, found, order, least, self.nucleus_rule)
        return found

    def _unrivalled(self, found: Nuclei) -> Nuclei:
        """The best outlines of ``found``, of those that are nuclei; in ascending ``y``."""
        found = found.where(found.score > 0)
        return found.where(
            suppress_overlaps(found, self.near, SHARED_RAYS, SHARED_OF_KINDS, self.wide_rays, self.ray_index)
        )

    def _measure(
        self, planes: Planes, found: Nuclei, inner: Box, source: int | None
    ) -> tuple[Cells, Outlines]:
        """Cells around nuclei that were found, or that came from a ``source``, which judged their sizes."""
        found = found.where(found.nearby())
        wanted = _within(found.y, found.x, inner.grown(self.drift))
        strips = found.strips(planes.soft.shape[0])
        sheets = Sheets(
            raw=self.fine_rays.over(planes.raw),
            dab=self.fine_rays.over(planes.dab),
            stains=self.wide_rays.over(planes.stains),
        )
        sizes = self._sizes(planes.soft.shape[1])
        work = self._membrane_work
        rows, place, radius, peak, valid = measure(
            sheets, found, strips, np.flatnonzero(wanted), sizes, self.contour_rule, self.ray_index, work
        )
        cells = np.zeros(len(rows), CELL_DTYPE)
        for k, name in enumerate(CELL_MEASURES):
            cells[name] = rows[:, k]
        cells["y_px0"], cells["x_px0"] = np.rint(place.T * PLACE_PARTS) / PLACE_PARTS
        centre = self.bin * np.stack([found.y, found.x], axis=1) + 0.5 * (self.bin - 1)
        wanted &= (np.abs(place - centre) <= self.bin * self.drift).all(axis=1)
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
            nucleus_um=((found.path - 0.5) * self.um).astype(np.float32),
            contour_um=(radius * self.step_um).astype(np.float32),
            dab_od=(peak / DAB_PER_OD).astype(np.float32),
            evaluable=valid,
        )
        return cells[kept], lines.where(kept)

    def _sizes(self, stride: int) -> Sizes:
        return Sizes(
            stride=stride,
            factor=self.bin,
            um=self.um,
            step_um=self.step_um,
            near=self.neighbour,
            low_od=self.stains.low_od,
            grey_od=self.stains.range_od / SHADES,
            positive=round(self.params.positive_od * DAB_PER_OD),
            above=round(ABOVE_CYTOPLASM_OD * DAB_PER_OD),
            ladder=np.ceil(np.array(self.params.ladder_od) * DAB_PER_OD - 0.5).astype(np.int32),
            tissue=surroundings_rule(self.um, self.wide_rays.dy.shape[1] - 1),
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
