"""OME-Zarr labels of a pyramid: masks on the grid of one level, readable as images at every level.

By the specification a label has as many levels as its image. A mask is made at one level; finer levels
repeat its pixels and coarser ones drop some. One-colour chunks cost next to nothing, so the finer levels stay
small. The level it was made at, which need not be stored, is noted, and :func:`read_label` returns exactly
what was written.

References
----------
OME-Zarr 0.5, labels: https://ngff.openmicroscopy.org/0.5/#labels-md
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from her2core.errors import StoreError
from her2core.pyramid import ngff
from her2core.pyramid.codecs import codec
from her2core.pyramid.reader import grid_of_ref
from her2core.pyramid.shards import ABSENT, ShardWriter, index_bytes, read_index
from her2core.records import PyramidRef
from her2core.storage.store import Store, encode_json

Mask = NDArray[np.uint8]

_BACKGROUND = 0
_CODEC = "zstd"
_SHARD_CHUNKS = 64
"""Most chunks along a shard's edge: a level of up to 32768 px is one object (ours)."""


def write_label(store: Store, ref: PyramidRef, name: str, mask: Mask | NDArray[np.bool_], level: int) -> None:
    """Store a mask beside the pyramid as ``labels/<name>``.

    Parameters
    ----------
    mask
        ``(height, width)`` uint8 or bool on the grid of ``level``; 0 is background.
    level
        Level whose shape the mask has.

    Raises
    ------
    ValueError
        If the mask does not have that shape.
    """
    if mask.shape != ref.shapes[level]:
        raise ValueError(f"label {name!r} of shape {mask.shape}; level {level} has {ref.shapes[level]}.")
    labels = f"{ref.path}/labels"
    made = np.ascontiguousarray(mask, np.uint8)
    levels = grid_of_ref(ref).stored
    nodes: dict[str, ngff.Document] = {}
    objects: dict[str, bytes] = {}
    for other in levels:
        nodes[f"{name}/{other}"] = _encode_level(objects, f"{labels}/{name}/{other}", ref, other, made, level)
    store.write_many(objects)
    values = [int(value) for value in np.unique(made) if value != _BACKGROUND]
    nodes[name] = ngff.label_group(name, levels, ref.mpp, values, {ngff.NOTE: {"level": level}})
    store.write_json(f"{labels}/{name}/zarr.json", nodes[name])
    listed = ngff.labels_group(sorted({*list_labels(store, ref), name}))
    below = {"labels": listed, **{f"labels/{node}": document for node, document in nodes.items()}}
    image = f"{ref.path}/zarr.json"
    root = ngff.with_nodes(store.read_json(image), below)
    store.write_many({f"{labels}/zarr.json": encode_json(listed), image: encode_json(root)})


def list_labels(store: Store, ref: PyramidRef) -> list[str]:
    """Names of the labels of a pyramid."""
    try:
        document = store.read_json(f"{ref.path}/labels/zarr.json")
    except FileNotFoundError:
        return []
    return list(document["attributes"]["ome"]["labels"])


def read_label(store: Store, ref: PyramidRef, name: str) -> tuple[Mask, int]:
    """Read a mask as it was written.

    Returns
    -------
    mask : ndarray of uint8, shape (height, width)
    downsample : int
        Level-0 pixels along the edge of one of its pixels.

    Raises
    ------
    StoreError
        If there is no such label, or it is damaged.
    """
    path = f"{ref.path}/labels/{name}"
    try:
        level = int(store.read_json(f"{path}/zarr.json")["attributes"][ngff.NOTE]["level"])
        stored = max(other for other in grid_of_ref(ref).stored if other <= level)
        apart = 2 ** (level - stored)
        mask = _read_level(store, f"{path}/{stored}", ref, stored)[::apart, ::apart]
        return np.ascontiguousarray(mask), 2**level
    except FileNotFoundError as error:
        raise StoreError(f"{store.uri(path)}: no such label; there are {list_labels(store, ref)}.") from error
    except ValueError as error:
        raise StoreError(f"{store.uri(path)} is damaged: {error}. Run the profile again.") from error


