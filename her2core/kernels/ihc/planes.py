"""Stains at once: look-up tables from RGB, DAB at full resolution, hematoxylin at half a micrometre a pixel.

Hematoxylin is measured in units of the slide's own range (`SHADES` from between nuclei to inside one), so
that a faint counterstain is as good as a strong one. In the nuclear image DAB counts against it: a nucleus
is bluer *or* less brown than its rim, and nests of strong membranes show as the pale pockets they enclose.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from her2core.kernels.blur import blur
from her2core.kernels.stain import stain_table, unit
from her2core.records import StainProfile

SHADES: Final = 64  # grey steps from the level between nuclei to hematoxylin_high_od
BASE: Final = 96  # grey value of the level between nuclei
BETWEEN: Final = 0.25  # that level, of hematoxylin_high_od: the measured one follows the mix of tissues; ours
MIN_RANGE_OD: Final = 0.08  # a narrower range is noise, not counterstain; ours
DAB_PER_OD: Final = 125  # grey steps per unit of DAB OD: 0.008 OD a step, 2.04 OD at 255
FRACTION_BITS: Final = 2  # of the packed look-up tables
BAND: Final = 32  # rows of the nuclear image that are worked through at a time
DAB_SHADE_OD: Final = 0.35  # DAB that outweighs the whole hematoxylin range; ours
SHADE: Final = np.int32(round(SHADES / (DAB_SHADE_OD * DAB_PER_OD) * 2**16))  # what a DAB step takes away
HIDDEN_UNDER_DAB: Final = 100  # DAB grey, 0.8 OD: hematoxylin under so much is not measured; ours
LEAST_BROWN: Final = 0.1  # OD of blue less red in a unit of DAB; that of trusted vectors is 0.15 or more
CAP: Final = 2  # ... and under less, so many of its greys at the most for each of DAB's; ours


class Stains(NamedTuple):
    """Look-up tables from 8-bit RGB to both stains at once.

    Attributes
    ----------
    packed
        int32 ``(3, 256)``: hematoxylin in the high, DAB in the low 16 bits, fixed point.
    range_od
        Hematoxylin OD of `SHADES` grey steps.
    low_od
        Hematoxylin OD of grey value `BASE`: `BETWEEN` of that of a nucleus.
    blueness
        OD of red less that of blue that hematoxylin adds, of that of blue less red that as much DAB adds.
    """

    packed: NDArray[np.int32]
    range_od: float
    low_od: float
    blueness: float


def stain_tables(stain: StainProfile) -> Stains:
    """Tables for one slide; OD is base 10 against the slide's own background (spec §4.1)."""
    low_od = BETWEEN * stain.hematoxylin_high_od
    range_od = max(stain.hematoxylin_high_od - low_od, MIN_RANGE_OD)
    amounts = stain_table(stain)  # (3, 256, stain)
    one = 1 << FRACTION_BITS
    hem = np.rint(amounts[:, :, 0] * (SHADES / range_od * one)).astype(np.int32)
    dab = np.rint(amounts[:, :, 1] * (DAB_PER_OD * one)).astype(np.int32)
    hem[0] += round((BASE - low_od * SHADES / range_od) * one)
    (h_red, _, h_blue), (d_red, _, d_blue) = unit(stain.hematoxylin), unit(stain.dab)
    blueness = float((h_red - h_blue) / max(d_blue - d_red, LEAST_BROWN))
    return Stains((hem << 16) + dab, range_od, low_od, blueness)


class Planes(NamedTuple):
    """Images of one region."""

    raw: NDArray[np.uint8]  # DAB, full resolution
    dab: NDArray[np.uint8]  # the same, lightly smoothed
    nuclear: NDArray[np.uint8]  # nuclear image; this and the following at about 0.5 um/px
    soft: NDArray[np.uint8]  # the same, lightly smoothed
    wide: NDArray[np.uint8]  # the same, smoothed over its surroundings
    seed: NDArray[np.int16]  # the same over chromatin, less its surroundings: about a peak a nucleus
    stains: NDArray[np.uint16]  # hematoxylin in the high byte, `dab` in the low one: most look at both


