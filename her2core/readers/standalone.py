"""A slide's own tiles as streams that stand by themselves: what is copied, unchanged, into a pyramid.

In a slide file a tile leans on its container: tables are shared, the colour space stands in a tag, and
padding follows the stream. Here each tile becomes a stream that any decoder reads alone. Whatever decoding
does not need is left out, comments and Exif above all: they may name a patient.

References
----------
ITU-T T.81, annex B; ITU-T T.872, 6.5.3: Adobe's marker; ISO/IEC 15444-1, annex A.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

from her2core.readers.jpeg2000 import SOT, jpeg2000_header
from her2core.readers.jpegfile import (
    APP0,
    APP14,
    START_OF_SCAN,
    frame_of,
    names_its_colour,
    segments,
)

NATIVE_CODECS = ("jpeg", "jpeg2000")
"""Compressions whose tiles can be copied."""
RGB = 2  # TIFF PhotometricInterpretation
SOI, EOI = b"\xff\xd8", b"\xff\xd9"
END_OF_IMAGE, COMMENT = 0xD9, 0xFE
TABLES = frozenset({0xC4, 0xDB})  # Huffman and quantisation tables
FRAMES = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended and progressive Huffman: what viewers decode too
NEEDED = TABLES | FRAMES | {0xDD, START_OF_SCAN}
LEFT_OUT = frozenset(range(0xE0, 0xF0)) | {COMMENT}
NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""Where coded data ends: a marker that is neither a restart nor a byte 0xFF of the data itself."""
YCBCR_IDS, RGB_IDS = b"\1\2\3", b"RGB"
J2K_COMMENT, SOD = 0xFF64, 0xFF93

Alone = Callable[[memoryview, int], bytes]
"""``alone(stream, edge)`` returns a tile of ``edge`` px that stands alone, or raises ``ValueError``."""


@dataclass(frozen=True, slots=True)
class NativeTiles:
    """How the tiles of a file are made to stand alone.

    Attributes
    ----------
    codec
        ``jpeg`` or ``jpeg2000``.
    alone
        Makes the stream; what it returns decodes to the reader's own pixels, bit by bit.
    """

    codec: str
    alone: Alone


def jpeg_tiles(photometric: int, tables: bytes = b"") -> NativeTiles:
    """JPEG tiles; parameters are those of ``jpeg_decoder``."""
    shared = b"".join(_segment(marker, body) for marker, body in segments(tables) if marker in TABLES)

    last = _Headers(0, b"", b"")

    def alone(data: memoryview, edge: int) -> bytes:
        nonlocal last
        stream, known = bytes(data), last  # another thread may replace it meanwhile
        if known.edge == edge and stream.startswith(known.read):
            end = NEXT_MARKER.search(stream, len(known.read))
            if end and end[0] == EOI:
                return known.made + stream[len(known.read) : end.end()]
        made, last = _jpeg_alone(stream, edge, photometric, shared)
        return made

    return NativeTiles("jpeg", alone)


def jpeg2000_tiles(*, ycbcr: bool = False) -> NativeTiles:
    """JPEG 2000 tiles; ``ycbcr`` is that of ``jpeg2000_decoder``."""

    def alone(data: memoryview, edge: int) -> bytes:
        return _jpeg2000_alone(bytes(data), edge, ycbcr=ycbcr)

    return NativeTiles("jpeg2000", alone)


def joined_tiles(native: NativeTiles, join: Callable[[memoryview], memoryview]) -> NativeTiles:
    """Tiles whose stream ``join`` takes out of the container's own framing."""
    return NativeTiles(native.codec, lambda data, edge: native.alone(join(data), edge))


@dataclass(frozen=True, slots=True)
class _Headers:
    """What comes before a JPEG tile's coded data, as read and as it stands alone: mostly the same in all."""

    edge: int
    read: bytes
    made: bytes


