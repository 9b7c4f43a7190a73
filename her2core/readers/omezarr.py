"""OME-Zarr 0.4 and 0.5 images, read as they are, local or remote.

References
----------
OME-NGFF 0.4 and 0.5, https://ngff.openmicroscopy.org.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import Store
from zarr.storage import LocalStore

from her2core.errors import Reason, SlideError
from her2core.pixels import PixelFormat, Pixels
from her2core.readers.base import (
    DARK,
    Closing,
    OpenRequest,
    choose_scene,
    clip_region,
    focal_planes,
    time_points,
)
from her2core.readers.channels import (
    MAX_CHANNEL_NAME,
    MAX_CHANNELS,
    MAX_PLANES,
    StatedChannel,
    colour_order,
    map_channels,
)
from her2core.readers.limits import MAX_TILE_PX, check_size
from her2core.readers.omezarrmeta import (
    BoundedStore,
    Level,
    Multiscale,
    check_packing,
    ome_attributes,
    read_images,
)
from her2core.readers.scale import resolve_scale
from her2core.readers.zarr_codecs import register_image_codecs
from her2core.records import RGB, Box, LevelInfo, SlideInfo

UNREADABLE = (
    ValueError,
    LookupError,
    TypeError,
    RuntimeError,
    ArithmeticError,
    AttributeError,
    AssertionError,
)
"""What zarr and its codecs raise for metadata and chunks that are not what they should be."""


class OmeZarrReader(Closing):
    """Reader of the finest level of a multiscale image.

    Parameters
    ----------
    sources
        Index in the file of each channel of a pixel.
    """

    def __init__(self, info: SlideInfo, array: zarr.Array[Any], axes: str, sources: Sequence[int]) -> None:
        self.info = info
        self._array = array
        self._axes = axes
        self._sources = sources

    def read_region(self, y0: int, x0: int, out: Pixels) -> None:
        outside = PixelFormat.of(self.info).outside
        box = clip_region(y0, x0, out, self.info.height, self.info.width, outside)
        if box is None:
            return
        inside = out[box.y0 - y0 : box.y1 - y0, box.x0 - x0 : box.x1 - x0]
        if self.info.channels == RGB:
            stored = self._block(box, 0, slice(0, 3))
            for channel, source in enumerate(self._sources):
                inside[..., channel] = stored[..., source]
            return
        inside[...] = DARK
        for z in range(self.info.z_planes):
            for channels in self._together():
                first, last = min(self._sources[c] for c in channels), max(self._sources[c] for c in channels)
                block = self._block(box, z, slice(first, last + 1))
                for c in channels:
                    target = inside[..., c]
                    np.maximum(target, block[..., self._sources[c] - first], out=target)

    def _together(self) -> list[list[int]]:
        """Channels of a pixel in the groups that are read at once: those that share the file's chunks."""
        everything = list(range(len(self._sources)))
        apart = "c" in self._axes and self._array.chunks[self._axes.index("c")] == 1
        return [[c] for c in everything] if apart else [everything]

    def _block(self, box: Box, z: int, channels: slice) -> Pixels:
        """Pixels ``(y, x, c)`` of one focal plane."""
        window: dict[str, Any] = {
            "y": slice(box.y0, box.y1),
            "x": slice(box.x0, box.x1),
            "c": channels,
            "z": z,
        }
        try:
            block = np.asarray(self._array[tuple(window.get(axis, 0) for axis in self._axes)])
        except UNREADABLE as error:
            raise SlideError(
                Reason.FILE_UNREADABLE,
                f"{self.info.uri}: the chunks of x {box.x0}-{box.x1}, y {box.y0}-{box.y1} cannot be decoded "
                f"({type(error).__name__}). Transfer or export it again",
            ) from error
        kept = [axis for axis in self._axes if axis in "yxc"]
        return block.transpose([kept.index(axis) for axis in "yxc"])

    def close(self) -> None:
        """Nothing is held open between reads."""