class Smoothing(NamedTuple):
    """Weights from `gaussian_taps`."""

    light: NDArray[np.int32]
    seed: NDArray[np.int32]
    wide: NDArray[np.int32]  # the longest


@njit(nogil=True, cache=True, boundscheck=False)
def fill_planes(
    rgb: NDArray[np.uint8], y0: int, x0: int, packed: NDArray[np.int32], smoothing: Smoothing, planes: Planes
) -> None:
    """Fill `Planes` from pixel ``(y0, x0)`` of ``rgb`` (h, w, 3) on.

    What is cut out beforehand would be compiled apart. ``packed`` is `Stains.packed`. Band by band: what has
    been unmixed is smoothed while it is in the cache.
    """
    h, w = planes.nuclear.shape
    factor = len(planes.raw) // h
    near, far = len(smoothing.light) - 1, len(smoothing.wide) - 1
    chromatin = np.empty((BAND + far, w), np.uint8)
    light = full = 0  # rows that are smoothed lightly, and in full
    for top in range(0, h, BAND):
        bottom = min(top + BAND, h)
        if factor == 2:
            unmix_binned(rgb, y0, x0, packed, planes, top, bottom)
        else:
            unmix_plain(rgb, y0, x0, packed, planes, top, bottom)
        first, light = light, bottom if bottom == h else bottom - near
        blur(planes.raw, smoothing.light, planes.dab[factor * first : factor * light], factor * first)
        blur(planes.nuclear, smoothing.light, planes.soft[first:light], first)
        for y in range(first, light):
            _join(planes.dab[factor * y], factor, planes.stains[y])
        first, full = full, bottom if bottom == h else max(bottom - far, full)
        blur(planes.nuclear, smoothing.wide, planes.wide[first:full], first)
        blur(planes.nuclear, smoothing.seed, chromatin[: full - first], first)
        for y in range(first, full):
            _subtract(chromatin[y - first], planes.wide[y], planes.seed[y])


@njit(nogil=True, cache=True, boundscheck=False)
def unmix_binned(
    rgb: NDArray[np.uint8],
    y0: int,
    x0: int,
    packed: NDArray[np.int32],
    planes: Planes,
    top: int,
    bottom: int,
) -> None:
    """Unmix ``rgb`` into rows ``top`` to ``bottom``: raw DAB and, as 2 x 2 means, the others."""
    w = 2 * planes.nuclear.shape[1]
    both, blue = np.empty(w, np.int32), np.empty((2, w), np.int32)
    for y in range(top, bottom):
        for k in range(2):
            _look_up(rgb[y0 + 2 * y + k, x0:], packed[0], packed[1], packed[2], both)
            _part(both, planes.raw[2 * y + k], blue[k])
        upper, lower = planes.raw[2 * y], planes.raw[2 * y + 1]
        _average(blue[0], blue[1], upper, lower, planes.stains[y], planes.nuclear[y])


@njit(nogil=True, cache=True, boundscheck=False)
def unmix_plain(
    rgb: NDArray[np.uint8],
    y0: int,
    x0: int,
    packed: NDArray[np.int32],
    planes: Planes,
    top: int,
    bottom: int,
) -> None:
    """The same where a pixel already is about half a micrometre wide."""
    w = planes.nuclear.shape[1]
    both, blue = np.empty(w, np.int32), np.empty(w, np.int32)
    for y in range(top, bottom):
        _look_up(rgb[y0 + y, x0:], packed[0], packed[1], packed[2], both)
        _part(both, planes.raw[y], blue)
        _shade(blue, planes.raw[y], planes.stains[y], planes.nuclear[y])


# Loops over a row that become vector code, the first apart: in 32 bits, and each in a function of its own.


