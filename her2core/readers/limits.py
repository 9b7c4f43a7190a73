"""What a slide file may require, checked against its header before anything is decoded.

A 308 kB TIFF can declare 200 000 x 200 000 px by pointing every tile at the same bytes. These caps and
checks refuse such a file from its header alone. What is bounded is what would be decoded: tiles that a file
leaves out cost nothing, and blank ones may be stored in a few bytes, or once for all. All numbers are ours:
several times what scanners write.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from her2core.errors import Reason, SlideError

MAX_EDGE_PX = 1 << 20
"""Longest edge of a slide, px; a whole 26 x 76 mm glass at 0.1 µm/px is 760 000 px long."""
MAX_PIXELS = 1 << 36
"""Largest slide, px (6.9e10); a 15 x 15 mm section at 0.1 µm/px is 2.3e10."""
MAX_TILES = 1 << 22
"""Most native tiles of one level; their index then takes 64 MiB."""
MAX_TILE_PX = 1 << 25
"""Largest native tile or strip, px (3.4e7, 100 MB decoded)."""
MAX_WHOLE_PX = 1 << 27
"""Largest image decoded as a whole because its file has no tiles, px (1.3e8, 400 MB decoded)."""
MAX_EXPANSION = 40_000
"""Most decoded bytes for each byte of the file. Measured on blank tiles of 1024 px: WebP 35 746,
Zstandard 27 354, JPEG 2000 18 613, JPEG XL 9709, deflate 1024, JPEG 184."""
FREE_BYTES = 1 << 32
"""Decoded size, bytes, up to which a file may compress as well as it likes (4 GiB: a minute of one core)."""
MAX_TEXT_BYTES = 1 << 24
"""Longest description read from a header, bytes; OME-XML of a whole slide stays below 1 MiB."""


def check_size(
    name: str, height: int, width: int, file_bytes: int | None = None, *, bytes_px: int = 3
) -> None:
    """Refuse a size that no slide has, or that is more than the file's bytes can unpack to.

    Parameters
    ----------
    file_bytes
        Size of a file that holds all its pixels; None where tiles can be absent, see ``check_tile_index``.
    bytes_px
        Decoded bytes of one pixel, over all its channels and focal planes.

    Raises
    ------
    SlideError
        ``FILE_BEYOND_LIMITS``.
    """
    if height < 1 or width < 1:
        raise SlideError(
            Reason.FILE_BEYOND_LIMITS, f"{name}: declares {width} x {height} px; a slide has at least 1 x 1"
        )
    if max(height, width) > MAX_EDGE_PX or height * width > MAX_PIXELS:
        raise SlideError(
            Reason.FILE_BEYOND_LIMITS,
            f"{name}: declares {width} x {height} px; accepted are {MAX_EDGE_PX} px an edge and {MAX_PIXELS} "
            "px in all",
        )
    if file_bytes is not None:
        _check_decoded(name, f"{width} x {height} px", bytes_px * height * width, file_bytes)


def _check_decoded(name: str, what: str, decoded: int, file_bytes: int) -> None:
    """Refuse to decode more than a file of this size can honestly hold."""
    if decoded > FREE_BYTES and decoded > MAX_EXPANSION * file_bytes:
        raise SlideError(
            Reason.FILE_BEYOND_LIMITS,
            f"{name}: {what} would be {decoded} bytes out of a file of {file_bytes}, "
            f"{decoded // max(file_bytes, 1)} times its size; read are up to {MAX_EXPANSION} times. If this "
            "is a slide, export it in JPEG",
        )


def check_whole(name: str, height: int, width: int, *, bytes_px: int = 3) -> None:
    """Refuse an image that would have to be decoded whole and is too large for it."""
    if height * width * bytes_px > 3 * MAX_WHOLE_PX:
        raise SlideError(
            Reason.FILE_BEYOND_LIMITS,
            f"{name}: {width} x {height} px without tiles; accepted are {3 * MAX_WHOLE_PX // bytes_px} px. "
            "Convert it to a tiled TIFF",
        )


def longest_tile(tile_bytes: int) -> int:
    """Most bytes that a tile of so many decoded bytes may be stored in: twice as many, and a header."""
    return 2 * tile_bytes + 65536


def check_tile_index(
    name: str,
    offsets: npt.NDArray[np.uint64],
    counts: npt.NDArray[np.uint64],
    tile_bytes: int,
    file_bytes: int,
) -> None:
    """Refuse a tile index that points outside the file, or to more than can be decoded.

    Tiles may share bytes: writers store equal ones once.

    Parameters
    ----------
    offsets, counts
        Place and length of every tile in the file, bytes, shape ``(tile,)``. Length 0 marks an absent tile.
    tile_bytes
        Size of one decoded tile, bytes.

    Raises
    ------
    SlideError
        ``FILE_TRUNCATED`` for tiles beyond the end or a file without any tile, ``FILE_BEYOND_LIMITS`` for the
        rest.
    """
    present = counts > 0
    if not present.any():
        raise SlideError(
            Reason.FILE_TRUNCATED, f"{name}: holds none of its {counts.size} tiles. Export the slide again"
        )
    size = np.uint64(file_bytes)
    beyond = present & ((offsets > size) | (counts > size) | (offsets + counts > size))
    if beyond.any():
        first = int(np.flatnonzero(beyond)[0])
        raise SlideError(
            Reason.FILE_TRUNCATED,
            f"{name}: {int(beyond.sum())} of {counts.size} tiles lie beyond the file's end ({file_bytes} "
            f"bytes), the first is tile {first} at byte {offsets[first]}. The copy is incomplete: transfer "
            "the slide again",
        )
    stored = int(present.sum())
    _check_decoded(name, f"its {stored} stored tiles", stored * tile_bytes, file_bytes)
    largest = int(counts.max())
    if largest > longest_tile(tile_bytes):
        raise SlideError(
            Reason.FILE_BEYOND_LIMITS,
            f"{name}: a tile of {tile_bytes} bytes is stored in {largest} bytes; expected at most twice its "
            "size",
        )
