"""An array as a slide: the reader that tests and phantoms use."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from her2core.pixels import PixelFormat, Pixels
from her2core.readers.channels import CHANNELS
from her2core.readers.image import WholeReader
from her2core.records import RGB, LevelInfo, SlideInfo


class MemoryReader(WholeReader):
    """Reader of an array.

    Parameters
    ----------
    pixels
        Shape ``(height, width, channel)``: uint8 in RGB, uint8 or uint16 in fluorescence.
    mpp
        µm per pixel.
    channels
        ``R, G, B``, or ``DAPI, HER2`` with or without ``CEP17``.
    """

    def __init__(
        self,
        pixels: Pixels,
        mpp: float | None = 0.25,
        uri: str = "memory://slide",
        channels: Sequence[str] = RGB,
    ) -> None:
        form = PixelFormat(tuple(channels), pixels.dtype.name)
        dtypes = ("uint8",) if form.is_rgb else ("uint8", "uint16")
        if form.channels not in (RGB, CHANNELS[:2], CHANNELS):
            raise ValueError(f"channels are {form.channels}, expected {RGB}, {CHANNELS[:2]} or {CHANNELS}")
        if form.dtype not in dtypes or pixels.ndim != 3 or pixels.shape[2] != form.count:
            raise ValueError(
                f"pixels are {pixels.dtype} {pixels.shape}, expected {' or '.join(dtypes)} "
                f"(height, width, {form.count})"
            )
        digest = hashlib.sha256(
            str(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()
        ).hexdigest()
        height, width = pixels.shape[:2]
        info = SlideInfo(
            uri=uri,
            identity=f"{pixels.nbytes}-{digest}",
            size_bytes=pixels.nbytes,
            format="array",
            reader="memory",
            levels=(LevelInfo(height, width, 1.0),),
            tile_height=height,
            tile_width=width,
            compression="none",
            mpp=mpp,
            mpp_source=None if mpp is None else "manifest",
            scenes=("0",),
            scene=None,
            objective_power=None,
            channels=form.channels,
            dtype=form.dtype,
            source_channels=None
            if form.is_rgb
            else ";".join(f"{name}={i}" for i, name in enumerate(form.channels)),
        )
        super().__init__(info, lambda: pixels)