@njit(nogil=True, cache=True, boundscheck=False)
def _look_up(
    row: NDArray[np.uint8],
    red: NDArray[np.int32],
    green: NDArray[np.int32],
    blue: NDArray[np.int32],
    both: NDArray[np.int32],
) -> None:
    """Packed stains of a row of pixels (w, 3)."""
    for x in range(len(both)):
        both[x] = red[row[x, 0]] + green[row[x, 1]] + blue[row[x, 2]]


@njit(nogil=True, cache=True, boundscheck=False)
def _part(both: NDArray[np.int32], dab: NDArray[np.uint8], hem: NDArray[np.int32]) -> None:
    """DAB as grey, and hematoxylin still in fixed point."""
    half, none, white = np.int32(1 << (FRACTION_BITS - 1)), np.int32(0), np.int32(255)
    for x in range(len(both)):
        brown = np.int32(np.int16(both[x]))
        hem[x] = np.int32(both[x] - brown) >> 16
        dab[x] = min(max(np.int32(np.int32(brown + half) >> FRACTION_BITS), none), white)


@njit(nogil=True, cache=True, boundscheck=False)
def _average(
    upper: NDArray[np.int32],
    lower: NDArray[np.int32],
    dab0: NDArray[np.uint8],
    dab1: NDArray[np.uint8],
    stains: NDArray[np.uint16],
    nuclear: NDArray[np.uint8],
) -> None:
    """Hematoxylin and nuclear image from two rows of pixels."""
    half, none, white = np.int32(2 << FRACTION_BITS), np.int32(0), np.int32(255)
    for x in range(len(stains)):
        blue = np.int32(upper[2 * x] + upper[2 * x + 1] + lower[2 * x] + lower[2 * x + 1] + half)
        blue = np.int32(blue >> (FRACTION_BITS + 2))
        above = np.int32(dab0[2 * x]) + np.int32(dab0[2 * x + 1])
        brown = np.int32(above + np.int32(dab1[2 * x]) + np.int32(dab1[2 * x + 1]) + 2) >> 2
        taken = np.int32(np.int32(np.int32(brown) * SHADE) + 2**15) >> 16
        blue = min(
            blue,
            np.int32(
                np.int32(BASE) + max(np.int32(np.int32(HIDDEN_UNDER_DAB) - brown) * np.int32(CAP), none)
            ),
        )
        stains[x] = np.int32(min(max(blue, none), white)) << 8
        nuclear[x] = min(max(np.int32(blue - taken), none), white)


@njit(nogil=True, cache=True, boundscheck=False)
def _shade(
    blue: NDArray[np.int32], dab: NDArray[np.uint8], stains: NDArray[np.uint16], nuclear: NDArray[np.uint8]
) -> None:
    """Hematoxylin and nuclear image from one row of pixels."""
    half = np.int32(1 << (FRACTION_BITS - 1))
    for x in range(len(stains)):
        h = np.int32(np.int32(blue[x] + half) >> FRACTION_BITS)
        cap = np.int32(
            max(np.int32(np.int32(HIDDEN_UNDER_DAB) - np.int32(dab[x])) * np.int32(CAP), np.int32(0))
        )
        h = min(h, np.int32(np.int32(BASE) + cap))
        stains[x] = np.int32(min(max(h, np.int32(0)), np.int32(255))) << 8
        nuclear[x] = min(max(h - ((dab[x] * SHADE + 2**15) >> 16), 0), 255)


@njit(nogil=True, cache=True, boundscheck=False)
def _join(dab: NDArray[np.uint8], factor: int, stains: NDArray[np.uint16]) -> None:
    """Put DAB beside hematoxylin, of every ``factor``-th pixel."""
    for x in range(len(stains)):
        stains[x] |= dab[factor * x]


@njit(nogil=True, cache=True, boundscheck=False)
def _subtract(one: NDArray[np.uint8], other: NDArray[np.uint8], difference: NDArray[np.int16]) -> None:
    for x in range(len(difference)):
        difference[x] = np.int16(one[x]) - np.int16(other[x])
