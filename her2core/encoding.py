"""Text of a header in whatever encoding its writer chose."""

from __future__ import annotations

import codecs
import re

BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
DECLARED = re.compile(
    rb"<\?xml[^>]*encoding\s*=\s*[\"'](iso-?8859-\d{1,2}|latin-?\d|windows-125\d|cp125\d)[\"']", re.IGNORECASE
)
"""An XML declaration of one byte a sign; others are recognised by their bytes, not by their declaration."""
SAMPLE_BYTES = 512


def decode_text(data: bytes) -> str:
    """Decode a text by its mark, its look, or its XML declaration; else as UTF-8, else as Windows-1252.

    Zeros at its end, and the mark, are no part of it.

    Examples
    --------
    >>> decode_text("MPP = 0.25".encode("utf-16")), decode_text("0,25 µm".encode("latin-1") + bytes(1))
    ('MPP = 0.25', '0,25 µm')
    """
    encoding, skip = encoding_of(data)
    body = data[skip:]
    if encoding.startswith("utf-16") and len(body) % 2 and body.endswith(b"\0"):
        body = body[:-1]  # a tag's one zero at its end, behind signs of two bytes
    return body.decode(encoding, "replace").rstrip("\0")


def encoding_of(data: bytes) -> tuple[str, int]:
    """Encoding, and length of the mark before the text."""
    for mark, encoding in BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return encoding, len(mark)
    head = data.rstrip(b"\0")[:SAMPLE_BYTES]
    if len(head) >= 4:
        for encoding, zeros in (("utf-16-le", head[1::2]), ("utf-16-be", head[::2])):
            if zeros.count(0) > 0.8 * len(zeros):
                return encoding, 0
    declared = DECLARED.search(data[:SAMPLE_BYTES])
    try:
        if declared is not None:
            found = declared[1].decode("ascii")
            data.decode(found)
            return found, 0
        data.decode("utf-8")
    except (UnicodeDecodeError, LookupError):
        return "cp1252", 0
    return "utf-8", 0
