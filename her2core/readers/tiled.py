"""Rectangles from a grid of independently compressed tiles: the fast path of TIFF and DICOM.

A read turns its rectangle into tiles, the tiles into few byte ranges, and decodes each into one buffer that
the thread keeps, from where its part is copied into the caller's array.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from her2core.buffers import ThreadBuffers
from her2core.errors import Reason, SlideError
from her2core.pixels import Pixels
from her2core.readers.base import DARK, OUTSIDE, Closing, SlideReader, clip_region, composite
from her2core.readers.bytesource import ByteSource, JoinedBytes, LocalBytes, coalesce
from her2core.readers.icc import with_profile
from her2core.readers.standalone import NativeTiles
from her2core.readers.tilecodecs import ShortTileError, TileDecoder
from her2core.records import Box, SlideInfo

SIGNATURES = {
    "jpeg": (b"\xff\xd8",),
    "jpeg2000": (b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  "),
    "webp": (b"RIFF",),
    "jpegxl": (b"\xff\x0a", b"\0\0\0\x0cJXL "),
    "zstd": (b"\x28\xb5\x2f\xfd",),
    "deflate": (b"\x78", b"\x08", b"\x18", b"\x28", b"\x38", b"\x48", b"\x58", b"\x68"),
}
"""How streams begin; deflate by the window sizes of its header (RFC 1950)."""
SIGNATURE_BYTES = 8
TakeTile = Callable[[int, int, memoryview], None]
"""``take(row, column, stream)``; the stream is valid until it returns."""
AHEAD_BYTES = 1 << 24
"""Most bytes of a file that are begun to be read at once: four shards of usual JPEG tiles (16 MiB, ours)."""
SPAN_BYTES = 1 << 23
"""Most bytes read as one range (8 MiB); one larger tile is still read whole."""


@dataclass(frozen=True, slots=True)
class TileGrid:
    """Where the tiles of level 0 lie in the file.

    Attributes
    ----------
    offsets, counts
        Byte offset and length of each tile, shape ``(plane, row, column)``; length 0 marks an absent tile.
        One plane holds all samples, or each plane one: red, green, blue and, where there is a fourth, alpha;
        a stack has many planes.
    samples
        Samples of a stored pixel of a plane.
    whole_tiles
        Whether tiles of the last row are stored in full height (tiles) or cut at the image's end (strips).
    head_bytes
        Bytes of the container before a tile's own, counted among them.
    """

    height: int
    width: int
    tile_height: int
    tile_width: int
    offsets: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    samples: int
    whole_tiles: bool
    dtype: str = "uint8"
    head_bytes: int = 0

    def tiles(self, box: Box) -> Iterator[tuple[int, int, int]]:
        """``(plane, row, column)`` of every tile that touches ``box``, a rectangle inside the slide."""
        for plane in range(self.offsets.shape[0]):
            for row in range(box.y0 // self.tile_height, -(-box.y1 // self.tile_height)):
                for column in range(box.x0 // self.tile_width, -(-box.x1 // self.tile_width)):
                    yield plane, row, column

    def cut_sizes(self, tile: tuple[int, int, int]) -> list[tuple[int, int]]:
        """Other heights and widths in which a tile at the slide's right or lower end may be stored."""
        height = min(self.tile_height, self.height - tile[1] * self.tile_height)
        width = min(self.tile_width, self.width - tile[2] * self.tile_width)
        usual = self.stored_height(tile[1]), self.tile_width
        others = [(height, width), (height, self.tile_width), (usual[0], width)]
        if not self.whole_tiles:
            others.append((self.tile_height, self.tile_width))
        return [size for size in dict.fromkeys(others) if size != usual]

    def stored_height(self, row: int) -> int:
        """Rows of pixels that the tiles of a row hold."""
        left = self.height - row * self.tile_height
        return self.tile_height if self.whole_tiles else min(self.tile_height, left)


