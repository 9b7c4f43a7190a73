"""OME-Zarr 0.4 and 0.5 images, read as they are, local or remote.

References
----------
OME-NGFF 0.4 and 0.5, https://ngff.openmicroscopy.org.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from her2core.errors import Reason, SlideError
from her2core.readers.base import Asked, Closing, choose_scene, clip_region
from her2core.readers.limits import MAX_TILE_PX, check_size
from her2core.readers.ome import parse_ome
from her2core.readers.scale import UNIT_UM, Scale, resolve_scale
from her2core.records import LevelInfo, SlideInfo

MARKERS = ("zarr.json", ".zgroup")
"""Files of which one lies in every Zarr group."""
SERIES_NAMES = "OME/METADATA.ome.xml"
"""Where bioformats2raw names its series, the label and macro pictures among them."""
UNREADABLE = (ValueError, KeyError, TypeError, RuntimeError)
"""What zarr and its codecs raise for metadata and chunks that are not what they should be."""


class OmeZarrReader(Closing):
    """Reader of the finest level of a multiscale image."""

    def __init__(self, info: SlideInfo, array: zarr.Array[Any], axes: str) -> None:
        self.info = info
        self._array = array
        self._axes = axes

    def read_region(self, y0: int, x0: int, out: npt.NDArray[np.uint8]) -> None:
        box = clip_region(y0, x0, out, self.info.height, self.info.width)
        if box is None:
            return
        window = {"y": slice(box.y0, box.y1), "x": slice(box.x0, box.x1), "c": slice(0, 3)}
        try:
            block = np.asarray(self._array[tuple(window.get(axis, 0) for axis in self._axes)])
        except UNREADABLE as error:
            raise SlideError(
                Reason.FILE_UNREADABLE,
                f"{self.info.uri}: the chunks of x {box.x0}-{box.x1}, y {box.y0}-{box.y1} cannot be decoded "
                f"({type(error).__name__}). Transfer or export it again",
            ) from error
        kept = [axis for axis in self._axes if axis in window]
        out[box.y0 - y0 : box.y1 - y0, box.x0 - x0 : box.x1 - x0] = block.transpose(
            [kept.index(a) for a in "yxc"]
        )

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
        ``NOT_A_SLIDE`` for other Zarr groups, ``FILE_UNREADABLE`` for anything but 8-bit RGB.
    """
    try:
        root = zarr.open_group(store, mode="r")
        images = _images(asked.name, root, series_xml)
        names = tuple(images)
        chosen = names[choose_scene(asked.name, names, asked.scene)]
        group, multiscale = images[chosen]
        axes = "".join(axis["name"] for axis in multiscale["axes"])
        arrays = [group[dataset["path"]] for dataset in multiscale["datasets"]]
    except UNREADABLE as error:
        raise SlideError(
            Reason.FILE_UNREADABLE,
            f"{asked.name}: its OME-Zarr metadata cannot be read ({type(error).__name__})",
        ) from error
    first = _checked(asked.name, arrays, axes)
    width = first.shape[axes.index("x")]
    scale = resolve_scale(asked.name, asked.mpp, _scales(multiscale, axes))
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
        assay_guess=None,
        problems=scale.problems,
    )
    return OmeZarrReader(info, first, axes)


def _images(name: str, root: zarr.Group, series_xml: str) -> dict[str, tuple[zarr.Group, dict[str, Any]]]:
    """Multiscale images by scene name: the root's own, or the numbered series that bioformats2raw writes."""
    attributes = _ome(root)
    if "multiscales" in attributes:
        return {str(m.get("name") or i): (root, m) for i, m in enumerate(attributes["multiscales"])}
    if attributes.get("bioformats2raw.layout") == 3:
        series = attributes.get("series") or _numbered(root)
        pictures = {
            str(i) for i, image in enumerate(parse_ome(name, series_xml or "<OME/>")) if not image.is_slide
        }
        groups = {key: root[key] for key in series if key not in pictures}
        return {key: (g, _ome(g)["multiscales"][0]) for key, g in groups.items() if isinstance(g, zarr.Group)}
    raise SlideError(
        Reason.NOT_A_SLIDE,
        f"{name}: a Zarr group without OME `multiscales`; expected an OME-Zarr 0.4 or 0.5 image",
    )


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


def _checked(name: str, arrays: list[Any], axes: str) -> zarr.Array[Any]:
    """The finest level, checked to be an 8-bit RGB plane of an acceptable size."""
    first: zarr.Array[Any] = arrays[0]
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
    if math.prod(first.chunks) > 3 * MAX_TILE_PX:
        raise SlideError(
            Reason.FILE_HOSTILE,
            f"{name}: chunks of {first.chunks}; accepted are {3 * MAX_TILE_PX} values a chunk",
        )
    return first


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
