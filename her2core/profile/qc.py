"""Slide quality: pen, folds, bubbles, focus, saturation, and the verdict with its reasons.

The measures follow HistoQC's (Janowczyk et al. 2019, JCO Clin Cancer Inform 3:1) in kind, rebuilt for two
stains of known colour. Pen, folds and bubbles are seen on the coarse picture (about 8 µm/px); focus and
saturation on the sampled tiles.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from her2core.errors import Reason
from her2core.kernels.stain import STRONG_DAB_OD, Vector, optical_density, unmix
from her2core.params import ProfileParams
from her2core.profile.tissue import channels, unscanned, without_small
from her2core.records import Quality, StainProfile

# Ink, by the direction of its optical density. Ours; a test holds that no mixture of up to 0.35 OD of
# hematoxylin and 1.4 of DAB, averaged over 8 µm, is taken for ink.
INK_OD = 0.35  # per-channel mean OD at 8 µm/px from which colour is judged
# How much of another channel's OD an ink has at most, by its colour:
GREEN_IN_RED, GREEN_IN_BLUE = 0.75, 0.85  # green ink absorbs least in green
BLUE_IN_RED = 0.25  # blue ink: blue, of red
VIOLET_IN_OTHERS = 0.55  # violet ink: blue, of the larger of red and green
RED_IN_GREEN, RED_INK_BLUE = 0.25, 1.3  # red ink: red, of green; and blue, of green
VIOLET_OD = 0.45  # ... from which what looks like hematoxylin is ink: 0.8 OD of it, averaged over 8 µm
BLACK_OD = 0.70  # black ink darkens every channel at least this much ...
BLACK_SPREAD = 0.40  # ... and alike: (max - min) / max
STROKE_UM = 300.0  # half of a broad stroke and its margins
PEN_GAP_UM = 80.0  # ink that strong stain hides between ink is ink
FOLD_GAIN = 1.1  # a mean over 24 µm cannot hold more hematoxylin than nuclei do, unless tissue lies double
FOLD_FLOOR_OD = 0.15  # ... and is dark at all
FOLD_UM = 24.0  # width of that mean
FOLD_PART = 4  # of the least object: a fold that is smaller than this part, a quarter, is none
BUBBLE_OD = 0.08  # the rim of an air bubble refracts: dark in every channel alike
BUBBLE_SPREAD = 0.15  # (max - min) / max; mixtures of the two stains have 0.18 and more
BUBBLE_MIN_UM = 150.0  # smaller rings are fat cells, glands and vessels
BUBBLE_ASPECT = (0.6, 1.67)  # width over height of a bubble's box
BUBBLE_RIM = 0.4  # of a bubble's area: a rim is no more
BUBBLE_FILL = (0.65, 0.9)  # of its box that a bubble fills; a disc fills 0.785
LEAST_PIXELS = 100  # on fewer pixels of tissue focus cannot be measured; ours
DETAIL_UM = 8.0  # about one cell; ours
LAPLACIAN_ROUNDING = 20 / 12  # variance: the kernel's squared weights (20) times that of rounding (1/12)
BAND_ROWS = 256  # of the coarse picture, worked on at once
SATURATED = 6  # grey level at and below which OD no longer measures amounts (1.6 OD and more)


def find_pen(
    rgb: npt.NDArray[np.uint8], i0: Vector, um_px: float, params: ProfileParams
) -> npt.NDArray[np.bool_]:
    """Felt-pen ink (blue, violet, green, red, black) on the coarse picture, grown by ``pen_margin_um``.

    Parameters
    ----------
    rgb
        (h, w, 3) coarse picture.
    """
    ink = np.concatenate([_inked(rows, i0) for rows in _bands(rgb)])
    ink = without_small(ink, params.min_pen_um2 / (um_px * um_px))
    if not ink.any():
        return ink
    joined = cv2.morphologyEx(ink.astype(np.uint8), cv2.MORPH_CLOSE, _disc(PEN_GAP_UM / um_px))
    grown: npt.NDArray[np.bool_] = cv2.dilate(joined, _disc(params.pen_margin_um / um_px)) != 0
    return grown


def _inked(rgb: npt.NDArray[np.uint8], i0: Vector) -> npt.NDArray[np.bool_]:
    """Whether each pixel has the optical density of ink."""
    red, green, blue = od = channels(np.maximum(optical_density(rgb, i0), 0))
    mean, highest, lowest = od.mean(axis=0), od.max(axis=0), od.min(axis=0)
    coloured = mean > INK_OD
    green_ink = (mean > INK_OD / 2) & (green < GREEN_IN_RED * red) & (green < GREEN_IN_BLUE * blue)
    blue_ink = coloured & (blue < BLUE_IN_RED * red)
    violet_ink = (mean > VIOLET_OD) & (blue < VIOLET_IN_OTHERS * np.maximum(red, green))
    red_ink = coloured & (red < RED_IN_GREEN * green) & (blue < RED_INK_BLUE * green)
    black_ink = (lowest > BLACK_OD) & (highest - lowest < BLACK_SPREAD * highest)
    ink: npt.NDArray[np.bool_] = green_ink | blue_ink | violet_ink | red_ink | black_ink
    return ink & ~unscanned(rgb)


def under_pen(
    pen: npt.NDArray[np.bool_], tissue: npt.NDArray[np.bool_], um_px: float
) -> npt.NDArray[np.bool_]:
    """Pen that hides tissue: where tissue lies about it within `STROKE_UM`. Pen on glass hides nothing."""
    if not pen.any():
        return pen
    edge = 2 * round(STROKE_UM / um_px) + 1
    around = cv2.copyMakeBorder(tissue.astype(np.uint8), edge, edge, edge, edge, cv2.BORDER_CONSTANT, value=0)
    closed = cv2.morphologyEx(around, cv2.MORPH_CLOSE, np.ones((edge, edge), np.uint8))
    hidden: npt.NDArray[np.bool_] = (closed[edge:-edge, edge:-edge] != 0) & pen
    return hidden


def find_folds(
    rgb: npt.NDArray[np.uint8], stain: StainProfile, um_px: float, params: ProfileParams
) -> npt.NDArray[np.bool_]:
    """Tissue lying double: more hematoxylin on average than this slide's nuclei hold.

    Of tissue threefold, a quarter to a half is found; the measure is strict, for what it marks is cut out,
    and dense lymphocytes must not be. Strong DAB hides hematoxylin, and folds are not found.
    """
    edge = 2 * int(FOLD_UM / 2 / um_px) + 1
    milli = np.concatenate([_milli_od(rows, stain) for rows in _bands(rgb)])
    mean = cv2.blur(milli, (edge, edge), borderType=cv2.BORDER_REPLICATE)
    least = 1000 * max(FOLD_GAIN * stain.hematoxylin_high_od, FOLD_FLOOR_OD)
    double = (mean[..., 0] > least) & (mean[..., 1] < 1000 * STRONG_DAB_OD)
    return without_small(double, params.min_object_um2 / FOLD_PART / (um_px * um_px))


def _milli_od(rgb: npt.NDArray[np.uint8], stain: StainProfile) -> npt.NDArray[np.int16]:
    """Hematoxylin and DAB in milli-OD, (h, w, 2)."""
    return np.rint(1000 * unmix(rgb, stain)[..., :2]).astype(np.int16)


def find_bubbles(rgb: npt.NDArray[np.uint8], i0: Vector, um_px: float) -> npt.NDArray[np.bool_]:
    """Air bubbles: thin, closed, roundish, colourless rims, filled in.

    Bubbles without a rim, or cut by the edge of the slide, are not found.
    """
    rim = np.concatenate([_rim(rows, i0) for rows in _bands(rgb)])
    found = np.zeros(rim.shape, np.bool_)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(rim.astype(np.uint8), connectivity=8)
    for k in range(1, count):
        x, y, w, h, area = (int(v) for v in stats[k])
        if min(w, h) * um_px < BUBBLE_MIN_UM or not BUBBLE_ASPECT[0] <= w / h <= BUBBLE_ASPECT[1]:
            continue
        ring = np.pad((labels[y : y + h, x : x + w] == k).astype(np.uint8), 1)
        outside = ring.copy()
        cv2.floodFill(outside, None, (0, 0), 1)
        filled = (ring != 0) | (outside == 0)
        full = filled.sum() / (w * h)
        if area < BUBBLE_RIM * filled.sum() and BUBBLE_FILL[0] <= full <= BUBBLE_FILL[1]:
            found[y : y + h, x : x + w] |= filled[1:-1, 1:-1]
    return found


def _rim(rgb: npt.NDArray[np.uint8], i0: Vector) -> npt.NDArray[np.bool_]:
    """Whether each pixel is dark without colour."""
    od = channels(optical_density(rgb, i0))
    highest, lowest = od.max(axis=0), od.min(axis=0)
    grey: npt.NDArray[np.bool_] = (lowest > BUBBLE_OD) & (highest - lowest < BUBBLE_SPREAD * highest)
    return grey


def sharpness(rgb: npt.NDArray[np.uint8], tissue: npt.NDArray[np.bool_], um_px: float) -> float:
    """Focus of one tile at about 0.5 µm/px: Laplacian variance over the variance of detail, on tissue.

    Detail is the grey level less its mean over `DETAIL_UM`. Dividing by it takes out how strongly, and in how
    large nests, the tile is stained; what the rounding to 8 bits adds to the Laplacian is taken off first.
    In focus the ratio is 0.5-3 (0.25 where broad strong membranes are all there is); blurred by another 1 µm
    (standard deviation) it is below 0.17.
    """
    where = np.flatnonzero(tissue)
    if len(where) < LEAST_PIXELS:
        return 0.0
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    edge = 2 * int(DETAIL_UM / um_px / 2) + 1
    laplacian = cv2.Laplacian(grey, cv2.CV_16S, ksize=1).ravel()[where].astype(np.float64)
    surround = cv2.blur(grey, (edge, edge), borderType=cv2.BORDER_REFLECT_101)
    detail = grey.ravel()[where].astype(np.float64) - surround.ravel()[where]
    return max(float(laplacian.var()) - LAPLACIAN_ROUNDING, 0.0) / max(float(detail.var()), 1.0)


@dataclass(frozen=True, slots=True)
class Measures:
    """What `judge` weighs; fractions are of the tissue before artefacts were taken out."""

    tissue_area_mm2: float
    sharp_fraction: float
    pen_fraction: float
    fold_fraction: float
    bubble_fraction: float
    saturated_fraction: float
    residual_p95_od: float
    background_known: bool
    vectors_distrusted: bool


def judge(measures: Measures, i0: Vector, mpp: float, params: ProfileParams) -> Quality:
    """Verdict and reasons: ``fail`` where no score can be given, ``warn`` where one reads it with care."""
    m = measures
    fail: list[Reason] = []
    warn: list[Reason] = []
    if m.tissue_area_mm2 < params.min_tissue_mm2:
        fail.append(Reason.INSUFFICIENT_TISSUE)
    elif m.tissue_area_mm2 < params.small_tissue_mm2:
        warn.append(Reason.INSUFFICIENT_TISSUE)
    if fail:  # nothing below was measured on anything
        return _quality(m, fail, [])
    if m.sharp_fraction < params.min_sharp_fraction / 2:
        fail.append(Reason.BLUR)
    elif m.sharp_fraction < params.min_sharp_fraction:
        warn.append(Reason.BLUR)
    artefacts = max(m.pen_fraction, m.fold_fraction, m.bubble_fraction)
    if artefacts > params.max_artefact_fraction:
        warn.append(Reason.ARTEFACT)
    if min(i0) < params.min_background / 2:
        fail.append(Reason.BACKGROUND_DARK)
    elif min(i0) < params.min_background:
        warn.append(Reason.BACKGROUND_DARK)
    if not m.background_known:
        warn.append(Reason.BACKGROUND_UNKNOWN)
    if m.vectors_distrusted or m.residual_p95_od > params.max_residual_od:
        warn.append(Reason.STAIN_FALLBACK)
    if m.saturated_fraction > params.max_saturated_fraction:
        warn.append(Reason.SATURATION)
    if mpp > params.max_mpp:
        warn.append(Reason.RESOLUTION_LOW)
    return _quality(m, fail, warn)


def _quality(m: Measures, fail: list[Reason], warn: list[Reason]) -> Quality:
    return Quality(
        verdict="fail" if fail else "warn" if warn else "pass",
        reasons=tuple(str(reason) for reason in (*fail, *warn)),
        tissue_area_mm2=m.tissue_area_mm2,
        sharp_fraction=m.sharp_fraction,
        pen_fraction=m.pen_fraction,
        fold_fraction=m.fold_fraction,
        bubble_fraction=m.bubble_fraction,
        saturated_fraction=m.saturated_fraction,
        residual_p95_od=m.residual_p95_od,
    )


def _bands(rgb: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.uint8]]:
    """The picture in bands of rows, so that densities of a large slide are never held at once."""
    return [rgb[y : y + BAND_ROWS] for y in range(0, len(rgb), BAND_ROWS)]


def _disc(pixels: float) -> npt.NDArray[np.uint8]:
    edge = 2 * round(pixels) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (edge, edge)), np.uint8)