def open_omezarr(store: Any, request: OpenRequest, series_xml: str = "") -> OmeZarrReader:
    """Reader of an OME-Zarr group.

    Parameters
    ----------
    store
        What ``zarr.open_group`` takes: a local path or a Zarr store.
    series_xml
        Content of ``SERIES_NAMES``, which names the series of a group that has several.

    Raises
    ------
    SlideError
        ``NOT_A_SLIDE`` for other Zarr groups, ``FILE_UNREADABLE`` for anything but 8-bit RGB or, where that
        is requested, the channels of fluorescence.
    """
    register_image_codecs()
    with _named(request.name):
        root = zarr.open_group(_bounded(store, request.name), mode="r")
        images = read_images(request.name, root, series_xml)
        sizes = {number: _size(image) for number, image in images.items()}
        chosen = list(sizes)[choose_scene(request.name, sizes, request.scene)]
        image = images[chosen]
        levels = _levels(request.name, image)
    axes, first = image.axes, levels[0][1]
    (_checked_stack if request.fluorescence else _checked)(request.name, first, axes)
    stated = _stated(image.group, first.shape[axes.index("c")])
    chosen_channels, foci = None, 1
    odd: tuple[str, ...] = ()
    if request.fluorescence:
        chosen_channels = map_channels(request.name, request.channels, [channel.name for channel in stated])
        foci = first.shape[axes.index("z")] if "z" in axes else 1
        sources = chosen_channels.sources
    else:
        sources, odd = colour_order(request.name, stated, in_order=not any(map(_says, stated)))
    seen = (f"{foci} focal planes: each pixel is their maximum",) if foci > 1 else ()
    width = first.shape[axes.index("x")]
    scale = resolve_scale(request.name, request.mpp, image.scale_of(levels[0][0]), request.assay)
    info = SlideInfo(
        uri=request.name,
        identity=request.identity,
        size_bytes=request.size_bytes,
        format=f"ome-zarr-{'0.5' if first.metadata.zarr_format == 3 else '0.4'}",
        reader="ome-zarr",
        levels=tuple(_level(array, axes, width) for _, array in levels),
        tile_height=first.chunks[axes.index("y")],
        tile_width=first.chunks[axes.index("x")],
        compression=_compression(first),
        mpp=scale.mpp,
        mpp_source=scale.source,
        scenes=tuple(sizes),
        scene=chosen if len(sizes) > 1 or request.scene else None,
        objective_power=None,
        problems=(*scale.problems, *odd, *seen),
        channels=chosen_channels.names if chosen_channels else RGB,
        dtype=first.dtype.name,
        z_planes=foci,
        source_channels=str(chosen_channels) if chosen_channels else None,
        scene_sizes=tuple(sizes.values()),
    )
    return OmeZarrReader(info, first, axes, sources)


def _bounded(store: Any, name: str) -> BoundedStore:
    return BoundedStore(store if isinstance(store, Store) else LocalStore(store, read_only=True), name)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """State in words that metadata cannot be read."""
    try:
        yield
    except UNREADABLE as error:
        raise SlideError(
            Reason.FILE_UNREADABLE,
            f"{name}: its OME-Zarr metadata cannot be read ({type(error).__name__})",
        ) from error


def _levels(name: str, image: Multiscale) -> list[tuple[Level, zarr.Array[Any]]]:
    """An image's levels and their arrays, the largest first, whatever the order of the metadata."""
    found: list[tuple[Level, zarr.Array[Any]]] = []
    for level in image.levels:
        array = image.group[level.path]
        if not isinstance(array, zarr.Array) or len(array.shape) != len(image.axes) or 0 in array.shape:
            raise SlideError(
                Reason.FILE_UNREADABLE,
                f"{name}: a level of its OME-Zarr image is no array of pixels with axes {image.axes}",
            )
        found.append((level, array))
    return sorted(found, key=lambda one: -_area(one[1], image.axes))


def _area(array: zarr.Array[Any], axes: str) -> int:
    return array.shape[axes.index("y")] * array.shape[axes.index("x")]


def _size(image: Multiscale) -> tuple[int, int]:
    """Height and width of an image; 0 where its arrays cannot be read."""
    try:
        first = _levels("", image)[0][1]
    except (SlideError, *UNREADABLE):
        return 0, 0
    return first.shape[image.axes.index("y")], first.shape[image.axes.index("x")]


