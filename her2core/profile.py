"""Stage ``profile``: everything slide-global, measured once and frozen before any cell is.

Two looks at the slide: one coarse picture (about 8 µm/px) for glass, tissue and artefacts, and a few
dozen small tiles (about 0.5 µm/px) for stain colour and focus. Both are defined by halvings of level 0 and
by level-0 positions, never by the pyramid's chunks, so any layout of the same slide gives the same profile.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from her2core import qc, tissue
from her2core.kernels.stain import (
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
from her2core.records import Box, PyramidRef, SlideProfile, StainProfile

log = logging.getLogger(__name__)

VERSION = 1
"""Raised whenever the same pixels and parameters would give another profile."""
TISSUE_LABEL = "tissue"
MAX_COARSE_PIXELS = 16_000_000  # 48 MB of RGB: the coarse picture of an 8 cm² slide at 8 µm/px is 12.5 MP
PIXELS_A_TILE = 8192  # at most this many pixels of a tile (a fixed stride) inform the stain vectors
DEFAULT_HEMATOXYLIN_RANGE = (0.05, 0.25)  # OD, where no tissue tells; ours

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


class LevelReader(Protocol):
    """What is needed of a pyramid: fill ``out`` (h, w, 3) from a level; white outside the slide."""

    def read(self, level: int, y0: int, x0: int, out: Pixels) -> None: ...


def build_profile(
    reader: LevelReader, ref: PyramidRef, params: ProfileParams
) -> tuple[SlideProfile, npt.NDArray[np.uint8]]:
    """Measure a slide's background, stains, tissue and quality.

    Returns
    -------
    profile, mask
        The record, and the tissue mask (h, w) uint8 0/1 on the grid of level ``profile.tissue_level``.
    """
    slide = _Slide(reader, ref, params)
    coarse = slide.coarse()
    um_px = ref.mpp * 2**slide.coarse_halvings
    background = tissue.find_background(coarse, params) or tissue.bright_end(slide.histogram())
    i0 = background.i0
    pen = qc.find_pen(coarse, i0, um_px, params)
    mask = tissue.find_tissue(coarse, i0, pen, um_px, params)

    samples = list(slide.tissue_tiles(mask))
    vectors = estimate_vectors(_stained_pixels(samples), i0, _vector_rules(params))
    tile_um_px = ref.mpp * 2**slide.tile_halvings
    stain = _stain_profile(background, vectors, samples, tile_um_px)

    folds = qc.find_folds(coarse, stain, um_px, params) & mask
    bubbles = qc.find_bubbles(coarse, i0, um_px) & mask
    hidden = qc.under_pen(pen, mask, um_px)
    whole = max(int((mask | hidden).sum()), 1)
    mask = mask & ~folds & ~bubbles
    sharp, saturated, residual = _tile_measures(samples, stain, tile_um_px, params)
    measures = qc.Measures(
        tissue_area_mm2=round(int(mask.sum()) * um_px * um_px / 1e6, 4),
        sharp_fraction=sharp,
        pen_fraction=round(int(hidden.sum()) / whole, 4),
        fold_fraction=round(int(folds.sum()) / whole, 4),
        bubble_fraction=round(int(bubbles.sum()) / whole, 4),
        saturated_fraction=saturated,
        residual_p95_od=residual,
        background_known=background.reason is None,
        vectors_distrusted=vectors.distrusted,
    )
    quality = qc.judge(measures, i0, ref.mpp, params)
    log.info("%s: %s %s, I0 %s, %s", ref.path, quality.verdict, quality.reasons, i0, vectors.source)
    level, on_level = slide.on_level(mask)
    return SlideProfile(stain, quality, level, TISSUE_LABEL), on_level


class _Slide:
    """A slide seen at fixed halvings of level 0, whichever of them its pyramid stores."""

    def __init__(self, reader: LevelReader, ref: PyramidRef, params: ProfileParams) -> None:
        self._reader, self._ref, self._params = reader, ref, params
        self.height, self.width = ref.shapes[0]
        halvings = _halvings(params.tissue_um_px, ref.mpp)
        while math.ceil(self.height / 2**halvings) * math.ceil(self.width / 2**halvings) > MAX_COARSE_PIXELS:
            halvings += 1
        self.coarse_halvings = halvings
        self.tile_halvings = _halvings(params.sample_um_px, ref.mpp)
        self.tile_px0 = 2 ** max(_halvings(params.sample_tile_um, ref.mpp), self.coarse_halvings)

    def read(self, halvings: int, box: Box) -> Pixels:
        """Pixels of level-0 ``box`` (aligned to ``2**halvings``, clipped to the slide) after ``halvings``."""
        level = min(halvings, len(self._ref.shapes) - 1)
        scale = 2**level
        out = np.empty((-(-box.height // scale), -(-box.width // scale), 3), np.uint8)
        self._reader.read(level, box.y0 // scale, box.x0 // scale, out)
        for _ in range(halvings - level):
            out = halve(out)
        return out

    def coarse(self) -> Pixels:
        return self.read(self.coarse_halvings, Box(0, 0, self.height, self.width))

    def tiles(self) -> Iterator[Box]:
        """All squares of the sampling grid in an order that is fixed and scattered over the slide."""
        edge = self.tile_px0
        rows, columns = -(-self.height // edge), -(-self.width // edge)
        index = np.arange(rows * columns, dtype=np.uint64)
        iy, ix = index // np.uint64(columns), index % np.uint64(columns)
        for k in np.lexsort((index, _scatter(iy << np.uint64(32) | ix))):
            y0, x0 = int(iy[k]) * edge, int(ix[k]) * edge
            yield Box(y0, x0, min(y0 + edge, self.height), min(x0 + edge, self.width))

    def histogram(self) -> npt.NDArray[np.int64]:
        """(3, 256) counts of R, G and B over sampled tiles, tissue or not."""
        counts = np.zeros((3, 256), np.int64)
        for _, box in zip(range(self._params.sample_tiles), self.tiles(), strict=False):
            pixels = self.read(self.tile_halvings, box)
            for channel in range(3):
                counts[channel] += np.bincount(pixels[..., channel].ravel(), minlength=256)
        return counts

    def tissue_tiles(self, mask: Mask) -> Iterator[tuple[Pixels, Mask]]:
        """Sampled tiles and their tissue, the fuller ones first; nothing where there is no tissue."""
        step = 2**self.coarse_halvings
        share = _block_means(mask, self.tile_px0 // step)
        boxes = [(share[box.y0 // self.tile_px0, box.x0 // self.tile_px0], box) for box in self.tiles()]
        full = [box for part, box in boxes if part >= 0.5]
        partial = [box for part, box in boxes if 0.05 <= part < 0.5]
        for box in (full + partial)[: self._params.sample_tiles]:
            pixels = self.read(self.tile_halvings, box)
            part = mask[box.y0 // step : -(-box.y1 // step), box.x0 // step : -(-box.x1 // step)]
            repeat = 2 ** (self.coarse_halvings - self.tile_halvings)
            grown = part.repeat(repeat, axis=0).repeat(repeat, axis=1)
            yield pixels, grown[: pixels.shape[0], : pixels.shape[1]]

    def on_level(self, mask: Mask) -> tuple[int, npt.NDArray[np.uint8]]:
        """The mask on the grid of a level that the pyramid stores."""
        level = min(self.coarse_halvings, len(self._ref.shapes) - 1)
        repeat = 2 ** (self.coarse_halvings - level)
        height, width = self._ref.shapes[level]
        grown = mask.repeat(repeat, axis=0).repeat(repeat, axis=1)[:height, :width]
        return level, np.ascontiguousarray(grown, np.uint8)


def halve(rgb: Pixels) -> Pixels:
    """Mean of every 2 x 2 pixels, rounded half up; the last row and column are doubled where odd."""
    height, width = rgb.shape[:2]
    even = np.pad(rgb, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge").astype(np.uint16)
    mean = (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2] + 2) >> 2
    return mean.astype(np.uint8)


def _block_means(mask: Mask, edge: int) -> npt.NDArray[np.float64]:
    """Share of each ``edge x edge`` block that is set; blocks at the border count what lies inside."""
    starts = [np.arange(0, size, edge) for size in mask.shape]
    counts = np.add.reduceat(np.add.reduceat(mask, starts[0], axis=0, dtype=np.int64), starts[1], axis=1)
    sizes = [np.minimum(start + edge, size) - start for start, size in zip(starts, mask.shape, strict=True)]
    means: npt.NDArray[np.float64] = counts / np.multiply.outer(sizes[0], sizes[1])
    return means


def _halvings(um_px: float, mpp: float) -> int:
    """Halvings of level 0 that come nearest to ``um_px``."""
    return max(round(math.log2(um_px / mpp)), 0)


def _scatter(index: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's mixing function: a fixed order that looks random (Steele et al. 2014, OOPSLA)."""
    mixed = index + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _vector_rules(params: ProfileParams) -> VectorRules:
    return VectorRules(
        max_angle_deg=params.max_vector_angle_deg,
        min_separation_deg=params.min_vector_separation_deg,
        min_dab_fraction=params.min_dab_fraction,
    )


def _stained_pixels(samples: list[tuple[Pixels, Mask]]) -> Pixels:
    """Tissue pixels of all tiles, thinned by a fixed stride."""
    parts = [np.empty((0, 3), np.uint8)]
    for rgb, mask in samples:
        pixels = _where(rgb, mask)
        parts.append(pixels[:: max(len(pixels) // PIXELS_A_TILE, 1)])
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
    p95 = int(np.searchsorted(np.cumsum(residuals), 0.95 * residuals.sum())) / 1000
    return round(sharp / len(samples), 4), round(saturated / max(pixels, 1), 4), p95
