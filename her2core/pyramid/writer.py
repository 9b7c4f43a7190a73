"""Stage ``pyramid``: one slide becomes an OME-Zarr 0.5 pyramid of sharded, micrometre-scaled levels.

Three plain functions that any scheduler can drive: :func:`write_shards` for all tasks of the grid, in any
order and on any machine; :func:`write_top` once they are all there; :func:`finalise` last, which writes the
metadata, so that a pyramid that can be opened is a whole one.

A level is the 2 x 2 mean of the finer one, rounded half up, with the last row or column repeated where a size
is odd. With a lossless codec the pixels are therefore the same for any chunk or shard size. A lossy one is
applied to the slide's own pixels within a band (see ``grid``); the next band starts from what was stored.

Codec ``source`` copies the slide's own tiles into level 0 where they fit: its pixels are those of the slide.
Of the others every second one is stored: level 2, which only viewers read, as JPEG, and from 4 on exact ones.
All that is computed is therefore computed from the same pixels as with a lossless codec (see ``reader``).
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from her2core.buffers import ThreadBuffers
from her2core.errors import ConfigError, Reason, SlideError, StoreError
from her2core.grid import BLOCK, EXACT_LEVEL, Grid
from her2core.params import PyramidParams, Settled
from her2core.pixels import RGB8, PixelFormat, Pixels
from her2core.pyramid import ngff
from her2core.pyramid.codecs import (
    FALLBACK,
    OVERVIEW,
    SOURCE,
    VIEWED,
    Codec,
    copied_name,
    copied_tile,
    level_codec,
)
from her2core.pyramid.halving import halve, repeat_edges
from her2core.pyramid.reader import PyramidReader, shard_key
from her2core.pyramid.shards import ShardWriter
from her2core.readers.base import SlideReader
from her2core.readers.icc import carried_profile
from her2core.readers.tiled import TiledReader, begin_reading
from her2core.records import Box, PyramidRef, SlideInfo
from her2core.storage.store import Store, encode_json
from her2core.storage.waiting import Uploads

JPEG_TISSUE_BYTES_PX = 0.25
"""Bytes a pixel of tissue in JPEG slides. Ours: whole files, glass included, had 0.14 to 0.29."""
JPEG_GLASS_BYTES_PX = 0.03
"""Bytes a pixel of glass in them. Ours: ten times less than tissue, as JPEG does at such qualities."""
UNKNOWN_TISSUE_FRACTION = 0.4
"""Share of a slide that is tissue where the source's compression does not show it. Ours."""

Source = Callable[[int, int, Pixels], Pixels]
"""``source(y, x, chunk)`` returns a chunk's pixels at ``(y, x)`` of a block: ``chunk`` filled, or a view."""

_local = threading.local()
_buffers = ThreadBuffers()


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
    """Geometry of the pyramid of a slide of this size, by settled parameters."""
    tile = copied_tile(params.codec)
    return Grid(height, width, params.chunk, params.shard, tile, BLOCK if tile else 1)


def _stored(params: PyramidParams) -> PyramidParams:
    """Parameters that did not pass through ``settle``: ``source`` is stored as the fallback."""
    return replace(params, codec=FALLBACK) if params.codec == SOURCE else params