def _shard_side(ref: PyramidRef, level: int) -> int:
    """Chunks along a shard's edge: the power of two that holds the level, within bounds."""
    chunks = -(-max(ref.shapes[level]) // ref.chunk)
    return min(1 << (chunks - 1).bit_length(), _SHARD_CHUNKS)


def _encode_level(
    objects: dict[str, bytes], path: str, ref: PyramidRef, level: int, mask: Mask, made_at: int
) -> ngff.Document:
    """Add a mask made at one level, as its image at another, to the objects to write; its metadata."""
    how, side, edge = codec(_CODEC), _shard_side(ref, level), ref.chunk
    height, width = ref.shapes[level]
    if level >= made_at:
        mask, repeat = mask[:: 2 ** (level - made_at), :: 2 ** (level - made_at)], 1
    else:
        repeat = 2 ** (made_at - level)
    writer = ShardWriter(side, how, _BACKGROUND)
    chunk = np.empty((edge, edge), np.uint8)
    for iy in range(-(-height // (side * edge))):
        for ix in range(-(-width // (side * edge))):
            writer.clear()
            for cy in range(min(side, -(-height // edge) - iy * side)):
                for cx in range(min(side, -(-width // edge) - ix * side)):
                    if _fill(chunk, mask, repeat, (iy * side + cy) * edge, (ix * side + cx) * edge):
                        writer.add(cy, cx, chunk)
            objects[f"{path}/c/{iy}/{ix}"] = bytes(writer.finish())
    document = ngff.label_array((height, width), edge, side * edge, how, _BACKGROUND)
    objects[f"{path}/zarr.json"] = encode_json(document)
    return document


def _fill(chunk: Mask, mask: Mask, repeat: int, y0: int, x0: int) -> bool:
    """Fill a chunk at ``(y0, x0)`` with the mask, its pixels repeated, unless all of it is background."""
    edge = len(chunk)
    rows, columns = y0 // repeat, x0 // repeat
    part = mask[rows : -(-(y0 + edge) // repeat), columns : -(-(x0 + edge) // repeat)]
    if not part.any():
        return False
    if (
        y0 + edge <= mask.shape[0] * repeat
        and x0 + edge <= mask.shape[1] * repeat
        and (part == part[0, 0]).all()
    ):
        chunk.fill(part[0, 0])
        return True
    grown = part.repeat(repeat, axis=0).repeat(repeat, axis=1)
    grown = grown[y0 - rows * repeat :, x0 - columns * repeat :][:edge, :edge]
    chunk.fill(_BACKGROUND)
    chunk[: grown.shape[0], : grown.shape[1]] = grown
    return True


def _read_level(store: Store, path: str, ref: PyramidRef, level: int) -> Mask:
    how, side, edge = codec(_CODEC), _shard_side(ref, level), ref.chunk
    height, width = ref.shapes[level]
    mask = np.zeros((height, width), np.uint8)
    chunk = np.empty((edge, edge), np.uint8)
    for iy in range(-(-height // (side * edge))):
        for ix in range(-(-width // (side * edge))):
            shard = memoryview(store.read_bytes(f"{path}/c/{iy}/{ix}"))
            index = read_index(bytes(shard[-index_bytes(side) :]), side)
            for cy, cx in np.argwhere(index[..., 0] != ABSENT):
                start, size = (int(v) for v in index[cy, cx])
                how.decode(shard[start : start + size], chunk)
                y0, x0 = (iy * side + int(cy)) * edge, (ix * side + int(cx)) * edge
                target = mask[y0 : y0 + edge, x0 : x0 + edge]
                target[...] = chunk[: target.shape[0], : target.shape[1]]
    return mask
