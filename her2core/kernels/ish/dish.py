"""Bright-field dual ISH: from RGB to black silver, red chromogen and hematoxylin.

Silver absorbs all colours, hematoxylin little blue, red signals little red light. So black comes first, as
what *every* channel has of it: the OD of red light, less what red signals have of it, but no more than the
least OD of the three allows. Where black is, red is inpainted from its surroundings, because lenses and
cameras shift the channels against each other by a pixel or two and a black dot then has coloured rims.

References
----------
Ruifrok, Johnston (2001) Anal Quant Cytol Histol 23:291 (colour deconvolution; Fast Red vector).
QuPath 0.5 source, ``ColorDeconvolutionStains`` (hematoxylin vector).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from numba import njit
from numpy.typing import NDArray

from her2core.kernels.buffers import Buffers
from her2core.kernels.stain import (
    DEFAULT_HEMATOXYLIN_RANGE,
    MIN_INTENSITY,
    MIN_OD_NORM,
    Floats,
    HematoxylinRange,
    Vector,
    angle_deg,
    as_vector,
    od_table,
    optical_density,
    unit,
)
from her2core.records import DishStain

RGB = npt.NDArray[np.uint8]
Plane = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

REFERENCE_COUNTERSTAIN: Vector = (0.733, 0.647, 0.231)
"""Hematoxylin of ISH slides, (R, G, B). Ours: halfway between QuPath's (0.651, 0.701, 0.290) and the bluer
(0.80, 0.57, 0.16) of three dual-ISH fields, 15 degrees away, so that neither is refused."""
REFERENCE_RED: Vector = (0.124, 0.962, 0.243)
"""Red signals, (R, G, B). Ours: mean of three fields of VENTANA-like dual ISH, whose signals look magenta
rather than the orange red of Ruifrok's Fast Red (0.214, 0.851, 0.478), 16 degrees away."""
NEUTRAL: Final = (1.0, 1.0, 1.0)

PER_OD: Final = 100  # grey steps of the black and red planes per unit of OD: up to 2.2 OD
ZERO: Final = 32  # grey value of none: noise around it stays noise
SHADES: Final = 64  # grey steps of the hematoxylin plane from the level between nuclei to that of a nucleus
BASE: Final = 32  # its grey value between nuclei
WEIGHT_BITS: Final = 10  # of the fixed-point unmixing
OD_BITS: Final = 10  # of the fixed-point OD
HEM_BITS: Final = 8  # of hematoxylin's weights, which are larger

STRIP: Final = 128  # rows that are smoothed and unmixed at a time: they stay in the cache
CHUNK: Final = 64  # pixels of a row that are looked at together
FAR: Final = 255  # steps that are counted as no end

SMOOTH_UM: Final = 0.15  # sigma: takes out noise of single pixels, and most of the channels' shift; ours
BLUE_FADES: Final = 3  # a black dot is so much fainter in blue, where chroma subsampling blurs most; ours
MIN_RANGE_OD: Final = 0.08  # a narrower range is noise, not counterstain; ours
BLACK_OD: Final = 0.08  # so much above its surroundings a pixel is silver and says nothing about red; ours
AROUND_UM: Final = 2.0  # half the width of these surroundings: dense hematoxylin is wider; ours
RIM_UM: Final = 0.2  # width of a black dot's coloured rim; ours
PATCH_UM: Final = 0.8  # red is inpainted from pixels no farther away than this; ours
MIN_VOLUME: Final = 0.15  # of hematoxylin, red and neutral as unit vectors: flatter cannot be unmixed; ours

MAX_ANGLE_DEG: Final = 15.0  # farthest of hematoxylin from its reference (spec §7.2)
RED_ANGLE_DEG: Final = 30.0  # farthest from the reference: Fast Red, magenta and their mixtures; ours
RED_POLE_DEG: Final = 35.0  # so far from hematoxylin a pixel holds red; ours
RED_POLE_OD: Final = 0.20  # and as much of it: more than red cells and fringes have; ours
RED_IN_PURE: Final = 0.5  # of its hematoxylin: a pixel of pure counterstain has less red; ours
STRONG_PERCENTILE: Final = 75  # of pure counterstain: what is stronger gives its direction; ours
PURE_PERCENTILE: Final = 50  # of red pixels: the redder half gives the direction; ours
BLACK_POLE_OD: Final = 0.12  # a darker neutral part is silver, whose direction says nothing; ours
MIN_PIXELS: Final = 200  # fewer pixels give no direction; ours
MIN_RED_PIXELS: Final = 50  # ... of red, which is a few signals alone, but strong ones; ours


