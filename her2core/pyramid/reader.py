"""Read any region of a published pyramid: only the chunks it touches, in few ranged reads.

What is read never depends on how the pyramid is stored: a level that is missing, or stored with loss for
viewers, is made again from the nearest exact level that is finer (see ``grid``).
"""

from __future__ import annotations

import errno
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from her2core.buffers import ThreadBuffers
from her2core.errors import StoreError
from her2core.grid import Grid
from her2core.pixels import PixelFormat, Pixels
from her2core.pyramid.codecs import copied_tile, level_codec, worst_case_bytes
from her2core.pyramid.halving import halve, repeat_edges
from her2core.pyramid.shards import ABSENT, Index, index_bytes, read_index
from her2core.records import Box, PyramidRef
from her2core.storage.store import Store
from her2core.storage.waiting import begin

COALESCE_BYTES = 256 * 2**10
"""Ranges of one shard that lie closer than this are read as one: cheaper than another request (ours)."""
BATCH_BYTES = 64 * 2**20
"""Encoded bytes requested from an object store at once: bounds memory (ours)."""
LOCAL_BYTES = 4 * 2**20
"""Encoded bytes read from a file at once: still in the processor's cache when they are decoded (ours)."""
BEGUN_BYTES = 128 * 2**20
"""Encoded bytes fetched for the next region while one is looked at: 100 MB of a unit without loss (ours)."""
INDEX_BYTES = 16 * 2**20
"""Shard indexes remembered by a process (ours): 16 bytes a chunk, 4 kB for 4096 px in tiles of 256."""
MADE_PX = 2048
"""Edge, at the level that is read for it, of the blocks that a level is made again in: 12 MB, and whole tiles
of any usual edge."""

_buffers = ThreadBuffers()


def grid_of_ref(ref: PyramidRef) -> Grid:
    """Geometry of a pyramid."""
    return Grid(*ref.shapes[0], ref.chunk, ref.shard, copied_tile(ref.codec), ref.block)


def shard_key(path: str, level: int, iy: int, ix: int) -> str:
    """Place of a shard, relative to the store's root."""
    return f"{path}/{level}/c/0/{iy}/{ix}"


@dataclass(frozen=True, slots=True)
class _Piece:
    """One stored chunk that a region touches: its bytes, and its corner at the level."""

    start: int
    end: int
    y0: int
    x0: int


@dataclass(frozen=True, slots=True)
class _Range:
    """Bytes ``[start, end)`` of one shard and the chunks inside, in the order of their bytes."""

    key: str
    start: int
    end: int
    pieces: tuple[_Piece, ...]


@dataclass(frozen=True, slots=True)
class _Shard:
    """What a region needs of a shard: chunks to read, and corners of those not stored or not wanted."""

    key: str
    pieces: list[_Piece]
    blank: list[tuple[int, int]]


Begun = Mapping[tuple[str, int], memoryview]
"""Bytes of chunks that were fetched already, by their shard and where they begin in it."""


