"""Colour profiles of slides: found, named and carried along; no pixel is changed by them.

References
----------
ICC.1:2022, Image technology colour management; 7.2 the header, 10.13 and 10.15 the description.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import replace

from her2core.records import SlideInfo

MAX_PROFILE_BYTES = 1 << 22
"""Largest profile that is carried (4 MiB); scanners' have 0.5 to 500 kB."""
MAX_TAGS = 100
"""Most entries of a profile's table that are looked through; common profiles have 9 to 20. Ours."""
SIGNATURE_AT, SIGNATURE = 36, b"acsp"


def carried_profile(reader: object) -> bytes:
    """Colour profile of an open slide, where it has one of a size to be carried."""
    profile: bytes = getattr(reader, "icc_profile", b"")
    return profile if len(profile) <= MAX_PROFILE_BYTES else b""


def with_profile(info: SlideInfo, profile: bytes) -> SlideInfo:
    """A slide's facts with the note on its colour profile."""
    return replace(info, colour_profile=profile_name(profile)) if profile else info


def profile_name(profile: bytes) -> str:
    """A profile in a few words: its own description, and its size."""
    if profile[SIGNATURE_AT : SIGNATURE_AT + 4] != SIGNATURE:
        return f"no ICC profile, {len(profile)} bytes"
    title = re.sub(r"[^\w .,:;()+/-]", "", _description(profile)).strip()[:64]
    return f"{title or 'without a name'}, {len(profile)} bytes"


def _description(profile: bytes) -> str:
    try:
        (count,) = struct.unpack_from(">I", profile, 128)
        for i in range(min(count, MAX_TAGS)):
            tag, at, size = struct.unpack_from(">4sII", profile, 132 + 12 * i)
            if tag == b"desc":
                return _text(profile[at : at + size])
    except struct.error:
        pass
    return ""


def _text(body: bytes) -> str:
    """A description of version 2, in ASCII, or the first language of one of version 4, in UTF-16."""
    if body[:4] == b"desc":
        (length,) = struct.unpack_from(">I", body, 8)
        return body[12 : 12 + min(length, 256)].rstrip(b"\0").decode("ascii", "replace")
    if body[:4] == b"mluc":
        length, at = struct.unpack_from(">II", body, 20)
        return body[at : at + min(length, 512)].decode("utf-16-be", "replace")
    return ""


def png_profile(head: bytes) -> bytes:
    """Profile of a PNG file (ISO/IEC 15948, 11.3.3.3)."""
    at = 8
    while at + 12 <= len(head):
        length, kind = struct.unpack(">I4s", head[at : at + 8])
        if kind == b"iCCP":
            body = head[at + 8 : at + 8 + length].partition(b"\0")[2][1:]
            try:
                return zlib.decompressobj().decompress(body, MAX_PROFILE_BYTES)
            except zlib.error:
                return b""
        if kind == b"IDAT":
            break
        at += 12 + length
    return b""