class DishPlanes(NamedTuple):
    """OD of silver and of red chromogen in one region, uint8 ``(h, w)``, ``ZERO + PER_OD * od``."""

    black: Plane
    red: Plane


class DishUnmixer:
    """RGB to planes for one slide. Keeps its buffers: one instance a thread.

    Parameters
    ----------
    stain
        The slide's frozen colour.
    mpp
        Micrometres per pixel.

    Attributes
    ----------
    reach_px
        How far around a pixel the values lie that its own depend on.
    """

    def __init__(self, stain: DishStain, mpp: float) -> None:
        self.weights = unmixing_weights(stain)
        self.table = np.rint(od_table(stain.i0) * (1 << OD_BITS)).astype(np.int32)
        self.sigma = max(SMOOTH_UM / mpp, 0.5)
        self.edge = 2 * math.ceil(2 * self.sigma) + 1
        self.rim = max(1, round(RIM_UM / mpp))
        self.patch = max(2, round(PATCH_UM / mpp))
        self.wide = 2 * max(2, round(AROUND_UM / mpp)) + 1
        self.reach_px = self.edge // 2 + self.wide // 2 + self.rim + self.patch
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * self.rim + 1, 2 * self.rim + 1))
        self._disc = np.asarray(disc, np.uint8)
        self._buffers = Buffers()

    def __call__(self, rgb: RGB) -> DishPlanes:
        """Planes of uint8 ``rgb`` (h, w, 3); they are overwritten by the next call."""
        h, w = rgb.shape[:2]
        black, red, mask, grown = (
            self._buffers.plane(name, h, w) for name in ("black", "red", "mask", "grown")
        )
        for y0 in range(0, h, STRIP):
            y1, top = min(y0 + STRIP, h), max(y0 - self.edge // 2, 0)
            part = rgb[top : y1 + self.edge // 2]
            smooth = self._buffers.plane("smooth", len(part), 3 * w).reshape(-1, w, 3)
            # Integer arithmetic in OpenCV at 8 bits: a pixel's value does not depend on its place.
            cv2.GaussianBlur(part, (self.edge, self.edge), self.sigma, dst=smooth)
            smooth = smooth[y0 - top : y1 - top]
            unmix_signals(smooth, self.table, self.weights, black[y0:y1], red[y0:y1])
        cv2.blur(black, (self.wide, self.wide), dst=mask)
        cv2.subtract(black, mask, dst=grown)
        cv2.threshold(grown, round(PER_OD * BLACK_OD), 1, cv2.THRESH_BINARY, dst=mask)
        cv2.dilate(mask, self._disc, dst=grown)
        paint_over(red, grown, self.patch)
        return DishPlanes(black, red)


class Weights(NamedTuple):
    """Fixed-point weights, from a channel's OD to red and to hematoxylin.

    Attributes
    ----------
    red
        int32 ``(3,)``, to OD: ``WEIGHT_BITS`` fractional bits.
    hematoxylin
        int32 ``(4,)``, to grey values; the fourth is the offset.
    leak
        Red's share of what the red channel sees.
    """

    red: npt.NDArray[np.int32]
    hematoxylin: npt.NDArray[np.int32]
    leak: int


def unmixing_weights(stain: DishStain) -> Weights:
    """Weights of a slide's three-way unmixing: hematoxylin, red and neutral."""
    vectors = np.stack([unit(stain.hematoxylin), unit(stain.red), np.asarray(NEUTRAL)])
    inverse = np.linalg.inv(vectors)  # columns: amounts of hematoxylin, red, neutral
    low, high = stain.hematoxylin_low_od, stain.hematoxylin_high_od
    shade = SHADES / max(high - low, MIN_RANGE_OD)
    one = 1 << WEIGHT_BITS
    hematoxylin = np.append(inverse[:, 0] * shade, (BASE + 0.5 - low * shade) * (1 << OD_BITS))
    return Weights(
        red=np.rint(inverse[:, 1] * one).astype(np.int32),
        hematoxylin=np.rint(hematoxylin * (1 << HEM_BITS)).astype(np.int32),
        leak=round(unit(stain.red)[0] * one),
    )


@njit(nogil=True, cache=True, boundscheck=False)
def unmix_signals(
    rgb: NDArray[np.uint8],
    table: NDArray[np.int32],
    weights: Weights,
    black: NDArray[np.uint8],
    red: NDArray[np.uint8],
) -> None:
    """Black and red (h, w) of ``rgb`` (h, w, 3)."""
    od = np.empty((3, black.shape[1]), np.int32)
    for y in range(len(black)):
        _look_up(rgb[y], table, od)
        _signals(od[0], od[1], od[2], weights.red, np.int32(weights.leak), black[y], red[y])


@njit(nogil=True, cache=True, boundscheck=False)
def unmix_hematoxylin(
    rgb: NDArray[np.uint8], table: NDArray[np.int32], weights: Weights, hem: NDArray[np.uint8]
) -> None:
    """Hematoxylin (h, w) of ``rgb`` (h, w, 3)."""
    od = np.empty((3, hem.shape[1]), np.int32)
    for y in range(len(hem)):
        _look_up(rgb[y], table, od)
        _hematoxylin_row(od[0], od[1], od[2], weights.hematoxylin, hem[y])


@njit(nogil=True, cache=True, boundscheck=False)
def _look_up(row: NDArray[np.uint8], table: NDArray[np.int32], od: NDArray[np.int32]) -> None:
    """OD (3, w) of a row of pixels. Apart from what follows from it, which is vector code."""
    red, green, blue = od[0], od[1], od[2]
    of_red, of_green, of_blue = table[0], table[1], table[2]
    for x in range(len(red)):
        red[x] = of_red[row[x, 0]]
        green[x] = of_green[row[x, 1]]
        blue[x] = of_blue[row[x, 2]]


@njit(nogil=True, cache=True, boundscheck=False)
def _signals(
    a: NDArray[np.int32],
    b: NDArray[np.int32],
    c: NDArray[np.int32],
    weight: NDArray[np.int32],
    leak: np.int32,
    black: NDArray[np.uint8],
    red: NDArray[np.uint8],
) -> None:
    """A row of black and red from ODs of the channels; in 32 bits throughout."""
    one, none = np.int32(WEIGHT_BITS), np.int32((ZERO << OD_BITS) + (1 << OD_BITS - 1))
    shift, per_od, fades = np.int32(OD_BITS), np.int32(PER_OD), np.int32(BLUE_FADES)
    low, high = np.int32(0), np.int32(255)
    for x in range(len(black)):
        r = np.int32(weight[0] * a[x] + weight[1] * b[x] + weight[2] * c[x]) >> one
        dark = np.int32(a[x] - (np.int32(leak * max(r, low)) >> one))
        dark = min(dark, np.int32(fades * min(min(a[x], b[x]), c[x])))
        black[x] = min(max(np.int32(dark * per_od + none) >> shift, low), high)
        red[x] = min(max(np.int32(r * per_od + none) >> shift, low), high)


@njit(nogil=True, cache=True, boundscheck=False)
def _hematoxylin_row(
    a: NDArray[np.int32],
    b: NDArray[np.int32],
    c: NDArray[np.int32],
    weight: NDArray[np.int32],
    hem: NDArray[np.uint8],
) -> None:
    shift, low, high = np.int32(OD_BITS + HEM_BITS), np.int32(0), np.int32(255)
    for x in range(len(hem)):
        grey = np.int32(weight[0] * a[x] + weight[1] * b[x] + weight[2] * c[x] + weight[3]) >> shift
        hem[x] = min(max(grey, low), high)


@njit(nogil=True, cache=True, boundscheck=False)
def paint_over(image: NDArray[np.uint8], mask: NDArray[np.uint8], reach: int) -> None:
    """Inpaint masked (1, not 0) pixels of ``image`` from the nearest unmasked ones in all eight directions.

    The nearer weigh more, by the inverse number of steps. Where none is within ``reach``, a pixel stays.
    """
    weight = np.zeros(FAR + 1, np.int32)
    for d in range(1, reach + 1):
        weight[d] = (1 << 16) // d
    n: int | np.int32 = 0
    for y in range(len(mask)):
        n += _sum(mask[y])
    sums = np.zeros((n, 2), np.int32)  # of weighted values and of weights, of every masked pixel
    _gather(image, mask, weight, 1, sums)
    _gather(image, mask, weight, -1, sums)


@njit(nogil=True, cache=True, boundscheck=False)
def _gather(
    image: NDArray[np.uint8],
    mask: NDArray[np.uint8],
    weight: NDArray[np.int32],
    way: int,
    sums: NDArray[np.int32],
) -> None:
    """Add to ``sums`` what lies before masked pixels, or behind them (``way`` -1, which paints them as well).

    Steps to the nearest unmasked pixel are counted from row to row, for all pixels: that is vector code.
    """
    h, w = image.shape
    steps = np.full((2, 3, w + 2), FAR, np.uint8)  # aslant, straight and aslant to the row before
    k = 0 if way > 0 else len(sums) - 1
    for j in range(h):
        y = j if way > 0 else h - 1 - j
        line = mask[y]
        last, now = steps[j & 1], steps[1 - (j & 1)]
        for s in range(3):
            _step(last[s, s : s + w], line, now[s, 1 : 1 + w])
        side = FAR
        for i in range(0, w, CHUNK):
            first, end = (i, min(i + CHUNK, w)) if way > 0 else (max(w - i - CHUNK, 0), w - i)
            if _sum(line[first:end]) == 0:
                continue
            for m in range(end - first):
                x = first + m if way > 0 else end - 1 - m
                if line[x] == 0:
                    continue
                if 0 <= x - way < w:
                    side = min(side, FAR - 1) + 1 if line[x - way] else 1
                total, mass = sums[k, 0], sums[k, 1]
                if weight[side] > 0:
                    total += weight[side] * image[y, x - way * side]
                    mass += weight[side]
                for s in range(3):
                    d = np.int64(now[s, x + 1])
                    if weight[d] > 0:
                        total += weight[d] * image[y - way * d, x + (s - 1) * d]
                        mass += weight[d]
                sums[k, 0], sums[k, 1] = total, mass
                k += way
                if way < 0 and mass > 0:
                    image[y, x] = (total + mass // 2) // mass


@njit(nogil=True, cache=True, boundscheck=False)
def _step(last: NDArray[np.uint8], mask: NDArray[np.uint8], now: NDArray[np.uint8]) -> None:
    for x in range(len(mask)):
        now[x] = np.uint8(min(last[x], np.uint8(FAR - 1)) + np.uint8(1)) if mask[x] else np.uint8(0)


@njit(nogil=True, cache=True, boundscheck=False)
def _sum(line: NDArray[np.uint8]) -> np.int32:
    n = np.int32(0)
    for x in range(len(line)):
        n += np.int32(line[x])
    return n


def estimate_dish(
    samples: Sequence[tuple[RGB, Mask]],
    i0: Vector,
    um_px: float,
    *,
    i0_source: str = "glass",
    max_angle_deg: float = MAX_ANGLE_DEG,
) -> DishStain:
    """Colour of a slide from tiles of its tissue, each stain the mean direction of its own pole.

    Parameters
    ----------
    samples
        Tiles ``(rgb, tissue)``: uint8 ``(h, w, 3)`` and bool ``(h, w)``, at ``um_px``, about 0.5 µm.
    max_angle_deg
        Farthest that hematoxylin may lie from its reference (spec §7.2); farther is not accepted.

    Returns
    -------
    A record whose ``fallback`` says, for each stain that is the reference, why.
    """
    parts = [np.empty((0, 3), np.uint8)] + [rgb[mask] for rgb, mask in samples]
    pixels = np.concatenate(parts)
    pixels = pixels[pixels.min(axis=1, initial=255) >= MIN_INTENSITY]
    od = optical_density(pixels, i0).astype(np.float64)
    od = od[np.sqrt((od * od).sum(axis=1)) >= MIN_OD_NORM]
    reference_h, reference_r = unit(REFERENCE_COUNTERSTAIN), unit(REFERENCE_RED)
    hematoxylin, note_h = _accepted(
        _hematoxylin(od, reference_h, reference_r), reference_h, "hematoxylin", max_angle_deg
    )
    red, note_r = _accepted(_red(od, hematoxylin, reference_r), reference_r, "red", RED_ANGLE_DEG)
    notes = [note for note in (note_h, note_r) if note]
    if _volume(hematoxylin, red) < MIN_VOLUME:
        notes.append("hematoxylin, red and black too much alike")
        hematoxylin, red, note_h = reference_h, reference_r, notes[-1]
    low, high = DEFAULT_HEMATOXYLIN_RANGE
    stain = DishStain(
        i0=i0,
        hematoxylin=as_vector(hematoxylin),
        red=as_vector(red),
        source="reference" if note_h else "estimated",
        fallback="; ".join(notes) or None,
        hematoxylin_low_od=low,
        hematoxylin_high_od=high,
        i0_source=i0_source,
    )
    low, high = _range(samples, stain, um_px) or (low, high)
    return DishStain(
        stain.i0, stain.hematoxylin, stain.red, stain.source, stain.fallback, low, high, i0_source
    )


def _amounts(od: Floats, hematoxylin: Floats, red: Floats) -> tuple[Floats, Floats, Floats]:
    """Hematoxylin, red and neutral OD of every pixel."""
    amounts = od @ np.linalg.inv(np.stack([hematoxylin, red, np.asarray(NEUTRAL)]))
    return amounts[:, 0], amounts[:, 1], amounts[:, 2]


def _hematoxylin(od: Floats, hematoxylin: Floats, red: Floats) -> Floats | None:
    """Mean direction of strong counterstain without red or black."""
    h, r, k = _amounts(od, hematoxylin, red)
    pure = (h > 0) & (np.abs(r) < RED_IN_PURE * h) & (k < BLACK_POLE_OD)
    if int(pure.sum()) < MIN_PIXELS:
        return None
    strong = pure & (h >= np.percentile(h[pure], STRONG_PERCENTILE))
    return unit(od[strong].sum(axis=0))


def _red(od: Floats, hematoxylin: Floats, red: Floats) -> Floats | None:
    """Mean direction of the purer half of the red pixels."""
    h, r, k = _amounts(od, hematoxylin, red)
    angle = np.degrees(np.arctan2(r, h))
    held = (angle >= RED_POLE_DEG) & (r >= RED_POLE_OD) & (k < BLACK_POLE_OD)
    if int(held.sum()) < MIN_RED_PIXELS:
        return None
    pure = held & (angle >= np.percentile(angle[held], PURE_PERCENTILE))
    return unit(od[pure].sum(axis=0))


def _accepted(
    found: Floats | None, reference: Floats, name: str, max_angle_deg: float
) -> tuple[Floats, str | None]:
    """The estimate where it is near the reference; else the reference, and why."""
    if found is None:
        return reference, f"{name}: too few pixels of it"
    angle = angle_deg(found, reference)
    if angle > max_angle_deg:
        return reference, f"{name}: estimate {angle:.0f} degrees from the reference"
    return found, None


def _volume(hematoxylin: Floats, red: Floats) -> float:
    return abs(float(np.linalg.det(np.stack([hematoxylin, red, unit(NEUTRAL)]))))


def _range(samples: Sequence[tuple[RGB, Mask]], stain: DishStain, um_px: float) -> tuple[float, float] | None:
    """Hematoxylin OD between and inside nuclei."""
    measured = HematoxylinRange()
    h, r = unit(stain.hematoxylin), unit(stain.red)
    for rgb, mask in samples:
        od = optical_density(rgb, stain.i0).astype(np.float64).reshape(-1, 3)
        amount, _, black = _amounts(od, h, r)
        valid = mask & (black.reshape(mask.shape) < BLACK_POLE_OD)
        measured.add(amount.reshape(mask.shape).astype(np.float32), valid, um_px)
    return measured.result()
