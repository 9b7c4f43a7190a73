"""Stage ``pyramid``: one slide becomes an OME-Zarr 0.5 pyramid of sharded, micrometre-scaled levels.

Three plain functions that any scheduler can drive: :func:`write_shard` for every shard of level 0, in any
order and on any machine; :func:`write_top` once they are all there; :func:`finalise` last, which writes the
metadata, so that a pyramid that can be opened is a whole one.

A level is the 2 x 2 mean of the finer one, rounded half up, with the last row or column repeated where a size
is odd. With a lossless codec the pixels are therefore the same for any chunk or shard size. A lossy one is
applied to the slide's own pixels within a band (see ``grid``); the next band starts from what was stored.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from her2core.errors import ConfigError, Reason, SlideError, StoreError
from her2core.grid import Grid
from her2core.params import PyramidParams
from her2core.pixels import RGB8, PixelFormat, Pixels
from her2core.pyramid import ngff
from her2core.pyramid.codecs import Codec, codec
from her2core.pyramid.reader import PyramidReader, shard_key
from her2core.pyramid.shards import ShardWriter
from her2core.readers.base import SlideReader
from her2core.records import Box, PyramidRef, SlideInfo
from her2core.storage.store import Store

VERSION = 3
"""Raised whenever the same slide and parameters would give other pixels or files."""

JPEG_TISSUE_BYTES_PX = 0.25
"""Bytes a pixel of tissue in JPEG slides. Ours: whole files, glass included, had 0.14 to 0.29."""
JPEG_GLASS_BYTES_PX = 0.03
"""Bytes a pixel of glass in them. Ours: ten times less than tissue, as JPEG does at such qualities."""
UNKNOWN_TISSUE_FRACTION = 0.4
"""Share of a slide that is tissue where the source's compression does not tell. Ours."""

Source = Callable[[int, int, Pixels], None]
"""``source(y, x, chunk)`` fills a chunk's pixels at ``(y, x)`` of a block."""

_local = threading.local()


@dataclass(frozen=True, slots=True)
class ShardWritten:
    """What one task wrote."""

    objects: int
    bytes_written: int


@dataclass(frozen=True, slots=True)
class SizeEstimate:
    """Size of a pyramid before it is made. ``objects`` is exact, ``stored_bytes`` good to a factor of two."""

    pixels: int
    stored_bytes: int
    source_bytes: int
    objects: int


def grid_of(height: int, width: int, params: PyramidParams) -> Grid:
    """Geometry of the pyramid of a slide of this size."""
    return Grid(height, width, params.chunk, params.shard)


def key_inputs(info: SlideInfo) -> list[str]:
    """What decides a pyramid's pixels beside its parameters, for its content key."""
    chosen = [] if info.source_channels is None else [info.source_channels]
    return [info.identity, info.scene or "", repr(info.mpp), *chosen]


def check_codec(info: SlideInfo, params: PyramidParams) -> Codec:
    """The codec of the parameters, when it can store the slide's pixels.

    Raises
    ------
    SlideError
        ``PIXELS_UNSUPPORTED`` when it cannot.
    """
    try:
        return codec(params.codec, PixelFormat.of(info))
    except ConfigError as error:
        raise SlideError(Reason.PIXELS_UNSUPPORTED, f"{info.uri}: {error}") from error


def estimate_size(info: SlideInfo, params: PyramidParams) -> SizeEstimate:
    """Estimate a pyramid's size from the slide's header.

    How much of the slide is tissue shows in how well its own JPEG compresses.
    """
    form, how = PixelFormat.of(info), check_codec(info, params)
    grid = grid_of(info.height, info.width, params)
    pixels = sum(height * width for height, width in grid.shapes)
    tissue = UNKNOWN_TISSUE_FRACTION
    if "jp" in info.compression.lower() and info.size_bytes:
        density = info.size_bytes / sum(level.height * level.width for level in info.levels)
        tissue = (density - JPEG_GLASS_BYTES_PX) / (JPEG_TISSUE_BYTES_PX - JPEG_GLASS_BYTES_PX)
        tissue = min(max(tissue, 0.0), 1.0)
    stored = form.bytes_px * pixels * (tissue / how.tissue_ratio + (1 - tissue) / how.glass_ratio)
    return SizeEstimate(pixels, round(stored), info.size_bytes, grid.objects)