@dataclass(frozen=True, slots=True)
class Colours:
    """What the samples of a stored pixel are.

    Attributes
    ----------
    rgb
        Which sample is red, which green, which blue.
    alpha
        Which one is alpha; of planes it is the fourth. None where there is none.
    premultiplied
        Whether the colours are weighted by their alpha already.
    """

    rgb: tuple[int, ...] = (0, 1, 2)
    alpha: int | None = None
    premultiplied: bool = False


class TiledReader(Closing):
    """Reader of one tile grid: 8-bit RGB.

    Parameters
    ----------
    outside
        Value outside the slide, of tiles that are absent, and of the ground under what is transparent.
    icc_profile
        The file's colour profile, empty where it has none.
    native
        How its tiles are made to stand alone, where their compression allows it.
    """

    def __init__(
        self,
        info: SlideInfo,
        source: ByteSource,
        grid: TileGrid,
        decode: TileDecoder,
        outside: int = OUTSIDE,
        colours: Colours = Colours(),
        icc_profile: bytes = b"",
        native: NativeTiles | None = None,
    ) -> None:
        square = grid.whole_tiles and grid.tile_height == grid.tile_width
        pixels = grid.samples == 3 and grid.offsets.shape[0] == 1 and colours == Colours()
        self.native = native if square and pixels and outside == OUTSIDE else None
        info = replace(info, native=self.native.codec if self.native else "")
        self.info = with_profile(info, icc_profile)
        self.icc_profile = icc_profile
        self._source = source
        self._grid = grid
        self._decode = decode
        self._outside = outside
        self._colours = colours
        self._buffers = ThreadBuffers()

    @property
    def waits(self) -> bool:
        """Whether reading waits for a server."""
        return self._source.waits

    def begin(self, boxes: Sequence[Box]) -> int:
        """Begin to read the next regions, inside the slide, of a file that has to be waited for.

        Of no region: let go what was read ahead.

        Returns
        -------
        int
            How many of the regions, from the first on: as many as `AHEAD_BYTES` hold, or none.
        """
        spans: list[tuple[int, int]] = []
        number = held = 0
        for box in boxes:
            more = self._spans([tile for tile in self._grid.tiles(box) if self._grid.counts[tile]])
            held += sum(end - start for start, end in more)
            if held > AHEAD_BYTES:
                break
            spans += more
            number += 1
        if spans or not boxes:
            self._source.begin(spans)
        return number

    def _spans(self, tiles: Sequence[tuple[int, int, int]]) -> list[tuple[int, int]]:
        """Where tiles lie in the file."""
        grid = self._grid
        return [(int(grid.offsets[t]), int(grid.offsets[t] + grid.counts[t])) for t in tiles]

    def read_tiles(self, box: Box, out: Pixels, take: TakeTile) -> None:
        """Fill ``out`` with ``box``, inside the slide, and hand on every stored tile as the file has it.

        Parameters
        ----------
        take
            ``take(row, column, stream)``, called once the tile's pixels are in ``out``.
        """
        self._fill(box, out, take)

    def read_region(self, y0: int, x0: int, out: Pixels) -> None:
        grid = self._grid
        box = clip_region(y0, x0, out, grid.height, grid.width, self._outside)
        if box is None:
            return
        inside = out[box.y0 - y0 : box.y1 - y0, box.x0 - x0 : box.x1 - x0]
        if grid.samples == 1 and self._colours.alpha is not None:
            rgba = np.empty((box.height, box.width, 4), np.uint8)
            self._fill(box, rgba)
            self._lay_over(rgba, inside)
        else:
            self._fill(box, inside)

    def _fill(self, box: Box, inside: Pixels, take: TakeTile | None = None) -> None:
        """Give a region inside the slide its tiles, and the ground where one is absent."""
        grid = self._grid
        present = []
        for tile in grid.tiles(box):
            if grid.counts[tile]:
                present.append(tile)
            else:
                part, _ = self._place(tile, box)
                inside[part.y0 : part.y1, part.x0 : part.x1] = self._outside
        self._decode_tiles(present, box, inside, take)

    def _decode_tiles(
        self,
        present: list[tuple[int, int, int]],
        box: Box,
        inside: Pixels,
        take: TakeTile | None = None,
    ) -> None:
        """Read the tiles that the file holds, and lay each into the region."""
        spans = self._spans(present)
        joined = coalesce(spans, self._source.max_gap, SPAN_BYTES)
        views = self._source.read_spans([span for span, _ in joined])
        for ((start, _), members), data in zip(joined, views, strict=True):
            for i in members:
                stream = data[spans[i][0] - start : spans[i][1] - start]
                self._copy_tile(present[i], stream, box, inside)
                if take is not None:
                    take(*present[i][1:], stream)

    def _place(self, tile: tuple[int, int, int], box: Box) -> tuple[Box, Box]:
        """The tile's part of ``box``: in the box's own pixels, and in the tile's."""
        top, left = tile[1] * self._grid.tile_height, tile[2] * self._grid.tile_width
        y0, y1 = max(top, box.y0), min(top + self._grid.tile_height, box.y1)
        x0, x1 = max(left, box.x0), min(left + self._grid.tile_width, box.x1)
        return Box(y0 - box.y0, x0 - box.x0, y1 - box.y0, x1 - box.x0), Box(
            y0 - top, x0 - left, y1 - top, x1 - left
        )

    def _copy_tile(self, tile: tuple[int, int, int], data: memoryview, box: Box, inside: Pixels) -> None:
        grid = self._grid
        rows = grid.stored_height(tile[1])
        part, of_tile = self._place(tile, box)
        target = inside[part.y0 : part.y1, part.x0 : part.x1]
        rgb, alpha = self._colours.rgb, self._colours.alpha
        plain = grid.samples == 3 and rgb == (0, 1, 2)
        direct = plain and target.shape[:2] == (rows, grid.tile_width) and target.flags.c_contiguous
        pixels = target if direct else self._buffer()[:rows]
        self._decode_tile(tile, data, pixels)
        if direct:
            return
        wanted = pixels[of_tile.y0 : of_tile.y1, of_tile.x0 : of_tile.x1]
        if grid.samples == 1:
            target[..., tile[0]] = wanted
        elif alpha is not None:
            self._lay_over(wanted[..., [*rgb, alpha]], target)
        else:
            target[...] = wanted if plain else wanted[..., list(rgb)]

    def _lay_over(self, rgba: Pixels, target: Pixels) -> None:
        ground = (self._outside,) * 3
        composite(rgba, ground, target, premultiplied=self._colours.premultiplied)

    def _decode_tile(self, tile: tuple[int, int, int], data: memoryview, pixels: Pixels) -> None:
        try:
            self._decode(data, pixels)
        except (RuntimeError, ValueError) as error:
            if not self._decode_cut(tile, data, pixels, error):
                short = isinstance(error, ShortTileError)
                reason = Reason.FILE_TRUNCATED if short else Reason.FILE_UNREADABLE
                raise self._bad_tile(reason, tile, error) from error

    def _decode_cut(
        self, tile: tuple[int, int, int], data: memoryview, pixels: Pixels, error: Exception
    ) -> bool:
        """Decode a tile of the last row or column as some writers store it; False where it is not so either.

        They cut it to the picture, or give the last strip the height of the others.
        """
        for height, width in self._grid.cut_sizes(tile):
            cut = np.empty((height, width, *pixels.shape[2:]), pixels.dtype)
            if isinstance(error, ShortTileError) and error.got != cut.nbytes:
                continue
            try:
                self._decode(data, cut)
            except (RuntimeError, ValueError):
                continue
            rows = min(height, len(pixels))
            pixels[:rows, :width] = cut[:rows]
            return True
        return False

    def check_starts(self) -> None:
        """Look at the first bytes of every stored tile of a local file, where its codec has a signature.

        Raises
        ------
        SlideError
            ``FILE_UNREADABLE``, saying how many tiles do not begin as they should.
        """
        signatures = SIGNATURES.get(self.info.compression, ())
        if not signatures or not isinstance(self._source, LocalBytes | JoinedBytes):
            return
        stored = np.argwhere(self._grid.counts > 0)
        # each place once, in the file's order: equal tiles may be stored once
        _, distinct = np.unique(self._grid.offsets[tuple(stored.T)], return_index=True)
        bad = []
        for tile in map(tuple, stored[distinct].tolist()):
            at, length = int(self._grid.offsets[tile]), int(self._grid.counts[tile])
            head = self._source.read(at, min(SIGNATURE_BYTES + self._grid.head_bytes, length))
            if not head.startswith(signatures, self._grid.head_bytes):
                bad.append(tile)
        if bad:
            _, row, column = min(bad)
            raise SlideError(
                Reason.FILE_UNREADABLE,
                f"{self.info.uri}: tile row {row} column {column} does not begin as {self.info.compression} "
                f"does, nor do {len(bad) - 1} others of {len(distinct)}. Transfer or export the slide again",
            )

    def _buffer(self) -> Pixels:
        """This thread's tile: fresh pages cost more than decoding into warm ones."""
        grid, dtype = self._grid, np.dtype(self._grid.dtype)
        shape = (grid.tile_height, grid.tile_width, grid.samples)[: 2 if grid.samples == 1 else 3]
        flat = self._buffers.flat("tile", math.prod(shape) * dtype.itemsize)
        return flat.view(dtype).reshape(shape)

    def _bad_tile(self, reason: Reason, tile: tuple[int, int, int], error: Exception) -> SlideError:
        plane, row, column = tile
        which = f"tile row {row} column {column}" + (
            f" plane {plane}" if self._grid.offsets.shape[0] > 1 else ""
        )
        return SlideError(
            reason,
            f"{self.info.uri}: {which} cannot be decoded ({error}). Transfer or export the slide again",
        )

    def close(self) -> None:
        self._source.close()


