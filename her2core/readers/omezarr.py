"""OME-Zarr 0.4 and 0.5 images, read as they are, local or remote.

References
----------
OME-NGFF 0.4 and 0.5, https://ngff.openmicroscopy.org.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import zarr

from her2core.errors import Reason, SlideError
from her2core.pixels import PixelFormat, Pixels
from her2core.readers.base import DARK, Asked, Closing, choose_scene, clip_region, names_picture
from her2core.readers.channels import MAX_CHANNELS, MAX_PLANES, map_channels
from her2core.readers.limits import MAX_TILE_PX, check_size
from her2core.readers.ome import parse_ome
from her2core.readers.scale import UNIT_UM, Scale, resolve_scale
from her2core.records import RGB, Box, LevelInfo, SlideInfo

MARKERS = ("zarr.json", ".zgroup")
"""Files of which one lies in every Zarr group."""
SERIES_NAMES = "OME/METADATA.ome.xml"
"""Where bioformats2raw names its series, the label and macro pictures among them."""
UNREADABLE = (ValueError, KeyError, TypeError, RuntimeError)
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
            inside[...] = self._block(box, 0, slice(0, 3))
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


def open_omezarr(store: Any, asked: Asked, series_xml: str = "") -> OmeZarrReader:
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
        is asked for, the channels of fluorescence.
    """
    try:
        root = zarr.open_group(store, mode="r")
        images = _images(asked.name, root, series_xml)
        names = tuple(images)
        sizes = {number: _size(*image) for number, image in images.items()}
        chosen = names[choose_scene(asked.name, sizes, asked.scene)]
        group, multiscale = images[chosen]
        axes = "".join(axis["name"] for axis in multiscale["axes"])
        arrays = [group[dataset["path"]] for dataset in multiscale["datasets"]]
    except UNREADABLE as error:
        raise SlideError(
            Reason.FILE_UNREADABLE,
            f"{asked.name}: its OME-Zarr metadata cannot be read ({type(error).__name__})",
        ) from error
    first: Any = arrays[0]
    if not all(isinstance(array, zarr.Array) for array in arrays):
        raise SlideError(Reason.FILE_UNREADABLE, f"{asked.name}: a level of its OME-Zarr image is no array")
    (_checked_stack if asked.fluorescence else _checked)(asked.name, first, axes)
    chosen_channels, foci = None, 1
    if asked.fluorescence:
        stored = [*_labels(group), *[""] * first.shape[axes.index("c")]][: first.shape[axes.index("c")]]
        chosen_channels = map_channels(asked.name, asked.channels, stored)
        foci = first.shape[axes.index("z")] if "z" in axes else 1
    seen = (f"{foci} focal planes: each pixel is their maximum",) if foci > 1 else ()
    width = first.shape[axes.index("x")]
    scale = resolve_scale(asked.name, asked.mpp, _scales(multiscale, axes), asked.assay)
    info = SlideInfo(
        uri=asked.name,
        identity=asked.identity,
        size_bytes=asked.size_bytes,
        format=f"ome-zarr-{'0.5' if first.metadata.zarr_format == 3 else '0.4'}",
        reader="ome-zarr",
        levels=tuple(_level(array, axes, width) for array in arrays),
        tile_height=first.chunks[axes.index("y")],
        tile_width=first.chunks[axes.index("x")],
        compression=_compression(first),
        mpp=scale.mpp,
        mpp_source=scale.source,
        scenes=names,
        scene=chosen if len(names) > 1 or asked.scene else None,
        objective_power=None,
        problems=(*scale.problems, *seen),
        channels=chosen_channels.names if chosen_channels else RGB,
        dtype=first.dtype.name,
        z_planes=foci,
        source_channels=str(chosen_channels) if chosen_channels else None,
    )
    return OmeZarrReader(info, first, axes, chosen_channels.sources if chosen_channels else (0, 1, 2))


def _images(name: str, root: zarr.Group, series_xml: str) -> dict[str, tuple[zarr.Group, dict[str, Any]]]:
    """Multiscale images by scene name: the root's own, or the numbered series that bioformats2raw writes."""
    attributes = _ome(root)
    if "multiscales" in attributes:
        return {
            str(i): (root, image)
            for i, image in enumerate(attributes["multiscales"])
            if not names_picture(str(image.get("name", "")))
        }
    if attributes.get("bioformats2raw.layout") == 3:
        series = attributes.get("series") or _numbered(root)
        pictures = {
            str(image.number) for image in parse_ome(name, series_xml or "<OME/>") if not image.is_slide
        }
        groups = {key: root[key] for key in series if key not in pictures}
        return {key: (g, _ome(g)["multiscales"][0]) for key, g in groups.items() if isinstance(g, zarr.Group)}
    raise SlideError(
        Reason.NOT_A_SLIDE,
        f"{name}: a Zarr group without OME `multiscales`; expected an OME-Zarr 0.4 or 0.5 image",
    )


