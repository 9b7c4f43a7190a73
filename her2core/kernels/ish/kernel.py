"""The ISH kernel: pixels of one chunk in, one row a nucleus and one row a signal out (spec §8).

    kernel = ISHKernel(ISHParams(), stain, mpp=0.1)
    nuclei, spots = kernel(pixels, origin=(y0, x0), core=Box(...))   # pixels cover core.grown(kernel.halo_px)

A nucleus and its signals depend on no pixel farther than `halo_px` from its centroid, and on nothing of where
the chunk begins: however a slide is cut, the rows are the same bits. Nothing is dropped for its looks: what
is doubtful about a nucleus is flagged, and whoever scores leaves it out.

    distance_map  how deep inside the stain pixels lie, at about half a micrometre a pixel
    nuclei        seeds, cuts between touching nuclei, outlines, one for every nucleus
    polygon       their shape, and the pixels that are theirs
    shape         what else the image shows of a nucleus
    dish          planes of silver, red and hematoxylin from light
    spots         signals inside nuclei, at full resolution
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from her2core.columns import NUCLEUS_DTYPE, PROBES, SPOT_DTYPE, NucleusFlag
from her2core.kernels.buffers import Buffers
from her2core.kernels.ish import nuclei as ish_nuclei
from her2core.kernels.ish import shape as ish_shape
from her2core.kernels.ish.dish import (
    AROUND_UM,
    MIN_RANGE_OD,
    PER_OD,
    ZERO,
    DishUnmixer,
    unmix_hematoxylin,
    unmix_signals,
)
from her2core.kernels.ish.distance_map import BASE, SHADES, Images, images, level
from her2core.kernels.ish.nuclei import Found
from her2core.kernels.ish.polygon import Outlines, paint
from her2core.kernels.ish.red_light import reach, seen_in_red_light
from her2core.kernels.ish.scale_space import fill_bins
from her2core.kernels.ish.spots import Found as SpotRows
from her2core.kernels.ish.spots import Raster, SpotFinder, raster
from her2core.params import ISHParams
from her2core.records import Assay, Box, DishStain, Fluorescence

Pixels = NDArray[Any]
Rows = np.ndarray[tuple[int], np.dtype[np.void]]

NUCLEAR_UM: Final = 0.5  # pixels of the nuclear image, about; ours
SIGNAL_OD: Final = 0.08  # of black or red in a bin: more of it hides hematoxylin; ours
CLEAR: Final = round(PER_OD * SIGNAL_OD)
LEAST_CLEAR: Final = 26  # of 255: a tenth of what is around must be seen to be taken for what is hidden; ours
HIDDEN_HEMATOXYLIN: Final = 0.5  # of hematoxylin for every unit of signal above that; ours
RIM_UM: Final = 0.4  # so far beyond the outline a signal is on the nucleus's rim, and its own; ours
SATURATED_SHARE: Final = 0.05  # of a nucleus's pixels too bright to be measured; ours
CRISP_UM: Final = 0.85  # diameter: a signal in focus has 0.7, one 0.3 um out of focus 1.0; ours, measured
BLACK: Final = 0  # place of the black probe among those of bright field
SPAN_UM: Final = (0.03, 1.2)  # pixels that can be worked with at all; ours
PLACE_PARTS: Final = 16  # places are kept in sixteenths of a pixel: exact in 32 bits
SEEDS_PER_PX: Final = 16  # pixels of the nuclear image for every seed that there is room for


def resolvable(assay: Assay, mpp: float, params: ISHParams) -> str | None:
    """Why signals cannot be counted at ``mpp`` micrometres per pixel; None where they can be.

    A signal of 0.4 um is two pixels wide at 0.2 um per pixel; in bright field two signals that touch then
    are one. Fluorescence shows a signal of one pixel still as a light in the dark.
    """
    most = params.max_bright_field_mpp if assay is Assay.DISH else params.max_fluorescence_mpp
    if mpp <= most:
        return None
    kind = "bright field" if assay is Assay.DISH else "fluorescence"
    return f"{mpp:g} um/px does not resolve signals: {kind} needs {most:g} um/px or finer"


class ISHKernel:
    """Nuclei and signals of one slide at one resolution. Keeps its buffers: one instance a thread.

    Parameters
    ----------
    params
        Scale-free parameters.
    stain
        The slide's frozen colour (bright field) or grey levels (fluorescence).
    mpp
        Micrometres per pixel of the level that is passed in.
    largest
        Height and width of the largest core to come: buffers are made for it at once.
    extent
        Height and width of the slide at this level: without it only its upper and left edge are known, and
        nuclei that the others cut are not flagged.

    Attributes
    ----------
    halo_px
        Pixels that a region must hold beyond its core on every side.
    """

    def __init__(
        self,
        params: ISHParams,
        stain: DishStain | Fluorescence,
        mpp: float,
        largest: tuple[int, int] = (0, 0),
        *,
        extent: tuple[int, int] | None = None,
    ) -> None:
        if not SPAN_UM[0] <= mpp <= SPAN_UM[1]:
            raise ValueError(f"{mpp} um/px; the kernel works at {SPAN_UM[0]} to {SPAN_UM[1]}")
        self.params, self.stain, self.mpp = params, stain, mpp
        self.extent = extent
        self.factor = max(1, round(NUCLEAR_UM / mpp))
        self.um = mpp * self.factor  # of the nuclear image
        levelled = isinstance(stain, DishStain)
        self.rules = ish_nuclei.rules(self.um, params.max_nucleus_um2, levelled=levelled)
        filled = 2 * max(1, round(AROUND_UM / self.um)) if levelled else 0  # two windows of `_hematoxylin`
        self.halo_px = self.factor * (self.rules.reach + filled + 1)
        self._work = ish_nuclei.workspace(self.rules)
        self._room_px = (largest[0] + 2 * self.halo_px) * (largest[1] + 2 * self.halo_px)
        self._buffers = Buffers()
        if isinstance(stain, DishStain):
            self.assay = Assay.DISH
            self.unmixer: DishUnmixer | None = DishUnmixer(stain, mpp)
            self._red_light = reach(mpp)
            self.probes: tuple[str | None, ...] = (params.black_probe, params.red_probe)
            range_od = max(stain.hematoxylin_high_od - stain.hematoxylin_low_od, MIN_RANGE_OD)
            self._mending = round(HIDDEN_HEMATOXYLIN * SHADES / (range_od * PER_OD) * 256)
            floors = [params.black_od * PER_OD, params.red_od * PER_OD]
        else:
            self.assay = Assay.FISH
            self.unmixer = None
            self.probes = stain.channels[1:]
            floors = [params.spot_noise * noise for noise in stain.noise[1:]]
        for probe in self.probes:
            if probe is not None and probe not in PROBES:
                raise ValueError(f"probe {probe!r}: one of {PROBES} is wanted")
        self.finders = [SpotFinder(params, mpp, floor) for floor in floors]
        self.margin = max(finder.reach_px for finder in self.finders)
        if self.unmixer is not None:
            self.margin += self.unmixer.reach_px
        self.unresolved = resolvable(self.assay, mpp, params)

    def __call__(self, pixels: Pixels, origin: tuple[int, int], core: Box) -> tuple[Rows, Rows]:
        """Measure the nuclei whose centroid lies in ``core``.

        Parameters
        ----------
        pixels
            ``(h, w, channel)``: uint8 RGB, 255 outside the slide; or uint8 or uint16 DAPI and probes, 0
            outside.
        origin
            Absolute ``(y, x)`` of ``pixels[0, 0]`` in pixels of this level.
        core
            Half-open absolute box; ``pixels`` cover ``core.grown(halo_px)``.

        Returns
        -------
        nuclei
            `NUCLEUS_DTYPE` rows sorted by ``(y_px0, x_px0)``.
        spots
            `SPOT_DTYPE` rows sorted by ``(nucleus, probe, y_px0, x_px0)``.

        Raises
        ------
        ValueError
            Where ``pixels`` is too small for the core and its halo.
        """
        area = Box(origin[0], origin[1], origin[0] + pixels.shape[0], origin[1] + pixels.shape[1])
        need = core.grown(self.halo_px)
        if area.y0 > need.y0 or area.x0 > need.x0 or area.y1 < need.y1 or area.x1 < need.x1:
            raise ValueError(f"{area} does not cover {need}: the core {core} and a halo of {self.halo_px} px")
        f = self.factor
        y0, x0 = -(-need.y0 // f), -(-need.x0 // f)  # bins stand on absolute coordinates
        y1, x1 = need.y1 // f, need.x1 // f
        whole = pixels[y0 * f - area.y0 : y1 * f - area.y0]
        self._buffers.headroom = max(1.0, self._room_px / ((y1 - y0) * (x1 - x0) * f * f))
        grey = self._nuclear_image(whole, x0 * f - area.x0, x1 - x0)
        picture = images(grey, self.um, lambda name: self._buffers.plane(name, *grey.shape))
        found = ish_nuclei.find(
            picture, self.rules, self.params.nucleus_contrast, self._seeds(grey.size), self._work
        )
        shape = found.shape
        place = np.empty((len(shape.y), 2))
        for k, (centre, corner) in enumerate(((shape.y, y0), (shape.x, x0))):
            place[:, k] = (centre.astype(np.float64) + corner) * f + 0.5 * (f - 1) + shape.centroid[:, k] * f
        place = np.rint(place * PLACE_PARTS) / PLACE_PARTS
        y, x = place.T
        mine = np.flatnonzero((y >= core.y0) & (y < core.y1) & (x >= core.x0) & (x < core.x1))
        mine = mine[np.lexsort((x[mine], y[mine]))]
        nuclei = self._rows(picture, found, mine, place)
        absolute = shape._replace(y=shape.y + np.int32(y0), x=shape.x + np.int32(x0))
        self._flag(nuclei, absolute, mine)
        spots = self._spots(pixels, area, found._replace(shape=absolute), mine, nuclei)
        nuclei["flags"][crisp(spots, len(nuclei))] &= np.uint8(255 - NucleusFlag.BLURRED)
        return nuclei, spots

    def _seeds(self, size: int) -> NDArray[np.int32]:
        return self._buffers.plane("seeds", max(size // SEEDS_PER_PX, 1), 2, np.int32)

    def _nuclear_image(self, pixels: Pixels, left: int, width: int) -> NDArray[np.uint8]:
        """Counterstain in bins from column ``left`` on: `BASE` between nuclei, ``BASE + SHADES`` in one."""
        f = self.factor
        grey = self._buffers.plane("grey", pixels.shape[0] // f, width)
        if isinstance(self.stain, Fluorescence):
            shade = SHADES / max(self.stain.dapi_high - self.stain.dapi_low, 1e-6)
            most = np.iinfo(pixels.dtype).max
            shrink_grey(pixels, left, f, (BASE - self.stain.dapi_low * shade, shade / (f * f)), most, grey)
        else:
            self._hematoxylin(pixels, left, grey)
        return grey

    def _hematoxylin(self, rgb: Pixels, left: int, grey: NDArray[np.uint8]) -> None:
        """Hematoxylin of bins; where signals hide it, made up from them, up to a typical nucleus."""
        assert self.unmixer is not None
        h, w = grey.shape
        black, red = self._buffers.plane("whole", h, w), self._buffers.plane("parts", h, w)
        light = self._buffers.plane("light", h, 3 * w).reshape(h, w, 3)
        shrink_rgb(rgb, left, self.factor, light)
        unmix_signals(light, self.unmixer.table, self.unmixer.weights, black, red)
        unmix_hematoxylin(light, self.unmixer.table, self.unmixer.weights, grey)
        around, signal = self._buffers.plane("soft", h, w), self._buffers.plane("wide", h, w)
        window = 2 * max(1, round(AROUND_UM / self.um)) + 1
        cv2.blur(black, (window, window), dst=around)
        cv2.subtract(black, around, dst=signal)
        clear, beside = self._buffers.plane("calm", h, w), self._buffers.plane("near", h, w)
        hide(signal, red, grey, clear, beside)
        cv2.blur(clear, (window, window), dst=clear)
        cv2.blur(beside, (window, window), dst=beside)
        mend(signal, red, self._mending, (clear, beside), grey)
        level(grey, self.um, around, signal)

    def _rows(
        self, picture: Images, found: Found, mine: NDArray[np.intp], place: NDArray[np.float64]
    ) -> Rows:
        shape = found.shape
        rule = self.rules
        radii = ish_shape.RADIUS_UM[0] / self.um, ish_shape.RADIUS_UM[1] / self.um
        near = min(2 * rule.r_max, rule.ray_index.reach)
        rows = ish_shape.measure(
            (picture.grey, picture.soft), shape, found, mine, near, radii, rule.ray_index
        )
        nuclei = np.zeros(len(mine), NUCLEUS_DTYPE)
        nuclei["y_px0"], nuclei["x_px0"] = place[mine].T
        nuclei["nucleus_area_um2"] = shape.area[mine] * self.um**2
        nuclei["elongation"], nuclei["solidity"] = shape.elongation[mine], shape.solidity[mine]
        nuclei["counterstain"] = self._counterstain(rows[:, 0])
        nuclei["sharpness"], nuclei["overlap_fraction"] = rows[:, 1], rows[:, 2]
        nuclei["flags"] = NucleusFlag.SATURATED * (rows[:, 3] > SATURATED_SHARE)
        return nuclei

    def _counterstain(self, grey: NDArray[np.float64]) -> NDArray[np.float64]:
        if isinstance(self.stain, Fluorescence):
            low, high, zero = self.stain.dapi_low, self.stain.dapi_high, self.stain.background[0]
        else:
            low, high, zero = self.stain.hematoxylin_low_od, self.stain.hematoxylin_high_od, 0.0
        return low + (grey - BASE) * (high - low) / SHADES - zero

    def _flag(self, nuclei: Rows, shape: Outlines, mine: NDArray[np.intp]) -> None:
        p, ray_index = self.params, self.rules.ray_index
        area = nuclei["nucleus_area_um2"]
        radius = shape.radius[mine]
        truncated = np.zeros(len(mine), np.bool_)
        for centre, way, size in ((shape.y, ray_index.sin, 0), (shape.x, ray_index.cos, 1)):
            at = (centre[mine, None] + radius * way) * self.factor
            truncated |= at.min(axis=1, initial=np.inf) < self.factor
            if self.extent is not None:
                truncated |= at.max(axis=1, initial=-np.inf) >= self.extent[size] - 2 * self.factor
        doubts = {
            NucleusFlag.OVERLAP: nuclei["overlap_fraction"] >= p.max_overlap,
            NucleusFlag.TRUNCATED: truncated,
            NucleusFlag.BLURRED: nuclei["sharpness"] < p.min_sharpness,
            NucleusFlag.SHAPE: nuclei["solidity"] < p.min_solidity,
            NucleusFlag.SIZE: (area < p.min_nucleus_um2) | (area > p.max_nucleus_um2),
            NucleusFlag.UNRESOLVED: np.full(len(area), self.unresolved is not None),
        }
        for flag, holds in doubts.items():
            nuclei["flags"] |= np.where(holds, np.uint8(flag), np.uint8(0))
        spindle = (area < p.spindle_nucleus_um2) & (nuclei["elongation"] > p.spindle_elongation)
        nuclei["tumour_rule"] = (area >= p.small_nucleus_um2) & ~spindle

    def _spots(self, pixels: Pixels, area: Box, found: Found, mine: NDArray[np.intp], nuclei: Rows) -> Rows:
        """Signals of the nuclei ``mine``; their numbers are filled into ``nuclei``."""
        if not len(mine):
            return np.empty(0, SPOT_DTYPE)
        shape = found.shape._replace(radius=found.shape.radius + RIM_UM / self.um)
        parts = [np.empty(0, SPOT_DTYPE)]
        window = self._around(shape.where(mine), area)
        part = pixels[window.y0 - area.y0 : window.y1 - area.y0, window.x0 - area.x0 : window.x1 - area.x0]
        corner = window.y0, window.x0
        drawn = self._drawn(window, shape, found.step, mine)
        for place, (bins, finder) in enumerate(zip(self._bins(part, corner), self.finders, strict=True)):
            probe = self.probes[place]
            if probe is None:
                continue
            bright = finder.search(bins, drawn, finder.grid(part.shape[:2], corner))
            if self.unmixer is not None and place == BLACK:
                bright = self._silver(part, bright)
            spots = np.zeros(len(bright), SPOT_DTYPE)
            k = PROBES.index(probe)
            spots["nucleus"], spots["probe"] = bright["nucleus"] - 1, k
            spots["y_px0"], spots["x_px0"] = bright["y"] + window.y0, bright["x"] + window.x0
            for name in ("diameter_um", "contrast", "integrated"):
                spots[name] = bright[name]
            parts.append(spots)
            name = probe.lower()
            count = np.bincount(spots["nucleus"], minlength=len(mine))
            nuclei[f"{name}_spots"] = np.minimum(count, np.iinfo(np.uint16).max)
            nuclei[f"{name}_integrated"] = np.bincount(spots["nucleus"], spots["integrated"], len(mine))
        spots = np.concatenate(parts)
        return spots[np.lexsort((spots["x_px0"], spots["y_px0"], spots["probe"], spots["nucleus"]))]

    def _around(self, shape: Outlines, area: Box) -> Box:
        """What is needed of ``area`` to find the signals of nuclei."""
        edges = []
        for centre, limit in ((shape.y, (area.y0, area.y1)), (shape.x, (area.x0, area.x1))):
            far = np.ceil(shape.radius.max(axis=1)) + 1
            first, last = int((centre - far).min()) * self.factor, int((centre + far).max() + 1) * self.factor
            edges.append((max(first - self.margin, limit[0]), min(last + self.margin, limit[1])))
        (y0, y1), (x0, x1) = edges
        return Box(y0, x0, y1, x1)

    def _drawn(
        self, window: Box, shape: Outlines, contrast: NDArray[np.int32], mine: NDArray[np.intp]
    ) -> Raster:
        """Bins of ``window`` that lie in the nuclei ``mine``, and in no other nucleus more."""
        grid = self.finders[0].grid((window.height, window.width), (window.y0, window.x0))
        labels = self._buffers.plane("labels", grid.height, grid.width, np.int32)
        labels.fill(0)
        names = -1 - np.arange(len(shape.y), dtype=np.int32)
        names[mine] = 1 + np.arange(len(mine), dtype=np.int32)
        first = window.y0 + grid.y0 + grid.bin // 2, window.x0 + grid.x0 + grid.bin // 2
        paint(labels, first, grid.bin, shape, contrast, names, self.factor, self.rules.ray_index)
        return raster(labels, len(mine))

    def _bins(self, pixels: Pixels, corner: tuple[int, int]) -> Iterator[NDArray[np.float32]]:
        """One plane a probe, bright where it is, in the bins that signals are looked for in.

        The next one is written over the last. ``corner`` is the place (y, x) of the first pixel.
        """
        y0, x0, height, width = self.finders[0].grid(pixels.shape[:2], corner)[1:]
        out = self._buffers.plane("bins", height, width, np.float32)
        for plane, other, share in self._planes(pixels):
            fill_bins(plane, other, np.float32(share), (y0, x0), self.finders[0].bin, out)
            yield out

    def _planes(self, pixels: Pixels) -> Iterator[tuple[NDArray[Any], NDArray[Any], float]]:
        """One plane a probe, another, and the share of that to take off: what DAPI shows of in a channel.

        Chromatin is no signal.
        """
        if isinstance(self.stain, Fluorescence):
            dapi, *probes = self._channels(pixels)
            for k, probe in enumerate(probes, 1):
                share = self.stain.dapi_share[k] if self.stain.dapi_share else 0.0
                yield probe, dapi, max(share, 0.0)
        elif self.unmixer is not None:
            for plane in self.unmixer(pixels):
                yield plane, plane, 0.0

    def _channels(self, pixels: Pixels) -> list[NDArray[Any]]:
        """Every channel by itself."""
        h, w, n = pixels.shape
        planes = [self._buffers.plane(f"{k} {pixels.dtype}", h, w, pixels.dtype) for k in range(n)]
        cv2.split(pixels, planes)
        return planes

    def _silver(self, rgb: Pixels, bright: SpotRows) -> SpotRows:
        """Black signals that are seen in red light."""
        assert self.unmixer is not None
        places = np.stack([bright["y"], bright["x"]], axis=1)
        return bright[seen_in_red_light(rgb, self.unmixer.table[0], places, self._red_light)]


def crisp(spots: Rows, n: int) -> NDArray[np.bool_]:
    """Which of ``n`` nuclei hold a signal in focus, the strongest of its probe: so they are in focus too."""
    out = np.zeros(n, np.bool_)
    for probe in range(len(PROBES)):
        mine = spots[spots["probe"] == probe]
        mine = mine[np.lexsort((mine["x_px0"], mine["y_px0"], -mine["contrast"], mine["nucleus"]))]
        nucleus, strongest = np.unique(mine["nucleus"], return_index=True)
        out[nucleus] |= mine["diameter_um"][strongest] < CRISP_UM
    return out


@njit(nogil=True, cache=True, boundscheck=False)
def shrink_grey(
    pixels: NDArray[np.uint16] | NDArray[np.uint8],
    left: int,
    factor: int,
    scale: tuple[float, float],
    most: int,
    out: NDArray[np.uint8],
) -> None:
    """``out`` (h, w) is ``scale[0] + scale[1]`` times the sum of a bin of channel 0; 255 where saturated.

    Bins begin at column ``left``. Rows are added with all their channels, which is vector code.
    """
    h, w = out.shape
    channels, full = pixels.shape[2], most * factor * factor
    column = np.empty(w * factor * channels, np.uint32)
    for y in range(h):
        column[:] = 0
        for k in range(factor):
            _add(pixels[y * factor + k].ravel()[left * channels :], column)
        for x in range(w):
            total = np.int64(0)
            for i in range(x * factor * channels, (x + 1) * factor * channels, channels):
                total += column[i]
            v = np.floor(scale[0] + scale[1] * total + 0.5)
            out[y, x] = 255 if total == full else np.uint8(min(max(v, 0.0), 255.0))


@njit(nogil=True, cache=True, boundscheck=False)
def hide(
    black: NDArray[np.uint8],
    red: NDArray[np.uint8],
    grey: NDArray[np.uint8],
    clear: NDArray[np.uint8],
    beside: NDArray[np.uint8],
) -> None:
    """``clear`` (h, w) is 255 where there is no signal, else 0; ``beside`` is ``grey`` there."""
    h, w = grey.shape
    for y in range(h):
        for x in range(w):
            seen = black[y, x] <= CLEAR and red[y, x] <= ZERO + CLEAR
            clear[y, x] = 255 if seen else 0
            beside[y, x] = grey[y, x] if seen else 0


@njit(nogil=True, cache=True, boundscheck=False)
def mend(
    black: NDArray[np.uint8],
    red: NDArray[np.uint8],
    weight: int,
    around: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    grey: NDArray[np.uint8],
) -> None:
    """Fill in what signals hide of ``grey`` (h, w).

    With ``weight`` / 256 a grey step of signal, up to a typical nucleus; and with what is seen around, in
    nuclei that are darker than that.

    ``black`` is what rises above its surroundings, 0 for none; ``red`` is a plane of `dish`. ``around`` is
    the mean of `hide`.
    """
    clear, beside = around
    h, w = grey.shape
    for y in range(h):
        for x in range(w):
            dark: Any = max(np.int32(black[y, x]) - CLEAR, 0)
            reddish: Any = max(np.int32(red[y, x]) - ZERO - CLEAR, 0)
            if dark + reddish > 0:
                if grey[y, x] < BASE + SHADES:
                    grey[y, x] = min(grey[y, x] + ((dark + reddish) * weight >> 8), BASE + SHADES)
                if clear[y, x] >= LEAST_CLEAR:
                    grey[y, x] = max(grey[y, x], min(255 * np.int32(beside[y, x]) // clear[y, x], 255))


@njit(nogil=True, cache=True, boundscheck=False)
def shrink_rgb(pixels: NDArray[np.uint8], left: int, factor: int, out: NDArray[np.uint8]) -> None:
    """``out`` (h, w, 3) uint8 is the mean over bins of ``pixels``, from column ``left`` on."""
    h, w = out.shape[:2]
    n = factor * factor
    share = np.uint64((1 << 32) // (2 * n) + 1)  # of 2**32: exact for sums of bytes
    column = np.empty(3 * w * factor, np.uint16)
    for y in range(h):
        column[:] = 0
        for k in range(factor):
            _add(pixels[y * factor + k].ravel()[3 * left :], column)
        line = out[y].ravel()
        for x in range(w):
            r = np.uint32(0)
            g = np.uint32(0)
            b = np.uint32(0)
            for i in range(3 * factor * x, 3 * factor * (x + 1), 3):
                r += column[i]
                g += column[i + 1]
                b += column[i + 2]
            line[3 * x] = np.uint64(2 * r + n) * share >> np.uint64(32)
            line[3 * x + 1] = np.uint64(2 * g + n) * share >> np.uint64(32)
            line[3 * x + 2] = np.uint64(2 * b + n) * share >> np.uint64(32)


@njit(nogil=True, cache=True, boundscheck=False)
def _add(
    row: NDArray[np.uint16] | NDArray[np.uint8], column: NDArray[np.uint32] | NDArray[np.uint16]
) -> None:
    for x in range(len(column)):
        column[x] += row[x]


def warm() -> None:
    """Compile, or load from the cache, everything the kernel calls."""
    mpp = 0.25
    levels = Fluorescence(("DAPI", "HER2", "CEP17"), (20.0,) * 3, (2.0,) * 3, 20.0, 100.0)
    dish = DishStain(
        i0=(240.0, 240.0, 240.0),
        hematoxylin=(0.651, 0.701, 0.290),
        red=(0.124, 0.962, 0.243),
        source="reference",
        fallback=None,
        hematoxylin_low_od=0.02,
        hematoxylin_high_od=0.2,
    )
    for stain, dtype, empty, nucleus, signal in (
        (levels, np.uint8, (20, 20, 20), (100, 20, 20), (100, 90, 20)),
        (levels, np.uint16, (20, 20, 20), (100, 20, 20), (100, 90, 20)),
        (dish, np.uint8, (240, 240, 240), (175, 170, 210), (30, 30, 30)),
    ):
        kernel = ISHKernel(ISHParams(), stain, mpp)
        edge = 2 * kernel.halo_px + 64
        pixels = np.full((edge, edge, 3), empty, dtype)
        for centre, radius, colour in ((0, 5.0, nucleus), (7, 0.3, signal)):
            disc = np.zeros((edge, edge), np.uint8)
            cv2.circle(disc, (edge // 2 + centre, edge // 2), round(radius / mpp), 1, -1)
            pixels[disc > 0] = colour
        kernel(pixels, (0, 0), Box(0, 0, edge, edge).grown(-kernel.halo_px))
