"""Where a slide's quality was poor: the areas behind the fractions of its profile, found again.

Tables keep the fractions, the pyramid the tissue that was left. The coarse picture, the frozen colours and
the parameters give the same areas again, as a test holds.
"""

from __future__ import annotations

from dataclasses import dataclass

from her2core.params import ProfileParams
from her2core.profile import qc, tissue
from her2core.profile.build import two_stains
from her2core.profile.sampling import LevelReader, Mask, SampledSlide
from her2core.records import Box, DishStain, Fluorescence, PyramidRef, SlideProfile


@dataclass(frozen=True, slots=True)
class Excluded:
    """What quality control found on a bright-field slide.

    Attributes
    ----------
    pen, folds, bubbles
        Bool ``(h, w)`` on the coarse grid. Folds and bubbles were tissue and are none of it any more; pen
        is what hides tissue, and is none either.
    blurred
        Sampled squares out of focus, level-0 pixels; they stay in the tissue.
    sampled
        How many squares were looked at.
    step
        Level-0 pixels along the edge of a pixel of the grid.
    """

    pen: Mask
    folds: Mask
    bubbles: Mask
    blurred: tuple[Box, ...]
    sampled: int
    step: int


def excluded_areas(
    reader: LevelReader, ref: PyramidRef, profile: SlideProfile, params: ProfileParams
) -> Excluded | None:
    """Find again what a profile excluded or doubted; None of fluorescence, which has no such measure."""
    if isinstance(profile.stain, Fluorescence):
        return None
    colours = two_stains(profile.stain) if isinstance(profile.stain, DishStain) else profile.stain
    slide = SampledSlide(reader, ref, params)
    coarse, step = slide.coarse(), 2**slide.coarse_halvings
    um_px = ref.mpp * step
    pen = qc.find_pen(coarse, colours.i0, um_px, params)
    mask = tissue.find_tissue(coarse, colours.i0, pen, um_px, params)
    boxes = slide.tissue_boxes(mask)
    tile_um_px = ref.mpp * 2**slide.tile_halvings
    blurred = tuple(
        box
        for box, (rgb, part) in zip(boxes, slide.tissue_tiles(mask), strict=True)
        if qc.sharpness(rgb, part, tile_um_px) < params.sharp_ratio
    )
    return Excluded(
        pen=qc.under_pen(pen, mask, um_px),
        folds=qc.find_folds(coarse, colours, um_px, params) & mask,
        bubbles=qc.find_bubbles(coarse, colours.i0, um_px) & mask,
        blurred=blurred,
        sampled=len(boxes),
        step=step,
    )