def settle(info: SlideInfo, params: PyramidParams) -> Settled:
    """Decide, from a slide's header alone, how its pyramid is stored.

    Of codec ``source`` chunks become the slide's tile, doubled or halved to the largest that is not above the
    chunk requested, and shards as many chunks as before. Where tiles do not fit, the codec is ``FALLBACK``.
    """
    if params.codec != SOURCE:
        return Settled(params)
    edge = chunk = info.tile_width
    while 0 < 2 * chunk <= params.chunk:
        chunk *= 2
    while chunk > params.chunk and chunk % 2 == 0:
        chunk //= 2
    shard = chunk * (params.shard // params.chunk)
    tiles = f"{info.compression} tiles of {info.tile_width} x {info.tile_height} px"
    if not info.native or not PixelFormat.of(info).is_rgb:
        why = f"{tiles}, read with {info.reader}, cannot be copied"
    elif chunk > params.chunk or chunk % 2 or shard % edge or shard % 2**EXACT_LEVEL:
        why = f"{tiles} do not fit shards of {params.shard} px"
    else:
        return Settled(PyramidParams(chunk, shard, copied_name(info.native, edge)))
    return Settled(PyramidParams(params.chunk, params.shard, FALLBACK), why)


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
        return level_codec(params.codec, 0, PixelFormat.of(info))
    except ConfigError as error:
        raise SlideError(Reason.PIXELS_UNSUPPORTED, f"{info.uri}: {error}") from error


def estimate_size(info: SlideInfo, params: PyramidParams) -> SizeEstimate:
    """Estimate a pyramid's size from the slide's header.

    How much of the slide is tissue shows in how well its own JPEG compresses.
    """
    form, params = PixelFormat.of(info), settle(info, params).params
    check_codec(info, params)
    grid = grid_of(info.height, info.width, params)
    tissue, share = UNKNOWN_TISSUE_FRACTION, 1.0
    if "jp" in info.compression.lower() and info.size_bytes:
        in_file = sum(level.height * level.width for level in info.levels)
        density, share = info.size_bytes / in_file, info.height * info.width / in_file
        tissue = (density - JPEG_GLASS_BYTES_PX) / (JPEG_TISSUE_BYTES_PX - JPEG_GLASS_BYTES_PX)
        tissue = min(max(tissue, 0.0), 1.0)
    pixels, stored = 0, 0.0
    for level in grid.stored:
        height, width = grid.level_shape(level)
        pixels += height * width
        how = level_codec(params.codec, level, form)
        ratio = tissue / how.tissue_ratio + (1 - tissue) / how.glass_ratio
        copied = grid.tile > 0 and level == 0
        stored += info.size_bytes * share if copied else form.bytes_px * height * width * ratio
    return SizeEstimate(pixels, round(stored), info.size_bytes, grid.objects)


def convert(
    reader: SlideReader,
    store: Store,
    path: str,
    params: PyramidParams,
    *,
    mpp: float,
    name: str | None = None,
) -> PyramidRef:
    """Convert a whole slide in this thread.

    Parameters are those of ``settle``, ``write_shards`` and ``finalise``.
    """
    info, pixels = reader.info, PixelFormat.of(reader.info)
    settled = settle(info, params)
    grid = grid_of(info.height, info.width, settled.params)
    write_shards(reader, store, path, grid, settled.params, grid.tasks())
    write_top(store, path, grid, settled.params, pixels=pixels)
    return finalise(
        store,
        path,
        grid,
        settled.params,
        identity=info.identity,
        mpp=mpp,
        pixels=pixels,
        icc_profile=carried_profile(reader),
        name=name,
        fallback=settled.fallback,
    )


def shards_done(store: Store, path: str, grid: Grid) -> frozenset[tuple[int, int]]:
    """All tasks that have written everything they write, by one listing."""
    folder = shard_key(path, 0, 0, 0).rsplit("/", 2)[0]
    there = set(store.list(folder, recursive=True))
    return frozenset(t for t in grid.tasks() if shard_key(path, 0, *grid.last_shard(*t)) in there)


def undo_shard(store: Store, path: str, grid: Grid, task: tuple[int, int]) -> None:
    """Let a task be not done."""
    store.delete(shard_key(path, 0, *grid.last_shard(*task)))
    store.delete(_note_key(path, *task))


def _note_key(path: str, iy: int, ix: int) -> str:
    """Place of the note on tiles of a task that could not be copied; there is none where all were."""
    return f"{path}/encoded/{iy}-{ix}.json"


def write_shards(
    reader: SlideReader,
    store: Store,
    path: str,
    grid: Grid,
    params: PyramidParams,
    tasks: Sequence[tuple[int, int]],
) -> ShardWritten:
    """Write tasks: of each a block of shards of level 0, and one shard of every other level of its band.

    A task's last shard of level 0 is stored when everything else of it is: its presence means that the others
    are there. Writing again replaces the same bytes. Of a server, the next shards are read and the last ones
    stored while one is made; when this returns, all are stored.

    Parameters
    ----------
    params
        Those of ``settle``, of which ``grid`` was made; without it ``source`` is stored as ``FALLBACK``.

    Raises
    ------
    SlideError
        If the slide cannot be read there, or the codec cannot store its pixels.
    """
    params = _stored(params)
    check_codec(reader.info, params)
    work = _workspace(grid, params, PixelFormat.of(reader.info), 0)
    ahead = _Ahead(reader, [grid.shard_box(0, *at) for task in tasks for at in work.order(grid, *task)])
    try:
        with Uploads(store) as uploads:
            blocks = (_Block(reader, path, grid, params, task, ahead, uploads) for task in tasks)
            made = [block.write(work) for block in blocks]
    finally:
        begin_reading(reader, [])
    return ShardWritten(sum(m.objects for m in made), sum(m.bytes_written for m in made))


class _Ahead:
    """Begins to read regions of a slide before they are come to, in their order.

    A reader with an index of its tiles gets as many regions at once as its source takes; two such
    lots are begun at any time, the one that is being read and the next.
    """

    def __init__(self, reader: SlideReader, boxes: Sequence[Box]) -> None:
        self._reader, self._boxes = reader, boxes
        self._reached = self._begun = 0
        self._lots: deque[int] = deque()

    def come_to_next(self) -> None:
        """Note that the next region is read now."""
        while self._lots and self._lots[0] <= self._reached:
            self._lots.popleft()
        while len(self._lots) < 2 and self._begun < len(self._boxes):
            self._begun += max(begin_reading(self._reader, self._boxes[self._begun :]), 1)
            self._lots.append(self._begun)
        self._reached += 1


class _Block:
    """One task: the ground under its shards, read one by one as they are come to."""

    def __init__(
        self,
        reader: SlideReader,
        path: str,
        grid: Grid,
        params: PyramidParams,
        task: tuple[int, int],
        ahead: _Ahead,
        uploads: Uploads,
    ) -> None:
        self.reader, self.path, self.grid, self.params, self.task = reader, path, grid, params, task
        self.ahead, self.uploads = ahead, uploads
        self.box = grid.task_box(*task)
        self.form = PixelFormat.of(reader.info)
        self.at: tuple[int, int] | None = None
        self.encoded: list[tuple[int, int]] = []
        self.objects = self.size = 0

    def write(self, work: _Workspace) -> ShardWritten:
        """Make all shards, and have them stored: the coarser ones and the last of level 0 in the end."""
        grid, task = self.grid, self.task
        self.work = work
        levels = grid.band_levels(0)
        work.build(
            self._source, [self.box, *(grid.shard_box(level, *task) for level in levels[1:])], grid.shard
        )
        coarser = {
            shard_key(self.path, level, *task): work.shards[level].finish()
            for level in reversed(levels[1:])
            if grid.is_stored(level)
        }
        self._put(coarser)
        if self.encoded:
            note = encode_json({"tiles": sorted(self.encoded)})
            self.uploads.put({_note_key(self.path, *task): note})
        self._leave(last=True)
        return ShardWritten(self.objects, self.size)

    def _put(self, objects: Mapping[str, bytes | memoryview], *, last: bool = False) -> None:
        self.objects, self.size = self.objects + len(objects), self.size + sum(map(len, objects.values()))
        self.uploads.put(objects, last=last)

    def _source(self, y: int, x: int, chunk: Pixels) -> Pixels:
        """A chunk of level 0 at ``(y, x)`` of the block."""
        edge = self.grid.shard
        at = (y // edge, x // edge)
        if at != self.at:
            if self.at is not None:
                self._leave()
            self._enter(at)
        piece = self.ground[y - at[0] * edge :, x - at[1] * edge :][: len(chunk), : len(chunk)]
        if self.grid.tile and piece.shape == chunk.shape:
            return piece  # it is halved, and not encoded
        chunk[: piece.shape[0], : piece.shape[1]] = piece
        return chunk

    def _enter(self, at: tuple[int, int]) -> None:
        """Read the ground of a shard: at once, for tiles need not fit the chunks, and in fewer requests."""
        self.at = at
        box = self.grid.shard_box(0, *self._number())
        self.ground = _buffer(box.height, box.width, self.form)
        self.ahead.come_to_next()
        if self.grid.tile:
            self.encoded += _copy_tiles(self.reader, self.grid, self.params, box, self.ground)
        else:
            self.reader.read_region(box.y0, box.x0, self.ground)

    def _number(self) -> tuple[int, int]:
        """The shard of level 0 that is at work."""
        assert self.at is not None
        return self.task[0] * self.grid.block + self.at[0], self.task[1] * self.grid.block + self.at[1]

    def _leave(self, *, last: bool = False) -> None:
        self._put({shard_key(self.path, 0, *self._number()): self.work.shards[0].finish()}, last=last)


def write_top(
    store: Store, path: str, grid: Grid, params: PyramidParams, *, pixels: PixelFormat = RGB8
) -> ShardWritten:
    """Write the levels above those of :func:`write_shards`, band by band, from the level below each."""
    params = _stored(params)
    reader = PyramidReader(store, _draft(path, grid, params, pixels))
    written = ShardWritten(0, 0)
    for first in grid.bands[1:]:
        with Uploads(store) as uploads:  # a band is read when the one before it is stored
            for task in grid.shards(first):
                source = _halving(reader, grid, pixels, first, grid.shard_box(first, *task))
                part = _write_band(uploads, path, grid, params, pixels, first, task, source)
                objects, size = written.objects + part.objects, written.bytes_written + part.bytes_written
                written = ShardWritten(objects, size)
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
    fallback: str = "",
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
    fallback
        ``Settled.fallback``.

    Raises
    ------
    StoreError
        If shards are missing; names how many and the first.
    """
    params = _stored(params)
    sizes = _sizes(store, path)
    wanted = [shard_key(path, level, iy, ix) for level in grid.stored for iy, ix in grid.shards(level)]
    missing = [key for key in wanted if key not in sizes]
    if missing:
        raise StoreError(
            f"{store.uri(path)} lacks {len(missing)} of {len(wanted)} shards, the first {missing[0]}; "
            "run the tasks that write them again."
        )
    notes = [key for key in sizes if grid.tile and key.startswith(f"{path}/encoded/")]
    encoded = sum(len(store.read_json(key)["tiles"]) for key in notes)
    shown = None if pixels.is_rgb else _windows(store, _draft(path, grid, params, pixels))
    levels = {
        str(level): ngff.image_array(
            grid.level_shape(level),
            grid.chunk_px(level),
            grid.shard_px(level),
            level_codec(params.codec, level, pixels),
            pixels,
        )
        for level in grid.stored
    }
    group = ngff.image_group(
        name or path.rsplit("/", 1)[-1],
        grid.stored,
        mpp,
        pixels,
        shown,
        icc_profile,
        _storage_note(params, grid, fallback, encoded),
    )
    nodes = {f"{path}/{node}/zarr.json": encode_json(document) for node, document in levels.items()}
    store.write_many(nodes)
    labels = {
        key.removeprefix(f"{path}/").removesuffix("/zarr.json"): store.read_json(key)
        for key in sizes
        if key.startswith(f"{path}/labels/") and key.endswith("/zarr.json")
    }
    root = encode_json(ngff.with_nodes(group, levels | labels))
    store.write_bytes(f"{path}/zarr.json", root)
    total = sum(sizes[key] for key in [*wanted, *notes]) + sum(map(len, [*nodes.values(), root]))
    draft = _draft(path, grid, params, pixels, identity=identity, mpp=mpp, bytes_written=total)
    return replace(draft, objects=draft.objects + len(notes), fallback=fallback, tiles_encoded=encoded)


def _storage_note(params: PyramidParams, grid: Grid, fallback: str, encoded: int) -> ngff.Document | None:
    """How a pyramid requested as ``source`` is stored, for whoever opens it."""
    if fallback:
        return {"codec": SOURCE, "stored": params.codec, "why": fallback}
    if not grid.tile:
        return None
    return {
        "codec": SOURCE,
        "stored": params.codec,
        "tiles_encoded": encoded,
        "levels": {
            str(level): "tiles of the slide" if level == 0 else VIEWED if level < EXACT_LEVEL else OVERVIEW
            for level in grid.stored
        },
    }


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
    uploads: Uploads,
    path: str,
    grid: Grid,
    params: PyramidParams,
    pixels: PixelFormat,
    first: int,
    task: tuple[int, int],
    source: Source,
) -> ShardWritten:
    """Write one shard of every level of the band that begins at level ``first``."""
    work = _workspace(grid, params, pixels, first)
    boxes = [grid.shard_box(level, *task) for level in grid.band_levels(first)]
    work.build(source, boxes, grid.shard_px(first))
    levels = [level for level in grid.band_levels(first) if grid.is_stored(level)]
    shards = {
        shard_key(path, level, *task): work.shards[level - first].finish() for level in reversed(levels)
    }
    uploads.put(shards)
    return ShardWritten(len(levels), sum(map(len, shards.values())))


def _copy_tiles(
    reader: SlideReader, grid: Grid, params: PyramidParams, box: Box, ground: Pixels
) -> list[tuple[int, int]]:
    """Read a shard's pixels, and collect its tiles as they are; those that cannot be are stored without loss.

    Returns
    -------
    list
        Row and column of the latter in the slide, in no order.
    """
    if not isinstance(reader, TiledReader) or reader.native is None:
        raise TypeError(f"{reader.info.uri}: its tiles cannot be copied; settle() was not called")
    edge, alone = grid.tile, reader.native.alone
    shard = _workspace(grid, params, RGB8, 0).shards[0]
    shard.clear()
    whole = np.empty((edge, edge, 3), np.uint8)
    encoded: list[tuple[int, int]] = []
    checked = False

    def take(row: int, column: int, stream: memoryview) -> None:
        nonlocal checked
        y, x = row * edge - box.y0, column * edge - box.x0
        pixels = ground[y : y + edge, x : x + edge]
        try:
            tile = alone(stream, edge)
        except ValueError:
            whole[: pixels.shape[0], : pixels.shape[1]] = pixels
            repeat_edges(whole, *pixels.shape[:2])
            shard.add(y // edge, x // edge, whole)
            encoded.append((row, column))
            return
        if not checked:
            level_codec(params.codec, 0).decode(tile, whole)
            if not np.array_equal(whole[: pixels.shape[0], : pixels.shape[1]], pixels):
                raise SlideError(
                    Reason.PIXELS_UNSUPPORTED,
                    f"{reader.info.uri}: tile row {row} column {column} decodes to other pixels by itself. "
                    "Set pyramid.codec to blosc-lz4 for this slide, and report the file",
                )
            checked = True
        shard.put(y // edge, x // edge, tile, pixels)

    reader.read_tiles(box, ground, take)
    return encoded


class _Workspace:
    """A thread's buffers: one chunk a level of a band, and the shards they are collected in.

    Chunks are built depth first, as the nodes of a quad-tree: a chunk is filled, encoded and reduced into a
    quarter of its parent while it is still in the processor's cache, and only one a level exists at a time.
    """

    def __init__(self, grid: Grid, name: str, pixels: PixelFormat, first: int) -> None:
        copied = grid.tile > 0 and first == 0
        levels = range(first, first + (grid.first_band if first == 0 else grid.band))
        edges = [grid.chunk if copied and level == 0 else grid.chunk_px(level) for level in levels]
        self._chunks = [pixels.empty(edge, edge) for edge in edges]
        self._kept = [grid.is_stored(level) and not (copied and level == 0) for level in levels]
        self.shards = [
            ShardWriter(
                grid.shard_px(level) // grid.chunk_px(level), level_codec(name, level, pixels), pixels.outside
            )
            for level in levels
        ]

    def build(self, source: Source, boxes: list[Box], shard: int) -> None:
        """Fill the shards from ``source``, one of the finest level after the other (see `order`).

        Shards of copied tiles are filled by who reads them.

        Parameters
        ----------
        boxes
            The ground's boxes at each level, finest first.
        shard
            Edge of a shard of the finest level.
        """
        self._source = source
        self._sizes = [(box.height, box.width) for box in boxes]
        for each, kept in zip(self.shards, self._kept, strict=True):
            if kept:
                each.clear()
        top = len(boxes) - 1
        edge = len(self._chunks[top])
        rows, columns = (range(-(-size // edge)) for size in self._sizes[top])
        chunks = itertools.product(rows, columns)
        side = max((shard >> top) // edge, 1)  # a shard may hold many chunks even of the coarsest level
        for cy, cx in sorted(chunks, key=lambda at: _by_blocks(at, side)):
            self._node(top, cy, cx)

    def order(self, grid: Grid, iy: int, ix: int) -> list[tuple[int, int]]:
        """Shards of level 0 of a task, in the order in which `build` comes to them."""
        levels = reversed(grid.band_levels(0))
        spans = [len(self._chunks[level]) << level for level in levels]
        sides = [span // grid.shard for span in spans if span >= grid.shard]
        last = grid.last_shard(iy, ix)
        rows, columns = (range(n * grid.block, end + 1) for n, end in zip((iy, ix), last, strict=True))
        at = itertools.product(rows, columns)
        return sorted(
            at, key=lambda s: [part for side in sides for part in (s[0] // side, s[1] // side)] + [*s]
        )

    def _node(self, level: int, cy: int, cx: int) -> Pixels:
        chunk = self._chunks[level]
        edge = len(chunk)
        height, width = (
            min(size - at * edge, edge) for size, at in zip(self._sizes[level], (cy, cx), strict=True)
        )
        if level == 0:
            chunk = self._source(cy * edge, cx * edge, chunk)
        else:
            step = len(self._chunks[level - 1]) // 2  # half a chunk; a whole one where chunks become smaller
            side = edge // step
            for qy in range(-(-height // step)):
                for qx in range(-(-width // step)):
                    finer = self._node(level - 1, side * cy + qy, side * cx + qx)
                    halve(finer, chunk[qy * step : (qy + 1) * step, qx * step : (qx + 1) * step])
        repeat_edges(chunk, height, width)
        if self._kept[level]:
            self.shards[level].add(cy, cx, chunk)
        return chunk


def _by_blocks(at: tuple[int, int], side: int) -> tuple[int, int]:
    """The square of ``side`` that a place lies in: sorts places by squares, and leaves their order within."""
    return at[0] // side, at[1] // side


def _workspace(grid: Grid, params: PyramidParams, pixels: PixelFormat, first: int) -> _Workspace:
    key = (grid.chunk, grid.shard, grid.block, params.codec, pixels,
           first if grid.tile else None)  # fmt: skip
    if getattr(_local, "key", None) != key:
        _local.workspace, _local.key = _Workspace(grid, params.codec, pixels, first), key
    work: _Workspace = _local.workspace
    return work


def _halving(reader: PyramidReader, grid: Grid, pixels: PixelFormat, first: int, origin: Box) -> Source:
    """Source of level ``first``: the level before it, as stored, halved."""
    height, width = grid.level_shape(first - 1)
    whole = Box(2 * origin.y0, 2 * origin.x0, 2 * origin.y1, 2 * origin.x1)
    begun = reader.begin(first - 1, whole).result() if reader.waits else None

    def source(y: int, x: int, chunk: Pixels) -> Pixels:
        edge = 2 * len(chunk)
        y0, x0 = 2 * (origin.y0 + y), 2 * (origin.x0 + x)
        finer = _buffer(edge, edge, pixels)
        reader.read(first - 1, y0, x0, finer, begun=begun)
        repeat_edges(finer, min(height - y0, edge), min(width - x0, edge))
        halve(finer, chunk)
        return chunk

    return source


def _buffer(height: int, width: int, pixels: PixelFormat) -> Pixels:
    """The thread's ``(height, width, channel)`` pixels for reading; grows to the largest requested."""
    return pixels.view(_buffers.flat("block", height * width * pixels.bytes_px), height, width)


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
        block=grid.block,
        channels=pixels.channels,
        dtype=pixels.dtype,
    )