def shard_done(store: Store, path: str, iy: int, ix: int) -> bool:
    """Whether the task ``(iy, ix)`` has written everything it writes."""
    return store.exists(shard_key(path, 0, iy, ix))


def undo_shard(store: Store, path: str, iy: int, ix: int) -> None:
    """Let the task ``(iy, ix)`` be not done."""
    store.delete(shard_key(path, 0, iy, ix))


def write_shard(
    reader: SlideReader, store: Store, path: str, grid: Grid, params: PyramidParams, task: tuple[int, int]
) -> ShardWritten:
    """Write the shard ``task = (iy, ix)`` of level 0 and of every level of its band.

    Level 0 is written last: its presence means that the others are there. Writing again replaces the same
    bytes.

    Raises
    ------
    SlideError
        If the slide cannot be read there, or the codec cannot store its pixels.
    """
    box = grid.shard_box(0, *task)
    form = PixelFormat.of(reader.info)
    check_codec(reader.info, params)
    ground = _buffer(box.height, box.width, form)
    # At once, not chunk by chunk: tiles need not fit the chunks, and remote ones come in fewer requests.
    reader.read_region(box.y0, box.x0, ground)

    def source(y: int, x: int, chunk: Pixels) -> None:
        piece = ground[y : y + len(chunk), x : x + len(chunk)]
        chunk[: piece.shape[0], : piece.shape[1]] = piece

    return _write_band(store, path, grid, params, form, 0, task, source)


def write_top(
    store: Store, path: str, grid: Grid, params: PyramidParams, *, pixels: PixelFormat = RGB8
) -> ShardWritten:
    """Write the levels above those of :func:`write_shard`, band by band, from the level below each."""
    reader = PyramidReader(store, _draft(path, grid, params, pixels))
    written = ShardWritten(0, 0)
    for first in range(grid.band, grid.levels, grid.band):
        for task in grid.shards(first):
            source = _halving(reader, grid, pixels, first, grid.shard_box(first, *task))
            part = _write_band(store, path, grid, params, pixels, first, task, source)
            written = ShardWritten(written.objects + part.objects, written.bytes_written + part.bytes_written)
    return written


def finalise(
    store: Store,
    path: str,
    grid: Grid,
    params: PyramidParams,
    *,
    identity: str,
    mpp: float,
    pixels: PixelFormat = RGB8,
    icc_profile: bytes = b"",
    name: str | None = None,
) -> PyramidRef:
    """Check that every shard is there and write the metadata, the group's own last.

    Parameters
    ----------
    pixels
        ``PixelFormat.of(info)``, the one that the shards were written in.
    icc_profile
        The slide's colour profile, to be carried along.
    name
        What viewers call the image: the slide's id. Else the last part of the path.

    Raises
    ------
    StoreError
        If shards are missing; names how many and the first.
    """
    sizes = _sizes(store, path)
    wanted = [shard_key(path, level, iy, ix) for level in range(grid.levels) for iy, ix in grid.shards(level)]
    missing = [key for key in wanted if key not in sizes]
    if missing:
        raise StoreError(
            f"{store.uri(path)} lacks {len(missing)} of {len(wanted)} shards, the first {missing[0]}; "
            "run the tasks that write them again."
        )
    how = codec(params.codec, pixels)
    shown = None if pixels.is_rgb else _windows(store, _draft(path, grid, params, pixels))
    levels = {
        str(level): ngff.image_array(grid.level_shape(level), grid.chunk, grid.shard_px(level), how, pixels)
        for level in range(grid.levels)
    }
    group = ngff.image_group(name or path.rsplit("/", 1)[-1], grid.levels, mpp, pixels, shown, icc_profile)
    for node, document in levels.items():
        store.write_json(f"{path}/{node}/zarr.json", document)
    labels = {
        key.removeprefix(f"{path}/").removesuffix("/zarr.json"): store.read_json(key)
        for key in sizes
        if key.startswith(f"{path}/labels/") and key.endswith("/zarr.json")
    }
    store.write_json(f"{path}/zarr.json", ngff.with_nodes(group, levels | labels))
    metadata = [f"{path}/{node}/zarr.json" for node in levels] + [f"{path}/zarr.json"]
    total = sum(sizes[key] for key in wanted) + sum(store.size(key) for key in metadata)
    return _draft(path, grid, params, pixels, identity=identity, mpp=mpp, bytes_written=total)


