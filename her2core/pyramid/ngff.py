"""Zarr v3 and OME-Zarr 0.5 metadata documents of a pyramid and its labels; plain dicts, no I/O.

Coordinates follow the NGFF convention that a pixel's centre lies at its integer index: the centre of the
first pixel of level 0 is the origin, and pixel ``i`` of level ``k`` lies at ``(i + 1/2) 2^k - 1/2`` level-0
pixels, which ``scale`` and ``translation`` state in micrometres.

References
----------
OME-Zarr 0.5: https://ngff.openmicroscopy.org/0.5/
Zarr v3 core: https://zarr-specs.readthedocs.io/en/latest/v3/core/
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from her2core.pixels import RGB8, PixelFormat
from her2core.pyramid.codecs import Codec

OME_VERSION = "0.5"
NOTE = "her2core"
"""Attribute, beside ``ome``, for what the specification has no place for."""
_COLOURS = {
    "R": "FF0000", "G": "00FF00", "B": "0000FF", "DAPI": "0000FF", "HER2": "FF0000", "CEP17": "00FF00",
}  # fmt: skip
_LABEL_COLOURS = ((0, 158, 115), (230, 159, 0), (86, 180, 233), (204, 121, 167))
"""Distinct for colour-blind eyes (Okabe & Ito 2008)."""
_REDUCED_BY = {
    "mean": "2 x 2 mean, rounded half up; the last row or column is repeated where a size is odd",
    "nearest": "every other pixel, from the level that the mask was made at",
}
"""How a level is made from the one before, by NGFF ``type``."""

Document = dict[str, Any]


def image_array(
    shape: tuple[int, int], chunk: int, shard: int, codec: Codec, pixels: PixelFormat = RGB8
) -> Document:
    """``zarr.json`` of one level: ``(c, y, x)``, all channels in a chunk."""
    chain = list(codec.chain)
    count = pixels.count
    document = _array(
        (count, *shape), (count, chunk, chunk), (count, shard, shard), chain, pixels.outside, ["c", "y", "x"]
    )
    return document | {"data_type": pixels.dtype}


def label_array(shape: tuple[int, int], chunk: int, shard: int, codec: Codec, fill: int) -> Document:
    """``zarr.json`` of one level of a label: ``(y, x)`` uint8."""
    return _array(shape, (chunk, chunk), (shard, shard), list(codec.chain), fill, ["y", "x"])


def _array(
    shape: Sequence[int],
    chunk: Sequence[int],
    shard: Sequence[int],
    chain: list[Document],
    fill: int,
    names: list[str],
) -> Document:
    sharding = {
        "chunk_shape": list(chunk),
        "codecs": chain,
        "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
        "index_location": "end",
    }
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(shard)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill,
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "attributes": {},
        "dimension_names": names,
    }


def image_group(
    name: str,
    levels: Sequence[int],
    mpp: float,
    pixels: PixelFormat = RGB8,
    shown: Sequence[tuple[int, int]] | None = None,
    icc_profile: bytes = b"",
    note: Document | None = None,
) -> Document:
    """``zarr.json`` of the pyramid's group.

    Parameters
    ----------
    levels
        Those that are stored, finest first.
    shown
        What a viewer shows as each channel's darkest and brightest; all that the dtype holds by default.
    icc_profile
        The slide's colour profile: in base64 beside ``ome``, which has no place for one.
    note
        How the levels were stored, beside ``ome``.
    """
    most = int(np.iinfo(pixels.dtype).max)
    windows = shown or [(0, most)] * pixels.count
    axes = [{"name": "c", "type": "channel"}, *_space_axes()]
    document = _group(
        {
            "multiscales": [_multiscale(name, axes, levels, mpp, "mean")],
            "omero": {
                "channels": [
                    {
                        "label": label,
                        "color": _COLOURS[label],
                        "active": True,
                        "window": {"min": 0, "max": most, "start": start, "end": end},
                    }
                    for label, (start, end) in zip(pixels.channels, windows, strict=True)
                ],
                "rdefs": {"model": "color"},
            },
        }
    )
    if icc_profile:
        document["attributes"]["icc_profile"] = b64encode(icc_profile).decode("ascii")
    if note:
        document["attributes"][NOTE] = note
    return document


def label_group(
    name: str, levels: Sequence[int], mpp: float, values: Sequence[int], extra: Document
) -> Document:
    """``zarr.json`` of a label's group; ``extra`` goes beside ``ome`` among the attributes.

    A label without any value names the colour that 1 would have: NGFF requires one at least.
    """
    colours = [
        {"label-value": value, "rgba": [*_LABEL_COLOURS[i % len(_LABEL_COLOURS)], 128]}
        for i, value in enumerate(values or [1])
    ]
    document = _group(
        {
            "multiscales": [_multiscale(name, _space_axes(), levels, mpp, "nearest")],
            "image-label": {"colors": colours, "source": {"image": "../../"}},
        }
    )
    document["attributes"].update(extra)
    return document


def labels_group(names: Sequence[str]) -> Document:
    """``zarr.json`` of the group that lists an image's labels."""
    return _group({"labels": list(names)})


def with_nodes(group: Document, below: Mapping[str, Document]) -> Document:
    """A group's ``zarr.json`` that carries these too, by their paths: consolidated metadata.

    The Zarr specification has no such thing yet; zarr-python writes and reads it so, and others pass it by.
    """
    known = group.get("consolidated_metadata", {}).get("metadata", {})
    inline = {"kind": "inline", "must_understand": False, "metadata": {**known, **below}}
    return group | {"consolidated_metadata": inline}


def _group(ome: Document) -> Document:
    return {"zarr_format": 3, "node_type": "group", "attributes": {"ome": {"version": OME_VERSION, **ome}}}


def _space_axes() -> list[Document]:
    return [{"name": name, "type": "space", "unit": "micrometer"} for name in ("y", "x")]


def _multiscale(name: str, axes: list[Document], levels: Sequence[int], mpp: float, method: str) -> Document:
    leading = [1.0] * (len(axes) - 2)
    origin = [0.0] * (len(axes) - 2)
    return {
        "name": name,
        "axes": axes,
        "type": method,
        "metadata": {"description": _REDUCED_BY[method]},
        "datasets": [
            {
                "path": str(level),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [*leading, mpp * 2**level, mpp * 2**level]},
                    {"type": "translation", "translation": [*origin, *[mpp * (2**level - 1) / 2] * 2]},
                ],
            }
            for level in levels
        ],
    }
