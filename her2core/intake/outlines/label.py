"""A label image as TIFF: 0 is background, every other number is one nucleus."""

from __future__ import annotations

import math
import struct
from functools import partial
from typing import Any, Final

import numpy as np
import tifffile
from numpy.typing import NDArray

from her2core.intake.outlines.plane import collect, cut_tiles, factor_of
from her2core.intake.outlines.rays import Collected, invalid
from her2core.storage.sources import open_remote
from her2core.text import cut

MAX_LABEL_PIXELS: Final = 500 * 10**6
"""Largest TIFF that is read as a label image (2 GB in 32 bits). Ours."""
TILE_PX: Final = 2048
"""Edge of the part of it that is looked at at once. Ours."""
BROKEN: Final = (
    OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, ArithmeticError, struct.error
)  # fmt: skip
"""What tifffile and its codecs raise where a file is not what it claims."""


def read_label(
    uri: str, height: int, width: int, mpp: float, largest_um2: float, endpoint_url: str | None
) -> Collected:
    """Nuclei of a label image of the slide, at level 0 or smaller by a whole number.

    Labels larger than ``largest_um2`` keep their area and have no radii.

    Raises
    ------
    SlideError
        ``CELLS_INVALID`` if it is none, or not of a slide of this size.
    """
    labels = _labels(uri, endpoint_url)
    factor = factor_of(uri, (labels.shape[0], labels.shape[1]), (height, width), mpp)
    return collect(uri, partial(cut_tiles, labels, TILE_PX), factor, mpp * factor, largest_um2)


def _labels(uri: str, endpoint_url: str | None) -> NDArray[Any]:
    """The plane of a TIFF, once it is known to be one and of a size to be read."""
    try:
        with open_remote(uri, endpoint_url) as file, tifffile.TiffFile(file) as tiff:
            series = tiff.series[0]
            shape, dtype = tuple(size for size in series.shape if size != 1), series.dtype
            if len(shape) == 2 and math.prod(shape) <= MAX_LABEL_PIXELS and dtype and dtype.kind in "ui":
                return np.asarray(series.asarray()).reshape(shape)
    except BROKEN as error:
        raise invalid(uri, f"cannot be read as TIFF ({cut(str(error), 200)}). Store it again.") from error
    if len(shape) != 2:
        raise invalid(uri, f"shape {series.shape}; expected one (y, x) plane. Store the nuclei's alone.")
    if math.prod(shape) > MAX_LABEL_PIXELS:
        raise invalid(
            uri,
            f"{shape[0]} x {shape[1]} pixels; at most {MAX_LABEL_PIXELS} are read. Store it as an OME-Zarr "
            "label, at half the size without smoothing, or the outlines as GeoJSON.",
        )
    raise invalid(uri, f"numbers of type {dtype}; expected whole ones, as of 32 bits without sign (uint32).")
