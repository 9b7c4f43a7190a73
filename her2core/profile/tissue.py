"""Where the glass is, where the tissue is, and the mask that the later stages use.

All of it happens on one coarse picture of the slide (about 8 µm/px). At that scale glass is flat to
about one grey level while even the palest stroma is not; optical density alone would lose it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from her2core.errors import Reason
from her2core.kernels.stain import Vector, od_table, otsu
from her2core.params import ProfileParams
from her2core.profile.sampling import WHITE
from her2core.pyramid.labels import read_label
from her2core.records import Box, PyramidRef, SlideProfile
from her2core.storage.store import Store

BLACK = 8  # a pixel this dark in every channel was not scanned: some formats fill with black
PEAK_HALF_WIDTH = 4  # glass noise on the sum of the three channels (grey levels)
WHITE_SHARE = 0.01  # of a picture in white from which its glass may be overexposed; ours
BESIDE_WHITE = 0.05  # ... and the share of the other pixels that a peak then needs to be glass; ours
LEAST_PEAK = 16.0  # pixels: a peak of fewer is none; ours
PEAK_REACH = 12  # levels around a peak, of the sum of the channels, that are no higher; ours
MODE_REACH = 2  # levels around a channel's mode whose mean refines it; ours
FRINGE_PART = 4  # texture on less than this part, a quarter, of the least OD is a fringe of dust; ours
PATCH_UM = 4.5  # edge of the squares whose means give the background where no glass is seen; ours, measured
PATCHES = 0.999  # ... and the share of them that is no brighter than it: within 4 levels on real cores
PIXELS = 0.999  # share of single pixels that is no brighter than the brightest background there may be; ours
MAX_HIDDEN = 12.0  # ... which is this much brighter than the patches at least: 11 on planted 3+ with haze
MAX_OUTSHONE = 6.0  # grey levels by which patches outshine real glass (up to 4) but pale tissue by 9; ours


@dataclass(frozen=True, slots=True)
class Background:
    """Light through empty glass, where that is known from, and how bright it may be if it was guessed."""

    i0: Vector
    source: str  # glass | white | stated | bright_end
    brightest: float | None = None

    @property
    def reason(self) -> Reason | None:
        return Reason.BACKGROUND_UNKNOWN if self.source == "bright_end" else None


def find_background(rgb: npt.NDArray[np.uint8], params: ProfileParams) -> Background | None:
    """Find the background intensity of each channel as the mode of the brightest flat area.

    Parameters
    ----------
    rgb
        (h, w, 3) coarse picture, about 8 µm/px.

    Returns
    -------
    None where the picture shows no glass; see `bright_end` then.
    """
    white = channels(rgb).min(axis=0) >= WHITE
    usable = ~(white | unscanned(rgb))
    flat = usable & (spread(rgb) <= params.glass_flat_levels)
    total = channels(rgb).sum(axis=0, dtype=np.int16)
    near = np.convolve(
        np.bincount(total[flat], minlength=766), np.ones(2 * PEAK_HALF_WIDTH + 1, np.int64), "same"
    )
    overexposed = int(white.sum()) >= WHITE_SHARE * white.size
    # Where white fill is present, a peak must hold more before it is glass and not tissue beside
    # overexposed glass.
    least = (BESIDE_WHITE if overexposed else params.glass_min_fraction) * int(usable.sum())
    peak = _brightest_peak(near, max(least, LEAST_PEAK))
    if peak is None:
        return Background((255.0, 255.0, 255.0), "white") if overexposed else None
    glass = flat & (total >= peak - 3 * PEAK_HALF_WIDTH) & (total <= peak + 3 * PEAK_HALF_WIDTH)
    return Background(_modes(rgb[glass]), "glass")


def channels(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Pixels (h, w, 3) as (3, h, w): NumPy is slow along an axis of three that lies innermost."""
    return np.array(cv2.split(pixels))


