"""Stage ``profile``: everything slide-global, measured once and frozen before any cell is.

Two looks at the slide: one coarse picture (about 8 µm/px) for glass, tissue and artefacts, and a few
dozen small tiles (about 0.5 µm/px) for stain colour and focus; see ``sampling``.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from her2core.kernels.ish.dish import estimate_dish
from her2core.kernels.stain import (
    DEFAULT_HEMATOXYLIN_RANGE,
    MIN_OD_NORM,
    STRONG_DAB_OD,
    HematoxylinRange,
    StainVectors,
    VectorRules,
    estimate_vectors,
    optical_density,
    unmix,
)
from her2core.params import ProfileParams
from her2core.profile import qc, tissue
from her2core.profile.fluorescence import fluorescence_profile
from her2core.profile.sampling import LevelReader, Mask, Pixels, SampledSlide
from her2core.records import Assay, DishStain, PyramidRef, SlideProfile, StainProfile

log = logging.getLogger(__name__)

TISSUE_LABEL = "tissue"
VECTOR_PIXELS = 400_000  # about this many pixels at most, in a fixed stride, inform the stain vectors
RESIDUAL_QUANTILE = 0.95  # of the OD that the two stains leave unexplained (spec §7.2)


def build_profile(
    reader: LevelReader, ref: PyramidRef, params: ProfileParams, assay: Assay = Assay.IHC
) -> tuple[SlideProfile, npt.NDArray[np.uint8]]:
    """Measure a slide's background, stains, tissue and quality.

    Returns
    -------
    profile, mask
        The record, and the tissue mask (h, w) uint8 0/1 on the grid of level ``profile.tissue_level``.
    """
    slide = SampledSlide(reader, ref, params)
    if assay == Assay.FISH:
        levels, quality, nuclear = fluorescence_profile(slide, ref, params)
        level, on_level = slide.on_level(nuclear)
        return SlideProfile(levels, quality, level, TISSUE_LABEL), on_level
    coarse = slide.coarse()
    um_px = ref.mpp * 2**slide.coarse_halvings
    background = _background(slide, coarse, params)
    i0 = background.i0
    pen = qc.find_pen(coarse, i0, um_px, params)
    mask = tissue.find_tissue(coarse, i0, pen, um_px, params)

    samples = list(slide.tissue_tiles(mask))
    tile_um_px = ref.mpp * 2**slide.tile_halvings
    stain, colours, distrusted = _stain(assay, background, samples, tile_um_px, params)

    folds = qc.find_folds(coarse, colours, um_px, params) & mask
    bubbles = qc.find_bubbles(coarse, i0, um_px) & mask
    hidden = qc.under_pen(pen, mask, um_px)
    whole = max(int((mask | hidden).sum()), 1)
    mask = mask & ~folds & ~bubbles
    sharp, saturated, residual = _tile_measures(samples, colours, tile_um_px, params)
    measures = qc.Measures(
        tissue_area_mm2=round(int(mask.sum()) * um_px * um_px / 1e6, 4),
        sharp_fraction=sharp,
        pen_fraction=round(int(hidden.sum()) / whole, 4),
        fold_fraction=round(int(folds.sum()) / whole, 4),
        bubble_fraction=round(int(bubbles.sum()) / whole, 4),
        saturated_fraction=saturated,
        residual_p95_od=residual,
        background_known=background.reason is None,
        vectors_distrusted=distrusted,
    )
    quality = qc.judge(measures, i0, ref.mpp, params if assay == Assay.IHC else _ish_gates(params))
    log.info("%s: %s %s, I0 %s, %s", ref.path, quality.verdict, quality.reasons, i0, stain.source)
    level, on_level = slide.on_level(mask)
    return SlideProfile(stain, quality, level, TISSUE_LABEL), on_level


def _background(slide: SampledSlide, coarse: Pixels, params: ProfileParams) -> tissue.Background:
    """Background of a bright-field slide: measured on glass, else stated, else guessed.

    What is stated is of another light where the slide's own patches outshine it, and then of no use.
    """
    guess = tissue.bright_end(*slide.histograms(tissue.PATCH_UM))
    found = tissue.without_false_glass(tissue.find_background(coarse, params), guess)
    if found.source == "bright_end" and params.background is not None:
        return tissue.without_false_glass(tissue.Background(params.background, "stated"), guess)
    return found


def _stain(
    assay: Assay,
    background: tissue.Background,
    samples: list[tuple[Pixels, Mask]],
    um_px: float,
    params: ProfileParams,
) -> tuple[StainProfile | DishStain, StainProfile, bool]:
    """The slide's colour; the same as two stains, which quality control is made for; whether it is doubtful.

    Of bright-field ISH the second stain is the red chromogen: black silver is too little to matter to folds.
    """
    if assay == Assay.DISH:
        dish = estimate_dish(
            samples,
            background.i0,
            um_px,
            i0_source=background.source,
            max_angle_deg=params.max_vector_angle_deg,
        )
        return dish, two_stains(dish), dish.source == "reference"
    vectors = estimate_vectors(_stained_pixels(samples), background.i0, _vector_rules(params))
    stain = _stain_profile(background, vectors, samples, um_px)
    return stain, stain, vectors.distrusted


def two_stains(dish: DishStain) -> StainProfile:
    """The colours of bright-field ISH as quality control takes them: hematoxylin and a second stain."""
    return StainProfile(
        i0=dish.i0,
        hematoxylin=dish.hematoxylin,
        dab=dish.red,
        source=dish.source,
        fallback=dish.fallback,
        hematoxylin_angle_deg=0.0,
        dab_angle_deg=0.0,
        hematoxylin_low_od=dish.hematoxylin_low_od,
        hematoxylin_high_od=dish.hematoxylin_high_od,
    )


def _ish_gates(params: ProfileParams) -> ProfileParams:
    """Gates of ISH: a single field of view may be all there is, and the number of nuclei guards the score."""
    least = params.min_ish_tissue_mm2
    return replace(params, min_tissue_mm2=least, small_tissue_mm2=least, max_mpp=params.max_ish_mpp)


def _vector_rules(params: ProfileParams) -> VectorRules:
    return VectorRules(
        max_angle_deg=params.max_vector_angle_deg,
        min_separation_deg=params.min_vector_separation_deg,
        min_dab_fraction=params.min_dab_fraction,
    )


def _stained_pixels(samples: list[tuple[Pixels, Mask]]) -> Pixels:
    """Tissue pixels of all tiles, thinned by a fixed stride."""
    parts = [np.empty((0, 3), np.uint8)]
    a_tile = VECTOR_PIXELS // max(len(samples), 1)
    for rgb, mask in samples:
        pixels = _where(rgb, mask)
        parts.append(pixels[:: max(len(pixels) // a_tile, 1)])
    return np.concatenate(parts)


def _where(rgb: Pixels, mask: Mask) -> Pixels:
    """``rgb[mask]``, in a fraction of its time."""
    return rgb.reshape(-1, 3).take(np.flatnonzero(mask), axis=0)


def _stain_profile(
    background: tissue.Background, vectors: StainVectors, samples: list[tuple[Pixels, Mask]], um_px: float
) -> StainProfile:
    low, high = DEFAULT_HEMATOXYLIN_RANGE
    stain = StainProfile(
        i0=background.i0,
        hematoxylin=vectors.hematoxylin,
        dab=vectors.dab,
        source=vectors.source,
        fallback=vectors.fallback,
        hematoxylin_angle_deg=vectors.hematoxylin_angle_deg,
        dab_angle_deg=vectors.dab_angle_deg,
        hematoxylin_low_od=low,
        hematoxylin_high_od=high,
        i0_source=background.source,
        i0_brightest=background.brightest,
    )
    measured = HematoxylinRange()
    for rgb, mask in samples:
        amounts = unmix(rgb, stain)
        measured.add(amounts[..., 0], mask & (amounts[..., 1] < STRONG_DAB_OD), um_px)
    low, high = measured.result() or (low, high)
    return replace(stain, hematoxylin_low_od=low, hematoxylin_high_od=high)


def _tile_measures(
    samples: list[tuple[Pixels, Mask]], stain: StainProfile, um_px: float, params: ProfileParams
) -> tuple[float, float, float]:
    """Share of tiles in focus, share of saturated tissue, 95th percentile of the residual OD."""
    if not samples:
        return 0.0, 0.0, 0.0
    sharp = saturated = pixels = 0
    residuals = np.zeros(1000, np.int64)  # milli-OD
    for rgb, mask in samples:
        sharp += qc.sharpness(rgb, mask, um_px) >= params.sharp_ratio
        on_tissue = _where(rgb, mask)
        red, green, blue = on_tissue.T  # column by column: NumPy is slow along an axis of three
        saturated += int((np.minimum(np.minimum(red, green), blue) <= qc.SATURATED).sum())
        pixels += len(on_tissue)
        red, green, blue = optical_density(on_tissue, stain.i0).T
        stained = np.sqrt(red * red + green * green + blue * blue) >= MIN_OD_NORM
        residual = np.abs(unmix(_where(on_tissue, stained), stain)[:, 2])
        residuals += np.bincount(np.minimum(residual * 1000, 999).astype(np.int64), minlength=1000)
    p95 = int(np.searchsorted(np.cumsum(residuals), RESIDUAL_QUANTILE * residuals.sum())) / 1000
    return round(sharp / len(samples), 4), round(saturated / max(pixels, 1), 4), p95
