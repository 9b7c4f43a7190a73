"""An OME-Zarr label as a region of interest: what is not 0 counts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import zarr

from her2core.errors import Reason, SlideError
from her2core.intake.roi.shapes import invalid
from her2core.profile.tissue import TissueMask
from her2core.readers.omezarrmeta import BoundedStore, check_packing
from her2core.readers.zarr_chunks import MAX_CHUNK_BYTES
from her2core.storage.store import Store
from her2core.text import cut

MAX_LEVELS = 64
"""Most levels that are looked at. Ours."""
MAX_LABEL_PIXELS = 64 * 10**6
"""Finest level of a label that is read whole (64 MB)."""
KINDS = "buif"
"""Kinds of numbers, NumPy's letters: of truth, whole and real ones."""


def read_label(uri: str, height: int, width: int, endpoint_url: str | None) -> TissueMask:
    """The mask that a label group holds.

    Raises
    ------
    SlideError
        ``ROI_INVALID`` if it is none, or not of a slide of this size.
    """
    store = Store(uri, endpoint_url=endpoint_url)
    try:
        group = zarr.open_group(BoundedStore(store.zarr_store(), uri), mode="r")
        attributes: dict[str, Any] = dict(group.attrs)
        ome: Any = attributes.get("ome", attributes)  # OME-Zarr 0.5, or 0.4 and earlier
        paths = [str(dataset["path"]) for dataset in ome["multiscales"][0]["datasets"][:MAX_LEVELS]]
        arrays = [group[path] for path in paths]
    except SlideError as error:
        raise invalid(uri, f"{error.message.removeprefix(f'{uri}: ')}.") from error
    except (OSError, LookupError, AttributeError, TypeError, ValueError) as error:
        raise invalid(
            uri,
            f"neither GeoJSON nor an OME-Zarr label ({cut(repr(error), 200)}). Name the label's own "
            "group, or a .geojson.",
        ) from error
    for array in arrays:
        if not isinstance(array, zarr.Array) or array.ndim < 2 or math.prod(array.shape[:-2]) != 1:
            raise invalid(uri, f"level of shape {getattr(array, 'shape', None)}; expected one (y, x) plane.")
        label_height, label_width = array.shape[-2:]
        if not label_height * label_width:
            raise invalid(uri, "an empty level; expected one (y, x) plane.")
        if label_height * label_width > MAX_LABEL_PIXELS:
            continue
        factor = max(round(height / label_height), 1)
        whole = (height // factor, width // factor)
        if not (0 <= label_height - whole[0] <= 1 and 0 <= label_width - whole[1] <= 1):
            raise invalid(
                uri,
                f"{label_height} x {label_width} pixels; expected those of the slide ({height} x {width}) "
                "divided by a whole number. Is it a label of this slide?",
            )
        try:
            _check_chunks(uri, array)
            mask = np.asarray(array[(0,) * (array.ndim - 2)] if array.ndim > 2 else array[:])
        except SlideError as error:
            if error.reason == Reason.ROI_INVALID:
                raise
            raise invalid(uri, f"{error.message.removeprefix(f'{uri}: ')}.") from error
        except (OSError, RuntimeError, TypeError, ValueError) as error:
            raise invalid(uri, f"its pixels cannot be read ({cut(str(error), 200)}).") from error
        if not mask.any():
            raise invalid(uri, "the label is empty; expected at least one pixel above 0.")
        return TissueMask((mask != 0).astype(np.uint8), factor)
    raise invalid(uri, f"no level of at most {MAX_LABEL_PIXELS} pixels. Store the label as a pyramid.")


def _check_chunks(uri: str, array: zarr.Array[Any]) -> None:
    """Refuse what would take more memory than the level itself before any of it is decoded."""
    check_packing(uri, array)
    if array.dtype.kind not in KINDS:
        raise invalid(uri, f"values of type {str(array.dtype)[:20]}; expected numbers, 0 outside the region.")
    largest = max(math.prod(array.chunks), math.prod(array.shards or ())) * array.dtype.itemsize
    if largest > MAX_CHUNK_BYTES:
        raise invalid(
            uri,
            f"chunks of {array.shards or array.chunks}, {largest} bytes each; accepted are "
            f"{MAX_CHUNK_BYTES}. Store smaller ones.",
        )
