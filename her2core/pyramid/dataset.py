"""Open a pyramid for analysis: levels as xarray DataArrays in micrometres, Dask-backed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
import zarr

from her2core.errors import StoreError
from her2core.readers.zarr_codecs import register_image_codecs
from her2core.storage.store import Store

TASK_PX = 2048
"""Edge of a Dask chunk, cut to the level: about 12 MB, a few dozen Zarr chunks (ours)."""


def open_level(uri: str, n: int, storage_options: Mapping[str, Any] | None = None) -> xr.DataArray:
    """Open one level of a pyramid; pixels are read when they are used.

    Parameters
    ----------
    uri
        The pyramid's group: a folder or ``s3://bucket/prefix``.
    n
        Level, which is halved ``n`` times; 0 is the finest. Pyramids that hold a slide's own tiles have
        even levels alone.
    storage_options
        ``endpoint_url`` of an S3 server other than AWS. Credentials come by the standard chain.

    Returns
    -------
    xarray.DataArray
        uint8 or uint16 with dims ``(c, y, x)``; ``c`` names the channels (R, G, B, or DAPI and the probes),
        and ``y`` and ``x`` are pixel centres in micrometres from the centre of level 0's first pixel.
        Attributes: ``mpp`` (of this level), ``units``, ``level``.

    Raises
    ------
    StoreError
        If there is no pyramid, or no such level.
    """
    store, multiscale, channels = _opened(uri, storage_options)
    levels = _by_number(multiscale)
    if n not in levels:
        raise StoreError(f"{uri} has levels {', '.join(map(str, levels))}; level {n} was requested.")
    return _level(store, levels[n], n, channels)


def open_pyramid(uri: str, storage_options: Mapping[str, Any] | None = None) -> xr.DataTree:
    """Open all levels of a pyramid: node ``/<n>`` holds the variable ``image`` of level ``n``.

    Parameters and errors are those of :func:`open_level`.
    """
    store, multiscale, channels = _opened(uri, storage_options)
    nodes = {
        f"/{n}": xr.Dataset({"image": _level(store, level, n, channels)})
        for n, level in _by_number(multiscale).items()
    }
    tree = xr.DataTree.from_dict(nodes, name=multiscale.get("name"))
    tree.attrs["levels"] = len(nodes)
    return tree


def _opened(uri: str, storage_options: Mapping[str, Any] | None) -> tuple[Store, dict[str, Any], list[str]]:
    """Store, first multiscale image, and the names of its channels."""
    register_image_codecs()
    store = Store(uri, **(storage_options or {}))
    try:
        group = zarr.open_group(store.zarr_store(), mode="r", zarr_format=3)
        attributes: dict[str, Any] = dict(group.attrs)
        multiscale: dict[str, Any] = attributes["ome"]["multiscales"][0]
        channels = [str(channel["label"]) for channel in attributes["ome"]["omero"]["channels"]]
    except (FileNotFoundError, KeyError, IndexError, TypeError) as error:
        raise StoreError(f"{uri} is not an OME-Zarr 0.5 image; expected a finished pyramid.") from error
    return store, multiscale, channels


def _by_number(multiscale: Mapping[str, Any]) -> dict[int, Mapping[str, Any]]:
    """Levels by the number that they are called, or, where others chose the names, by their order."""
    levels = multiscale["datasets"]
    names = [str(level["path"]) for level in levels]
    numbers = map(int, names) if all(name.isdecimal() for name in names) else range(len(levels))
    return dict(zip(numbers, levels, strict=True))


def _level(store: Store, dataset: Mapping[str, Any], n: int, channels: list[str]) -> xr.DataArray:
    array = zarr.open_array(store.zarr_store(dataset["path"]), mode="r", zarr_format=3)
    shape = array.shape
    scale, origin = np.ones(3), np.zeros(3)
    for transform in dataset["coordinateTransformations"]:
        if transform["type"] == "scale":
            scale = np.asarray(transform["scale"], np.float64)
        elif transform["type"] == "translation":
            origin = np.asarray(transform["translation"], np.float64)
    y, x = (origin[axis] + scale[axis] * np.arange(shape[axis]) for axis in (1, 2))
    return xr.DataArray(
        da.from_array(array, chunks=(shape[0], TASK_PX, TASK_PX), name=None),  # type: ignore[no-untyped-call]
        dims=("c", "y", "x"),
        coords={
            "c": channels,
            "y": ("y", y, {"units": "micrometer"}),
            "x": ("x", x, {"units": "micrometer"}),
        },
        name="image",
        attrs={"mpp": float(scale[1]), "units": "micrometer", "level": n},
    )
