"""A label of an OME-Zarr image: nuclei as StarDist, InstanSeg, Cellpose and the like leave them there.

An address leads to the label's group, or to an image (or its ``labels`` group) that holds exactly one.

References
----------
OME-NGFF 0.4 and 0.5, labels: https://ngff.openmicroscopy.org/0.5/#labels-md
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import numpy as np
import zarr

from her2core.errors import Reason, SlideError
from her2core.intake.outlines.plane import Tile, collect, factor_of
from her2core.intake.outlines.rays import Collected, invalid
from her2core.readers.omezarr import UNREADABLE
from her2core.readers.omezarrmeta import (
    BoundedStore,
    Level,
    Multiscale,
    check_packing,
    ome_attributes,
    read_multiscale,
)
from her2core.readers.scale import MAX_DISAGREEMENT
from her2core.storage.store import Store
from her2core.text import shown

TILE_PX: Final = 2048
"""Edge of what is looked at at once, rounded up to whole chunks. Ours."""
MAX_CHUNK_PX: Final = 1 << 26
"""Most numbers of a chunk, which memory holds whole (6.7e7, 540 MB of 64 bits). Ours."""
MAX_LISTED: Final = 8
"""Most labels that a message names. Ours."""

Found = tuple[Level, "zarr.Array[Any]"]


def label_address(uri: str, endpoint_url: str | None) -> str:
    """Where the group of the label lies that an address means.

    Raises
    ------
    SlideError
        ``CELLS_INVALID`` if it means none, or several.
    """
    place = uri.rstrip("/")
    group = _opened(place, endpoint_url)
    with _named(uri):
        about = ome_attributes(group)
        if "image-label" in about or ("multiscales" in about and place.split("/")[-2:-1] == ["labels"]):
            return place
        listed, below = about.get("labels"), place
        if listed is None:
            below = f"{place}/labels"
            inner = group.get("labels")
            listed = ome_attributes(inner).get("labels") if isinstance(inner, zarr.Group) else []
        names = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    if not names:
        raise invalid(uri, "an OME-Zarr group without labels. Name a label, as IMAGE.zarr/labels/NAME.")
    if len(names) > 1:
        named = ", ".join(shown(name, 60) for name in names[:MAX_LISTED])
        raise invalid(uri, f"holds {len(names)} labels ({named}); name one, as {below}/NAME.")
    if names[0].startswith("/") or ".." in names[0].split("/"):
        raise invalid(uri, f"its label {shown(names[0], 60)} lies elsewhere. Name it by its own address.")
    return f"{below}/{names[0]}"


def read_zarr_label(
    uri: str, height: int, width: int, mpp: float, largest_um2: float, endpoint_url: str | None
) -> Collected:
    """Nuclei of an OME-Zarr label of the slide, from its finest level whose pixel size is stated.

    Where no level states one the finest is read. A few chunks are in memory at a time.

    Raises
    ------
    SlideError
        ``CELLS_INVALID`` if it is none, or not of a slide of this size and scale.
    """
    with _named(uri):
        image = read_multiscale(uri, _opened(label_address(uri, endpoint_url), endpoint_url))
        level, array = _level(uri, image)
    y, x = image.axes.index("y"), image.axes.index("x")
    factor = factor_of(uri, (array.shape[y], array.shape[x]), (height, width), mpp)
    _check_scale(uri, image, level, mpp * factor)
    return collect(uri, partial(_tiles, uri, array, image.axes), factor, mpp * factor, largest_um2)


def _opened(place: str, endpoint_url: str | None) -> zarr.Group:
    with _named(place):
        store = Store(place, endpoint_url=endpoint_url)
        return zarr.open_group(BoundedStore(store.zarr_store(), place), mode="r")


@contextmanager
def _bounded(uri: str) -> Iterator[None]:
    """Report a chunk that is refused as a label that is."""
    try:
        yield
    except SlideError as error:
        if error.reason == Reason.CELLS_INVALID:
            raise
        raise invalid(uri, f"{error.message.removeprefix(f'{uri}: ').rstrip('.')}.") from error


@contextmanager
def _named(uri: str) -> Iterator[None]:
    """Report errors of a label in the words that the readers of slides use for an image."""
    try:
        with _bounded(uri):
            yield
    except (FileNotFoundError, *UNREADABLE) as error:
        raise invalid(
            uri, f"its OME-Zarr metadata cannot be read ({type(error).__name__}). Store the label again."
        ) from error


def _level(uri: str, image: Multiscale) -> Found:
    """The finest of the levels that state their pixel size; of all where none does."""
    found: list[Found] = []
    for level in image.levels:
        array = image.group[level.path]
        if not isinstance(array, zarr.Array) or len(array.shape) != len(image.axes) or 0 in array.shape:
            raise invalid(uri, f"level {shown(level.path, 60)} is no array with axes {image.axes}.")
        found.append((level, array))
    stated = [one for one in found if any(not scale.is_placeholder for scale in image.scale_of(one[0]))]
    best = max(stated or found, key=lambda one: math.prod(one[1].shape))
    _check_array(uri, best[1], image.axes)
    return best


def _check_array(uri: str, array: zarr.Array[Any], axes: str) -> None:
    check_packing(uri, array)
    if array.dtype.kind not in "ui":
        kind = str(array.dtype)[:20]
        raise invalid(
            uri, f"numbers of type {kind}; expected whole ones, as of 32 bits without sign (uint32)."
        )
    sizes = dict(zip(axes, array.shape, strict=True))
    if any(size != 1 for axis, size in sizes.items() if axis not in "yx"):
        raise invalid(uri, f"axes {axes} of shape {array.shape}; expected one (y, x) plane of nuclei.")
    if math.prod(array.chunks) > MAX_CHUNK_PX:
        raise invalid(
            uri,
            f"chunks of {array.chunks}; accepted are {MAX_CHUNK_PX} numbers a chunk. Store smaller ones.",
        )


def _check_scale(uri: str, image: Multiscale, level: Level, um_px: float) -> None:
    """Refuse a level that states another pixel size than its shape beside the slide's implies."""
    for scale in image.scale_of(level):
        if scale.is_placeholder:
            continue
        for axis, um in (("y", scale.y_um), ("x", scale.x_um)):
            if abs(um - um_px) > MAX_DISAGREEMENT * um_px:
                raise invalid(
                    uri,
                    f"states {um:.4g} µm/px along {axis}, where its size beside the slide's implies "
                    f"{um_px:.4g}. Is it a label of this slide? Correct its scale, or the slide's mpp.",
                )


def _tiles(uri: str, array: zarr.Array[Any], axes: str) -> Iterator[Tile]:
    y, x = axes.index("y"), axes.index("x")
    (height, width), chunk = (array.shape[y], array.shape[x]), (array.chunks[y], array.chunks[x])
    down, across = (edge * max(-(-TILE_PX // edge), 1) for edge in chunk)
    for y0 in range(0, height, down):
        for x0 in range(0, width, across):
            window = {"y": slice(y0, y0 + down), "x": slice(x0, x0 + across)}
            try:
                with _bounded(uri):
                    block = np.asarray(array[tuple(window.get(axis, 0) for axis in axes)])
            except UNREADABLE as error:
                raise invalid(
                    uri,
                    f"the chunks of x {x0}-{x0 + across}, y {y0}-{y0 + down} cannot be decoded "
                    f"({type(error).__name__}). Store the label again.",
                ) from error
            yield Tile(y0, x0, block if y < x else block.T)