def unscanned(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Area filled with black: no light, and no slide either."""
    dark: npt.NDArray[np.bool_] = channels(rgb).max(axis=0) <= BLACK
    return dark


def _brightest_peak(counts: npt.NDArray[np.int64], least: float) -> int | None:
    """Brightest local maximum of ``counts`` that holds at least ``least``."""
    for level in range(len(counts) - 1, -1, -1):
        around = counts[max(level - PEAK_REACH, 0) : level + PEAK_REACH + 1]
        if counts[level] >= least and counts[level] == around.max():
            return level
    return None


def _modes(pixels: npt.NDArray[np.uint8]) -> Vector:
    """Mode of each channel of (n, 3) pixels, refined to the mean within two levels of it."""
    modes = []
    for channel in range(3):
        counts = np.bincount(pixels[:, channel], minlength=256)
        mode = int(np.convolve(counts, np.ones(3, np.int64), "same").argmax())
        levels = np.arange(max(mode - MODE_REACH, 0), min(mode + MODE_REACH + 1, 256))
        modes.append(round(float((counts[levels] * levels).sum() / counts[levels].sum()), 2))
    return modes[0], modes[1], modes[2]


def bright_end(patches: npt.NDArray[np.int64], pixels: npt.NDArray[np.int64]) -> Background:
    """Background of a field that is all tissue: what its brightest patches let through.

    Gaps between cells as wide as a patch let all light pass, and its mean evens out the bright fringes that
    scanners draw along edges. Where no gap is that wide the guess is too dark; no background is taken
    to be brighter than the brightest pixels, whatever their colour, as light through glass is nearly white.

    Parameters
    ----------
    patches, pixels
        (3, 256) counts of R, G and B over means of `PATCH_UM` squares, and over pixels of about 0.5 µm.
    """
    guess = (_level(patches[0], PATCHES), _level(patches[1], PATCHES), _level(patches[2], PATCHES))
    brightest = max(max(guess) + MAX_HIDDEN, *(_level(channel, PIXELS) for channel in pixels))
    brightest = min(brightest, 255.0)
    return Background(guess, "bright_end", brightest)


def without_false_glass(found: Background | None, guess: Background) -> Background:
    """The background that was found or stated, or the guess if patches outshine it.

    Then the glass was pale smooth tissue, or the statement is of another light.
    """
    if found is None:
        return guess
    if found.source == "white":
        return found
    darker = max(bright - glass for bright, glass in zip(guess.i0, found.i0, strict=True))
    return guess if darker > MAX_OUTSHONE else found


def _level(counts: npt.NDArray[np.int64], share: float) -> float:
    """Grey level that ``share`` of the counts do not exceed; fill is no evidence."""
    cumulative = np.cumsum(counts[:WHITE])
    return float(np.searchsorted(cumulative, share * cumulative[-1])) if cumulative[-1] else 255.0


def od_sum(rgb: npt.NDArray[np.uint8], i0: Vector) -> npt.NDArray[np.int16]:
    """Sum of the channels' optical densities in milli-OD, (h, w) int16."""
    table = np.rint(1000 * od_table(i0)).astype(np.int16)  # at most 3 x 2.4 OD
    total: npt.NDArray[np.int16] = table[0][rgb[..., 0]]
    total += table[1][rgb[..., 1]]
    total += table[2][rgb[..., 2]]
    return total


def spread(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Range of grey levels in each pixel's 3 x 3 neighbourhood, the widest of the three channels."""
    window = np.ones((3, 3), np.uint8)
    widest: npt.NDArray[np.uint8] = channels(cv2.dilate(rgb, window) - cv2.erode(rgb, window)).max(axis=0)
    return widest


def find_tissue(
    rgb: npt.NDArray[np.uint8],
    i0: Vector,
    excluded: npt.NDArray[np.bool_],
    um_px: float,
    params: ProfileParams,
) -> npt.NDArray[np.bool_]:
    """Tissue on the coarse picture: denser than glass, or textured as glass never is; cleaned.

    The density threshold is Otsu's between two bounds: the lower keeps empty glass empty, the upper keeps
    pale tissue beside strong DAB. Texture keeps loose stroma and fat, whose mean density is that of glass.

    Parameters
    ----------
    rgb
        (h, w, 3) coarse picture at ``um_px``.
    excluded
        (h, w) bool: pen and the like, never tissue.
    """
    milli = od_sum(rgb, i0)
    milli[excluded | unscanned(rgb)] = 0
    smooth = cv2.blur(milli, (3, 3), borderType=cv2.BORDER_REPLICATE)
    lowest, highest = int(1000 * params.tissue_od_min), int(1000 * params.tissue_od_max)
    # beyond four times the highest threshold, more stain is no more reason to be tissue
    threshold = otsu(np.bincount(np.clip(smooth, 0, 4 * highest).ravel(), minlength=4 * highest + 1))
    textured = cv2.blur(spread(rgb), (3, 3), borderType=cv2.BORDER_REPLICATE) >= params.tissue_spread_levels
    textured &= smooth > lowest // FRINGE_PART  # not the bright fringes of dust
    mask = ((smooth > min(max(threshold, lowest), highest)) | textured) & ~excluded
    pixel_um2 = um_px * um_px
    mask = without_small(mask, params.min_object_um2 / pixel_um2)
    mask = ~without_small(~mask, params.max_hole_um2 / pixel_um2, connectivity=4)
    return mask & ~excluded


def without_small(mask: npt.NDArray[np.bool_], pixels: float, connectivity: int = 8) -> npt.NDArray[np.bool_]:
    """The mask less its connected components smaller than ``pixels``."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), connectivity=connectivity
    )
    keep = stats[:count, cv2.CC_STAT_AREA] >= pixels
    keep[0] = False
    kept: npt.NDArray[np.bool_] = keep[labels]
    return kept


@dataclass(frozen=True, slots=True)
class TissueMask:
    """Tissue of a slide, in level-0 pixels.

    Attributes
    ----------
    mask
        (h, w) bool or uint8; pixel (i, j) covers level-0 pixels ``[i*downsample, (i+1)*downsample)`` and
        likewise in x.
    """

    mask: npt.NDArray[np.uint8]
    downsample: int

    def contains(self, y_px0: npt.ArrayLike, x_px0: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Whether each point (level-0 pixels, pixel centres at integers) lies on tissue."""
        i = np.floor((np.asarray(y_px0, np.float64) + 0.5) / self.downsample).astype(np.int64)
        j = np.floor((np.asarray(x_px0, np.float64) + 0.5) / self.downsample).astype(np.int64)
        height, width = self.mask.shape
        inside = (i >= 0) & (j >= 0) & (i < height) & (j < width)
        found = np.zeros(inside.shape, np.bool_)
        found[inside] = self.mask[i[inside], j[inside]] != 0
        return found

    def any(self, box: Box) -> bool:
        """Whether any tissue lies in ``box`` (level-0 pixels)."""
        return bool(self._part(box).any())

    def bounds(self, box: Box) -> Box | None:
        """Smallest box that holds all the tissue in ``box``, or None; level-0 pixels, clipped to ``box``."""
        part = self._part(box) != 0
        if not part.any():
            return None
        rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
        step = self.downsample
        i0, j0 = max(box.y0 // step, 0), max(box.x0 // step, 0)
        return Box(
            max(box.y0, (i0 + int(rows[0])) * step),
            max(box.x0, (j0 + int(columns[0])) * step),
            min(box.y1, (i0 + int(rows[-1]) + 1) * step),
            min(box.x1, (j0 + int(columns[-1]) + 1) * step),
        )

    def _part(self, box: Box) -> npt.NDArray[np.uint8]:
        if box.height <= 0 or box.width <= 0:
            return self.mask[:0]
        step = self.downsample
        rows = slice(max(box.y0 // step, 0), max(-(-box.y1 // step), 0))
        return self.mask[rows, max(box.x0 // step, 0) : max(-(-box.x1 // step), 0)]


@functools.lru_cache(maxsize=2)
def read_tissue(store: Store, ref: PyramidRef, profile: SlideProfile) -> TissueMask:
    """Read the published mask of a slide; the last two are kept, as a worker reads one each work unit.

    Raises
    ------
    StoreError
        If the label is missing or damaged.
    """
    mask, downsample = read_label(store, ref, profile.tissue_label)
    mask.flags.writeable = False
    return TissueMask(mask, downsample)
