"""TIFF slides whose JPEG or JPEG 2000 tiles are stored as scanners do it: one flavour a function."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

from her2core.readers.jpegfile import segments

SECRET = b"JANE DOE 1948-02-11"
"""A patient, in every place where a JPEG stream has room for one."""

TABLES = (0xC4, 0xDB)
"""Markers of Huffman and quantisation tables."""

Tile = Callable[[np.ndarray], bytes]


def write_slide(path: Path, pixels: np.ndarray, edge: int, encode: Tile, **options: Any) -> Path:
    """Write a slide tile by tile; ``encode`` is given each, filled up to ``edge`` with its last pixels."""
    height, width = pixels.shape[:2]

    def tiles() -> Iterator[bytes]:
        for y in range(0, height, edge):
            for x in range(0, width, edge):
                tile = pixels[y : y + edge, x : x + edge]
                below, beside = edge - tile.shape[0], edge - tile.shape[1]
                yield encode(np.pad(tile, ((0, below), (0, beside), (0, 0)), mode="edge"))

    with tifffile.TiffWriter(path) as tif:
        tif.write(
            tiles(),
            shape=pixels.shape,
            dtype=np.uint8,
            tile=(edge, edge),
            resolution=(40_000, 40_000),
            resolutionunit="CENTIMETER",
            metadata=None,
            **{"compression": "jpeg", "photometric": "ycbcr", **options},
        )
    return path


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def told(stream: bytes) -> bytes:
    """A stream with a patient's name in Exif, in a comment, in a marker between, and behind its end."""
    private = segment(0xE1, b"Exif\0\0" + SECRET) + segment(0xFE, SECRET) + segment(0xED, SECRET)
    scan = stream.index(b"\xff\xda")
    return stream[:2] + private + stream[2:scan] + segment(0xFE, SECRET) + stream[scan:] + SECRET


def bare(stream: bytes, without: Container[int] = ()) -> bytes:
    """A stream without JFIF and Adobe markers: nothing says what its colours are; other ones left out too."""
    kept = b"".join(
        segment(m, bytes(b)) for m, b in segments(stream) if m not in without and not 0xE0 <= m <= 0xEF
    )
    scan = stream.index(b"\xff\xda")
    (length,) = struct.unpack(">H", stream[scan + 2 : scan + 4])
    return b"\xff\xd8" + kept + stream[scan + 2 + length :]


def tables_of(stream: bytes) -> bytes:
    """An abbreviated stream that holds a stream's tables alone."""
    kept = b"".join(segment(m, bytes(b)) for m, b in segments(stream) if m in TABLES)
    return b"\xff\xd8" + segment(0xFE, SECRET) + kept + b"\xff\xd9"


def without_tables(stream: bytes) -> bytes:
    """A bare stream that leaves its tables to the container."""
    return bare(stream, TABLES)


def jpeg(pixels: np.ndarray, **how: Any) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(pixels), **{"level": 85, **how}))


def jpeg2000(pixels: np.ndarray) -> bytes:
    """A reversible codestream, its comment a patient's name."""
    whole = np.ascontiguousarray(pixels)
    stream = bytes(imagecodecs.jpeg2k_encode(whole, level=0, codecformat="j2k", mct=True))
    tile = stream.index(b"\xff\x90")
    note = struct.pack(">HHH", 0xFF64, len(SECRET) + 4, 1) + SECRET
    return stream[:tile] + note + stream[tile:] + SECRET


def _pillow(pixels: np.ndarray, **how: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=85, **how)
    return buffer.getvalue()


JFIF, SHARED_TABLES = "420 with JFIF", "422, shared tables, no marker"
_RGB = {"colorspace": "rgb", "outcolorspace": "rgb"}
_APERIO = {"compression": 33005, "photometric": "rgb", "description": "Aperio |MPP = 0.25"}
FLAVOURS: dict[str, tuple[Tile, dict[str, Any]]] = {
    JFIF: (lambda t: told(jpeg(t, subsampling="420")), {}),
    SHARED_TABLES: (lambda t: without_tables(jpeg(t, subsampling="422")), {}),
    "RGB, no marker": (lambda t: bare(told(jpeg(t, **_RGB))), {"photometric": "rgb"}),
    "RGB with Adobe": (lambda t: told(jpeg(t, **_RGB)), {"photometric": "rgb"}),
    "progressive": (lambda t: told(_pillow(t, progressive=True)), {}),
    "restart markers": (lambda t: told(_pillow(t, restart_marker_blocks=2)), {}),
    "no end, zeros behind": (lambda t: jpeg(t).removesuffix(b"\xff\xd9") + bytes(7), {}),
    "JPEG 2000": (jpeg2000, _APERIO),
}
"""How a tile is encoded, and options of the file."""


def write_flavour(path: Path, pixels: np.ndarray, edge: int, flavour: str) -> Path:
    """Write a slide as one of `FLAVOURS` has it."""
    encode, options = FLAVOURS[flavour]
    if flavour == SHARED_TABLES:
        options = {"jpegtables": tables_of(jpeg(pixels[:edge, :edge], subsampling="422"))}
    return write_slide(path, pixels, edge, encode, **options)
