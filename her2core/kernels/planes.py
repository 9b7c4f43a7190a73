"""Stains at once: look-up tables from RGB, DAB at full resolution, hematoxylin at half a micrometre a pixel.

Hematoxylin is measured in units of the slide's own range (`SHADES` from between nuclei to inside one), so
that a faint counterstain is as good as a strong one. In the nuclear image DAB counts against it: a nucleus
is bluer *or* less brown than its rim, and nests of strong membranes show as the pale pockets they enclose.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from her2core.kernels.stain import stain_table
from her2core.records import StainProfile

SHADES: Final = 64  # grey steps from the level between nuclei to hematoxylin_high_od
BASE: Final = 96  # grey value of the level between nuclei
BETWEEN: Final = 0.25  # that level, of hematoxylin_high_od: the measured one follows the mix of tissues; ours
MIN_RANGE_OD: Final = 0.08  # a narrower range is noise, not counterstain; ours
DAB_PER_OD: Final = 125  # grey steps per unit of DAB OD: 0.008 OD a step, 2.04 OD at 255
FRACTION_BITS: Final = 2  # of the packed look-up tables
DAB_SHADE_OD: Final = 0.35  # DAB that outweighs the whole hematoxylin range; ours


class Stains(NamedTuple):
    """Look-up tables from 8-bit RGB to both stains at once.

    Attributes
    ----------
    packed
        int32 ``(3, 256)``: hematoxylin in the high, DAB in the low 16 bits, fixed point.
    shade
        int32 ``(256,)``: what DAB takes from the nuclear image.
    range_od
        Hematoxylin OD of `SHADES` grey steps.
    low_od
        Hematoxylin OD of grey value `BASE`: `BETWEEN` of that of a nucleus.
    """

    packed: NDArray[np.int32]
    shade: NDArray[np.int32]
    range_od: float
    low_od: float


def stain_tables(stain: StainProfile) -> Stains:
    """Tables for one slide; OD is base 10 against the slide's own background (spec 4.1)."""
    low_od = BETWEEN * stain.hematoxylin_high_od
    range_od = max(stain.hematoxylin_high_od - low_od, MIN_RANGE_OD)
    amounts = stain_table(stain)  # (3, 256, stain)
    one = 1 << FRACTION_BITS
    hem = np.rint(amounts[:, :, 0] * (SHADES / range_od * one)).astype(np.int32)
    dab = np.rint(amounts[:, :, 1] * (DAB_PER_OD * one)).astype(np.int32)
    hem[0] += round((BASE - low_od * SHADES / range_od) * one)
    shade = np.rint(np.arange(256) * (SHADES / (DAB_SHADE_OD * DAB_PER_OD))).astype(np.int32)
    return Stains((hem << 16) + dab, shade, range_od, low_od)


@njit(nogil=True, cache=True, boundscheck=False)
def unmix_binned(rgb: Any, packed: Any, shade: Any, dab: Any, hem: Any, nuclear: Any) -> None:
    """Unmix ``rgb`` (2h, 2w, 3): DAB (2h, 2w) and, as 2 x 2 means, hematoxylin and nuclear image (h, w)."""
    h, w = hem.shape
    red, green, blue = packed[0], packed[1], packed[2]
    half = 1 << (FRACTION_BITS - 1)
    for y in range(h):
        upper, lower = rgb[2 * y], rgb[2 * y + 1]
        dab0, dab1 = dab[2 * y], dab[2 * y + 1]
        for x in range(w):
            hsum = np.int32(0)
            dsum = np.int32(0)
            for i in range(2 * x, 2 * x + 2):
                p = red[upper[i, 0]] + green[upper[i, 1]] + blue[upper[i, 2]]
                q = red[lower[i, 0]] + green[lower[i, 1]] + blue[lower[i, 2]]
                a: Any = np.int32(np.int16(p))
                b: Any = np.int32(np.int16(q))
                hsum += ((p - a) >> 16) + ((q - b) >> 16)
                a = min(max((a + half) >> FRACTION_BITS, 0), 255)
                b = min(max((b + half) >> FRACTION_BITS, 0), 255)
                dab0[i] = a
                dab1[i] = b
                dsum += a + b
            hsum = (hsum + 4 * half) >> (FRACTION_BITS + 2)
            hem[y, x] = min(max(hsum, 0), 255)
            nuclear[y, x] = min(max(hsum - shade[(dsum + 2) >> 2], 0), 255)


@njit(nogil=True, cache=True, boundscheck=False)
def unmix_plain(rgb: Any, packed: Any, shade: Any, dab: Any, hem: Any, nuclear: Any) -> None:
    """Unmix ``rgb`` (h, w, 3) where a pixel already is about half a micrometre wide; all outputs (h, w)."""
    h, w = hem.shape
    half = 1 << (FRACTION_BITS - 1)
    for y in range(h):
        for x in range(w):
            p = packed[0, rgb[y, x, 0]] + packed[1, rgb[y, x, 1]] + packed[2, rgb[y, x, 2]]
            a = int(np.int16(p))
            h1 = (((p - a) >> 16) + half) >> FRACTION_BITS
            d1 = min(max((a + half) >> FRACTION_BITS, 0), 255)
            dab[y, x] = d1
            hem[y, x] = min(max(h1, 0), 255)
            nuclear[y, x] = min(max(h1 - shade[d1], 0), 255)


class Planes(NamedTuple):
    """Images of one region."""

    raw: NDArray[np.uint8]  # DAB, full resolution
    dab: NDArray[np.uint8]  # the same, lightly smoothed
    hem: NDArray[np.uint8]  # this and the following at about 0.5 um/px
    soft: NDArray[np.uint8]  # nuclear image, lightly smoothed
    wide: NDArray[np.uint8]  # nuclear image, smoothed over its surroundings
    seed: NDArray[np.int16]  # nuclear image against its surroundings: about a peak a nucleus
