"""Profile of a fluorescence slide: levels and noise of every channel, where the nuclei are, and quality.

Dark field shows neither glass nor colour: nuclei are what DAPI shows, and tissue is where
they are. Everything is read off integer histograms, so that it depends on no order.

References
----------
Otsu 1979, IEEE Trans Syst Man Cybern 9:62-66 (threshold between field and nuclei).
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from her2core.errors import Reason
from her2core.kernels.stain import otsu
from her2core.params import ProfileParams
from her2core.profile.sampling import Mask, Pixels, SampledSlide
from her2core.records import Box, Fluorescence, PyramidRef, Quality

MARGIN_UM = 16.0  # tissue reaches this far beyond what DAPI shows on the coarse picture; ours
OTSU_BINS = 1024
FINE_PX = 256  # edge of the full-resolution squares that background and noise are measured on
LEAST_EMPTY = 256  # pixels of empty field needed to accept a background
TEXTURE_UM = 2.0  # edge of the windows above whose mean the texture of chromatin rises; ours
TEXTURE_LEAST = 1000  # coarse pixels inside nuclei from which a share of DAPI's light is estimated; ours
TEXTURE_KEPT = 0.95  # of these pixels, by how much they rise or fall: the others may be signals; ours
LEAST_SHARE = 0.05  # less of DAPI's light in a probe's channel is none; ours
LEAST_CONTRAST = 5.0  # nuclei stand out of the field by this many standard deviations of its noise, or fail

BOTTOM = 0.02  # quantile of the coarse picture that is its dark field; ours
ENDS = 0.005  # quantile at either end of a histogram that bounds it; ours
DARKEST = 0.05  # of a field that is all nuclei: the share that stands for its background; ours
FIELD_PART = 4  # this part, a quarter, of the way from field to nuclei up, DAPI is low; ours
ROBUST = 1.4826  # standard deviation over median absolute deviation, of a normal distribution

Histogram = npt.NDArray[np.int64]


def fluorescence_profile(
    slide: SampledSlide, ref: PyramidRef, params: ProfileParams
) -> tuple[Fluorescence, Quality, Mask]:
    """Measure a fluorescence slide.

    Returns
    -------
    levels, quality, mask
        ``mask`` is (h, w) bool on the coarse picture.
    """
    um_px = ref.mpp * 2**slide.coarse_halvings
    mask = _where_nuclei_are(slide.coarse()[..., 0], um_px)
    fields = [pixels for pixels, _ in slide.tissue_tiles(mask)]
    between = _histogram([pixels[..., 0] for pixels in fields], ref.dtype)
    threshold = _split(between)
    low = float(_quantile(between[: threshold + 1], 0.5))
    high = float(threshold + 1 + _quantile(between[threshold + 1 :], 0.5))
    fine = [_middle(slide, box) for box in _boxes(slide, mask, params)]
    background, noise = zip(
        *(
            _empty_field(fine, c, low + (high - low) / FIELD_PART, ref.dtype)
            for c in range(len(ref.channels))
        ),
        strict=True,
    )
    shares = _dapi_shares(fields, (low + high) / 2, ref.mpp * 2**slide.tile_halvings, len(ref.channels))
    levels = Fluorescence(ref.channels, background, noise, low, high, shares)
    return levels, _quality(levels, fine, mask, um_px), mask


def _where_nuclei_are(dapi: Pixels, um_px: float) -> Mask:
    """Coarse pixels that nuclei touch, and `MARGIN_UM` around them."""
    counts = np.bincount(dapi.ravel())
    bottom, threshold = _quantile(counts, BOTTOM), _split(counts)
    seen = dapi > bottom + (threshold - bottom) / 2
    edge = 2 * int(np.ceil(MARGIN_UM / um_px)) + 1
    grown: Mask = cv2.dilate(seen.astype(np.uint8), np.ones((edge, edge), np.uint8)) != 0
    return grown


def _split(counts: Histogram) -> int:
    """Otsu's threshold of a histogram, between its darkest and its 99.5th percentile."""
    bottom, top = _quantile(counts, ENDS), max(_quantile(counts, 1 - ENDS), _quantile(counts, ENDS) + 1)
    width = max(-(-(top - bottom + 1) // OTSU_BINS), 1)
    part = counts[bottom : top + 1]
    binned = np.add.reduceat(part, np.arange(0, len(part), width)) if len(part) else np.zeros(1, np.int64)
    return int(min(bottom + (otsu(binned) + 1) * width - 1, len(counts) - 1))


def _quantile(counts: Histogram, share: float) -> int:
    """Grey level below or at which ``share`` of the counted pixels lie; 0 of none."""
    if not counts.size or not counts.sum():
        return 0
    cumulative = np.cumsum(counts)
    return int(np.searchsorted(cumulative, share * int(cumulative[-1])))


def _histogram(fields: list[Pixels], dtype: str) -> Histogram:
    counts = np.zeros(np.iinfo(dtype).max + 1, np.int64)
    for field in fields:
        counts += np.bincount(field.ravel(), minlength=len(counts))
    return counts


def _dapi_shares(fields: list[Pixels], nuclear: float, um_px: float, n_channels: int) -> tuple[float, ...]:
    """Share of DAPI's light that shows in every channel, by the texture of chromatin inside nuclei.

    The slope of what a channel rises above its surroundings on what DAPI does, where all of the surroundings
    are brighter than ``nuclear``. Sums of integers: the same in any order.
    """
    rises = [_rises(pixels, nuclear, max(1, round(TEXTURE_UM / 2 / um_px))) for pixels in fields]
    n = sum(len(part) for part in rises)
    shares = [0.0] * n_channels
    if n < TEXTURE_LEAST:
        return tuple(shares)
    last = int(TEXTURE_KEPT * (n - 1))
    limits = np.partition(np.abs(np.concatenate(rises)), last, axis=0)[last]
    for channel in range(1, n_channels):
        most = limits[[0, channel]]
        together = square = 0
        for part in rises:
            kept = part[(np.abs(part[:, [0, channel]]) <= most).all(axis=1)]
            together += int((kept[:, 0] * kept[:, channel]).sum())
            square += int((kept[:, 0] ** 2).sum())
        share = min(together / max(square, 1), 1.0)
        shares[channel] = round(share, 4) if share >= LEAST_SHARE else 0.0
    return tuple(shares)


def _rises(pixels: Pixels, nuclear: float, reach: int) -> npt.NDArray[np.int64]:
    """(n, channel): pixels less the mean of the window around them, times its area, inside nuclei."""
    if min(pixels.shape[:2]) <= 2 * reach:
        return np.empty((0, pixels.shape[2]), np.int64)
    area = (2 * reach + 1) ** 2
    inside = _window_sums((pixels[..., :1] > nuclear).astype(np.int64), reach)[..., 0] == area
    middle = pixels[reach:-reach, reach:-reach].astype(np.int64)
    out: npt.NDArray[np.int64] = (area * middle - _window_sums(pixels.astype(np.int64), reach))[inside]
    return out


def _window_sums(values: npt.NDArray[np.int64], reach: int) -> npt.NDArray[np.int64]:
    """Sums over windows of ``2 * reach + 1`` pixels a side that lie in (h, w, channel) wholly."""
    for axis in (0, 1):
        total = np.cumsum(values, axis=axis)
        total = np.concatenate([np.zeros_like(total.take([0], axis)), total], axis=axis)
        size, last = 2 * reach + 1, total.shape[axis]
        values = total.take(np.arange(size, last), axis) - total.take(np.arange(last - size), axis)
    return values


def _boxes(slide: SampledSlide, mask: Mask, params: ProfileParams) -> list[Box]:
    """Level-0 squares with nuclei, in the order of sampling."""
    step = 2**slide.coarse_halvings
    found = []
    for box in slide.tiles():
        if mask[box.y0 // step : -(-box.y1 // step), box.x0 // step : -(-box.x1 // step)].any():
            found.append(box)
        if len(found) == params.sample_tiles:
            break
    return found


def _middle(slide: SampledSlide, box: Box) -> Pixels:
    """The square of `FINE_PX` in the middle of a box, at full resolution."""
    y0 = box.y0 + max(box.height - FINE_PX, 0) // 2
    x0 = box.x0 + max(box.width - FINE_PX, 0) // 2
    return slide.read(0, Box(y0, x0, min(y0 + FINE_PX, box.y1), min(x0 + FINE_PX, box.x1)))


def _empty_field(fine: list[Pixels], channel: int, dapi_top: float, dtype: str) -> tuple[float, float]:
    """Median and 1.4826 times the median absolute deviation of a channel where DAPI is low."""
    empty = _histogram([p[..., channel][p[..., 0] <= dapi_top] for p in fine], dtype)
    if int(empty.sum()) < LEAST_EMPTY:
        empty = _histogram([p[..., channel] for p in fine], dtype)
        empty[_quantile(empty, DARKEST) + 1 :] = 0  # all nuclei: the darkest twentieth
    middle = _quantile(empty, 0.5)
    levels = np.arange(len(empty))
    deviations = np.bincount(np.abs(levels - middle), weights=empty).astype(np.int64)
    return float(middle), round(ROBUST * max(_quantile(deviations, 0.5), 0.5), 4)


def _quality(levels: Fluorescence, fine: list[Pixels], mask: Mask, um_px: float) -> Quality:
    reasons: list[Reason] = []
    if not mask.any():
        reasons.append(Reason.INSUFFICIENT_TISSUE)
    elif levels.dapi_high - levels.dapi_low < LEAST_CONTRAST * levels.noise[0]:
        reasons.append(Reason.COUNTERSTAIN_WEAK)
    return Quality(
        verdict="fail" if reasons else "pass",
        reasons=tuple(str(reason) for reason in reasons),
        tissue_area_mm2=round(int(mask.sum()) * um_px * um_px / 1e6, 4),
        sharp_fraction=None,
        pen_fraction=None,
        fold_fraction=None,
        bubble_fraction=None,
        saturated_fraction=_saturated(fine),
        residual_p95_od=None,
    )


def _saturated(fine: list[Any]) -> float:
    """Share of pixels in which a channel is at the end of its range."""
    pixels = sum(p.shape[0] * p.shape[1] for p in fine)
    full = sum(int((p == np.iinfo(p.dtype).max).any(axis=2).sum()) for p in fine)
    share: float = round(full / max(pixels, 1), 4)
    return share