def _size(group: zarr.Group, multiscale: dict[str, Any]) -> tuple[int, int]:
    array: Any = group[multiscale["datasets"][0]["path"]]
    return array.shape[-2], array.shape[-1]


def _numbered(root: zarr.Group) -> list[str]:
    found: list[str] = []
    while str(len(found)) in root:
        found.append(str(len(found)))
    return found


def _ome(group: zarr.Group) -> dict[str, Any]:
    """OME attributes: under ``ome`` in 0.5, at the top in 0.4."""
    attributes = dict(group.attrs)
    inner = attributes.get("ome")
    return inner if isinstance(inner, dict) else attributes


def _labels(group: zarr.Group) -> list[str]:
    """Names of the channels as the ``omero`` metadata give them; a metadata block that is odd names none."""
    channels = _ome(group).get("omero", {})
    listed = channels.get("channels", []) if isinstance(channels, dict) else []
    if not isinstance(listed, list):
        return []
    return [str(c.get("label") or "") if isinstance(c, dict) else "" for c in listed[:MAX_CHANNELS]]


def _checked(name: str, first: zarr.Array[Any], axes: str) -> None:
    """The finest level, checked to be an 8-bit RGB plane of an acceptable size."""
    shape = dict(zip(axes, first.shape, strict=False))
    single = all(shape[axis] == 1 for axis in axes if axis not in "cyx")
    if len(axes) != len(first.shape) or not {"c", "y", "x"} <= set(axes) or shape["c"] != 3 or not single:
        raise SlideError(
            Reason.FILE_UNREADABLE,
            f"{name}: axes {axes!r} of shape {first.shape}; expected one plane with axes c (3), y and x",
        )
    if first.dtype != np.uint8:
        raise SlideError(Reason.FILE_UNREADABLE, f"{name}: {first.dtype} pixels; expected 8-bit RGB (uint8)")
    check_size(name, shape["y"], shape["x"])
    _check_chunks(name, first)


def _checked_stack(name: str, first: zarr.Array[Any], axes: str) -> None:
    """The finest level, checked to be channels of 8 or 16 bits, at any number of focal planes."""
    shape = dict(zip(axes, first.shape, strict=False))
    if len(axes) != len(first.shape) or len(set(axes)) < len(axes) or not {"c", "y", "x"} <= set(axes):
        raise SlideError(
            Reason.FILE_UNREADABLE,
            f"{name}: axes {axes!r} of shape {first.shape}; expected c, y, x and perhaps z",
        )
    if any(shape[axis] != 1 for axis in axes if axis not in "czyx"):
        raise SlideError(
            Reason.PIXELS_UNSUPPORTED,
            f"{name}: axes {axes!r} of shape {first.shape}; expected one time point. Export a single one",
        )
    if first.dtype not in (np.dtype(np.uint8), np.dtype(np.uint16)):
        raise SlideError(
            Reason.PIXELS_UNSUPPORTED,
            f"{name}: {first.dtype} pixels; expected uint8 or uint16. Export the camera's own grey levels",
        )
    check_size(name, shape["y"], shape["x"])
    if shape["c"] > MAX_CHANNELS or shape["c"] * shape.get("z", 1) > MAX_PLANES:
        raise SlideError(
            Reason.FILE_HOSTILE,
            f"{name}: declares {shape['c']} channels in {shape.get('z', 1)} focal planes; accepted are "
            f"{MAX_CHANNELS} channels and {MAX_PLANES} planes in all",
        )
    _check_chunks(name, first)


def _check_chunks(name: str, array: zarr.Array[Any]) -> None:
    if math.prod(array.chunks) > 3 * MAX_TILE_PX:
        raise SlideError(
            Reason.FILE_HOSTILE,
            f"{name}: chunks of {array.chunks}; accepted are {3 * MAX_TILE_PX} values a chunk",
        )


def _scales(multiscale: dict[str, Any], axes: str) -> list[Scale]:
    """Pixel size of the finest level from its ``scale`` transformations and the axes' units."""
    factors = dict.fromkeys(axes, 1.0)
    for transform in [
        *multiscale["datasets"][0].get("coordinateTransformations", ()),
        *multiscale.get("coordinateTransformations", ()),
    ]:
        for axis, value in zip(axes, transform.get("scale", ()), strict=False):
            factors[axis] *= float(value)
    units = {axis["name"]: UNIT_UM.get(axis.get("unit", "")) for axis in multiscale["axes"]}
    y, x = units["y"], units["x"]
    return [Scale("ome-zarr", factors["y"] * y, factors["x"] * x)] if y and x else []


def _level(array: Any, axes: str, width: int) -> LevelInfo:
    h, w = (array.shape[axes.index(axis)] for axis in "yx")
    return LevelInfo(h, w, width / w)


def _compression(array: zarr.Array[Any]) -> str:
    codecs = [type(c).__name__.removesuffix("Codec").lower() for c in array.compressors]
    return "+".join(codecs) or "none"
