"""Pixel format of a JPEG 2000 stream, from its header alone.

References
----------
ISO/IEC 15444-1: A.5.1 SIZ, A.6.1 COD; I.5.3 the header boxes of a JP2 file.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

HEAD_BYTES = 1 << 16
"""How far into a stream its header is looked for, bytes; a JP2 file's colour profile comes before it."""
SIZ, COD, SOT = 0xFF51, 0xFF52, 0xFF90
SIGNATURE_BOX = b"\0\0\0\x0cjP  "


@dataclass(frozen=True, slots=True)
class Jpeg2000Header:
    """Size and samples of a stream, and their stated colour space.

    Attributes
    ----------
    transformed
        Whether the codestream holds transformed colours, which its decoder turns back.
    named
        Whether a JP2 file's header names the colour space, which the decoder heeds.
    """

    height: int
    width: int
    components: int
    bits: int
    signed: bool
    subsampled: bool
    transformed: bool
    named: bool

    @property
    def tells_colour(self) -> bool:
        """Whether what comes out of the decoder is what the stream itself calls its colours."""
        return self.transformed or self.named


def jpeg2000_header(data: memoryview | bytes) -> Jpeg2000Header:
    """Read the header of a codestream or a JP2 file.

    Raises
    ------
    ValueError
        For anything else.
    """
    head = bytes(data[:HEAD_BYTES])
    at, named = _codestream(head)
    if at < 0 or len(head) < at + 42:
        raise ValueError("no JPEG 2000 codestream")
    x1, y1, x0, y0 = struct.unpack(">4I", head[at + 8 : at + 24])
    (components,) = struct.unpack(">H", head[at + 40 : at + 42])
    steps = head[at + 42 : at + 42 + 3 * min(components, 4)]
    return Jpeg2000Header(
        height=y1 - y0,
        width=x1 - x0,
        components=components,
        bits=max((steps[i] & 0x7F for i in range(0, len(steps), 3)), default=0) + 1,
        signed=any(steps[i] & 0x80 for i in range(0, len(steps), 3)),
        subsampled=any(steps[i + 1 : i + 3] != b"\1\1" for i in range(0, len(steps), 3)),
        transformed=_is_transformed(head, at + 2),
        named=named,
    )


def _codestream(head: bytes) -> tuple[int, bool]:
    """Where the codestream begins, -1 where there is none, and whether boxes before it name its colours."""
    start = head.find(b"\xff\x4f\xff\x51")
    if not head.startswith(SIGNATURE_BOX):
        return start, False
    boxes = head[: max(start, 0)]
    at = boxes.find(b"colr")
    # method 1 names a colour space, methods 2 and 3 hold a profile; space 12 to 18 are those of a picture
    return start, at > 0 and len(boxes) > at + 4 and boxes[at + 4] in (1, 2, 3)


def _is_transformed(head: bytes, at: int) -> bool:
    """What the coding style's marker, among those from ``at`` on, states of a colour transform."""
    while at + 4 <= len(head):
        marker, length = struct.unpack(">HH", head[at : at + 4])
        if marker == COD:
            return len(head) > at + 8 and head[at + 8] == 1
        if marker == SOT or marker < 0xFF00:
            break
        at += 2 + length
    return False
