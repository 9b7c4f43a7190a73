"""A label image as TIFF: 0 is background, every other number is one nucleus."""

from __future__ import annotations

import math
import struct
from typing import Any, Final

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from her2core.intake.outlines.rays import COS, F64, MAX_OUTLINES, SIN, Collected, invalid
from her2core.storage.sources import open_remote
from her2core.text import cut

MAX_LABEL_PIXELS: Final = 500 * 10**6
"""Largest label image that is read (2 GB in 32 bits). Ours."""
MAX_LABEL_UM: Final = 1.0
"""Coarsest pixels of a label, µm: a nucleus is six across. Ours."""
MAX_NUMBER: Final = 20 * MAX_OUTLINES
"""Highest number of a label. Ours; gaps cost memory."""
STEP_PX: Final = 0.25
"""Along a ray, pixels of the label."""
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
    label_height, label_width = labels.shape
    factor = max(round(height / label_height), 1)
    whole = (height // factor, width // factor)
    if not (0 <= label_height - whole[0] <= 1 and 0 <= label_width - whole[1] <= 1):
        raise invalid(
            uri,
            f"{label_height} x {label_width} pixels; expected those of the slide ({height} x {width}) "
            "divided by a whole number. Is it a label of this slide?",
        )
    if mpp * factor > MAX_LABEL_UM:
        raise invalid(
            uri,
            f"{mpp * factor:.3g} µm/px; at most {MAX_LABEL_UM:g} tell a nucleus's outline. Store it larger.",
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high > MAX_NUMBER:
        raise invalid(
            uri, f"labels {low} to {high}; expected 0 for background, and nuclei numbered from 1 on."
        )
    found = Collected()
    most = largest_um2 / (mpp * factor) ** 2
    for number, place in enumerate(ndimage.find_objects(labels), 1):
        if place is None:
            continue
        if len(found.y) == MAX_OUTLINES:
            raise invalid(uri, f"more than {MAX_OUTLINES} labels, the most that are read.")
        _add(found, labels[place] == number, (place[0].start, place[1].start), factor, most)
    return found


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
            f"{shape[0]} x {shape[1]} pixels; at most {MAX_LABEL_PIXELS} are read. Store it at half the "
            "size, without smoothing, or the outlines as GeoJSON.",
        )
    raise invalid(uri, f"numbers of type {dtype}; expected whole ones, as of 32 bits without sign (uint32).")


def _add(
    found: Collected, mask: NDArray[np.bool_], corner: tuple[int, int], factor: int, most: float
) -> None:
    """Keep one label: ``mask`` has its first pixel at ``corner``."""
    y, x = (float(axis.mean()) for axis in np.nonzero(mask))
    n = int(np.count_nonzero(mask))
    radius = radii_of_mask(mask, y, x) if n <= most else np.zeros(len(COS))
    y_px, x_px = ((at + c + 0.5) * factor for at, c in zip((y, x), corner, strict=True))
    found.add(y_px, x_px, radius * factor, float(n * factor**2))


def radii_of_mask(mask: NDArray[np.bool_], y: float, x: float) -> F64:
    """Radii ``(36,)`` of a mask around a point, pixel centres at whole numbers; 0 where a ray meets none."""
    height, width = mask.shape
    r = np.arange(math.ceil(math.hypot(height, width) / STEP_PX) + 1) * STEP_PX
    row, column = (np.floor(at + r * way + 0.5).astype(np.int64) for at, way in ((y, SIN), (x, COS)))
    on = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    inside = on & mask[np.where(on, row, 0), np.where(on, column, 0)]
    last = inside.shape[1] - np.argmax(inside[:, ::-1], axis=1) - 0.5  # past the last, halfway to the next
    radius: F64 = np.where(inside.any(axis=1), last * STEP_PX, 0.0)
    return radius