def begin_reading(reader: SlideReader, boxes: Sequence[Box]) -> int:
    """Begin to read the next regions of a slide, inside it, where that takes waiting; how many of them."""
    return reader.begin(boxes) if isinstance(reader, TiledReader) and reader.waits else 0


class StackReader(TiledReader):
    """Reader of fluorescence: many planes, each a channel at a focus; a pixel is the maximum over the foci.

    Parameters
    ----------
    uses
        For each plane of the grid, which of its stored samples goes to which channel of a pixel.
    """

    def __init__(
        self,
        info: SlideInfo,
        source: ByteSource,
        grid: TileGrid,
        decode: TileDecoder,
        uses: Sequence[Sequence[tuple[int, int]]],
    ) -> None:
        super().__init__(info, source, grid, decode, DARK)
        self._uses = uses

    def read_region(self, y0: int, x0: int, out: Pixels) -> None:
        box = clip_region(y0, x0, out, self._grid.height, self._grid.width, DARK)
        if box is None:
            return
        inside = out[box.y0 - y0 : box.y1 - y0, box.x0 - x0 : box.x1 - x0]
        inside[...] = DARK  # over which every tile is laid; an absent one changes nothing
        self._decode_tiles([tile for tile in self._grid.tiles(box) if self._grid.counts[tile]], box, inside)

    def _copy_tile(self, tile: tuple[int, int, int], data: memoryview, box: Box, inside: Pixels) -> None:
        part, of_tile = self._place(tile, box)
        pixels = self._buffer()[: self._grid.stored_height(tile[1])]
        self._decode_tile(tile, data, pixels)
        wanted = pixels[of_tile.y0 : of_tile.y1, of_tile.x0 : of_tile.x1]
        target = inside[part.y0 : part.y1, part.x0 : part.x1]
        for sample, channel in self._uses[tile[0]]:
            values = wanted if wanted.ndim == 2 else wanted[..., sample]
            if self.info.z_planes == 1:
                target[..., channel] = values
            else:
                np.maximum(target[..., channel], values, out=target[..., channel])