class PyramidReader:
    """Pixels of a published pyramid.

    Cheap to make and safe to share between threads. Published shards never change, so the indexes of a
    published pyramid are remembered for the whole process; of another, by its reader, which must not read a
    level before all of it is there.

    Parameters
    ----------
    store, ref
        Where the pyramid lies, and its record.

    Raises
    ------
    ConfigError
        If the record names a codec that this version does not have.
    """

    def __init__(self, store: Store, ref: PyramidRef) -> None:
        self._store = store
        self._ref = ref
        self._format = PixelFormat.of(ref)
        self._codecs = [level_codec(ref.codec, level, self._format) for level in range(len(ref.shapes))]
        self._grid = grid_of_ref(ref)
        self._indexes = _known if ref.bytes_written else _Indexes(INDEX_BYTES)  # not published: may change

    @property
    def waits(self) -> bool:
        """Whether reading waits for a server: several reads side by side then take little longer than one."""
        return not self._store.is_local

    def begin(
        self, level: int, box: Box, wanted: Callable[[Box], bool] = lambda chunk: True
    ) -> Future[Begun]:
        """Begin to fetch from a server what `read` will need of a box; parameters are those of `read`.

        Of more than `BEGUN_BYTES` the rest is fetched by `read`.
        """
        inside = box.within(Box(0, 0, *self._ref.shape(level)))
        return begin(partial(self._begun, level, inside, wanted))

    def _begun(self, level: int, inside: Box, wanted: Callable[[Box], bool]) -> Begun:
        if inside.height <= 0 or inside.width <= 0:
            return {}
        ranges: list[_Range] = []
        size = 0
        for at, box, chosen in self._read_from(level, inside, wanted):
            for shard in self._shards(at, box, chosen):
                for part in _coalesced(shard.key, shard.pieces, BATCH_BYTES):
                    size += part.end - part.start
                    if size <= BEGUN_BYTES:
                        ranges.append(part)
        return {
            (part.key, piece.start): data[piece.start - part.start : piece.end - part.start]
            for part, data in _request(self._store, ranges)
            for piece in part.pieces
        }

    def _read_from(
        self, level: int, inside: Box, wanted: Callable[[Box], bool]
    ) -> Iterable[tuple[int, Box, Callable[[Box], bool]]]:
        """Stored levels and boxes in them that `read` reads for a region."""
        if self._is_read(level):
            yield level, inside, wanted
            return
        finest = self._made_of(level)
        up = level - finest
        height, width = self._ref.shapes[finest]
        for around, box in self._blocks(level, inside):
            if wanted(around):
                y1, x1 = min(box.y1 << up, height), min(box.x1 << up, width)
                yield finest, Box(box.y0 << up, box.x0 << up, y1, x1), lambda chunk: True

    def _is_read(self, level: int) -> bool:
        """Whether a level is read as it is stored."""
        return self._made_of(level) == level

    def _made_of(self, level: int) -> int:
        """The stored level that a level is read from, or made of."""
        return self._grid.exact_from(level) if level < len(self._ref.shapes) else 0

    def _blocks(self, level: int, inside: Box) -> Iterable[tuple[Box, Box]]:
        """Blocks that a region of a level is made in, and the part of each that lies in it."""
        edge = max(MADE_PX >> level - self._made_of(level), 1)
        for y0 in range(inside.y0 // edge * edge, inside.y1, edge):
            for x0 in range(inside.x0 // edge * edge, inside.x1, edge):
                around = Box(y0, x0, y0 + edge, x0 + edge)
                yield around, around.within(inside)

    def read(
        self,
        level: int,
        y0: int,
        x0: int,
        out: Pixels,
        wanted: Callable[[Box], bool] = lambda chunk: True,
        begun: Begun | None = None,
    ) -> None:
        """Fill ``out`` with the region of a level whose first pixel is ``(y0, x0)``.

        Parameters
        ----------
        level
            0 is the finest; one beyond the coarsest of a small slide is made from the finest.
        y0, x0
            Corner in the level's own pixels; may lie outside.
        out
            ``(height, width, channel)`` of the pyramid's channels and dtype. What lies outside the level
            becomes 255, or 0 in fluorescence.
        wanted
            Called with the box of every chunk, at the level: where it returns False nothing is read, and
            ``out`` becomes what it is outside.
        begun
            What was fetched already, by `begin`.

        Raises
        ------
        ValueError
            If ``out`` has other channels or another dtype.
        StoreError
            If a shard is missing or damaged.
        """
        if out.shape[2:] != (self._format.count,) or out.dtype != self._format.dtype:
            raise ValueError(f"{out.dtype} {out.shape} for pixels of {self._format}")
        box = Box(y0, x0, y0 + out.shape[0], x0 + out.shape[1])
        inside = box.within(Box(0, 0, *self._ref.shape(level)))
        if inside != box:
            out.fill(self._format.outside)
        if inside.height <= 0 or inside.width <= 0:
            return
        view = out[inside.y0 - y0 : inside.y1 - y0, inside.x0 - x0 : inside.x1 - x0]
        if self._is_read(level):
            self._read_stored(level, inside, view, wanted, begun or {})
            return
        for around, box in self._blocks(level, inside):
            part = view[box.y0 - inside.y0 : box.y1 - inside.y0, box.x0 - inside.x0 : box.x1 - inside.x0]
            made = self._made(level, self._made_of(level), box, begun or {}) if wanted(around) else None
            part[...] = self._format.outside if made is None else made

    def _read_stored(
        self, level: int, inside: Box, view: Pixels, wanted: Callable[[Box], bool], begun: Begun
    ) -> None:
        """Fill a region inside a level from the chunks that hold it."""
        edge, how = self._grid.chunk_px(level), self._codecs[level]
        chunk = _scratch(edge, self._format)

        def place(key: str, piece: _Piece, data: memoryview) -> None:
            try:
                how.decode(data, chunk)
            except (ValueError, RuntimeError) as error:  # the decoders raise RuntimeError
                raise _damaged(self._store, key, f"chunk at byte {piece.start}: {error}") from error
            rows, columns = _overlap(piece.y0, piece.x0, edge, inside)
            view[rows, columns] = chunk[
                rows.start + inside.y0 - piece.y0 : rows.stop + inside.y0 - piece.y0,
                columns.start + inside.x0 - piece.x0 : columns.stop + inside.x0 - piece.x0,
            ]

        ranges: list[_Range] = []
        for shard in self._shards(level, inside, wanted):
            for y0, x0 in shard.blank:
                view[_overlap(y0, x0, edge, inside)] = self._format.outside
            missing = []
            for piece in shard.pieces:
                data = begun.get((shard.key, piece.start))
                if data is None:
                    missing.append(piece)
                else:
                    place(shard.key, piece, data)
            ranges += _coalesced(shard.key, missing, LOCAL_BYTES if self._store.is_local else BATCH_BYTES)
        for part, data in _fetched(self._store, ranges):
            for piece in part.pieces:
                place(part.key, piece, data[piece.start - part.start : piece.end - part.start])

    def _made(self, level: int, finest: int, box: Box, begun: Begun) -> Pixels:
        """A box inside a level, halved again and again from level ``finest``, which is read as it is stored.

        The last row or column of a level is repeated where their number is odd.
        """
        height, width = self._ref.shape(level - 1)
        finer_box = Box(2 * box.y0, 2 * box.x0, min(2 * box.y1, height), min(2 * box.x1, width))
        finer = self._format.empty(2 * box.height, 2 * box.width)
        inner = finer[: finer_box.height, : finer_box.width]
        if level - 1 == finest:
            self._read_stored(finest, finer_box, inner, lambda chunk: True, begun)
        else:
            inner[...] = self._made(level - 1, finest, finer_box, begun)
        repeat_edges(finer, finer_box.height, finer_box.width)
        out = self._format.empty(box.height, box.width)
        halve(finer, out)
        return out

    def _shards(self, level: int, inside: Box, wanted: Callable[[Box], bool]) -> Iterable[_Shard]:
        """The shards that hold a region of a stored level."""
        edge, chunk = self._grid.shard_px(level), self._grid.chunk_px(level)
        side, limit = edge // chunk, worst_case_bytes(self._format.bytes_px * chunk * chunk)
        shards = {
            shard_key(self._ref.path, level, iy, ix): (iy, ix)
            for iy in range(inside.y0 // edge, -(-inside.y1 // edge))
            for ix in range(inside.x0 // edge, -(-inside.x1 // edge))
        }
        indexes = self._indexes.of(self._store, self._ref, list(shards), side)
        for (key, (iy, ix)), index in zip(shards.items(), indexes, strict=True):
            found = _Shard(key, [], [])
            for y0 in _touched(iy * edge, edge, chunk, inside.y0, inside.y1):
                for x0 in _touched(ix * edge, edge, chunk, inside.x0, inside.x1):
                    cy, cx = y0 // chunk - iy * side, x0 // chunk - ix * side
                    start, size = (int(v) for v in index[cy, cx])
                    if start == ABSENT or not wanted(Box(y0, x0, y0 + chunk, x0 + chunk)):
                        found.blank.append((y0, x0))
                    elif size > limit:
                        raise _damaged(self._store, key, f"chunk of {size} bytes, over {limit}")
                    else:
                        found.pieces.append(_Piece(start, start + size, y0, x0))
            yield found


def _touched(origin: int, edge: int, chunk: int, low: int, high: int) -> range:
    """Corners, along one axis, of a shard's chunks that meet ``[low, high)``."""
    first = max(low // chunk * chunk, origin)
    return range(first, min(high, origin + edge), chunk)


def _overlap(y0: int, x0: int, chunk: int, inside: Box) -> tuple[slice, slice]:
    """Rows and columns of the region ``inside`` that a chunk covers, relative to the region."""
    return (
        slice(max(y0 - inside.y0, 0), min(y0 + chunk, inside.y1) - inside.y0),
        slice(max(x0 - inside.x0, 0), min(x0 + chunk, inside.x1) - inside.x0),
    )


def _coalesced(key: str, pieces: list[_Piece], most: int) -> Iterable[_Range]:
    """Join pieces that lie close together into ranges of at most ``most`` bytes, or of one piece."""
    pieces.sort(key=lambda piece: piece.start)
    first = 0
    for i in range(1, len(pieces) + 1):
        if (
            i == len(pieces)
            or pieces[i].start - pieces[i - 1].end > COALESCE_BYTES
            or pieces[i].end - pieces[first].start > most
        ):
            yield _Range(key, pieces[first].start, pieces[i - 1].end, tuple(pieces[first:i]))
            first = i


def _fetched(store: Store, ranges: Iterable[_Range]) -> Iterable[tuple[_Range, memoryview]]:
    """Pair every range with its bytes, which are valid until the next pair is requested."""
    if store.is_local:
        return ((part, _pread(store, part)) for part in ranges)
    return _requested(store, ranges)


def _pread(store: Store, part: _Range) -> memoryview:
    """Read a range of a local file into the thread's own buffer: no fresh pages."""
    size = part.end - part.start
    view = _buffers.flat("encoded", size, LOCAL_BYTES).data
    try:
        descriptor = os.open(store.uri(part.key), os.O_RDONLY)
    except FileNotFoundError as error:
        raise _missing(store, part.key) from error
    try:
        got = 0
        while got < size:
            more = os.preadv(descriptor, [view[got:]], part.start + got)
            if not more:
                raise _damaged(store, part.key, f"ends at byte {part.start + got}; expected {part.end}")
            got += more
    finally:
        os.close(descriptor)
    return view


def _requested(store: Store, ranges: Iterable[_Range]) -> Iterable[tuple[_Range, memoryview]]:
    """Request many ranges from an object store at once, a bounded number of bytes at a time."""
    batch: list[_Range] = []
    waiting = 0
    for part in ranges:
        if batch and waiting + part.end - part.start > BATCH_BYTES:
            yield from _request(store, batch)
            batch, waiting = [], 0
        batch.append(part)
        waiting += part.end - part.start
    yield from _request(store, batch)


def _request(store: Store, batch: list[_Range]) -> Iterable[tuple[_Range, memoryview]]:
    if not batch:
        return
    answers = store.fs.cat_ranges(
        [f"{store.root}/{part.key}" for part in batch],
        [part.start for part in batch],
        [part.end for part in batch],
        on_error="return",
    )
    for part, answer in zip(batch, answers, strict=True):
        if isinstance(answer, FileNotFoundError):
            raise _missing(store, part.key) from answer
        if isinstance(answer, BaseException):
            raise answer
        if len(answer) != part.end - part.start:
            raise _damaged(store, part.key, f"gave {len(answer)} bytes; expected {part.end - part.start}")
        yield part, memoryview(answer)


def _read_indexes(store: Store, keys: Sequence[str], side: int) -> list[Index]:
    """Read the indexes of shards; of an object store all at once."""
    length = index_bytes(side)
    if store.is_local:
        return [_parsed(store, key, _tail(store, key, length), side) for key in keys]
    paths = [f"{store.root}/{key}" for key in keys]
    tails = store.fs.cat_ranges(paths, [-length] * len(keys), [None] * len(keys), on_error="return")
    return [_parsed(store, key, tail, side) for key, tail in zip(keys, tails, strict=True)]


def _tail(store: Store, key: str, length: int) -> bytes | OSError:
    try:
        return store.cat_range(key, -length, 0)
    except OSError as error:
        return error


def _parsed(store: Store, key: str, tail: bytes | BaseException, side: int) -> Index:
    """A shard's index from the end of its bytes, or from what went wrong with reading them."""
    if isinstance(tail, FileNotFoundError):
        raise _missing(store, key) from tail
    if isinstance(tail, OSError) and tail.errno == errno.EINVAL:  # shorter than an index
        raise _damaged(store, key, str(tail)) from tail
    if isinstance(tail, BaseException):
        raise tail
    try:
        return read_index(tail, side)
    except ValueError as error:
        raise _damaged(store, key, str(error)) from error


class _Indexes:
    """Indexes of published shards, the last used ones of a process, in ``most`` bytes."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._bytes = 0
        self._kept: OrderedDict[tuple[Store, PyramidRef, str], Index] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, store: Store, ref: PyramidRef, keys: Sequence[str], side: int) -> list[Index]:
        """The indexes of some shards of a pyramid, read where they are not known yet."""
        found: dict[str, Index] = {}
        with self._lock:
            for key in keys:
                index = self._kept.get((store, ref, key))
                if index is not None:
                    self._kept.move_to_end((store, ref, key))
                    found[key] = index
        missing = [key for key in keys if key not in found]
        new = dict(zip(missing, _read_indexes(store, missing, side) if missing else [], strict=True))
        with self._lock:
            for key, index in new.items():
                if (store, ref, key) not in self._kept:  # else another thread has read it too
                    self._kept[store, ref, key] = index
                    self._bytes += index.nbytes
            while self._bytes > self._most:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return [found[key] if key in found else new[key] for key in keys]


_known = _Indexes(INDEX_BYTES)


def _missing(store: Store, key: str) -> StoreError:
    return StoreError(
        f"{store.uri(key)}, a shard of the pyramid, is missing. Delete the pyramid and run again."
    )


def _damaged(store: Store, key: str, what: str) -> StoreError:
    return StoreError(f"{store.uri(key)} is damaged: {what}. Delete the pyramid and run again.")


def _scratch(chunk: int, pixels: PixelFormat) -> Pixels:
    """The thread's own ``(chunk, chunk, channel)`` pixels to decode into."""
    return pixels.view(_buffers.flat("chunk", chunk * chunk * pixels.bytes_px), chunk, chunk)