def _jpeg_alone(data: bytes, edge: int, photometric: int, shared: bytes) -> tuple[bytes, _Headers]:
    if frame_of(data) != (edge, edge, 8, 3):
        raise ValueError(f"frame is {frame_of(data)}; expected {edge} x {edge} px of 3 x 8 bits")
    parts = [SOI, _adobe(_is_rgb(data, photometric)), shared]
    at, headers = 2, None
    while at + 2 <= len(data):
        if data[at] != 0xFF:
            raise ValueError(f"no marker at byte {at}")
        marker = data[at + 1]
        if marker == 0xFF:  # fill before a marker
            at += 1
            continue
        if marker == END_OF_IMAGE:
            break
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker not in NEEDED | LEFT_OUT or end > len(data) or end < at + 4:
            raise ValueError(f"segment {marker:#04x} at byte {at}")
        if marker == START_OF_SCAN:
            headers = headers or _Headers(edge, data[:end], b"".join([*parts, data[at:end]]))
            found = NEXT_MARKER.search(data, end)
            end = found.start() if found else len(data)
        if marker in NEEDED:
            parts.append(data[at:end])
        at = end
    if headers is None:
        raise ValueError("no scan")
    stream = b"".join(parts)
    return (stream if data[at : at + 2] == EOI else without_zeros(stream)) + EOI, headers


def without_zeros(stream: bytes) -> bytes:
    """A JPEG stream without the zeros behind it; the one after 0xFF is its own (ITU-T T.81, F.1.2.3)."""
    bare = stream.rstrip(b"\0")
    return bare + b"\0" if bare.endswith(b"\xff") and bare != stream else bare


def _is_rgb(data: bytes, photometric: int) -> bool:
    """Whether the components are RGB, as ``jpeg_decoder`` and libjpeg find it; else they are YCbCr."""
    if photometric == RGB and not names_its_colour(data):
        return True
    jfif, adobe, ids = False, None, b""
    for marker, body in segments(data):
        if marker == APP0 and len(body) >= 14 and bytes(body[:5]) == b"JFIF\0":
            jfif = True
        elif marker == APP14 and len(body) >= 12 and bytes(body[:5]) == b"Adobe":
            adobe = body[11]
        elif marker in FRAMES:
            ids = bytes(body[6::3])
    if jfif:
        return False
    return ids == RGB_IDS if adobe is None else adobe == 0


def _adobe(is_rgb: bool) -> bytes:
    """Adobe's segment, which states the colour transform."""
    return _segment(APP14, struct.pack(">5sHHHB", b"Adobe", 100, 0, 0, 0 if is_rgb else 1))


def _segment(marker: int, body: bytes | memoryview) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + bytes(body)


def _jpeg2000_alone(data: bytes, edge: int, *, ycbcr: bool) -> bytes:
    header = jpeg2000_header(data)
    if not data.startswith(b"\xff\x4f\xff\x51"):
        raise ValueError("a JP2 file, not a bare codestream")
    found = (header.height, header.width, header.components, header.bits)
    if found != (edge, edge, 3, 8) or header.signed or header.subsampled:
        raise ValueError(f"codestream is {found}; expected {edge} x {edge} px of 3 x 8 bits")
    if ycbcr and not header.transformed:
        raise ValueError("components are YCbCr, which the codestream does not state")
    parts, at = [data[:2]], 2
    while _marker(data, at) != SOT:
        marker, end = _j2k_segment(data, at)
        if marker != J2K_COMMENT:
            parts.append(data[at:end])
        at = end
    while _marker(data, at) == SOT:
        end = _tile_part_end(data, at)
        parts.append(data[at:end])
        at = end
    if data[at : at + 2] != EOI:
        raise ValueError(f"no end of codestream at byte {at}")
    return b"".join(parts) + EOI


def _tile_part_end(data: bytes, at: int) -> int:
    """Where the tile-part at ``at`` ends; one with a comment, whose length gives it too, is refused."""
    length = int.from_bytes(data[at + 6 : at + 10], "big")
    end = at + length if length else data.rfind(EOI)
    if not at < end <= len(data):
        raise ValueError(f"tile-part of {length} bytes at byte {at}")
    inner = at + 12
    while _marker(data, inner) != SOD:
        marker, inner = _j2k_segment(data, inner)
        if marker == J2K_COMMENT:
            raise ValueError(f"comment in the tile-part at byte {at}")
    return end


def _marker(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "big") if at + 2 <= len(data) else 0


def _j2k_segment(data: bytes, at: int) -> tuple[int, int]:
    """Marker of the segment at ``at``, and where it ends."""
    marker, end = _marker(data, at), at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    if not (0xFF51 <= marker <= 0xFF8F and at + 4 <= end <= len(data)):
        raise ValueError(f"marker {marker:#06x} at byte {at}")
    return marker, end