def _windows(store: Store, ref: PyramidRef) -> list[tuple[int, int]]:
    """What a viewer shows of each channel as black and as brightest: its background, and its largest value.

    Both are those of the coarsest level; background is the median where DAPI, the first channel, lies below
    Otsu's threshold between field and nuclei. A channel in which nothing stands out is shown from 0.
    """
    form = PixelFormat.of(ref)
    coarsest = form.empty(*ref.shapes[-1])
    PyramidReader(store, ref).read(len(ref.shapes) - 1, 0, 0, coarsest)
    dapi = np.ascontiguousarray(coarsest[..., 0])
    threshold, _ = cv2.threshold(dapi, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    field = coarsest[dapi <= max(threshold, dapi.min())]
    starts = [int(np.median(field[:, channel])) for channel in range(form.count)]
    ends = [int(end) for end in coarsest.max(axis=(0, 1))]
    return [(s, e) if s < e else (0, max(e, 1)) for s, e in zip(starts, ends, strict=True)]


def _write_band(
    store: Store,
    path: str,
    grid: Grid,
    params: PyramidParams,
    pixels: PixelFormat,
    first: int,
    task: tuple[int, int],
    source: Source,
) -> ShardWritten:
    """Write one shard of every level of the band that begins at level ``first``, that level's last."""
    work = _workspace(grid, params, pixels)
    work.build(source, [grid.shard_box(level, *task) for level in grid.band_levels(first)])
    written = 0
    for level in reversed(grid.band_levels(first)):
        shard = work.shards[level - first].finish()
        store.write_bytes(shard_key(path, level, *task), shard)
        written += len(shard)
    return ShardWritten(len(grid.band_levels(first)), written)


class _Workspace:
    """A thread's buffers: one chunk a level of a band, and the shards they are collected in.

    Chunks are built depth first, as the nodes of a quad-tree: a chunk is filled, encoded and reduced into a
    quarter of its parent while it is still in the processor's cache, and only one a level exists at a time.
    """

    def __init__(self, grid: Grid, name: str, pixels: PixelFormat) -> None:
        how = codec(name, pixels)
        self._edge = grid.chunk
        self._chunks = [pixels.empty(grid.chunk, grid.chunk) for _ in range(grid.band)]
        self.shards = [
            ShardWriter(grid.shard_px(level) // grid.chunk, how, pixels.outside) for level in range(grid.band)
        ]

    def build(self, source: Source, boxes: list[Box]) -> None:
        """Fill the shards from ``source``; ``boxes`` are the ground's boxes at each level, finest first."""
        self._source = source
        self._sizes = [(box.height, box.width) for box in boxes]
        for shard in self.shards:
            shard.clear()
        self._node(len(boxes) - 1, 0, 0)

    def _node(self, level: int, cy: int, cx: int) -> None:
        edge, chunk = self._edge, self._chunks[level]
        height, width = (
            min(size - at * edge, edge) for size, at in zip(self._sizes[level], (cy, cx), strict=True)
        )
        if level == 0:
            self._source(cy * edge, cx * edge, chunk)
        else:
            half = edge // 2
            for qy in range(1 if height <= half else 2):
                for qx in range(1 if width <= half else 2):
                    self._node(level - 1, 2 * cy + qy, 2 * cx + qx)
                    quarter = chunk[qy * half : (qy + 1) * half, qx * half : (qx + 1) * half]
                    _halve(self._chunks[level - 1], quarter)
        _repeat_edges(chunk, height, width)
        self.shards[level].add(cy, cx, chunk)


def _workspace(grid: Grid, params: PyramidParams, pixels: PixelFormat) -> _Workspace:
    key = (grid.chunk, grid.shard, params.codec, pixels)
    if getattr(_local, "key", None) != key:
        _local.workspace, _local.key = _Workspace(grid, params.codec, pixels), key
    work: _Workspace = _local.workspace
    return work


def _halving(reader: PyramidReader, grid: Grid, pixels: PixelFormat, first: int, origin: Box) -> Source:
    """Source of level ``first``: the level before it, as stored, halved."""
    height, width = grid.level_shape(first - 1)

    def source(y: int, x: int, chunk: Pixels) -> None:
        edge = 2 * len(chunk)
        y0, x0 = 2 * (origin.y0 + y), 2 * (origin.x0 + x)
        finer = _buffer(edge, edge, pixels)
        reader.read(first - 1, y0, x0, finer)
        _repeat_edges(finer, min(height - y0, edge), min(width - x0, edge))
        _halve(finer, chunk)

    return source


def _halve(pixels: Pixels, out: Pixels) -> None:
    """2 x 2 mean, ``(a + b + c + d + 2) >> 2``: what OpenCV's area interpolation computes at this ratio.

    Of two interleaved channels it would round halves to even; each is then halved alone.
    """
    size = (out.shape[1], out.shape[0])
    if out.shape[2] != 2:
        cv2.resize(pixels, size, dst=out, interpolation=cv2.INTER_AREA)
        return
    for channel in range(2):
        alone = cv2.extractChannel(pixels, channel)
        cv2.insertChannel(cv2.resize(alone, size, interpolation=cv2.INTER_AREA), out, channel)


def _repeat_edges(chunk: Pixels, height: int, width: int) -> None:
    """Repeat the last valid row and column to the chunk's end: odd sizes halve rightly, padding is small."""
    below, beside = chunk.shape[0] - height, chunk.shape[1] - width
    if below or beside:
        cv2.copyMakeBorder(chunk[:height, :width], 0, below, 0, beside, cv2.BORDER_REPLICATE, dst=chunk)


def _buffer(height: int, width: int, pixels: PixelFormat) -> Pixels:
    """The thread's ``(height, width, channel)`` pixels for reading; grows to the largest asked for."""
    need = height * width * pixels.bytes_px
    flat: NDArray[np.uint8] | None = getattr(_local, "block", None)
    if flat is None or flat.size < need:
        flat = _local.block = np.empty(need, np.uint8)
    return pixels.view(flat, height, width)


def _sizes(store: Store, path: str) -> dict[str, int]:
    """Size of every object under a path, from one listing."""
    root = store.root.rstrip("/") + "/"
    found = store.fs.find(f"{root}{path}", detail=True)
    return {str(name).removeprefix(root): int(entry["size"]) for name, entry in found.items()}


def _draft(
    path: str,
    grid: Grid,
    params: PyramidParams,
    pixels: PixelFormat,
    *,
    identity: str = "",
    mpp: float = 1.0,
    bytes_written: int = 0,
) -> PyramidRef:
    return PyramidRef(
        path=path,
        identity=identity,
        shapes=grid.shapes,
        chunk=grid.chunk,
        shard=grid.shard,
        mpp=mpp,
        codec=params.codec,
        bytes_written=bytes_written,
        objects=grid.objects,
        channels=pixels.channels,
        dtype=pixels.dtype,
    )
