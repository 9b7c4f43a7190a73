"""Tiles of a slide as a browser draws them: 256 px, JPEG, of any pyramid whatever its codec.

A tile is drawn from the pixels that analysis reads. Levels beyond the coarsest stored one are shrunk from it.
Fluorescence is shown in the colours of its probes, stretched once a slide.
"""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image

from her2core.errors import StoreError
from her2core.pixels import Pixels
from her2core.pyramid.codecs import level_codec
from her2core.pyramid.reader import PyramidReader
from her2core.records import RGB, PyramidRef
from her2core.storage.store import Store

TILE_PX = 256
"""Edge of a tile; the page's grid has the same."""
QUALITY = 88
"""JPEG quality of what is shown, never of what is measured; ours."""
THUMBNAIL_PX = 96
"""Longer edge of a slide's picture in the list."""
STRETCH = (20.0, 99.8)
"""Percentiles of a channel that are shown black and full; ours."""
COLOURS = ((0.25, 0.45, 1.0), (1.0, 0.25, 0.2), (0.2, 1.0, 0.3))
"""Of the first, second and third channel: counterstain blue, HER2 red, CEP17 green, as on the glass."""


def coarsest(ref: PyramidRef) -> int:
    """The first level of which one tile holds all."""
    level = 0
    while max(ref.shape(level)) > TILE_PX:
        level += 1
    return level


def check_layout(store: Store, ref: PyramidRef) -> None:
    """Refuse a pyramid of an early version, whose channels lie interleaved and would show in false colours.

    Raises
    ------
    StoreError
        If it is one, or is gone.
    """
    path = f"{ref.path}/0/zarr.json"
    try:
        text = store.read_bytes(path)
    except FileNotFoundError:
        raise StoreError(f"{store.uri(path)}: the pyramid is gone; run again to make it") from None
    stated = any(step["name"] == "transpose" for step in level_codec(ref.codec, 0).chain)
    if b'"transpose"' in text and not stated:
        raise StoreError(
            f"{store.uri(path)}: a pyramid of an early version (channels interleaved), which this one does "
            "not show; run again into a new output"
        )


class Tiles:
    """Pictures of one slide."""

    def __init__(self, store: Store, ref: PyramidRef) -> None:
        self._reader = PyramidReader(store, ref)
        self._ref = ref
        self._range: tuple[Pixels, Pixels] | None = None

    def tile(self, level: int, row: int, column: int) -> bytes:
        """A tile as JPEG; what lies outside the slide is white, or black in fluorescence."""
        return _jpeg(self._shown(level, row * TILE_PX, column * TILE_PX, TILE_PX, TILE_PX))

    def thumbnail(self) -> bytes:
        """The whole slide, as JPEG."""
        level = coarsest(self._ref)
        picture = Image.fromarray(self._shown(level, 0, 0, *self._ref.shape(level)))
        picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
        return _jpeg(np.asarray(picture))

    def _shown(self, level: int, y0: int, x0: int, height: int, width: int) -> Pixels:
        raw = self._read(level, y0, x0, height, width)
        if self._ref.channels == RGB:
            return raw
        if self._range is None:
            self._range = self._stretch()
        low, high = self._range
        part = np.clip((raw - low) / np.maximum(high - low, 1), 0, 1)
        mixed = part @ np.asarray(COLOURS[: part.shape[-1]])
        return np.asarray(np.clip(mixed * 255, 0, 255), np.uint8)

    def _read(self, level: int, y0: int, x0: int, height: int, width: int) -> Pixels:
        last = len(self._ref.shapes) - 1
        beyond = max(level - last, 0)
        shape = (height << beyond, width << beyond, len(self._ref.channels))
        out = np.empty(shape, np.dtype(self._ref.dtype))
        self._reader.read(level - beyond, y0 << beyond, x0 << beyond, out)
        if not beyond:
            return out
        step = 1 << beyond
        blocks = out.reshape(height, step, width, step, -1).mean(axis=(1, 3))
        return np.asarray(blocks, out.dtype)

    def _stretch(self) -> tuple[Pixels, Pixels]:
        level = min(coarsest(self._ref), len(self._ref.shapes) - 1)
        flat = self._read(level, 0, 0, *self._ref.shape(level)).reshape(-1, len(self._ref.channels))
        low, high = np.percentile(flat, STRETCH, axis=0)
        return low, high


@lru_cache(maxsize=64)
def tiles_of(store: Store, ref: PyramidRef) -> Tiles:
    """The pictures of a slide; what is known of the last ones is kept."""
    return Tiles(store, ref)


def _jpeg(pixels: Pixels) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=QUALITY, subsampling=0)
    return out.getvalue()
