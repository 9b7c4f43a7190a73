"""An array as a slide: the reader that tests and phantoms use."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from her2core.readers.image import WholeReader
from her2core.records import LevelInfo, SlideInfo


class MemoryReader(WholeReader):
    """Reader of an array.

    Parameters
    ----------
    pixels
        uint8, shape ``(height, width, 3)``, RGB.
    mpp
        µm per pixel.
    """

    def __init__(
        self, pixels: npt.NDArray[np.uint8], mpp: float | None = 0.25, uri: str = "memory://slide"
    ) -> None:
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise ValueError(f"pixels are {pixels.dtype} {pixels.shape}, expected uint8 (height, width, 3)")
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
            assay_guess=None,
        )
        super().__init__(info, lambda: pixels)