def _stated(group: zarr.Group, count: int) -> list[StatedChannel]:
    """What the ``omero`` metadata state of each channel; a malformed block is ignored."""
    block = ome_attributes(group).get("omero", {})
    listed = block.get("channels", []) if isinstance(block, dict) else []
    known = [_channel(one) for one in listed[:count]] if isinstance(listed, list) else []
    return [*known, *[StatedChannel()] * count][:count]


def _channel(content: Any) -> StatedChannel:
    label, colour = (
        (content.get("label"), content.get("color")) if isinstance(content, dict) else (None, None)
    )
    digits = colour.removeprefix("#") if isinstance(colour, str) else ""
    rgb = bytes.fromhex(digits) if re.fullmatch("[0-9A-Fa-f]{6}", digits) else None
    return StatedChannel(
        str(label)[:MAX_CHANNEL_NAME] if isinstance(label, (str, int)) else "",
        (rgb[0], rgb[1], rgb[2]) if rgb is not None else None,
    )


def _says(channel: StatedChannel) -> bool:
    return channel != StatedChannel()


def _checked(name: str, first: zarr.Array[Any], axes: str) -> None:
    """The finest level, checked to be an 8-bit RGB plane of an acceptable size."""
    shape = dict(zip(axes, first.shape, strict=True))
    if shape.get("c") != 3:
        raise SlideError(
            Reason.FILE_UNREADABLE,
            f"{name}: axes {axes!r} of shape {first.shape}; expected one plane with axes c (3), y and x",
        )
    if first.dtype != np.uint8:
        raise SlideError(Reason.FILE_UNREADABLE, f"{name}: {_type(first)} pixels; expected 8-bit RGB (uint8)")
    if shape.get("z", 1) != 1:
        raise focal_planes(name, shape["z"])
    _check_extent(name, first, shape)


def _checked_stack(name: str, first: zarr.Array[Any], axes: str) -> None:
    """The finest level, checked to be channels of 8 or 16 bits, at any number of focal planes."""
    shape = dict(zip(axes, first.shape, strict=True))
    if "c" not in shape:
        raise SlideError(
            Reason.FILE_UNREADABLE,
            f"{name}: axes {axes!r} of shape {first.shape}; expected c, y, x and perhaps z",
        )
    if first.dtype not in (np.dtype(np.uint8), np.dtype(np.uint16)):
        raise SlideError(
            Reason.PIXELS_UNSUPPORTED,
            f"{name}: {_type(first)} pixels; expected uint8 or uint16. Export the camera's own grey levels",
        )
    if shape["c"] > MAX_CHANNELS or shape["c"] * shape.get("z", 1) > MAX_PLANES:
        raise SlideError(
            Reason.FILE_BEYOND_LIMITS,
            f"{name}: declares {shape['c']} channels in {shape.get('z', 1)} focal planes; accepted are "
            f"{MAX_CHANNELS} channels and {MAX_PLANES} planes in all",
        )
    _check_extent(name, first, shape)


def _type(array: zarr.Array[Any]) -> str:
    """Type of the pixels; a type of many fields is cut short."""
    return str(array.dtype)[:20]


def _check_extent(name: str, array: zarr.Array[Any], shape: dict[str, int]) -> None:
    if shape.get("t", 1) != 1:
        raise time_points(name, shape["t"])
    check_size(name, shape["y"], shape["x"])
    check_packing(name, array)
    if math.prod(array.chunks) > 3 * MAX_TILE_PX:
        raise SlideError(
            Reason.FILE_BEYOND_LIMITS,
            f"{name}: chunks of {array.chunks}; accepted are {3 * MAX_TILE_PX} values a chunk",
        )


def _level(array: Any, axes: str, width: int) -> LevelInfo:
    h, w = (array.shape[axes.index(axis)] for axis in "yx")
    return LevelInfo(h, w, width / w)


def _compression(array: zarr.Array[Any]) -> str:
    chain = [getattr(array, "serializer", None), *array.compressors]  # a serializer may be an image codec
    codecs = [type(c).__name__.removesuffix("Codec").lower() for c in chain if c is not None]
    return "+".join(codec for codec in codecs if codec != "bytes") or "none"
