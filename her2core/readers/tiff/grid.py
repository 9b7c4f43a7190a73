"""The tile grid of TIFF directories, with their declarations checked against the file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from her2core.errors import Reason, SlideError
from her2core.pixels import PixelFormat, Pixels
from her2core.readers.base import SlideReader
from her2core.readers.bytesource import ByteSource
from her2core.readers.image import WholeReader
from her2core.readers.limits import (
    MAX_TILE_PX,
    MAX_TILES,
    check_size,
    check_tile_index,
    check_whole,
    longest_tile,
)
from her2core.readers.tiff import ifd as tags
from her2core.readers.tiff.ifd import Ifd
from her2core.readers.tiff.pages import size_of
from her2core.readers.tiled import TiledReader, TileGrid

Places = npt.NDArray[np.uint64]
STRIP_ROWS = 64
"""Rows that uncompressed strips are read in, whatever their stored height."""
LAYOUT_TAGS = (
    tags.IMAGE_LENGTH, tags.IMAGE_WIDTH, tags.BITS_PER_SAMPLE, tags.SAMPLES_PER_PIXEL, tags.COMPRESSION,
    tags.PREDICTOR, tags.TILE_LENGTH, tags.TILE_WIDTH, tags.ROWS_PER_STRIP,
)  # fmt: skip


def same_layout(pages: Sequence[Ifd]) -> bool:
    """Whether directories can share one tile grid."""
    first, *others = ([page.ints(tag) for tag in LAYOUT_TAGS] for page in pages)
    return all(other == first for other in others)


def tile_grid(
    source: ByteSource,
    name: str,
    pages: Sequence[Ifd],
    *,
    samples: int,
    per_page: int = 1,
    dtype: str = "uint8",
) -> TileGrid:
    """Build the grid whose planes are those of some directories in turn.

    Parameters
    ----------
    pages
        Directories of the same layout.
    samples
        Samples of a stored pixel.
    per_page
        Planes of a directory: 1, or its samples where each lies apart.

    Raises
    ------
    SlideError
        ``FILE_BEYOND_LIMITS`` or ``FILE_TRUNCATED``.
    """
    page = pages[0]
    height, width = size_of(page)
    item = np.dtype(dtype).itemsize
    planes = len(pages) * per_page
    check_size(name, height, width)
    stripped = not page.has(tags.TILE_WIDTH)
    tile_h, tile_w = _tile_size(name, page, height, width, samples * item)
    rows, columns = -(-height // tile_h), -(-width // tile_w)
    if rows * columns * planes > MAX_TILES:
        raise SlideError(
            Reason.FILE_BEYOND_LIMITS,
            f"{name}: declares {rows * columns * planes} tiles; accepted are {MAX_TILES}",
        )
    tile_bytes = tile_h * tile_w * samples * item
    listed = [_tile_index(p, rows * columns * per_page, tile_bytes, stripped=stripped) for p in pages]
    offsets, counts = (np.concatenate(part) for part in zip(*listed, strict=True))
    if not offsets.size == counts.size == rows * columns * planes:
        raise SlideError(
            Reason.FILE_TRUNCATED,
            f"{name}: {width} x {height} px in tiles of {tile_w} x {tile_h} need {rows * columns * planes} "
            f"tiles, the file lists {offsets.size} places and {counts.size} lengths. Export the slide again",
        )
    counts[offsets == 0] = 0  # where the header lies there is no tile: some writers mark absent ones so
    check_tile_index(name, offsets, counts, tile_bytes, source.size)
    shape = (planes, rows, columns)
    return TileGrid(
        height=height,
        width=width,
        tile_height=tile_h,
        tile_width=tile_w,
        offsets=offsets.astype(np.int64).reshape(shape),
        counts=counts.astype(np.int64).reshape(shape),
        samples=samples,
        whole_tiles=not stripped,
        dtype=dtype,
    )


def _tile_index(page: Ifd, n: int, tile_bytes: int, *, stripped: bool) -> tuple[Places, Places]:
    """Places and lengths of a directory's first ``n`` tiles or strips.

    As libtiff does it: some writers list tiles under the tags of strips; where the lengths are missing, a
    tile ends at the latest where the next one begins; and what is listed beyond is not read.
    """
    kinds = ((tags.STRIP_OFFSETS, tags.STRIP_BYTE_COUNTS), (tags.TILE_OFFSETS, tags.TILE_BYTE_COUNTS))
    first, second = kinds if stripped else kinds[::-1]
    offset_tag = second[0] if page.has(second[0]) and not page.has(first[0]) else first[0]
    count_tag = second[1] if page.has(second[1]) and not page.has(first[1]) else first[1]
    offsets = page.index(offset_tag)[:n]
    if page.has(count_tag):
        return offsets, page.index(count_tag)[:n]
    size = np.uint64(page.source.size)
    begun = np.unique(np.append(offsets, size))
    ends = begun[np.minimum(np.searchsorted(begun, offsets, side="right"), begun.size - 1)]
    longest = np.uint64(longest_tile(tile_bytes))
    return offsets, np.where(offsets < size, np.minimum(ends - offsets, longest), np.uint64(1))


def absent_tiles(grid: TileGrid, read_as: str) -> tuple[str, ...]:
    """Notes on tiles that the file leaves out."""
    absent = int((grid.counts == 0).sum())
    return (f"{absent} of {grid.counts.size} tiles are absent: read as {read_as}",) if absent else ()


def resplit(name: str, grid: TileGrid) -> TileGrid:
    """Cut uncompressed strips that lie end to end into low ones: a region reads little but its own rows."""
    row_bytes = grid.width * grid.samples * np.dtype(grid.dtype).itemsize
    starts, lengths = grid.offsets[:, :, 0], grid.counts[:, :, 0]
    if not lengths.all():
        return grid  # some are absent
    if (lengths.sum(axis=1) < grid.height * row_bytes).any():
        raise SlideError(
            Reason.FILE_TRUNCATED,
            f"{name}: {grid.width} x {grid.height} px uncompressed need {grid.height * row_bytes} bytes, the "
            f"strips hold {int(lengths.sum(axis=1).min())}. Transfer the slide again",
        )
    if (starts[:, 1:] != starts[:, :-1] + grid.tile_height * row_bytes).any():
        return grid
    first_rows = np.arange(0, grid.height, STRIP_ROWS, dtype=np.int64)
    rows = np.minimum(STRIP_ROWS, grid.height - first_rows)
    offsets = starts[:, :1] + first_rows * row_bytes
    counts = np.broadcast_to(rows * row_bytes, offsets.shape)
    return replace(grid, tile_height=STRIP_ROWS, offsets=offsets[:, :, None], counts=counts[:, :, None])


def decoded_once_if_huge(reader: TiledReader, grid: TileGrid) -> SlideReader:
    """The reader itself; of an image in one huge compressed strip, one that decodes and keeps it whole.

    Raises
    ------
    SlideError
        ``FILE_BEYOND_LIMITS`` where it is too large for that.
    """
    if grid.tile_height * grid.tile_width <= MAX_TILE_PX:
        return reader
    form, stored = PixelFormat.of(reader.info), grid.samples * np.dtype(grid.dtype).itemsize
    check_whole(reader.info.uri, grid.height, grid.width, bytes_px=max(form.bytes_px, stored))

    def load() -> Pixels:
        pixels = form.empty(grid.height, grid.width)
        reader.read_region(0, 0, pixels)
        return pixels

    return WholeReader(reader.info, load, reader.close, reader.icc_profile)


def _tile_size(name: str, page: Ifd, height: int, width: int, bytes_px: int) -> tuple[int, int]:
    if not page.has(tags.TILE_WIDTH):
        return min(page.number(tags.ROWS_PER_STRIP, height) or height, height), width
    tile_h, tile_w = page.number(tags.TILE_LENGTH), page.number(tags.TILE_WIDTH)
    if not (tile_h >= 1 and tile_w >= 1 and tile_h * tile_w * max(bytes_px, 4) <= 4 * MAX_TILE_PX):
        raise SlideError(
            Reason.FILE_BEYOND_LIMITS,
            f"{name}: tiles of {tile_w} x {tile_h} px with {bytes_px} bytes each; accepted are 1 to "
            f"{4 * MAX_TILE_PX // max(bytes_px, 4)} px",
        )
    return tile_h, tile_w
