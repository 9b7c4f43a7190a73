"""The segments of a JPEG stream before its first scan, and their contents.

References
----------
ITU-T T.81, annex B; JEITA CP-3451, Exif 2.3; ICC.1:2022, annex B.4.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of frame headers."""
SEQUENTIAL = (0xC0, 0xC1)
START_OF_SCAN = 0xDA
APP0, APP1, APP2, APP14 = 0xE0, 0xE1, 0xE2, 0xEE
EXIF, ICC = b"Exif\0\0", b"ICC_PROFILE\0"
ORIENTATION = 274


def segments(data: memoryview | bytes) -> Iterator[tuple[int, memoryview]]:
    """Marker and content of each segment, up to and with the first scan's header."""
    view, at = memoryview(data), 2
    while at + 4 <= len(view) and view[at] == 0xFF:
        marker = view[at + 1]
        if marker == 0xFF:  # fill before a marker
            at += 1
            continue
        (length,) = struct.unpack_from(">H", view, at + 2)
        yield marker, view[at + 4 : at + 2 + length]
        if marker == START_OF_SCAN:
            return
        at += 2 + length


def names_its_colour(data: memoryview | bytes) -> bool:
    """Whether a JFIF or Adobe marker states the colour space."""
    return any(
        (marker == APP0 and bytes(body[:4]) == b"JFIF") or (marker == APP14 and bytes(body[:5]) == b"Adobe")
        for marker, body in segments(data)
    )


def is_one_scan(data: memoryview | bytes) -> bool:
    """Whether all components are in one sequential scan: nothing can be missing behind it."""
    frame, components = 0, 0
    for marker, body in segments(data):
        if marker in FRAMES and len(body) > 5:
            frame, components = marker, body[5]
        elif marker == START_OF_SCAN:
            return frame in SEQUENTIAL and len(body) > 0 and body[0] == components
    return False


def frame_of(data: memoryview | bytes) -> tuple[int, int, int, int] | None:
    """Height, width, bits and components; None without a frame header."""
    for marker, body in segments(data):
        if marker in FRAMES and len(body) > 5:
            bits, height, width, components = struct.unpack_from(">BHHB", body)
            return height, width, bits, components
    return None


def icc_profile(data: memoryview | bytes) -> bytes:
    """Colour profile, out of the segments that it is cut into; empty where there is none."""
    parts = {
        body[len(ICC)]: bytes(body[len(ICC) + 2 :])
        for marker, body in segments(data)
        if marker == APP2 and bytes(body[: len(ICC)]) == ICC and len(body) > len(ICC) + 2
    }
    return b"".join(parts[i] for i in sorted(parts))


def orientation(data: memoryview | bytes) -> int:
    """Exif's orientation; 1, as it is stored, where there is none."""
    for marker, body in segments(data):
        if marker == APP1 and bytes(body[: len(EXIF)]) == EXIF:
            try:
                return _exif_orientation(body[len(EXIF) :])
            except struct.error:
                return 1
    return 1


def _exif_orientation(tiff: memoryview) -> int:
    order = "<" if bytes(tiff[:2]) == b"II" else ">"
    (at,) = struct.unpack_from(order + "I", tiff, 4)
    (count,) = struct.unpack_from(order + "H", tiff, at)
    for i in range(count):
        tag, _, _, value = struct.unpack_from(order + "HHIH", tiff, at + 2 + 12 * i)
        if tag == ORIENTATION:
            return int(value)
    return 1
