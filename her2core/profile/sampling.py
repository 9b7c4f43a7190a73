"""A slide at fixed halvings of level 0: one coarse picture, and tiles scattered over it in a fixed order.

Everything is defined by level-0 positions, never by the pyramid's chunks, so any layout of the same slide
gives the same pixels in the same order.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from her2core.params import ProfileParams
from her2core.pyramid.halving import halve
from her2core.records import Box, PyramidRef
from her2core.statistics import scattered

WHITE = 254  # a pixel this bright in every channel was filled by the scanner, or is overexposed glass
FULL, PARTIAL = 0.5, 0.05  # share of tissue from which a tile is taken first, and taken at all; ours
MAX_COARSE_PIXELS = 16_000_000  # 48 MB of RGB: the coarse picture of an 8 cm² slide at 8 µm/px is 12.5 MP
TILES_AHEAD = 8  # sampled tiles that are read side by side from a server, 200 kB of pixels each (ours)

Pixels = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


class LevelReader(Protocol):
    """What is needed of a pyramid: fill ``out`` (h, w, channels) from a level, background outside."""

    def read(self, level: int, y0: int, x0: int, out: Pixels) -> None: ...


class SampledSlide:
    """A slide at fixed halvings of level 0, whichever of them its pyramid stores."""

    def __init__(self, reader: LevelReader, ref: PyramidRef, params: ProfileParams) -> None:
        self._reader, self._ref, self._params = reader, ref, params
        self.height, self.width = ref.shapes[0]
        halvings = halvings_of(params.tissue_um_px, ref.mpp)
        while math.ceil(self.height / 2**halvings) * math.ceil(self.width / 2**halvings) > MAX_COARSE_PIXELS:
            halvings += 1
        self.coarse_halvings = halvings
        self.tile_halvings = halvings_of(params.sample_um_px, ref.mpp)
        self.tile_px0 = 2 ** max(halvings_of(params.sample_tile_um, ref.mpp), self.coarse_halvings)
        self._seen: dict[Box, Pixels] = {}

    def read(self, halvings: int, box: Box) -> Pixels:
        """Pixels of level-0 ``box`` (aligned to ``2**halvings``, clipped to the slide) after ``halvings``."""
        level = min(halvings, len(self._ref.shapes) - 1)
        scale = 2**level
        shape = (-(-box.height // scale), -(-box.width // scale), len(self._ref.channels))
        out = np.empty(shape, self._ref.dtype)
        self._reader.read(level, box.y0 // scale, box.x0 // scale, out)
        for _ in range(halvings - level):
            out = halved(out)
        return out

    def coarse(self) -> Pixels:
        return self.read(self.coarse_halvings, Box(0, 0, self.height, self.width))

    def tiles(self) -> Iterator[Box]:
        """All squares of the sampling grid in an order that is fixed and scattered over the slide."""
        edge = self.tile_px0
        rows, columns = -(-self.height // edge), -(-self.width // edge)
        index = np.arange(rows * columns, dtype=np.uint64)
        iy, ix = index // np.uint64(columns), index % np.uint64(columns)
        for k in np.lexsort((index, scattered(iy << np.uint64(32) | ix))):
            y0, x0 = int(iy[k]) * edge, int(ix[k]) * edge
            yield Box(y0, x0, min(y0 + edge, self.height), min(x0 + edge, self.width))

    def _read_ahead(self, boxes: Iterable[Box]) -> Iterator[tuple[Box, Pixels]]:
        """Sampled tiles in their order; from a server some are read while the one before is looked at."""
        if not getattr(self._reader, "waits", False):
            yield from ((box, self._tile(box)) for box in boxes)
            return
        with ThreadPoolExecutor(TILES_AHEAD) as pool:
            begun: deque[tuple[Box, Future[Pixels]]] = deque()
            for box in boxes:
                begun.append((box, pool.submit(self._tile, box)))
                if len(begun) > TILES_AHEAD:
                    first, pixels = begun.popleft()
                    yield first, pixels.result()
            for first, pixels in begun:
                yield first, pixels.result()

    def _tile(self, box: Box) -> Pixels:
        """A sampled tile. As many as are sampled are kept: those in tissue are looked at twice."""
        found = self._seen.get(box)
        if found is None:
            found = self.read(self.tile_halvings, box)
            if len(self._seen) < self._params.sample_tiles:
                self._seen[box] = found
        return found

    def histograms(self, patch_um: float) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """(3, 256) counts of R, G and B over sampled tiles of a bright-field slide, tissue or not.

        Returns
        -------
        Of the means of squares of ``patch_um`` that hold no white fill, and of the pixels themselves.
        """
        counts = np.zeros((2, 3, 256), np.int64)
        edge = max(2 * int(patch_um / (self._ref.mpp * 2**self.tile_halvings) / 2) + 1, 1)
        boxes = itertools.islice(self.tiles(), self._params.sample_tiles)
        for _, pixels in self._read_ahead(boxes):
            means = cv2.blur(pixels, (edge, edge), borderType=cv2.BORDER_REFLECT_101)
            red, green, blue = cv2.split(pixels)
            darkest = cv2.min(cv2.min(red, green), blue)
            _, fill = cv2.threshold(darkest, WHITE - 1, 255, cv2.THRESH_BINARY)
            clear = cv2.bitwise_not(cv2.dilate(fill, np.ones((edge, edge), np.uint8)))
            counts[0, :, 255] += clear.size - cv2.countNonZero(clear)
            for channel in range(3):
                counts[0, channel] += _counts(means, channel, clear)
                counts[1, channel] += _counts(pixels, channel, None)
        return counts[0], counts[1]

    def tissue_boxes(self, mask: Mask) -> list[Box]:
        """Tiles that are sampled of tissue, the fuller ones first; none where there is no tissue."""
        share = _block_means(mask, self.tile_px0 // 2**self.coarse_halvings)
        boxes = [(share[box.y0 // self.tile_px0, box.x0 // self.tile_px0], box) for box in self.tiles()]
        full = [box for part, box in boxes if part >= FULL]
        partial = [box for part, box in boxes if PARTIAL <= part < FULL]
        return (full + partial)[: self._params.sample_tiles]

    def tissue_tiles(self, mask: Mask) -> Iterator[tuple[Pixels, Mask]]:
        """Pixels of `tissue_boxes` and their tissue."""
        step = 2**self.coarse_halvings
        for box, pixels in self._read_ahead(self.tissue_boxes(mask)):
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


def _counts(pixels: Pixels, channel: int, where: Pixels | None) -> npt.NDArray[np.int64]:
    """How many pixels of a tile, of those that ``where`` marks, have each level; exact in float32."""
    found = cv2.calcHist([pixels], [channel], where, [256], [0, 256])
    return np.asarray(found, np.int64).ravel()


def halved(pixels: Pixels) -> Pixels:
    """Mean of every 2 x 2 pixels, as levels are made; the last row and column are doubled where odd."""
    height, width = (-(-edge // 2) for edge in pixels.shape[:2])
    even = np.pad(pixels, ((0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0)), mode="edge")
    out = np.empty((height, width, pixels.shape[2]), pixels.dtype)
    halve(even, out)
    return out


def _block_means(mask: Mask, edge: int) -> npt.NDArray[np.float64]:
    """Share of each ``edge x edge`` block that is set; blocks at the border count what lies inside."""
    starts = [np.arange(0, size, edge) for size in mask.shape]
    counts = np.add.reduceat(np.add.reduceat(mask, starts[0], axis=0, dtype=np.int64), starts[1], axis=1)
    sizes = [np.minimum(start + edge, size) - start for start, size in zip(starts, mask.shape, strict=True)]
    means: npt.NDArray[np.float64] = counts / np.multiply.outer(sizes[0], sizes[1])
    return means


def halvings_of(um_px: float, mpp: float) -> int:
    """Halvings of level 0 that come nearest to ``um_px``."""
    return max(round(math.log2(um_px / mpp)), 0)
